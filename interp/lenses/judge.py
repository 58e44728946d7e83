"""Which lens says best what features do: three yardsticks, each with its interval over features.

By edit (a feature ablated, and held at its largest activation) and by span (*next*: at the same position; *later*: the mean of the
16 positions that follow), against what `measure` measured:

    precision   share of the lens's first TOP tokens that are among the RAISED tokens whose logits really rose most
    rank        Spearman's correlation of the lens's scores with the changes, over all asked tokens

and without any edit:

    told apart  AUROC: are the tokens around a feature's peaks scored higher by its own lens reading than those around the peaks of
                features that fire about as often? (Peaks left out: that a list repeats what a feature fires on tells nothing.)

What is beside them: precision and rank between the two halves of the contexts, which no lens can be expected to exceed by
much, and what chance gives.

The winner of a span is chosen by precision, mean of both edits. The logit lens, which nothing was fitted for, stays unless
another's advantage over it, paired by feature, has an interval above 0; of several such the one with the largest mean.

Axes    F feature, A asked token, K edit, S span, H half, N token around a peak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.lenses.lens import LOGIT, Lens
from interp.lenses.measure import EDITS, SPANS
from interp.statistics import bootstrap
from interp.types import InterpError

TOP, RAISED = 10, 100
TOLD = "told apart"
Figure = tuple[float, float, float]
"""(mean, low, high), 95 % interval over features."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The lens to show for a span."""

    lens: str
    precision: Figure
    over_logit: Figure
    """Of the precision, paired by feature; 0 of the logit lens itself."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All figures; measures are named `precision clamped later`, `rank ablated next`, `told apart`."""

    features: int
    tokens: int
    """Asked."""
    figures: dict[str, dict[str, Figure]]
    """By lens, then measure."""
    halves: dict[str, Figure]
    """By measure: of one half of the contexts by the other."""
    chance: dict[str, float]
    winners: dict[str, Winner]
    """By span, `next` and `later`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    lenses: Mapping[str, Lens],
    rows_FD: Float[Tensor, "F D"],
    readout_OA: Float[Tensor, "O A"],
    changes_FKSHA: Float[Tensor, "F K S H A"],
    around: Sequence[np.ndarray],
    others: Sequence[np.ndarray],
) -> Judgement:
    """The lenses' figures over features whose decoder rows and measured changes these are.

    `around` has by feature the asked tokens (as columns of `readout_OA`) around its own peaks, `others` those around the
    peaks of its matched features. Raises InterpError for fewer than two features, and without the logit lens.
    """
    if LOGIT not in lenses or len(rows_FD) < 2:
        raise InterpError(
            f"{', '.join(lenses) or 'no lens'} on {len(rows_FD)} features: at least two features are judged, and the logit lens is "
            "one of the lenses."
        )
    changes = changes_FKSHA.double().numpy()
    values = {
        name: _values(lens.scores(rows_FD, readout_OA).double().cpu().numpy(), changes, around, others)
        for name, lens in lenses.items()
    }
    halves = _against(changes[..., 0, :], changes[..., 1, :])
    chance = {name: 0.0 for name in halves if name.startswith("rank")}
    chance |= {name: min(RAISED / changes.shape[-1], 1.0) for name in halves if name.startswith("precision")}
    return Judgement(
        features=len(rows_FD),
        tokens=changes.shape[-1],
        figures={name: _figures(each) for name, each in values.items()},
        halves=_figures(halves),
        chance=chance | {TOLD: 0.5},
        winners={span: _winner(values, span) for span in SPANS},
    )


def _figures(values: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    return {name: bootstrap(each) for name, each in values.items()}


def _values(
    scores_FA: np.ndarray, changes_FKSHA: np.ndarray, around: Sequence[np.ndarray], others: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """By measure, a number a feature."""
    told = np.array([auroc(s, a, o) for s, a, o in zip(scores_FA, around, others, strict=True)])
    wide = np.broadcast_to(scores_FA[:, None, None], (*changes_FKSHA.shape[:3], scores_FA.shape[1]))
    return _against(wide, changes_FKSHA.mean(3)) | {TOLD: told}


def _against(said_FKSA: np.ndarray, true_FKSA: np.ndarray) -> dict[str, np.ndarray]:
    """By measure, how far what is said of tokens is what is true of them, a number a feature."""
    found: dict[str, np.ndarray] = {}
    for k, edit in enumerate(EDITS):
        for s, span in enumerate(SPANS):
            said, true = said_FKSA[:, k, s], true_FKSA[:, k, s]
            found[f"precision {edit} {span}"] = np.array([precision(a, b) for a, b in zip(said, true, strict=True)])
            found[f"rank {edit} {span}"] = np.array([rank(a, b) for a, b in zip(said, true, strict=True)])
    return found


def precision(said_A: Float[np.ndarray, " A"], true_A: Float[np.ndarray, " A"]) -> float:
    """Share of the TOP tokens with the highest scores that are among the RAISED that rose most; nan where nothing changed."""
    if not true_A.any():
        return np.nan
    first = np.argsort(-said_A, kind="stable")[:TOP]
    raised = np.argsort(-true_A, kind="stable")[:RAISED]
    return float(np.isin(first, raised).mean())


def rank(said_A: Float[np.ndarray, " A"], true_A: Float[np.ndarray, " A"]) -> float:
    """Spearman's correlation; nan where one of them is the same for all tokens."""
    from scipy.stats import rankdata

    if np.ptp(said_A) == 0 or np.ptp(true_A) == 0:
        return np.nan
    return float(np.corrcoef(rankdata(said_A), rankdata(true_A))[0, 1])


def auroc(score_A: Float[np.ndarray, " A"], own_N: np.ndarray, other_N: np.ndarray) -> float:
    """The chance that a token of `own` has a higher score than one of `other`, ties by half; nan where one is empty."""
    from scipy.stats import rankdata

    if not len(own_N) or not len(other_N):
        return np.nan
    ranks = rankdata(np.concatenate([score_A[own_N], score_A[other_N]]))
    above = ranks[: len(own_N)].sum() - len(own_N) * (len(own_N) + 1) / 2
    return float(above / (len(own_N) * len(other_N)))


def _winner(values: Mapping[str, Mapping[str, np.ndarray]], span: str) -> Winner:
    each = {name: _mean([of[f"precision {edit} {span}"] for edit in EDITS]) for name, of in values.items()}
    over = {name: bootstrap(precision - each[LOGIT]) for name, precision in each.items()}
    better = [name for name, (_, low, _) in over.items() if low > 0]
    lens = max(better, key=lambda name: over[name][0], default=LOGIT)
    return Winner(lens=lens, precision=bootstrap(each[lens]), over_logit=over[lens])


def _mean(several: Sequence[np.ndarray]) -> np.ndarray:
    """Of what is known, by place; nan where nothing is."""
    values = np.stack(several)
    known = np.isfinite(values)
    total: np.ndarray = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), total, np.nan)
