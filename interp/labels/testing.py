"""Is a label true? Its claim is tried where its feature fires and where it does not, on documents that no label was made from.

Of a feature, over the positions of the testing documents: it *fires* where its activation is above the level that its label speaks
of (its clean level, or 0); its label's claim *holds* where it says so.

    precision   share of the firings at which the claim holds
    recall      share of the places where it holds at which the feature fires
    f1          their harmonic mean: what a label is judged by
    random      (precision + share of silent positions at which it does not hold) / 2: a coin gives .5
    hard        the same against silent positions that are hard to tell: the same tokens elsewhere, and where the nearest features fire
    fuzzing     of two positions of a stretch, one at which the feature fires: the same with the other one of each
    bands       AUROC of the claim for the firings of each fifth, from strong to weak, against silent positions

Each has a 95 % bootstrap over documents. Nulls, for f1: the claims of other labels whose features fire about as often (*shuffled*), and the
same claim for other features that fire about as often (*matched*). The p-value is the share of both that reach it (Phipson and Smyth
2010), the q-value Benjamini and Hochberg's over all labels tried. Where it is at hand there is a third null: what the same method
reaches on the SAE of a copy of the model with random weights (`RandomNull`), whose features mean nothing that the model computes.

A label is *confirmed* when the lower end of its f1 lies above the 95th percentile of each null and q is at most Q; *refuted* when
the upper end lies below one of these percentiles; else *undecided*. Fewer than LEAST firings, or firings in fewer than
LEAST_DOCUMENTS documents, are too few to judge, and are said to be.

Axes    P testing position, D testing document, M firing, B draw of the bootstrap, N of a null.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from interp.predicates import Claim, Text
from interp.predicates.written import REACH
from interp.progress import bar
from interp.statistics import TAILS, benjamini_hochberg, permutation_p
from interp.types import InterpError

Q = 0.1
LEAST, LEAST_DOCUMENTS = 10, 5
BANDS = 5
DRAWS = 1_000
"""Of a bootstrap; the same draws for every label, so that labels are compared on the same documents."""
NULLS = 100
"""Draws of each of the two nulls."""
LEAST_NULL = 20
"""Labels of a random-weight model's SAE that make a null."""
SOME = 256
"""Silent positions of each kind that are drawn for a feature."""
VERDICTS = ("confirmed", "refuted", "undecided", "too few")

Figure = tuple[float, float, float]
"""(value, low, high)."""
UNKNOWN: Figure = (math.nan, math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Ground:
    """The documents that labels are tried on."""

    text: Text
    split: str = "labels"
    seed: int = 0

    @cached_property
    def position_P(self) -> np.ndarray:
        """Positions that count, ascending; InterpError when there is none."""
        of_split = np.array([split == self.split for split in self.text.split_D], dtype=bool)
        found = np.flatnonzero(self.text.kept_N & of_split[self.text.document_N])
        if not len(found):
            raise InterpError(
                f"the index has no text of the split {self.split}, on which labels are tested; index more text."
            )
        return found

    @cached_property
    def document_P(self) -> np.ndarray:
        """The document of each position, numbered from 0."""
        return np.unique(self.text.document_N[self.position_P], return_inverse=True)[1]

    @property
    def documents(self) -> int:
        return int(self.document_P.max()) + 1

    @cached_property
    def weight_BD(self) -> np.ndarray:
        """How often each draw has each document."""
        draw = np.random.default_rng(self.seed)
        even = np.full(self.documents, 1 / self.documents)
        return draw.multinomial(self.documents, even, DRAWS).astype(np.float32)

    @cached_property
    def by_token(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions (as places in `position_P`) in order of their token, and those tokens."""
        token_P = self.text.token_N[self.position_P]
        order = np.argsort(token_P, kind="stable")
        return order, token_P[order]

    def holds(self, claim: Claim) -> np.ndarray:
        """Where a claim holds, shape (P,)."""
        return claim.holds(self.text.around(self.position_P))

    def places(self, position_M: np.ndarray, value_M: np.ndarray, above: float) -> tuple[np.ndarray, np.ndarray]:
        """(places in `position_P`, values) of a feature's firings there above an activation."""
        position = position_M.astype(np.int64)
        place = np.searchsorted(self.position_P, position)
        inside = place < len(self.position_P)
        inside[inside] &= self.position_P[place[inside]] == position[inside]
        inside &= value_M > above
        return place[inside], value_M[inside].astype(np.float64)

    def by_document(self, place_M: np.ndarray, weight_M: np.ndarray | None = None) -> np.ndarray:
        """How many of the places are in each document."""
        return np.bincount(self.document_P[place_M], weights=weight_M, minlength=self.documents).astype(np.float32)

    def interval(self, value: float, numerator_D: np.ndarray, denominator_D: np.ndarray) -> Figure:
        """A ratio of two sums over documents with its bootstrap; unknown where the denominator is empty."""
        if not denominator_D.sum() > 0:
            return UNKNOWN
        drawn = self.weight_BD @ np.stack([numerator_D, denominator_D], 1)
        ratio = drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], np.nan)
        low, high = np.nanpercentile(ratio, TAILS)
        return float(value), float(low), float(high)


