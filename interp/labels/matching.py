"""Which feature of one dictionary is which of another, by what they write and by where they fire on the same text.

1. A pair of features has two likenesses: the cosine of their decoder rows, and the correlation of their activations over
   all counted positions of the text. It is as alike as the lesser of the two.
2. A feature's match is the feature of the other dictionary that it is most alike to, and only where this one in turn is
   more alike to it than to any other (mutual best). That is one-to-one by construction. An assignment of the largest total
   (Hungarian) would be one-to-one too, but it finds a partner for every feature, also for one that has none, and what it
   gives to one depends on all the others; here a pair is judged by itself.
3. Both likenesses are held against chance, and at what passes that, against ALIKE; so is the share of either's
   activation that lies where the other fires, which shows a feature that was split or merged.

Axes    L feature of the old dictionary that is asked about, F feature of the old, G feature of the new one, D width of a
        decoder row, P counted position of the text.
Source  Bricken et al. 2023, "Towards Monosemanticity" (universality: the correlation of activations); Paulo & Belrose 2025,
        "Sparse Autoencoders Trained on the Same Data Learn Different Features" (cosines of rows, and how many have no match).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csc_matrix, csr_matrix
from torch import Tensor

from interp.render.words import counted
from interp.sae.rows import rows_by_chance, unit
from interp.types import InterpError, check_feature

ALIKE = 0.7
"""Least cosine, correlation and shares of a match: 0.7² is half, so that half of a row, and half of the variance of an
activation, is the other's; a feature that was split in two equal halves shares .5 with either."""
FEW = 10
"""Positions where a feature must fire before its firing is judged."""
DRAWS = 19
"""Of chance: to exceed all of 19 has a chance of 1 in 20 (a Monte Carlo test, as in `steering.verdict`)."""
AT_ONCE = 256
"""Features that are compared with all of the other dictionary together."""
Verdict = Literal["match", "doubtful", "no match"]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What is most alike to a feature of the old dictionary, and whether it is the same one."""

    feature: int
    match: int
    """The new dictionary's feature that is most alike, whatever the verdict."""
    cosine: float
    correlation: float
    """Of activations; 0 where one of the two fires nowhere in the text."""
    of_old: float
    """Share of the old feature's activation that lies where the new one fires; nan where it fires nowhere."""
    of_new: float
    cosine_chance: float
    """The largest cosine of the old feature's row with any row of DRAWS dictionaries of chance."""
    correlation_chance: float
    fires: int
    """Positions of the text where the old feature fires."""
    fires_new: int
    rival: int
    """The old dictionary's feature that the match is most alike to; `feature` where they are mutual."""
    verdict: Verdict
    why: str


@dataclass(frozen=True, eq=False)
class Side:
    """One dictionary: its decoder rows and its activations on the text."""

    W_dec: Float[Tensor, "F D"]
    """In float32 on the CPU; of any norm."""
    active: csr_matrix
    """Positions × features, the same positions for both dictionaries."""


def match_features(old: Side, new: Side, features: Sequence[int], seed: int = 0) -> list[Match]:
    """The match of each of these features of the old dictionary in the new one, in their order.

    Raises InterpError for a feature that the old dictionary has not, and for dictionaries or texts that cannot be compared.
    """
    if old.W_dec.shape[1] != new.W_dec.shape[1]:
        raise InterpError(
            f"decoder rows of widths {old.W_dec.shape[1]} and {new.W_dec.shape[1]} cannot be compared; give two SAEs that "
            "write the same hook point."
        )
    if old.active.shape[0] != new.active.shape[0] or not old.active.shape[0]:
        raise InterpError(
            f"{old.active.shape[0]:,} and {new.active.shape[0]:,} positions are not one text to compare firing on."
        )
    for feature in features:
        check_feature(feature, len(old.W_dec), "the old SAE")
    first, second = Prepared.of(old), Prepared.of(new)
    chance = _chance_of_cosine(first, np.asarray(features, dtype=np.int64), second, seed)
    found: list[Match] = []
    for start in range(0, len(features), AT_ONCE):
        some = np.asarray(features[start : start + AT_ONCE], dtype=np.int64)
        found += _match_some(first, second, some, chance[start : start + AT_ONCE], seed)
    return found


