"""Do independent trainings come to the same dictionary? How much of one is in the others, and how far they came to each other.

Of two dictionaries the rows are paired one to one (`sae.rows.partners`). With c_i the absolute cosine of a feature's decoder row
with its partner's and w_i how often the feature fires,

    MCC          Σ w_i c_i / Σ w_i                       (PW-MCC, weighted by firing; `plain_mcc` has w = 1)
    floor        MCC with rows drawn at random with the other dictionary's mean and covariance
    above floor  (MCC - floor) / (1 - floor)
    shared       Σ w_i [c_i > ALIKE, and the two's encoder rows too] / Σ w_i
    stabilised   (D start - D end) / D start,  D = 1 - MCC: how much of the distance between two trainings is gone
    moved        1 - |cosine| of a feature's row with the row that it began as

Agreement at the end alone proves nothing: two trainings that begin with the same rows, or that never move them, agree without having
learnt anything. So the decoders that the trainings began with are paired too. They follow from the seed
(`training.state.initial_decoder`); where they are not known, what needs them is not said. Nor is what is stable thereby right: in worlds where the
truth is known, the most stable dictionary is not the most correct one (evals/planted.py).

Intervals are bootstraps over features: which features a training gives is what another would draw anew. How far the other seeds differ is
in the rows.

Axes    F feature of the dictionary in question, D width.
Source  arXiv:2505.20254 (PW-MCC); Paulo & Belrose 2025, arXiv:2501.16615 (shared features, by encoder and decoder).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.evals.figure import Better, Figure, Section
from interp.sae.rows import Partners, partners, rows_by_chance, unit
from interp.statistics import bootstrap_ratio
from interp.types import InterpError

ALIKE = 0.7
"""Cosine of a shared feature: half of either row is the other's."""
INHERITED = 0.9
"""MCC of two beginnings above which they are one and the same."""


@dataclass(frozen=True, eq=False)
class Training:
    """What one training ended with, and began with."""

    name: str
    W_dec: Float[Tensor, "F D"]
    W_enc: Float[Tensor, "D F"]
    start: Float[Tensor, "F D"] | None = None
    """Its decoder before the first step; None where nobody knows."""


def measure_stability(
    own: Training, others: Sequence[Training], fires_F: Shaped[np.ndarray, " F"], *, seed: int = 0
) -> Section:
    """How stable one training's dictionary is, by others of the same recipe with other seeds; `fires_F` are its firings in some text.

    Takes three assignments a training, each a gigabyte at 9,216 features.
    Raises InterpError when there is no other, when widths differ, or when no feature fires.
    """
    _check(own, others, fires_F)
    began, weight_F = time.perf_counter(), fires_F.astype(np.float64)
    pairs = [_pair(own, other, weight_F, seed) for other in others]
    return Section(
        name="stability",
        title="Other seeds: how much is found again, and how far trainings came to each other",
        figures=_figures(own, pairs, weight_F),
        rows=tuple(pair.row() for pair in pairs),
        of={"name": own.name, "others": [other.name for other in others], "alike": ALIKE, "seed": seed}
        | {"firings": int(weight_F.sum())},
        seconds=time.perf_counter() - began,
    )


def _check(own: Training, others: Sequence[Training], fires_F: np.ndarray) -> None:
    if not others:
        raise InterpError("stability needs at least one more SAE of the same recipe with another seed; name some.")
    for other in others:
        if other.W_dec.shape != own.W_dec.shape:
            sizes = [" x ".join(map(str, one.W_dec.shape)) for one in (own, other)]
            raise InterpError(
                f"{other.name} has {sizes[1]} decoder weights and {own.name} has {sizes[0]}; stability compares SAEs of one "
                "width and hook point."
            )
    if len(fires_F) != len(own.W_dec) or not fires_F.sum() > 0:
        raise InterpError(
            f"{len(fires_F):,} counts of firings, {int(fires_F.sum()):,} in all, do not weigh the {len(own.W_dec):,} features of "
            f"{own.name}; count them on text in which some fire."
        )


@dataclass(frozen=True, eq=False)
class _Pair:
    """One other training beside the one in question, feature by feature."""

    name: str
    weight_F: Float[np.ndarray, " F"]
    end_F: Float[np.ndarray, " F"]
    """Cosines of decoder rows with their partners'."""
    encoder_F: Float[np.ndarray, " F"]
    """Of the encoder rows of the same partners."""
    floor_F: Float[np.ndarray, " F"]
    start_F: Float[np.ndarray, " F"] | None

    @property
    def shared_F(self) -> Float[np.ndarray, " F"]:
        return ((self.end_F > ALIKE) & (self.encoder_F > ALIKE)).astype(np.float64)

    def mean(self, values_F: np.ndarray | None) -> float | None:
        """Weighted by firing."""
        return None if values_F is None else float((self.weight_F * values_F).sum() / self.weight_F.sum())

    def row(self) -> Mapping[str, Any]:
        return {
            "other": self.name,
            "mcc": self.mean(self.end_F),
            "plain_mcc": float(self.end_F.mean()),
            "floor": self.mean(self.floor_F),
            "shared": self.mean(self.shared_F),
            "start_mcc": self.mean(self.start_F),
        }