@dataclass(frozen=True, eq=False)
class Fired:
    """One feature on the ground: where it fires above its label's level, strongest first."""

    feature: int
    place_M: np.ndarray
    value_M: np.ndarray
    ever_P: np.ndarray = field(repr=False)
    """Places where it fires at all, ascending: a silent position is none of these."""

    @staticmethod
    def of(feature: int, fired: tuple[np.ndarray, np.ndarray], level: float, ground: Ground) -> "Fired":
        return Fired.at(feature, *ground.places(*fired, 0.0), level)

    @staticmethod
    def at(feature: int, ever_P: np.ndarray, value_P: np.ndarray, level: float) -> "Fired":
        """Of all its firings' places (ascending) and values."""
        above = value_P > level
        place, value = ever_P[above], value_P[above]
        order = np.lexsort((place, -value))
        return Fired(feature, place[order], value[order], ever_P)


def f1(fired: Fired, holds_P: np.ndarray, count: int) -> float:
    """Of a claim that holds at `count` positions in all; 0 where neither ever is."""
    return 2 * float(holds_P[fired.place_M].sum()) / max(len(fired.place_M) + count, 1)


def measured(fired: Fired, holds_P: np.ndarray, ground: Ground, near: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """Every figure of one label but what compares it with others; `near` has where the nearest features fire."""
    hit_M = holds_P[fired.place_M]
    hit_D, fires_D = ground.by_document(fired.place_M, hit_M.astype(np.float32)), ground.by_document(fired.place_M)
    holds_D = ground.by_document(np.flatnonzero(holds_P))
    draw = np.random.default_rng([ground.seed, fired.feature])
    silent = _silent(fired, ground, near, draw)
    precision = ground.interval(_ratio(hit_D, fires_D), hit_D, fires_D)
    found: dict[str, Any] = {
        "fires": len(fired.place_M),
        "documents": int((fires_D > 0).sum()),
        "holds": int(holds_P.sum()),
        "precision": precision,
        "recall": ground.interval(_ratio(hit_D, holds_D), hit_D, holds_D),
        "f1": ground.interval(_ratio(2 * hit_D, fires_D + holds_D), 2 * hit_D, fires_D + holds_D),
    }
    for name, place in silent.items():
        found[name] = _balanced(hit_D, fires_D, place, holds_P, ground)
    found["bands"] = [
        _balanced(
            ground.by_document(part, holds_P[part].astype(np.float32)),
            ground.by_document(part),
            silent["random"],
            holds_P,
            ground,
        )
        for part in np.array_split(fired.place_M, BANDS)
    ]
    return found


def _ratio(numerator_D: np.ndarray, denominator_D: np.ndarray) -> float:
    return float(numerator_D.sum() / denominator_D.sum()) if denominator_D.sum() > 0 else math.nan


def _balanced(
    hit_D: np.ndarray, fires_D: np.ndarray, silent: np.ndarray, holds_P: np.ndarray, ground: Ground
) -> Figure:
    """Mean of the share of firings at which a claim holds and of that of silent positions at which it does not, which is the AUROC
    of a claim."""
    wrong_D, silent_D = ground.by_document(silent, holds_P[silent].astype(np.float32)), ground.by_document(silent)
    if not fires_D.sum() > 0 or not silent_D.sum() > 0:
        return UNKNOWN
    drawn = ground.weight_BD @ np.stack([hit_D, fires_D, wrong_D, silent_D], 1)
    with np.errstate(invalid="ignore"):
        score = (1 + drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]) / 2
    value = (1 + _ratio(hit_D, fires_D) - _ratio(wrong_D, silent_D)) / 2
    if not np.isfinite(score).any():
        return value, math.nan, math.nan
    low, high = np.nanpercentile(score, TAILS)
    return value, float(low), float(high)


