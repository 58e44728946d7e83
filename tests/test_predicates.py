"""Predicates in worlds where the right one is known, and each against a slow, obvious twin."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from interp.grammar import Term
from interp.index import FeatureIndex
from interp.index.clean import CLEAN
from interp.index.format import publish, read_meta
from interp.predicates import CLASSES, Around, Predicate, Text, Vocabulary, explain
from interp.predicates.language import languages
from interp.predicates.level import LEAST, PRECISION
from interp.predicates.regex import matching
from interp.predicates.tokens import _listed
from interp.search.query import parse
from interp.types import InterpError

PLAIN = [
    " the",
    " of",
    " river",
    "River",
    "rivers",
    " lake",
    " University",
    " battle",
    " army",
    " war",
    "un",
    "com",
    "té",
]
FILL = [f" w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
VOCABULARY = ["<end>", *PLAIN, "7", "42", ",", ".", "\n", *FILL]
ID = {text: number for number, text in enumerate(VOCABULARY)}
BLOCK, LENGTH, DOCUMENTS = 64, 63, 400
NOISE = np.random.default_rng(7)


def world(change=lambda token, document, draw: token) -> Text:
    """Documents of one block each, of random words; one in ten is held out, and one in forty is of the topic rivers."""
    draw = np.random.default_rng(0)
    token = np.zeros((DOCUMENTS, BLOCK), dtype=np.int64)
    for d in range(DOCUMENTS):
        here = draw.integers(len(VOCABULARY) - len(FILL), len(VOCABULARY), LENGTH)
        rare = draw.random(LENGTH) < 0.25
        here[rare] = draw.integers(1, len(VOCABULARY) - len(FILL), rare.sum())
        token[d, 1:] = change(here, d, draw)
    document = np.repeat(np.arange(DOCUMENTS), BLOCK)
    kept = (token != 0).reshape(-1)
    split = ["heldout" if d % 10 == 3 else "labels" if d % 10 == 7 else "train" for d in range(DOCUMENTS)]
    topic = ["rivers" if d % 20 in (0, 3) else f"t{d % 7}" for d in range(DOCUMENTS)]
    source = ["a" if d % 2 else "b" for d in range(DOCUMENTS)]
    columns = {"source": source, "topic": topic}
    return Text(token.reshape(-1), document, kept, BLOCK, 0, Vocabulary(VOCABULARY), split, columns)


@pytest.fixture(scope="module")
def text() -> Text:
    return world()


def where(text, true_N):
    return np.flatnonzero(true_N & text.kept_N).astype(np.uint32)


def shifted(text, offset):
    """The token so many places on, -1 outside the document, one position after the other."""
    out = np.full(len(text.token_N), -1)
    for p in range(len(out)):
        q = p + offset
        if 0 <= q < len(out) and text.document_N[q] == text.document_N[p] and text.token_N[q] != text.separator:
            out[p] = text.token_N[q]
    return out


def fires(position, low=5.0, high=10.0):
    return position, np.random.default_rng(1).uniform(low, high, len(position)).astype(np.float32)


def tokens(predicate, slot="here"):
    return {VOCABULARY[token] for token in getattr(predicate, slot)}


def heldout(text, position):
    return int(text.heldout_D[text.document_N[position]].sum())


# ---- the right predicate is found ----


def test_a_feature_of_one_word_is_that_token_in_every_spelling(text):
    position = where(text, np.isin(text.token_N, [ID[" river"], ID["River"]]))
    found = explain(*fires(position), text)
    assert found.predicate.kind == "token"
    assert tokens(found.predicate) == {" river", "River"}
    assert (found.level, found.share, found.recall, found.explained, found.precision) == (0, 1, 1, 1, 1)
    assert found.n == heldout(text, position) > 10


def test_a_feature_of_a_part_of_words_is_a_piece_and_not_the_same_token_alone():
    def change(token, document, draw):
        for at in draw.integers(1, LENGTH - 1, 6):
            token[at] = ID["un"]
            token[at - 1] = ID["com"] if draw.random() < 0.5 else ID[","]
            token[at + 1] = ID[","]
        return token

    text = world(change)
    inside = (text.token_N == ID["un"]) & (shifted(text, -1) == ID["com"])
    alone = (text.token_N == ID["un"]) & (shifted(text, -1) == ID[","])
    assert alone.sum() > 300 < inside.sum()
    found = explain(*fires(where(text, inside)), text)
    assert (found.predicate.kind, tokens(found.predicate), found.predicate.inside) == ("piece", {"un"}, True)
    assert found.precision == 1


def test_a_feature_of_few_digits_is_these_and_of_many_their_class():
    vocabulary = [str(number) if word in FILL[:9] else word for number, word in enumerate(VOCABULARY)]
    text = replace(world(), vocabulary=Vocabulary(vocabulary))
    digits = [number for number, word in enumerate(vocabulary) if word.isdigit()]
    assert len(digits) == 11
    found = explain(*fires(where(text, np.isin(text.token_N, digits[:2]))), text)
    assert (found.predicate.kind, set(found.predicate.here)) == ("token", set(digits[:2]))
    found = explain(*fires(where(text, np.isin(text.token_N, digits))), text)
    assert (found.predicate.kind, found.predicate.here) == ("class", "digit")
    assert found.recall == found.precision == 1


def test_a_feature_of_many_words_is_a_written_list_and_of_a_class_the_class():
    some = FILL[:12]
    text = world()
    found = explain(*fires(where(text, np.isin(text.token_N, [ID[word] for word in some]))), text)
    assert found.predicate.kind == "words"
    assert tokens(found.predicate) <= set(some)
    assert len(tokens(found.predicate)) >= 11  # enough for 95 of 100
    capitals = {word: word.upper() for word in some}
    vocabulary = [capitals.get(word, word) for word in VOCABULARY]
    loud = replace(text, vocabulary=Vocabulary(vocabulary))
    found = explain(*fires(where(text, np.isin(text.token_N, [ID[word] for word in some]))), loud)
    assert (found.predicate.kind, found.predicate.here) == ("class", "capitals")


def test_a_feature_of_a_word_after_another_is_an_ngram():
    def change(token, document, draw):
        for at in draw.integers(1, LENGTH, 8):
            token[at] = ID[" of"]
            token[at - 1] = ID[" University"] if draw.random() < 0.3 else draw.choice([ID[w] for w in FILL])
        token[draw.integers(0, LENGTH, 5)] = ID[" University"]  # mostly before something else
        return token

    text = world(change)
    pair = (text.token_N == ID[" of"]) & (shifted(text, -1) == ID[" University"])
    found = explain(*fires(where(text, pair)), text)
    assert (found.predicate.kind, tokens(found.predicate), tokens(found.predicate, "before")) == (
        "ngram", {" of"}, {" University"}
    )  # fmt: skip
    assert found.recall == found.precision == 1


def test_a_feature_of_what_follows_is_next_token_and_of_what_went_before_is_after(text):
    for offset, kind, slot in ((1, "next", "next"), (-1, "after", "before")):
        position = where(text, shifted(text, offset) == ID[" lake"])
        found = explain(*fires(position), text)
        assert (found.predicate.kind, tokens(found.predicate, slot)) == (kind, {" lake"})
        assert found.precision == 1


def test_a_feature_of_a_topic_is_that_whatever_its_tokens(text):
    rivers = np.array([topic == "rivers" for topic in text.columns["topic"]])[text.document_N]
    some = rivers & (np.random.default_rng(3).random(len(rivers)) < 0.2)
    found = explain(*fires(where(text, some)), text)
    assert (found.predicate.kind, found.predicate.value) == ("topic", "rivers")
    assert found.recall == 1  # in every document of it


def test_a_feature_of_what_stands_near_is_these_words():
    def change(token, document, draw):
        token[np.isin(token, [ID[w] for w in (" battle", " army")])] = ID["."]
        if document % 39 < 2:
            token[20 + document % 9] = ID[[" battle", " army"][document % 2]]
        return token

    text = world(change)
    place = np.flatnonzero(np.isin(text.token_N, [ID[" battle"], ID[" army"]]))
    near = np.zeros(len(text.token_N), dtype=bool)
    for p in place:
        near[p - 16 : p + 17] |= text.document_N[p - 16 : p + 17] == text.document_N[p]
    near[place] = False
    some = near & (np.random.default_rng(4).random(len(near)) < 0.3)
    found = explain(*fires(where(text, some)), text)
    assert found.predicate.kind == "near"
    assert {VOCABULARY[token] for token in found.predicate.near} == {" battle", " army"}
    assert found.precision == 1


def test_a_feature_of_a_language_is_that(text):
    french = ["le", "les", "des", "du", "et", "est", "une", "dans", "qui", "pour"]
    vocabulary = ["<end>", *(f" {word}" for word in french), *VOCABULARY[len(french) + 1 :]]
    language = np.array([d % 5 == 0 for d in range(DOCUMENTS)])[text.document_N]
    token = text.token_N.copy()
    there = language & (token > 0) & (np.arange(len(token)) % 4 == 0)
    token[there] = 1 + np.arange(there.sum()) % len(french)
    token[~language & (token <= len(french)) & (token > 0)] = ID["."]
    told = replace(text, token_N=token, vocabulary=Vocabulary(vocabulary))
    some = language & ~there & (np.random.default_rng(5).random(len(language)) < 0.2)
    found = explain(*fires(where(told, some)), told)
    assert (found.predicate.kind, found.predicate.value) == ("language", "fr")


# ---- the clean level ----


def test_weak_firings_that_are_noise_lie_below_the_level(text):
    """Against the definition, gone through one firing after the other."""
    own, draw = where(text, text.token_N == ID[" river"]), np.random.default_rng(2)
    other = draw.choice(where(text, text.token_N != ID[" river"]), 2 * len(own), replace=False)
    position = np.concatenate([own, other])
    value = np.concatenate([draw.uniform(3, 10, len(own)), draw.uniform(0.1, 4, len(other))]).astype(np.float32)
    order = np.argsort(position)
    position, value = position[order], value[order]
    found = explain(position, value, text)
    assert tokens(found.predicate) == {" river"}

    train = text.train_D[text.document_N[position]]
    is_own = text.token_N[position] == ID[" river"]
    clean = [v for v in value[train] if is_own[train & (value >= v)].mean() >= PRECISION]
    assert sum(value[train] >= min(clean)) >= LEAST
    below = max(v for v in value[train] if v < min(clean))
    assert found.level == pytest.approx((min(clean) + below) / 2)
    assert 3 < found.level < 4
    test = text.heldout_D[text.document_N[position]] & (value > found.level)
    assert (found.n, found.precision) == (test.sum(), is_own[test].mean())
    assert found.interval[0] < found.precision < found.interval[1]
    assert found.share == pytest.approx((value > found.level).mean())
    explained = value[train & is_own & (value > found.level)].astype(np.float64).sum() / value[train].sum()
    assert found.explained == pytest.approx(explained, rel=1e-6)


def test_noise_and_what_hardly_fires_have_no_predicate(text):
    draw = np.random.default_rng(6)
    for count in (3000, 300, 60):
        position = np.sort(draw.choice(where(text, text.kept_N), count, replace=False))
        assert explain(*fires(position), text) is None
    text = world(lambda token, d, draw: np.where((token == ID[" river"]) & (d % 8 > 0), ID["."], token))
    river = where(text, text.token_N == ID[" river"])
    train = river[text.train_D[text.document_N[river]]]
    assert explain(*fires(train[:LEAST]), text) is not None
    assert explain(*fires(train[: LEAST - 1]), text) is None
    assert explain(*fires(river[:0]), text) is None
    few = replace(text, document_N=text.document_N // 100)  # four documents
    few = replace(few, split_D=["train"] * 4, columns={"source": ["a"] * 4, "topic": [""] * 4})
    assert explain(*fires(river), few) is None


def test_what_is_as_common_elsewhere_explains_nothing(text):
    """A token at one in fifty of whose places the feature fires; and a source of half of the text."""
    common = where(text, shifted(text, 0) == ID[" the"])
    rare = np.sort(np.random.default_rng(8).choice(common, 60, replace=False))
    more = world(lambda token, d, draw: np.where(draw.random(LENGTH) < 0.1, ID[" the"], token))
    the = where(more, more.token_N == ID[" the"])
    assert len(rare) == 60
    assert explain(*fires(np.sort(np.random.default_rng(8).choice(the, len(the) // 50, replace=False))), more) is None
    half = np.array([source == "a" for source in text.columns["source"]])[text.document_N]
    some = half & (np.random.default_rng(9).random(len(half)) < 0.1)
    assert explain(*fires(where(text, some)), text) is None


def test_the_held_out_split_is_tested_on_and_never_mined(text):
    own = where(text, text.token_N == ID[" river"])
    position, value = fires(own)
    held = text.heldout_D[text.document_N[position]]
    other = where(text, (text.token_N == ID[" lake"]) & text.heldout_D[text.document_N])
    both = np.concatenate([position[~held], other])
    moved, order = fires(both), np.argsort(both)
    found = explain(both[order], moved[1][order], text)
    assert (tokens(found.predicate), found.level, found.recall < 1) == ({" river"}, 0, False)
    assert (found.n, found.precision) == (len(other), 0)
    nowhere = explain(position[~held], value[~held], text)
    assert nowhere.n == 0
    assert math.isnan(nowhere.precision)
    assert nowhere.interval == (0, 1)


# ---- each predicate, against a slow twin ----

SOME = [
    Predicate(kind="token", here=(ID[" river"], ID[" lake"])),
    Predicate(kind="piece", here=(ID["un"], ID["com"]), inside=True),
    Predicate(kind="piece", inside=True),
    Predicate(kind="class", here="digit"),
    Predicate(kind="piece", here="accented", inside=True),
    Predicate(kind="next", next=(ID[","],)),
    Predicate(kind="next", next="newline"),
    Predicate(kind="after", before=(ID[" the"], ID[" of"])),
    Predicate(kind="ngram", before=(ID[" the"],), here="capitalised"),
    Predicate(kind="ngram", earlier=(ID[","], ID["."]), here=(ID[" the"], ID[" river"], ID["un"])),
    Predicate(kind="ngram", here=tuple(range(1, 14)), next="digit", before=tuple(range(1, 14))),
    Predicate(kind="language", value="en"),
    Predicate(kind="source", value="a"),
    Predicate(kind="topic", value="rivers"),
    Predicate(kind="near", near=(ID["42"],)),
]


def letters(text, p, q):
    """Whether two tokens that follow each other meet in letters."""
    a, b = (VOCABULARY[text.token_N[i]] for i in (p, q))
    return a[-1].isalpha() and b[0].isalpha() and not (a[-1].islower() and b[0].isupper())


def slowly(predicate, text, p):
    """Whether it holds at a position, in plain words."""

    def at(offset):
        q = p + offset
        same = 0 <= q < len(text.token_N) and text.document_N[q] == text.document_N[p]
        return q if same and text.token_N[q] != 0 else None

    if predicate.kind == "near":
        return any(at(o) is not None and text.token_N[p + o] in predicate.near for o in range(-16, 17) if o)
    if predicate.kind == "language":
        words = [VOCABULARY[t] for t in text.token_N[text.document_N == text.document_N[p]]]
        code = words.count("\n") / len(words) >= 0.08
        return not code and sum(word in (" the", " of", " was") for word in words) >= 4
    if predicate.value:
        return text.columns[predicate.kind][text.document_N[p]] == predicate.value
    for name, offset in (("earlier", -2), ("before", -1), ("here", 0), ("next", 1)):
        slot, q = getattr(predicate, name), at(offset)
        if not slot:
            continue
        if q is None:
            return False
        token = int(text.token_N[q])
        if isinstance(slot, str):
            if not pc.match_substring_regex(VOCABULARY[token], CLASSES[slot][0]).as_py():
                return False
        elif token not in slot:
            return False
    if predicate.inside:
        left, right = at(-1), at(1)
        return (left is not None and letters(text, left, p)) or (right is not None and letters(text, p, right))
    return True


@pytest.mark.parametrize("predicate", SOME, ids=lambda p: p.to_json())
def test_a_predicate_holds_where_a_slow_twin_says_and_is_counted_so(text, predicate):
    position = np.flatnonzero(text.kept_N)[:6000]
    slow = np.array([slowly(predicate, text, p) for p in position])
    holds = predicate.holds(text.around(position))
    assert (holds == slow).all()
    assert 0 < slow.sum() < len(slow)
    whole = predicate.holds(text.around(text.train_P))
    if predicate.kind in ("token", "piece", "class", "next", "after", "ngram"):
        assert predicate.count(text) == whole.sum()
    assert predicate.base(text) == pytest.approx(whole.mean(), abs=0.01 if predicate.kind == "near" else 1e-12)
    part = text.around(position)
    part.at(0), part.at(-1)
    assert (predicate.holds(part.take(slow)) == slow[slow]).all()
    assert isinstance(part, Around)


@pytest.mark.parametrize("predicate", SOME, ids=lambda p: p.to_json())
def test_a_predicate_is_written_and_read_and_said(predicate):
    assert Predicate.from_json(predicate.to_json()) == predicate
    said = predicate.sentence(VOCABULARY)
    assert said
    assert "(" not in said


def test_predicates_speak_in_words():
    sentences = {
        SOME[0]: "the token is ‘·river’ or ‘·lake’",
        SOME[1]: "the token is ‘un’ or ‘com’, a part of a longer word",
        SOME[3]: "the token is digits",
        SOME[5]: "after it stands ‘,’",
        SOME[9]: "the token is ‘·the’, ‘·river’ or ‘un’, two before it stands ‘,’ or ‘.’",
        SOME[11]: "the document's language is English",
        SOME[14]: "‘42’ stands within 16 tokens",
        Predicate(
            kind="words", here=tuple(range(1, 13))
        ): "the token is one of 12 tokens such as ‘·the’, ‘·of’, ‘·river’, ‘River’, ‘rivers’, ‘·lake’",
    }
    for predicate, said in sentences.items():
        assert predicate.sentence(VOCABULARY) == said


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_asked_for_as_a_search_is_the_class(name):
    """Over tokens as models have them, each class some of them."""
    texts = [
        *VOCABULARY,
        *(
            f" {word}"
            for word in [
                "The",
                "None",
                "HTTP",
                "x",
                "?",
                ";",
                "-",
                "=",
                "__",
                "def",
                "for",
                "May",
                "two",
                "cats",
                "els",
                "le",
                "his",
                "was",
                "but",
            ]
        ),
    ]
    texts += [
        "Name",
        "\t",
        "“",
        "(",
        ")]",
        "½",
        "=>",
        "running",
        "used",
        "only",
        "nation",
        "é",
        "Ω",
        "\\xc3",
        ' "',
        "él",
        "el",
    ]
    query = Predicate(kind="class", here=name).query(texts)
    term = parse(query).root
    assert (matching(term, texts) == Vocabulary(texts).of_class(name)[: len(texts)]).all()
    assert Vocabulary(texts).of_class(name).any()


def test_tokens_asked_for_as_a_search_are_these_and_no_others():
    texts = ["a.b", " a.b", "a/b", "\n", "\n\n", "\t", '"', "\\", "axb", "(", " é"]
    for some in ((0,), (1, 2), (3, 5), (4, 6), (7, 9), (10,)):
        term = parse(Predicate(kind="token", here=some).query(texts)).root
        assert np.flatnonzero(matching(term, texts)).tolist() == list(some)
    assert parse(Predicate(kind="topic", value='so "called"').query(texts)).root.value == 'topic=so "called"'
    assert (
        Predicate(kind="ngram", before=(1,), here=(2,)).query(texts) == "at:(token:/^(?:a\\/b)$/ before:/^(?: a\\.b)$/)"
    )


@pytest.mark.parametrize(
    "written",
    ["", "7", "[]", '{"kind":"verb"}', '{"kind":"token","here":"verbs"}', '{"kind":"token","here":["a"]}',
     '{"kind":"token","here":[-1]}', '{"kind":"token","hear":[1]}', '{"here":[1]}', '{"kind":"topic","value":3}'],
)  # fmt: skip
def test_what_is_no_predicate_is_refused(written):
    with pytest.raises(InterpError, match="is no predicate as this program writes it"):
        Predicate.from_json(written)


# ---- tokens, words, languages ----


def test_letters_that_meet_are_one_word_but_names_in_code_and_spaces_part():
    texts = ["com", "un", " un", "get", "Name", "ID", "é", "7", "_", "\\xc3"]
    words = Vocabulary(texts)

    def joined(left, right):
        return bool(words.joined(np.array([texts.index(left)]), np.array([texts.index(right)]))[0])

    assert joined("com", "un")
    assert joined("un", "é")
    assert joined("un", "\\xc3")
    assert joined("ID", "Name")
    for left, right in (("com", " un"), ("get", "Name"), ("com", "7"), ("_", "un"), ("7", "com")):
        assert not joined(left, right)
    assert not words.joined(np.array([0]), np.array([words.nothing]))[0]


def test_a_vocabulary_that_marks_what_goes_on_is_read_by_its_marks():
    texts = ["the", "cat", "##ing", "walk"]
    words = Vocabulary(texts)
    left, right = np.array([0, 3, 2]), np.array([1, 2, 3])
    assert words.joined(left, right).tolist() == [False, True, False]


def test_documents_languages_are_told_by_their_function_words():
    sentences = {
        "en": "the cat of that house was with the dog and it is for them",
        "fr": "le chat est dans la maison avec les chiens et une souris qui dort pour lui",
        "es": "el gato y los perros de la casa son para una de las que lo han visto por su",
        "code": "def f ( x ) : \n return x [ 0 ] + y = z",
        "": "Paris 1900",
    }
    words = sorted({word for sentence in sentences.values() for word in sentence.split(" ")})
    vocabulary = Vocabulary([word if word == "\n" else f" {word}" for word in words])
    token = [words.index(word) for sentence in sentences.values() for word in sentence.split(" ")]
    document = [d for d, sentence in enumerate(sentences.values()) for _ in sentence.split(" ")]
    found = languages(np.array(token), np.array(document), 5, vocabulary)
    assert found.tolist() == [0, 1, 2, 3, -1]


# ---- in an index ----


def test_what_an_index_says_of_its_features_is_true_of_its_rows(checkpoint):
    index = FeatureIndex.open(checkpoint / "index")
    assert index.has_clean_levels
    split = index.documents["split"].to_numpy()[index.document_at]
    kinds = set()
    for feature in range(index.d_sae):
        position, value = index.fired(feature)
        clean = index.clean(feature)
        if clean is None:
            assert math.isnan(index.row(feature)["clean_level"])
            continue
        kinds.add(clean.predicate.kind)
        above = value.astype(np.float32) > clean.level
        holds = clean.predicate.holds(index.passages.around(position))
        train, test = above & (split[position] == "train"), above & (split[position] == "heldout")
        # Rounded to float16, a value that stood next to the level may lie on its other side.
        assert holds[train].sum() >= PRECISION * train.sum() - 2
        assert clean.n == pytest.approx(test.sum(), abs=1)
        assert clean.share == pytest.approx(above.mean(), abs=2 / len(above))
        if test.sum() > 10:
            assert clean.precision == pytest.approx(holds[test].mean(), abs=0.1)
            assert clean.interval[0] <= clean.precision <= clean.interval[1]
    assert len(kinds) > 1


def test_an_index_of_before_opens_without_clean_levels(checkpoint, tmp_path):
    index = FeatureIndex.open(checkpoint / "index")
    made = tmp_path / "old" / ".build" / "made"
    made.mkdir(parents=True)
    for name in index.meta["files"]:
        (made / name).write_bytes(index.path(name).read_bytes())
    table = pq.read_table(made / "features.parquet").drop_columns(list(CLEAN))
    pq.write_table(table, made / "features.parquet")
    meta = {key: value for key, value in read_meta(checkpoint / "index").items() if key not in ("files", "sha256")}
    publish(made, tmp_path / "old", meta)
    old = FeatureIndex.open(tmp_path / "old")
    assert not old.has_clean_levels
    assert old.clean(3) is None
    assert old.examples(3) == index.examples(3)
    assert set(index.features.columns) - set(old.features.columns) == set(CLEAN)


def test_clean_levels_that_were_changed_are_a_sentence(checkpoint, tmp_path):
    index = FeatureIndex.open(checkpoint / "index")
    feature = next(f for f in range(index.d_sae) if index.clean(f))
    table = pq.read_table(index.path("features.parquet"))
    level = table["clean_level"].to_numpy().copy()
    level[feature] = np.nan
    at = table.column_names.index("clean_level")
    made = tmp_path / ".build" / "made"
    made.mkdir(parents=True)
    for name in index.meta["files"]:
        (made / name).write_bytes(index.path(name).read_bytes())
    pq.write_table(table.set_column(at, "clean_level", pa.array(level)), made / "features.parquet")
    publish(made, tmp_path, {k: v for k, v in index.meta.items() if k not in ("files", "sha256")})
    with pytest.raises(InterpError, match=f"feature {feature} has a predicate and no level"):
        FeatureIndex.open(tmp_path).clean(feature)


def test_tokens_that_a_condition_lists_are_those_that_its_regular_expression_matches():
    """Lists are looked up; what is more than a list, or is written in another way, is matched."""
    texts = ["", " a", "a", " b", "a.b", "a|b", "(", "\\", "\\x01", "\n", "é", " —", "^", "a b", " a"]
    known = Vocabulary(texts)
    listed = [r"^(?: a|a)$", r"^(?:a\.b|\(|\\)$", r"^(?:a\|b)$", r"^(?:\\x01|\^)$", r"^(?:é| —|a b)$", r"^(?:zz)$"]
    others = [r"^(?:\n)$", r"^(?:a.b)$", r"^(?: ?a)$", r"^ a$", r"^(?:a|b+)$", r"^(?:a|)$", r"(?i)^(?:A)$", r"^(?:\w)$"]
    for value in [*listed, *others]:
        matched = np.asarray(pc.match_substring_regex(pa.array([*texts, ""]), value))
        assert (_listed(Term("token", value, regex=True)) is not None) == (value in listed)
        if value != r"^(?:a|)$":  # which matches the empty text, and is refused
            assert (known.matching(Term("token", value, regex=True)) == matched).all(), value
            assert (known.matching(Term("token", value, regex=True)) == matched).all(), value