def _pair(own: Training, other: Training, weight_F: np.ndarray, seed: int) -> _Pair:
    end = partners(own.W_dec, other.W_dec)
    encoders = unit(own.W_enc.T.cpu().float()), unit(other.W_enc.T.cpu().float())
    encoder_F = (encoders[0][end.one_M] * encoders[1][end.other_M]).sum(1).double().numpy()
    chance = partners(own.W_dec, next(rows_by_chance(unit(other.W_dec.cpu().float()), 1, seed)))
    start: Partners | None = None
    if own.start is not None and other.start is not None:
        start = partners(own.start, other.start)
    return _Pair(
        name=other.name,
        weight_F=weight_F,
        end_F=end.cosine_M,
        encoder_F=encoder_F,
        floor_F=chance.cosine_M,
        start_F=None if start is None else start.cosine_M,
    )


def _figures(own: Training, pairs: Sequence[_Pair], weight_F: np.ndarray) -> tuple[Figure, ...]:
    """Means over the other trainings; a feature is a unit."""
    count, ones_F = len(weight_F), np.ones(len(weight_F))

    def mean(name: str, says: str, values_F: np.ndarray, weigh_F: np.ndarray, better: Better, note: str = "") -> Figure:
        value = float((weigh_F * values_F).sum() / weigh_F.sum())
        interval = bootstrap_ratio(weigh_F * values_F, weigh_F)
        return Figure(
            name=name, says=says, value=value, interval=interval, n=count, unit="features", better=better, note=note
        )

    end_F, floor_F = (np.mean([getattr(one, name) for one in pairs], axis=0) for name in ("end_F", "floor_F"))
    shared_F = np.mean([one.shared_F for one in pairs], axis=0)
    everywhere_F = np.min([one.shared_F for one in pairs], axis=0)
    room = 1 - float((weight_F * floor_F).sum() / weight_F.sum())
    of = f"{len(pairs)} other trainings" if len(pairs) > 1 else "one other training"
    both = f"cosine over {ALIKE} of decoder and encoder rows"
    return (
        mean("mcc", f"mean cosine with the partner's row in {of}, weighted by firing (PW-MCC)", end_F, weight_F, "higher"),
        mean("plain_mcc", "the same, every feature counting once", end_F, ones_F, "higher"),
        mean("floor", "the same with random rows of the other's mean and covariance", floor_F, weight_F, ""),
        mean(
            "above_floor", "(mcc - floor) / (1 - floor)", (end_F - floor_F) / max(room, 1e-12), weight_F, "higher"
        ),
        mean("shared", f"share of firing of features found in another training ({both})", shared_F, weight_F, "higher"),
        mean("plain_shared", "the same, every feature counting once", shared_F, ones_F, "higher"),
        mean("shared_by_all", "share of firing of features found in every other", everywhere_F, weight_F, "higher"),
        *_from_the_start(own, pairs, weight_F, mean),
    )  # fmt: skip


def _from_the_start(own: Training, pairs: Sequence[_Pair], weight_F: np.ndarray, mean: Any) -> tuple[Figure, ...]:
    """What needs the decoders that training began with."""
    said = {
        "start_mcc": "mcc of the decoders that the trainings began with",
        "stabilised": "share of the distance (1 - mcc) between trainings that is gone at the end",
        "moved": "1 - cosine of a feature's row with the row that it began as, weighted by firing",
    }
    known = [one for one in pairs if one.start_F is not None]
    if own.start is None or not known:
        note = "the decoder that these SAEs began with is not known"
        return tuple(
            Figure(name=name, says=says, value=None, n=0, unit="features", note=note) for name, says in said.items()
        )
    start_F = np.mean([one.start_F for one in pairs if one.start_F is not None], axis=0)
    end_F = np.mean([one.end_F for one in known], axis=0)
    first = float((weight_F * start_F).sum() / weight_F.sum())
    inherited = first > INHERITED
    note = "these trainings began with the same rows: what they share is inherited, not found" if inherited else ""
    gone_F = (end_F - start_F) / max(1 - first, 1e-12)
    stay_F = (unit(own.W_dec.cpu().float()) * unit(own.start.cpu().float())).sum(1).abs().double().numpy()
    stabilised = mean("stabilised", said["stabilised"], gone_F, weight_F, "higher", note)
    if inherited:
        stabilised = Figure(name="stabilised", says=said["stabilised"], value=None, n=0, unit="features", note=note)
    return (
        mean("start_mcc", said["start_mcc"], start_F, weight_F, "", note),
        stabilised,
        mean("moved", said["moved"], 1 - stay_F, weight_F, ""),
    )