def _silent(
    fired: Fired, ground: Ground, near: Sequence[np.ndarray], draw: np.random.Generator
) -> dict[str, np.ndarray]:
    """Places where the feature is silent, by how they were drawn."""
    count = len(ground.position_P)
    fires_P = np.zeros(count, dtype=bool)
    fires_P[fired.ever_P] = True
    random = draw.integers(0, count, 2 * SOME)
    order, token_P = ground.by_token
    own = ground.text.token_N[ground.position_P[draw.permutation(fired.place_M)[:SOME]]]
    low, high = np.searchsorted(token_P, own), np.searchsorted(token_P, own, side="right")
    same = order[low + (draw.random(len(own)) * (high - low)).astype(np.int64)]
    others = np.concatenate([np.zeros(0, np.int64), *near])
    other = draw.permutation(others)[:SOME]
    steps = draw.choice([step for step in range(-REACH, REACH + 1) if step], min(len(fired.place_M), SOME))
    beside = draw.permutation(fired.place_M)[: len(steps)]
    moved = np.clip(beside + steps, 0, count - 1)
    here, there = ground.position_P[beside], ground.position_P[moved]
    moved = moved[(np.abs(here - there) <= REACH) & ground.text.together(here, there)]
    kinds = {"random": random, "hard": np.concatenate([same, other]), "fuzzing": moved}
    return {name: place[~fires_P[place]][: 2 * SOME] for name, place in kinds.items()}


