"""Where a label is true: by language, source and form."""

import numpy as np
import pytest

from interp.labels.scope import Scope, forms, parts, scope, sentence
from interp.labels.testing import Fired, Ground
from interp.predicates import Text, Vocabulary, read_claim

WORDS = [
    "<end>",
    " the",
    " of",
    " and",
    " la",
    " les",
    " des",
    " river",
    " lac",
    "\n",
    " x",
    " y",
    " {",
    " _a",
    " =",
    "    ",
]
ID = {word: number for number, word in enumerate(WORDS)}
BLOCK = 32


COMMON = {0: [" the", " of", " and"], 1: [" la", " les", " des"], 2: [" the", " of", " and"], 3: [" {", " _a", " ="]}


def document(kind: int, draw) -> list[int]:
    """English, French, a list in English, or code: thirty-one tokens, of which two are ` river` and in French ` lac`."""
    words = list(draw.choice(COMMON[kind], BLOCK - 1))
    for at in draw.choice(range(1, BLOCK - 1, 2), 2, replace=False):
        words[at] = " lac" if kind == 1 else " river"
    if kind == 2:
        words[::20] = ["\n"] * len(words[::20])
    return [0, *(ID[word] for word in words)]


@pytest.fixture(scope="module")
def text() -> Text:
    draw = np.random.default_rng(0)
    token = np.array([document(d % 4, draw) for d in range(200)])
    flat = token.reshape(-1)
    columns = {"source": ["few" if d < 4 else "many" for d in range(200)], "topic": [""] * 200}
    return Text(
        flat, np.repeat(np.arange(200), BLOCK), flat != 0, BLOCK, 0, Vocabulary(WORDS), ["labels"] * 200, columns
    )


@pytest.fixture(scope="module")
def scopes(text) -> list[Scope]:
    """A feature that fires on ` river` and on ` lac`, under a label that says ` river` only."""
    ground = Ground(text)
    position = np.flatnonzero(np.isin(text.token_N, [ID[" river"], ID[" lac"]]))
    fired = Fired.of(0, (position.astype(np.uint32), np.ones(len(position), np.float32)), 0.0, ground)
    return scope(fired, ground.holds(read_claim("token:/^ river$/")), ground, parts(text))


def test_a_label_that_is_true_in_english_alone_is_said_so(scopes):
    said = sentence(scopes)
    assert said.startswith("holds in English (n 200) and code (n 100); not in French (n 100)")
    by = {(one.part, one.value): one for one in scopes}
    assert by["language", "English"].precision[0] == 1
    assert by["language", "French"].precision[0] == 0
    assert by["language", "French"].holds == 0
    assert np.isnan(by["language", "French"].recall[0])
    assert by["language", "English"].recall[0] == 1


def test_too_little_text_is_said(scopes):
    assert "too little text in few (n 8)" in sentence(scopes, "source")
    (few,) = [one for one in scopes if one.value == "few"]
    assert (few.fires, few.documents, few.verdict) == (8, 4, "too little text")
    assert few.precision[0] == 0.75
    assert np.isnan(few.precision[1:]).all()


def test_forms_are_told_by_lines_and_code(text):
    assert forms(text)[:4] == ["prose", "prose", "list", "code"]


def test_a_feature_that_is_silent_everywhere_has_no_scope(text):
    ground = Ground(text)
    fired = Fired.of(0, (np.zeros(0, np.uint32), np.zeros(0, np.float32)), 0.0, ground)
    silent = scope(fired, ground.holds(read_claim("token:/^ river$/")), ground, parts(text))
    assert {one.verdict for one in silent} == {"too little text"}
    assert sentence([]) == "no language of the 0 parts has any of its firings"
