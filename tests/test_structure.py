"""Where tokens stand in words, numbers and quotations; one word written in parts; classes for lists; and words for long lists."""

import re

import numpy as np
import pytest

from interp.labels.propose.lists import LONG, Lists
from interp.labels.propose.proposing import Proposer
from interp.labels.propose.short import short
from interp.labels.propose.structure import Structure
from interp.models.sentence import sentence_encoder
from interp.predicates import Predicate, Text, Vocabulary, read_claim
from tests.test_wordnet import real

BLOCK = 64
PIECES = re.compile(r" ?[A-Za-z]{1,3}|[0-9]|\n| ?[^\sA-Za-z0-9]|[ \t]+")
SENTENCES = [
    'In 1984 the lemma of page 12 was "true" and 305 more.',
    "It cost 20 or 1999 or 20250 pounds, said the “lemma” of Riemann.",
    "A 7 and a lemma: see 2001, 31415 or (84).",
]


def world(documents: int = 60) -> Text:
    """Each document a block; each digit a token and words in pieces of three letters."""
    pieces = [PIECES.findall(SENTENCES[d % 3]) for d in range(documents)]
    known = ["<end>", *sorted({piece for some in pieces for piece in some})]
    token = np.zeros((documents, BLOCK), dtype=np.int64)
    for d, some in enumerate(pieces):
        token[d, 1 : len(some) + 1] = [known.index(piece) for piece in some]
    flat = token.reshape(-1)
    split = ["heldout" if d % 4 == 3 else "train" for d in range(documents)]
    columns = {"source": ["a"] * documents, "topic": [""] * documents}
    return Text(flat, np.repeat(np.arange(documents), BLOCK), flat != 0, BLOCK, 0, Vocabulary(known), split, columns)


@pytest.fixture(scope="module")
def text() -> Text:
    return world()


def at(text: Text, claim: str) -> list[tuple[int, str]]:
    """(document, token) of the first three documents' places where it holds."""
    holds = read_claim(claim).holds(text.around(np.arange(len(text.token_N)))) & text.kept_N & (text.document_N < 3)
    return [(int(text.document_N[p]), text.vocabulary.texts[text.token_N[p]]) for p in np.flatnonzero(holds)]


def starts_of(pattern: str) -> list[tuple[int, str]]:
    """(document, first character) of what a regular expression finds in the sentences."""
    return [(d, match[0][0]) for d, sentence in enumerate(SENTENCES) for match in re.finditer(pattern, sentence)]


def test_numbers_and_years_begin_where_a_regular_expression_of_the_text_says(text):
    assert at(text, 'is:"number start"') == starts_of(r"\d+")
    inside = [(d, digit) for d, s in enumerate(SENTENCES) for number in re.findall(r"\d+", s) for digit in number[1:]]
    assert at(text, 'is:"number inside"') == inside
    assert at(text, 'is:"year start"') == starts_of(r"(?<!\d)(?:1\d{3}|20\d\d)(?!\d)")


def test_words_begin_and_end_with_their_parts(text):
    starts, ends = at(text, 'is:"word start"'), at(text, 'is:"word end"')
    assert [(d, token.strip()) for d, token in starts if d == 0] == [(0, "lem"), (0, "pag"), (0, "tru"), (0, "mor")]
    assert [token for d, token in ends if d == 0] == ["ma", "e", "e", "e"]
    inside = at(text, 'is:"inside word"')
    assert set(starts) | set(ends) <= set(inside)


def test_what_follows_an_opening_quotation_mark(text):
    assert at(text, 'is:"quote start"') == [(0, "tru"), (1, "lem")]


def test_a_place_is_a_name(text):
    structure = Structure(text)
    for claim, name in (
        ('is:"number start"', "the first digit of a number"),
        ('is:"word end"', "the last part of a word"),
    ):
        holds = read_claim(claim).holds(text.around(text.train_P))
        first = next(structure.found(text.around(text.train_P[holds])))
        assert (first.claim, first.name) == (claim, name)
    assert not list(structure.found(text.around(text.train_P)))
    assert not list(structure.found(text.around(text.train_P[:0])))


def test_a_word_in_parts_is_named_whole_and_claimed_exactly(text):
    ma = text.vocabulary.texts.index("ma")
    position = text.train_P[text.token_N[text.train_P] == ma]
    found = {one.name: one.claim for one in Structure(text).found(text.around(position))}
    claim = read_claim(found["‘lemma’ at its ‘ma’"])
    everywhere = text.around(np.arange(len(text.token_N)))
    assert np.array_equal(claim.holds(everywhere), text.token_N == ma)
    assert any("at its" in name for name in found)
    other = text.train_P[np.isin(text.token_N[text.train_P], [text.vocabulary.texts.index(" pag"), ma])]
    assert any("‘page’ at its ‘pag’" in one.name for one in Structure(text).found(text.around(other)))


