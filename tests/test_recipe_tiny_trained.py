"""The recipe of the tiny models that are trained: their first steps learn, and its figures count what they say."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("tiny_trained", ROOT / "recipes" / "tiny_trained.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(("name", "steps"), [("t5", 20), ("mamba", 6)])
def test_the_first_steps_learn(recipe, name, steps):
    torch.manual_seed(0)
    subject = recipe.SUBJECTS[name]
    log = recipe.train(subject.make(), subject.batch, steps, size=8)
    assert np.mean(log[-3:]) < log[0] - 0.2


def test_what_is_asked_is_what_the_models_are_trained_to_write(recipe):
    word = recipe.words(1, 0)[0]
    batch = recipe.reversals(1, 0)
    assert recipe.tokenizer().decode(batch["input_ids"][0][:-1]) == word
    assert recipe.tokenizer().decode(batch["labels"][0][:-1]) == recipe.SUBJECTS["t5"].asked(word)[1] == word[::-1]
    text = recipe.repeating(1, 0)[0]
    given, wanted = recipe.SUBJECTS["mamba"].asked(text)
    period = next(p for p in recipe.PERIODS if text[p:] == text[:-p])
    assert wanted == text[len(given) - period :][: len(wanted)]
    labels = recipe.repetitions(1, 0)["labels"][0, : len(text) + 1]
    assert recipe.tokenizer().decode(labels[labels >= 0]) == text[max(recipe.PERIODS) :]


def test_letters_are_counted_by_what_they_should_be(recipe):
    found = recipe.right(["abc", "b"], ["abd", "ba"])
    assert found[:, :, 0].sum(0).tolist()[:4] == [1, 2, 0, 0]  # a, b, c, d that are right
    assert found[:, :, 1].sum(0).tolist()[:4] == [1, 0, 0, 1]
    value, _, of = recipe.share(found.sum(1))
    assert (value, of) == (3 / 5, 5)
