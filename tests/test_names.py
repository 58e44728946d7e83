"""Names that are proposed for features."""

import numpy as np
import pytest

from interp.labels.propose.families import base, families, same_family
from interp.labels.propose.short import short
from interp.predicates import Predicate, Text, Vocabulary, read_claim
from tests.test_wordnet import real

VOCABULARY = [
    " argue", " argued", " argument", "Argue", " river", " lake", " ocean", " pond", " the", " of", "com", "\n", " =", "SQL",
    " I", " you", " own", " owner", " area", " are",
]  # fmt: skip
ID = {text: number for number, text in enumerate(VOCABULARY)}


def of(*texts: str) -> tuple[int, ...]:
    return tuple(ID[text] for text in texts)


@pytest.mark.parametrize(
    ("one", "other"),
    [("argue", "argues"), ("argue", "argument"), ("happy", "happiness"), ("own", "owner"), ("cat", "cats"), ("depends", "depending"),
     ("vivir", "vivido"), ("grand", "grandes"), ("nation", "nationality")],
)  # fmt: skip
def test_words_of_a_family(one, other):
    assert same_family(one, other)
    assert same_family(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("are", "area"), ("river", "rivet"), ("for", "form"), ("the", "then"), ("cat", "category"), ("is", "island")],
)  # fmt: skip
def test_words_that_only_begin_alike(one, other):
    assert not same_family(one, other)


def test_families_keep_the_order_of_their_first_words():
    parted = families(["river", "argued", "rivers", "argument", "argue", "the"])
    assert parted == [["river", "rivers"], ["argued", "argument", "argue"], ["the"]]
    assert [base(family) for family in parted] == ["river", "argue", "the"]


@pytest.mark.parametrize(
    ("predicate", "name"),
    [
        (Predicate(kind="token", here=of(" argued", " argue", "Argue", " argument")), "‘argue’"),
        (Predicate(kind="token", here=of(" river", " lake")), "‘river’, ‘lake’"),
        (Predicate(kind="words", here=of(" river", " lake", " ocean", " pond")), "‘river’, ‘lake’, ‘ocean’, ‘pond’"),
        (
            Predicate(kind="words", here=of(" river", " lake", " ocean", " pond", " the")),
            "‘river’, ‘lake’, ‘ocean’ and 2 more",
        ),
        (Predicate(kind="token", here=of(" argued")), "‘argued’"),
        (Predicate(kind="token", here=of("Argue")), "‘Argue’"),
        (Predicate(kind="piece", here=of("com"), inside=True), "‘com’ inside a word"),
        (Predicate(kind="class", here="digit"), "digits"),
        (Predicate(kind="ngram", before=of(" of"), here=of(" the")), "‘the’ after ‘of’"),
        (Predicate(kind="ngram", earlier=of(" lake"), before=of(" of"), here=of(" the")), "‘the’ after ‘lake’ ‘of’"),
        (Predicate(kind="ngram", earlier=of(" of"), here=of(" river")), "‘river’ after ‘of’ …"),
        (Predicate(kind="next", next=of(" =")), "the token before ‘·=’"),
        (Predicate(kind="after", before="article"), "the token after an English article or demonstrative"),
        (Predicate(kind="near", near=of(" river", " lake")), "near ‘river’, ‘lake’"),
        (Predicate(kind="language", value="fr"), "text in French"),
        (Predicate(kind="source", value="novels"), "text of novels"),
        (Predicate(kind="topic", value="Biology"), "text on Biology"),
        (Predicate(kind="token", here=of("SQL", "\n")), "‘SQL’, ‘↵’"),
        (Predicate(kind="token", here=of(" I", " you")), "‘I’, ‘you’"),
    ],
)
def test_a_predicate_is_named_in_a_few_words(predicate, name):
    assert short(predicate, VOCABULARY) == name


@real
def test_forms_that_no_ending_explains_are_led_back_by_wordnet():
    from interp.predicates.wordnet import wordnet

    vocabulary = [" saw", " seen", " sees", " see", " mice", " river", " lake", " ponds", " oceans"]
    mined = Predicate(kind="words", here=tuple(range(5)))
    assert short(mined, vocabulary) == "‘saw’, ‘seen’, ‘see’, ‘mice’"
    assert short(mined, vocabulary, wordnet().lemma) == "‘see’, ‘mice’"


@real
def test_words_of_a_kind_are_named_by_what_they_are():
    """A feature that fires on waters wherever they stand, in a text where other words stand as often."""
    from interp.labels.propose.kinds import Kinds
    from interp.models.sentence import sentence_encoder

    water, other = (
        [" river", " lake", " ocean", " sea", " pond"],
        [" chair", " idea", " dog", " run", " music", " law", " red", " bread"],
    )
    other += [" seven", " happy", " lamp", " anger", " nurse", " stone", " letter", " north", " winter", " glass"]
    vocabulary = ["<end>", *water, *other]
    draw = np.random.default_rng(0)
    token = np.zeros((40, 64), dtype=np.int64)
    token[:, 1:] = draw.integers(1, len(vocabulary), (40, 63))
    flat = token.reshape(-1)
    columns = {"source": ["a"] * 40, "topic": [""] * 40}
    text = Text(flat, np.repeat(np.arange(40), 64), flat != 0, 64, 0, Vocabulary(vocabulary), ["train"] * 40, columns)
    kinds, encode = Kinds(text), sentence_encoder().encode
    found = kinds.best(text.around(np.flatnonzero((flat > 0) & (flat <= 5))), encode)
    assert "water" in found.name
    assert (found.precision, found.words) == (1, 5)
    assert found.recall > 0.7  # a name has senses, and another word may be a kind of one
    assert read_claim(found.claim).holds(text.around(np.flatnonzero(flat == 1))).all()
    assert kinds.best(text.around(np.flatnonzero(np.isin(flat, [1, 6, 8]))), encode) is None