def test_a_long_list_becomes_the_class_that_covers_it(text):
    digits = tuple(n for n, piece in enumerate(text.vocabulary.texts) if piece.isdigit())
    holds = np.isin(text.token_N[text.train_P], digits)
    listed = Predicate(kind="ngram", here=digits, before=(0,))
    assert Structure(text).classed(Predicate(kind="words", here=digits), text.around(text.train_P[holds])) == Predicate(
        kind="words", here="digit"
    )
    assert Structure(text).classed(listed, text.around(text.train_P[holds])) is None  # it holds nowhere
    few = Predicate(kind="token", here=digits[:2])
    assert Structure(text).classed(few, text.around(text.train_P[holds])) is None


def test_the_first_digits_of_numbers_get_that_name_and_not_a_list_of_digits(text):
    fires = read_claim('is:"number start"').holds(text.around(np.arange(len(text.token_N)))) & text.kept_N
    position = np.flatnonzero(fires).astype(np.uint32)
    value = np.random.default_rng(0).uniform(3, 9, len(position)).astype(np.float32)
    proposer = Proposer(text, lambda feature: (position, value), lambda feature: None, sentence_encoder().encode)
    found = proposer.propose(0)
    assert (found.name, found.method, found.f1) == ("the first digit of a number", "place", 1.0)


def test_a_feature_that_fires_seldom_in_held_out_documents_is_named_by_the_training_ones_too(text):
    lem = text.vocabulary.texts.index(" lem")
    held, train = text.heldout_D[text.document_N], text.train_D[text.document_N]
    position = np.flatnonzero((text.token_N == lem) & train)
    assert len(position) >= 20
    for some in (position, np.sort(np.append(position, np.flatnonzero((text.token_N == lem) & held)[:3]))):
        fired = some.astype(np.uint32), np.full(len(some), 5.0, np.float32)
        found = Proposer(
            text, lambda feature, fired=fired: fired, lambda feature: None, sentence_encoder().encode
        ).propose(0)
        assert "lem" in found.name
        assert found.n == len(some)
        assert 0.8 < found.f1 < 1  # where it is silent in held-out documents is counted


# ---- words for lists ----

WORDS = {
    "alike": ["walk", "walked", "run", "running", "climb", "jump", "swim", "ride", "march", "stroll", "hike"],
    "mixed": ["onion", "parliament", "blue", "quickly", "verb", "seven", "rust", "treaty", "violin", "cloud", "tax"],
    "un": ["unfair", "unkind", "unlike", "unable", "unclear", "unequal", "unlock", "undo", "untie", "unwise", "unsafe"],
    "rest": [
        "school",
        "river",
        "doctor",
        "table",
        "music",
        "winter",
        "bread",
        "law",
        "engine",
        "paper",
        "garden",
        "city",
        "letter",
        "moon",
        "price",
        "child",
    ],
}


@pytest.fixture(scope="module")
def lists() -> Lists:
    words = [f" {word}" for some in WORDS.values() for word in some]
    token = np.tile(np.arange(len(words) + 1), 20)
    columns = {"source": ["a"] * 20, "topic": [""] * 20}
    text = Text(token, np.repeat(np.arange(20), len(words) + 1), token != 0, len(words) + 1, 0, Vocabulary(["<end>", *words]), ["train"] * 20, columns)  # fmt: skip
    return Lists(text, sentence_encoder().encode, words=False)


def listed(lists: Lists, name: str) -> Predicate:
    return Predicate(kind="words", here=tuple(lists.text.vocabulary.texts.index(f" {word}") for word in WORDS[name]))


def test_words_that_are_alike_have_a_word_and_others_none(lists):
    assert lists.word(listed(lists, "alike")).startswith("words like ‘")
    assert lists.word(listed(lists, "mixed")) == ""
    mixed = listed(lists, "mixed")
    assert lists.named(mixed, short(mixed, lists.text.vocabulary.texts)).startswith("no one word: ‘onion’")
    assert lists.long(mixed)
    assert not lists.long(Predicate(kind="token", here=mixed.here[: LONG - 1]))
    assert not lists.long(Predicate(kind="class", here="digit"))


def test_words_that_begin_alike_are_named_by_that_and_claimed(lists):
    name, claim = lists.affix(listed(lists, "un"))
    assert name == "words that begin with ‘un’"
    texts = lists.text.vocabulary.texts
    holds = read_claim(claim).holds(lists.text.around(np.arange(len(texts))))
    assert [texts[p].strip() for p in np.flatnonzero(holds)] == WORDS["un"]
    assert lists.affix(listed(lists, "mixed")) is None


@real
def test_what_words_are_kinds_of_may_name_them(lists):
    text = lists.text
    known = Lists(text, sentence_encoder().encode, words=True)
    assert known.word(listed(lists, "alike"))
    assert known.word(listed(lists, "mixed")) == ""


def test_a_name_with_capitals_inside_stays_as_it_is_spelt():
    assert short(Predicate(kind="token", here=(0, 1)), ["ValueError", " raise"]) == "‘ValueError’, ‘raise’"