# ---- against nulls ----


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label to be tried: whose, what it claims, and above which activation."""

    feature: int
    claim: Claim
    level: float = 0.0


@dataclass(frozen=True, eq=False)
class RandomNull:
    """How well labels do that the same method gave to features of an SAE of a random-weight copy of the model."""

    density_N: np.ndarray
    """Share of the testing positions at which each fires above its label's level, ascending."""
    f1_N: np.ndarray

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]], positions: int) -> "RandomNull":
        """Of the rows of `try_labels` on that SAE, those that can be judged; `positions` is how many it was tried on.

        Raises InterpError for fewer than LEAST_NULL, of which no percentile tells anything.
        """
        judged = [row for row in rows if row["fires"] >= LEAST and row["documents"] >= LEAST_DOCUMENTS]
        if len(judged) < LEAST_NULL:
            raise InterpError(
                f"{len(judged)} labels of the random-weight model's SAE can be judged, and a null takes {LEAST_NULL}; label "
                "more of its features, or index more text of it."
            )
        density_N = np.array([row["fires"] for row in judged]) / positions
        f1_N = np.array([row["f1"][0] for row in judged], dtype=np.float64)
        order = np.argsort(density_N, kind="stable")
        return RandomNull(density_N[order], f1_N[order])

    def percentile(self, density: float) -> float:
        """The 95th percentile of F1 of the 2 NULLS labels whose features fire most nearly as often (of all, where there are
        fewer)."""
        count, width = len(self.density_N), min(2 * NULLS, len(self.density_N))
        middle = int(np.searchsorted(self.density_N, density))
        low = max(min(middle - width // 2, count - width), 0)
        return float(np.percentile(self.f1_N[low : low + width], 95))


def try_labels(
    labels: Sequence[Label],
    ground: Ground,
    fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
    near: Mapping[int, Sequence[int]] | None = None,
    random_null: RandomNull | None = None,
) -> list[dict[str, Any]]:
    """A row a label, in order: its figures, nulls, p, q and verdict; and what the verdict on another label's claim would be in its
    place, drawn from those whose features fire about as often (`shuffled_verdict`).

    `fired` gives all positions (ascending) and values of a feature; `near` the features nearest to each. The nulls need other
    labels: with fewer than 20, p-values are coarse, and nothing is confirmed that a larger set would not confirm. With
    `random_null` rows have its 95th percentile too (`null_random_model`), above which a confirmed label must lie as well.
    Raises InterpError when the text has no testing documents.
    """
    near = near or {}
    places = _testing_places({*(label.feature for label in labels)}.union(*near.values()), ground, fired)
    where = [Fired.at(label.feature, *places[label.feature], label.level) for label in labels]
    packed, counts = [], []
    rows: list[dict[str, Any]] = []
    with bar("tests", len(labels), "labels") as step:
        for label, own in zip(labels, where, strict=True):
            holds_P = ground.holds(label.claim)
            packed.append(np.packbits(holds_P))
            counts.append(int(holds_P.sum()))
            others = [places[feature][0] for feature in near.get(label.feature, ())]
            rows.append({"feature": label.feature} | measured(own, holds_P, ground, others))
            step(1)
    null_rows = _against_nulls(rows, where, packed, counts, ground)
    if random_null is not None:
        for row in (*rows, *null_rows):
            row["null_random_model"] = random_null.percentile(row["fires"] / len(ground.position_P))
    for judged in (rows, null_rows):
        q = benjamini_hochberg(np.array([row["p"] for row in judged], dtype=np.float64)) if judged else np.zeros(0)
        for row, own_q in zip(judged, q, strict=True):
            row["q"] = float(own_q)
            row["verdict"] = verdict(row)
    for row, shuffled in zip(rows, null_rows, strict=True):
        row["shuffled_verdict"] = shuffled["verdict"]
    return rows


def _testing_places(
    features: Iterable[int], ground: Ground, fired: Callable[[int], tuple[np.ndarray, np.ndarray]]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """(places, values) of all firings of each feature there; in the order of their numbers, which is that of an index's rows."""
    return {feature: ground.places(*fired(feature), 0.0) for feature in sorted(features)}


def _against_nulls(
    rows: list[dict[str, Any]],
    where: Sequence[Fired],
    packed: Sequence[np.ndarray],
    counts: Sequence[int],
    ground: Ground,
) -> list[dict[str, Any]]:
    """Add both nulls' 95th percentiles and the p-value to each row; a row of a shuffled claim for each comes back, judged by
    the same null as the feature's own."""
    order = np.argsort([len(own.place_M) for own in where], kind="stable")
    rank, null_rows = np.argsort(order), []
    for number, (row, own) in enumerate(zip(rows, where, strict=True)):
        alike = _alike(int(rank[number]), order, number)
        draw = np.random.default_rng([ground.seed, 1, number])
        others = _drawn(alike, draw)
        shuffled = [_f1_of(own, packed[i], counts[i]) for i in others]
        matched = [_f1_of(where[i], packed[number], counts[number]) for i in _drawn(alike, draw)]
        null = np.array([*shuffled, *matched])
        row["null_shuffled"], row["null_matched"] = (
            float(np.percentile(one, 95)) if one else math.nan for one in (shuffled, matched)
        )
        row["p"] = _p(row["f1"][0], null)
        one = row | {"f1": UNKNOWN, "p": 1.0}
        if others:
            one["f1"] = _f1_interval(own, np.unpackbits(packed[others[0]], count=len(ground.position_P)) > 0, ground)
            one["p"] = _p(one["f1"][0], null[1:])
        null_rows.append(one)
    return null_rows


def _p(value: float, null: np.ndarray) -> float:
    return permutation_p(value, null) if len(null) and math.isfinite(value) else 1.0


def _f1_interval(fired: Fired, holds_P: np.ndarray, ground: Ground) -> Figure:
    hit_D = ground.by_document(fired.place_M, holds_P[fired.place_M].astype(np.float32))
    both_D = ground.by_document(fired.place_M) + ground.by_document(np.flatnonzero(holds_P))
    return ground.interval(_ratio(2 * hit_D, both_D), 2 * hit_D, both_D)


def _alike(rank: int, order: np.ndarray, number: int) -> np.ndarray:
    """The labels whose features fire about as often: those on either side in the order of firings."""
    low = max(min(rank - NULLS, len(order) - 2 * NULLS - 1), 0)
    some = order[low : low + 2 * NULLS + 1]
    return some[some != number]


def _drawn(alike: np.ndarray, draw: np.random.Generator) -> list[int]:
    return [int(i) for i in draw.permutation(alike)[:NULLS]]


def _f1_of(own: Fired, packed: np.ndarray, count: int) -> float:
    """F1 of a claim whose places are packed eight to a byte."""
    hit = (packed[own.place_M >> 3] >> (7 - (own.place_M & 7))) & 1
    return 2 * float(hit.sum()) / max(len(own.place_M) + count, 1)


def verdict(row: Mapping[str, Any]) -> str:
    """confirmed, refuted, undecided or too few, of a row's figures."""
    if row["fires"] < LEAST or row["documents"] < LEAST_DOCUMENTS:
        return "too few"
    nulls = [row[name] for name in row if name.startswith("null_")]
    if not all(math.isfinite(null) for null in nulls):
        return "undecided"
    _, low, high = row["f1"]
    if low > max(nulls) and row["q"] <= Q:
        return "confirmed"
    return "refuted" if high < max(nulls) else "undecided"
