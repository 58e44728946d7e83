"""Is a name true that claims nothing executable? A language model is asked, text by text, whether the name fits.

The texts are of testing documents, which no name is made from: TIMES times the firings of `examples.PARTS`, as many positions drawn from all
(*random*) and as many that are hard to tell (*hard*: the same tokens where the feature is silent, and the nearest features' firings). The same texts are
judged by another feature's name (*shuffled*), drawn once among those that are tried together.

A name's figure is the mean of the share of firings that it fits and of the share of silent texts that it does not: a coin gives
.5. Its interval is a bootstrap over documents, which is over texts, for there is one of each. The null is the shuffled names' figures, of all
features together; verdicts are `testing.verdict`'s, and with a null of fewer than LEAST_NULL nothing is confirmed or refuted.

Axes    K text, N of the null, S statistic.
Source  Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models": detection scoring.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.labels.llm.asking import Answer, Question
from interp.labels.llm.examples import Examples, Shown
from interp.labels.llm.prompts import PER_QUESTION, judging, read_judged
from interp.labels.testing import DRAWS, UNKNOWN, Figure, verdict
from interp.statistics import TAILS, benjamini_hochberg, permutation_p

TIMES = 2
"""Of the examples that a name is made from."""
LEAST_NULL = 19
"""Shuffled names: the least p-value is then .05."""


@dataclass(frozen=True, eq=False)
class Trial:
    """The texts of one feature, and its own and another one's name."""

    feature: int
    name: str
    other: str
    texts: Sequence[Shown]

    @property
    def questions(self) -> list[Question]:
        """First by its own name, then by the other."""
        return [*judging(self.feature, self.name, self.texts), *judging(self.feature, self.other, self.texts)]


def trials(names: Mapping[int, str], examples: Examples) -> list[Trial]:
    """One for each feature, its texts in a drawn order; the other name is that of another feature of these, and never the same words.

    Features without firings in these documents, and without another name beside them, are left out.
    """
    draw = np.random.default_rng([examples.seed, 5])
    order = draw.permutation(sorted(names)).tolist()
    found = []
    for place, feature in enumerate(order):
        others = [*order[place + 1 :], *order[:place]]
        other = next((names[one] for one in others if names[one].lower() != names[feature].lower()), None)
        firings = examples.firings(feature, TIMES)
        if other is None or not firings:
            continue
        silent = [*examples.silent(feature, firings, TIMES), *examples.random(feature, len(firings))]
        texts = [*firings, *silent]
        mixed = np.random.default_rng([examples.seed, 6, feature]).permutation(len(texts)).tolist()
        found.append(Trial(feature, names[feature], other, [texts[one] for one in mixed]))
    return sorted(found, key=lambda one: one.feature)


def judged(trial: Trial, answers: Sequence[Answer]) -> tuple[np.ndarray, np.ndarray, int]:
    """(whether its own name fits each text, whether the other one does, how many answers cannot be read); nan where not known."""
    half = len(answers) // 2
    own_K, own = _read(answers[:half], len(trial.texts))
    other_K, other = _read(answers[half:], len(trial.texts))
    return own_K, other_K, own + other


def _read(answers: Sequence[Answer], count: int) -> tuple[np.ndarray, int]:
    """(by text 1 or 0 or nan, answers that cannot be read)."""
    fits_K, unread, start = np.full(count, np.nan), 0, 0
    for answer in answers:
        size = min(PER_QUESTION, count - start)
        said = read_judged(answer.text, size)
        if said is None:
            unread += 1
        else:
            fits_K[start : start + size] = said
        start += size
    return fits_K, unread


def rows(done: Sequence[tuple[Trial, np.ndarray, np.ndarray]], seed: int = 0) -> list[dict[str, Any]]:
    """A row a feature: its figures, those of the other name, p, q and verdict."""
    found: list[dict[str, Any]] = []
    for trial, own_K, other_K in done:
        fires_K = np.array([one.fires for one in trial.texts])
        random_K = np.array([one.kind == "random" for one in trial.texts])
        read_K = np.isfinite(own_K)
        found.append(
            {
                "feature": trial.feature,
                "fires": int((fires_K & read_K).sum()),
                "documents": int((fires_K & read_K).sum()),
                "texts": int(read_K.sum()),
                "f1": _balanced(own_K, fires_K, ~fires_K, seed),
                "random": _balanced(own_K, fires_K, random_K, seed)[0],
                "hard": _balanced(own_K, fires_K, ~fires_K & ~random_K, seed)[0],
                "shuffled": _balanced(other_K, fires_K, ~fires_K, seed)[0],
            }
        )
    null_N = np.array([row["shuffled"] for row in found])
    null_N = null_N[np.isfinite(null_N)]
    enough = len(null_N) >= LEAST_NULL
    for row in found:
        row["null_shuffled"] = float(np.percentile(null_N, 95)) if enough else math.nan
        row["p"] = permutation_p(row["f1"][0], null_N) if enough and math.isfinite(row["f1"][0]) else 1.0
    q = benjamini_hochberg(np.array([row["p"] for row in found], dtype=np.float64)) if found else np.zeros(0)
    for row, own_q in zip(found, q, strict=True):
        row["q"] = float(own_q)
        row["verdict"] = verdict(row)
    return found


def _balanced(fits_K: np.ndarray, fires_K: np.ndarray, silent_K: np.ndarray, seed: int) -> Figure:
    """Mean of the share of firings that a name fits and of silent texts that it does not, over texts that were judged."""
    hit = fits_K[fires_K & np.isfinite(fits_K)]
    right = 1 - fits_K[silent_K & np.isfinite(fits_K)]
    if not len(hit) or not len(right):
        return UNKNOWN
    draw = np.random.default_rng(seed)
    drawn = [draw.choice(part, (DRAWS, len(part))).mean(1) for part in (hit, right)]
    low, high = np.percentile((drawn[0] + drawn[1]) / 2, TAILS)
    return float((hit.mean() + right.mean()) / 2), float(low), float(high)
