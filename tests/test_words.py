"""Words and the features that tell them from everything else."""

from dataclasses import replace

import numpy as np
import pytest

from interp.evals.depths import same_words
from interp.evals.words import draw_words, measure_words
from interp.index.each_token import fires_on_each
from interp.types import InterpError
from tests.test_report import small

VOCABULARY = [" cat", " river", " stone", "river", " Paris", *(f" word{chr(97 + i)}s" for i in range(20))]
COUNTED = np.array([900, 100, 60, 500, 500, *[70] * 20])


def test_words_are_whole_lower_case_words_that_stand_there_often_enough():
    drawn = [VOCABULARY[token] for token in draw_words(VOCABULARY, COUNTED, 0)]
    assert set(drawn) == set(VOCABULARY) - {" cat", "river", " Paris"}
    assert drawn != sorted(drawn)
    few = COUNTED.copy()
    few[2] = 49
    assert " stone" not in [VOCABULARY[token] for token in draw_words(VOCABULARY, few, 0)]
    with pytest.raises(InterpError, match="has 2 whole words .*index more text"):
        draw_words(VOCABULARY[:5], COUNTED[:5], 0)


def test_f1_is_that_of_the_best_detector():
    def on(tokens):
        made = np.zeros((len(tokens), 3))
        made[:, 0] = [80 if VOCABULARY[token] == " river" else 0 for token in tokens]
        made[:, 1] = 1
        return made

    section = measure_words(VOCABULARY, COUNTED, np.array([120, 5_000, 0]), on)
    river = next(row for row in section.rows if row["word"] == "river")
    assert river["feature"] == 0
    assert river["f1"] == pytest.approx(2 * 80 / (120 + 100))
    assert section["own_feature"].value == pytest.approx(1 / len(section.rows))
    both = [replace(small(), sections=(section,)), replace(small(), sections=(section,))]
    assert ["river", "0 (F1 0.73)", "0 (F1 0.73)"] in same_words(both)
    assert same_words([small(), small()]) == []


def test_counts_on_each_token_are_those_of_the_index(wb):
    index = wb.index
    tokens = np.argsort(-index.token_counts)[:5]
    each = fires_on_each(index, tokens)
    for row, token in zip(each, tokens, strict=True):
        mask = np.zeros(len(index.vocabulary), dtype=bool)
        mask[token] = True
        assert row.tolist() == index.fires_on(mask).tolist()