def _match_some(
    old: "Prepared", new: "Prepared", features_L: Int[np.ndarray, " L"], chance_L: Float[np.ndarray, " L"], seed: int
) -> list[Match]:
    """As `match_features`, of so many as fit into memory; `chance_L` is of the cosine."""
    row_L = np.arange(len(features_L))
    cosine_LG, correlation_LG = likenesses(old, features_L, new)
    match_L = _least(cosine_LG, correlation_LG, old.fires[features_L]).argmax(1)
    back_LF = _least(*likenesses(new, match_L, old), new.fires[match_L])
    rival_L = back_LF.argmax(1)
    # A dictionary that has a feature twice: neither is the other's rival.
    rival_L = np.where(back_LF[row_L, features_L] >= back_LF[row_L, rival_L], features_L, rival_L)
    by_chance_L = _chance_of_correlation(old, features_L, new, seed)
    return [
        _judged(
            old,
            new,
            pair=(int(features_L[row]), int(match_L[row]), int(rival_L[row])),
            likeness=(float(cosine_LG[row, match_L[row]]), float(correlation_LG[row, match_L[row]])),
            chance=(float(chance_L[row]), float(by_chance_L[row])),
        )
        for row in row_L
    ]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A side with what every comparison needs."""

    unit: Float[Tensor, "F D"]
    """Decoder rows of norm 1 (rows of zeros stay so)."""
    active: csr_matrix
    by_feature: csc_matrix
    fires: Int[np.ndarray, " F"]
    total: Float[np.ndarray, " F"]
    spread: Float[np.ndarray, " F"]
    """The root of the sum of squared differences from the mean, over all positions."""

    @staticmethod
    def of(side: Side, kind: type = np.float64) -> "Prepared":
        """`kind` is of the activations: np.float32 takes half the memory, and correlations are then good to five digits."""
        active = side.active.astype(kind)
        active.eliminate_zeros()
        by_feature = active.tocsc()
        exact, count = active.data.astype(np.float64), active.shape[1]  # sums in float64, whatever the kind
        total = np.bincount(active.indices, weights=exact, minlength=count).astype(np.float64)  # of nothing, whole
        squares = np.bincount(active.indices, weights=exact**2, minlength=count).astype(np.float64)
        spread = np.sqrt(np.maximum(squares - total**2 / active.shape[0], 0.0))
        return Prepared(unit(side.W_dec), active, by_feature, np.diff(by_feature.indptr), total, spread)


def likenesses(
    one: Prepared, features_L: Int[np.ndarray, " L"], other: Prepared
) -> tuple[Float[np.ndarray, "L G"], Float[np.ndarray, "L G"]]:
    """(cosine, correlation) of some features of one dictionary with all of the other."""
    cosine = (one.unit[torch.from_numpy(features_L)] @ other.unit.T).double().numpy()
    return cosine, _correlation(one.by_feature[:, features_L], one, features_L, other)


def _correlation(
    own: csc_matrix, one: Prepared, features_L: Int[np.ndarray, " L"], other: Prepared
) -> Float[np.ndarray, "L G"]:
    """Pearson's r over all positions; `own` are the features' activations, wherever they were moved."""
    together = (own.T @ other.active).toarray().astype(np.float64)
    together -= one.total[features_L][:, None] * other.total / own.shape[0]
    spread = one.spread[features_L][:, None] * other.spread
    return np.divide(together, spread, out=np.zeros_like(together), where=spread > 1e-12)


def _least(cosine_LG: np.ndarray, correlation_LG: np.ndarray, fires_L: np.ndarray) -> Float[np.ndarray, "L G"]:
    """The lesser likeness; of features that fire on too little of the text to be judged by that, the cosine.

    Where no two fire together, nearer rows come first by a hair.
    """
    least_LG = np.minimum(cosine_LG, correlation_LG.clip(min=0.0)) + 1e-9 * cosine_LG
    return np.where((fires_L >= FEW)[:, None], least_LG, cosine_LG)


def _chance_of_cosine(
    old: Prepared, features_L: Int[np.ndarray, " L"], new: Prepared, seed: int
) -> Float[np.ndarray, " L"]:
    """The largest cosine of each feature's row with any row of DRAWS dictionaries of the new one's size.

    Their rows are drawn at random with the mean and covariance of the new one's, so that a direction which all of a
    model's features share is no likeness.
    """
    asked_LD = old.unit[torch.from_numpy(features_L)]
    largest_L = torch.full((len(features_L),), -1.0)
    for random in rows_by_chance(new.unit, DRAWS, seed):
        best = [(some @ random.T).amax(1) for some in asked_LD.split(AT_ONCE)]
        largest_L = torch.maximum(largest_L, torch.cat(best))
    return largest_L.double().numpy()


def _chance_of_correlation(
    old: Prepared, features_L: Int[np.ndarray, " L"], new: Prepared, seed: int
) -> Float[np.ndarray, " L"]:
    """The largest correlation of each feature with any of the new ones when its activations are moved round the text, DRAWS
    times: how often it fires, and in what runs, stays as it is."""
    draw = np.random.default_rng(seed)
    own, positions = old.by_feature[:, features_L].tocoo(), old.active.shape[0]
    largest_L = np.full(len(features_L), -1.0)
    for far in draw.integers(positions // 8 + 1, positions - positions // 8 + 1, DRAWS):
        moved = csc_matrix((own.data, ((own.row + far) % positions, own.col)), shape=own.shape)
        largest_L = np.maximum(largest_L, _correlation(moved, old, features_L, new).max(1))
    return largest_L


def _judged(
    old: Prepared,
    new: Prepared,
    *,
    pair: tuple[int, int, int],
    likeness: tuple[float, float],
    chance: tuple[float, float],
) -> Match:
    """The verdict on (feature, match, rival), and why."""
    feature, match, rival = pair
    of_old, of_new = _shared(old, feature, new, match), _shared(new, match, old, feature)
    fires, fires_new = int(old.fires[feature]), int(new.fires[match])
    cosine, correlation = likeness
    verdict: Verdict = "match"
    why = [f"each is the other's best; chance gives {chance[0]:.2f} and {chance[1]:.2f}"]
    if cosine <= chance[0]:
        verdict, why = (
            "no match",
            [f"the nearest row has cosine {cosine:.2f}, which chance gives too ({chance[0]:.2f})"],
        )
    elif fires >= FEW and correlation <= chance[1]:
        verdict, why = "no match", [f"what is nearest fires elsewhere: {correlation:.2f}, and chance {chance[1]:.2f}"]
    elif doubts := _doubts(pair, likeness, (of_old, of_new), (fires, fires_new)):
        verdict, why = "doubtful", doubts
    return Match(
        feature=feature,
        match=match,
        cosine=cosine,
        correlation=correlation,
        of_old=of_old,
        of_new=of_new,
        cosine_chance=chance[0],
        correlation_chance=chance[1],
        fires=fires,
        fires_new=fires_new,
        rival=rival,
        verdict=verdict,
        why="; ".join(why),
    )


def _doubts(
    pair: tuple[int, int, int], likeness: tuple[float, float], shares: tuple[float, float], fires: tuple[int, int]
) -> list[str]:
    """What speaks against taking the two for the same, where they are more alike than chance makes them."""
    feature, _, rival = pair
    few = [
        f"the {which} one fires {counted(n, 'time')}" for which, n in zip(("old", "new"), fires, strict=True) if n < FEW
    ]
    doubts = [f"{' and '.join(few)} in the text, which is too little to judge by"] if few else []
    if likeness[0] < ALIKE:
        doubts.append(f"cosine under {ALIKE}")
    if not few:
        if likeness[1] < ALIKE:
            doubts.append(f"correlation under {ALIKE}")
        if shares[0] < ALIKE:
            doubts.append(
                f"{shares[0]:.0%} of the old one's activation lies where the new one fires: it may have been split"
            )
        if shares[1] < ALIKE:
            doubts.append(
                f"{shares[1]:.0%} of the new one's activation lies where the old one fires: it fires on more than that"
            )
    if rival != feature:
        doubts.append(f"the old feature {rival} is more like the new one")
    return doubts


def _shared(one: Prepared, feature: int, other: Prepared, second: int) -> float:
    """Share of a feature's activation that lies at positions where the other fires; nan where it has none."""
    own, there = one.by_feature[:, feature], other.by_feature[:, second]
    if not own.nnz:
        return float("nan")
    both = np.isin(own.indices, there.indices, assume_unique=True)
    return float(own.data[both].sum() / own.data.sum())
