"""Two things side by side: two features on the same text, and what two lists of texts make features do; differences with intervals.

*Two features.* How alike their directions are, how often they fire together, and figures of both with the difference: a bootstrap that
draws documents, the same for both sides. It needs all activations of both, so a full index on the same text.

*Two lists of texts.* Of each text, a feature's largest activation. Where the lists are as long as each other, their texts are pairs
(first with first), and the interval is of the mean difference over pairs; else each side is drawn for itself.

Axes    U document, P text of one side, Q text of the other, F feature, N position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from interp.index import FeatureIndex
from interp.labels.testing import Ground
from interp.predicates import read_claim
from interp.search.contrast import contrast
from interp.statistics import benjamini_hochberg, bootstrap_difference, bootstrap_means, sign_flip_p
from interp.types import InterpError, check_feature
from interp.workbench.finding import feature as show_feature
from interp.workbench.inspecting import headline_of, level_of
from interp.workbench.opening import Opened
from interp.workbench.reading import largest

FEW = 6
"""Texts of a side without which there is no interval: of fewer pairs, all may differ in one direction once in twenty times by chance."""
SURE = 0.05
TEXTS = 64
"""Of a side, at most."""
TOKENS = 256
"""Of a text that are read."""


@dataclass(frozen=True)
class Differs:
    """A figure of both sides and its difference, second less first, with its 95 % interval."""

    what: str
    one: float
    other: float
    difference: float
    interval: tuple[float, float] | None
    """None where there are too few units."""
    q: float | None = None
    """Of the difference, where it is one of many that were searched (Benjamini and Hochberg)."""

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0, and q, if there is one, is at most SURE."""
        clear = self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]
        return clear and (self.q is None or self.q <= SURE)


@dataclass(frozen=True, kw_only=True)
class PairOfFeatures:
    """Two features, of one SAE or of two."""

    cosine: float | None
    """Of their decoder rows; None where these lie in different places."""
    both: int | None
    """Positions at which both fire; None where it cannot be told."""
    only_one: int | None
    only_other: int | None
    correlation: float | None
    """Of their activations over all counted positions."""
    figures: Sequence[Differs]
    documents: int
    """That the intervals are over."""
    lacks: str
    """What could not be compared, and what would bring it."""


def pair_features(one: Opened, a: int, other: Opened, b: int) -> PairOfFeatures:
    """Feature `a` of one SAE beside feature `b` of another (or the same).

    Raises InterpError when there is no such feature.
    """
    check_feature(a, one.sae.d_sae, one.card.name)
    check_feature(b, other.sae.d_sae, other.card.name)
    cosine = None
    if one.card.model_sha256 == other.card.model_sha256 and one.card.hook_name == other.card.hook_name:
        rows = [bench.sae.W_dec[f].float().cpu() for bench, f in ((one, a), (other, b))]
        cosine = float(rows[0] @ rows[1] / (rows[0].norm() * rows[1].norm()).clamp_min(1e-12))
    lacks = _lacks(one, other)
    if lacks:
        return PairOfFeatures(
            cosine=cosine,
            both=None,
            only_one=None,
            only_other=None,
            correlation=None,
            figures=[],
            documents=0,
            lacks=lacks,
        )
    x_N, y_N = _dense(one.index, a), _dense(other.index, b)
    kept_N = one.index.kept
    x_N, y_N, document_N = x_N[kept_N], y_N[kept_N], one.index.document_at[kept_N]
    figures, documents = _figures(x_N, y_N, document_N)
    figures += _labels(one, a, other, b)
    spread = float(x_N.std() * y_N.std())
    return PairOfFeatures(
        cosine=cosine,
        both=int(((x_N > 0) & (y_N > 0)).sum()),
        only_one=int(((x_N > 0) & (y_N == 0)).sum()),
        only_other=int(((x_N == 0) & (y_N > 0)).sum()),
        correlation=float(((x_N - x_N.mean()) * (y_N - y_N.mean())).mean() / spread) if spread > 0 else None,
        figures=figures,
        documents=documents,
        lacks="",
    )


def _lacks(one: Opened, other: Opened) -> str:
    for bench in (one, other):
        if bench.index.partial:
            return (
                f"How often they fire together is not known: the index of {bench.card.name} keeps examples only; "
                f"`interp index {bench.card.name}` builds the full one."
            )
    if one.index.meta["text_sha256"] != other.index.meta["text_sha256"] or len(one.index.tokens) != len(
        other.index.tokens
    ):
        return "How often they fire together is not known: the two indexes are of different texts; index both on one."
    return ""


def _dense(index: FeatureIndex, feature: int) -> np.ndarray:
    """A feature's activation at every position, float32."""
    position, value = index.fired(feature)
    out = np.zeros(len(index.tokens), dtype=np.float32)
    out[position] = value
    return out


def _figures(x_N: np.ndarray, y_N: np.ndarray, document_N: np.ndarray) -> tuple[list[Differs], int]:
    """Density and mean activation where active, of both, over documents."""
    _, own_N = np.unique(document_N, return_inverse=True)
    count = int(own_N.max()) + 1 if len(own_N) else 0
    tokens_U = np.bincount(own_N, minlength=count).astype(np.float64)
    sides = []
    for value_N in (x_N, y_N):
        fires_U = np.bincount(own_N, weights=value_N > 0, minlength=count)
        sides.append((fires_U, np.bincount(own_N, weights=value_N, minlength=count)))
    (fires, total), (fires_other, total_other) = sides
    return [
        _ratio("firings per thousand tokens", (1000 * fires, tokens_U), (1000 * fires_other, tokens_U)),
        _ratio("activation where it fires", (total, fires), (total_other, fires_other)),
    ], count


def _ratio(what: str, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> Differs:
    """A ratio of sums over documents, of both."""
    values = [float(top.sum() / max(bottom.sum(), 1e-12)) for top, bottom in (one, other)]
    return Differs(what, values[0], values[1], values[1] - values[0], bootstrap_difference(one, other, paired=True))


def _labels(one: Opened, a: int, other: Opened, b: int) -> list[Differs]:
    """F1 of both labels, where both claim something, on the documents that labels are tried on."""
    sides = []
    for bench, feature in ((one, a), (other, b)):
        said, index = headline_of(show_feature(bench, feature, looks=False)), bench.index
        if not said.claim or "about:" in said.claim:
            return []
        try:
            ground = Ground(index.passages)
            holds_P = ground.holds(read_claim(said.claim))
        except InterpError:  # no text of that split
            return []
        place, _ = ground.places(*index.fired(feature), level_of(bench, feature, said))
        held = np.flatnonzero(holds_P)
        right = ground.by_document(place[holds_P[place]])
        sides.append(
            (2 * right.astype(np.float64), (ground.by_document(place) + ground.by_document(held)).astype(np.float64))
        )
    return [_ratio("F1 of the label", sides[0], sides[1])]


# ---- texts ----


@dataclass(frozen=True, kw_only=True)
class PairOfTexts:
    """What two lists of texts make features do."""

    paired: bool
    one: int
    """Texts of the first side."""
    other: int
    features: Sequence[int]
    """Those that differ most, by the end of the interval nearer to 0 (without one, by the difference)."""
    figures: Sequence[Differs]
    """Of each: its largest activation, in units of its own largest in the index, mean over texts."""
    searched: int
    """Features that fire on any of the texts, over which q is taken."""


def pair_texts(wb: Opened, one: Sequence[str], other: Sequence[str], *, limit: int = 30) -> PairOfTexts:
    """Which features two lists of texts tell apart.

    Raises InterpError when a side is empty or has more than TEXTS texts, or a text cannot be read.
    """
    for name, side in (("first", one), ("second", other)):
        if not 1 <= len(side) <= TEXTS:
            raise InterpError(f"the {name} side has {len(side)} texts; give 1 to {TEXTS}, a line each.")
    largest_PF = largest(wb, [*one, *other], TOKENS).astype(np.float64)
    unit_F = np.maximum(wb.index.features["max"].to_numpy().astype(np.float64), 1e-6)
    x_PF, y_QF = largest_PF[: len(one)] / unit_F, largest_PF[len(one) :] / unit_F
    paired = len(one) == len(other)
    some = np.flatnonzero((x_PF.max(0) > 0) | (y_QF.max(0) > 0))
    difference_F = (y_QF.mean(0) - x_PF.mean(0))[some]
    low_F, high_F = _ends(x_PF[:, some], y_QF[:, some], paired)
    q_F = _q(x_PF[:, some], y_QF[:, some], paired)
    sure_F = np.where(np.isfinite(low_F), np.where(difference_F > 0, np.maximum(low_F, 0), np.maximum(-high_F, 0)), 0.0)
    order = np.lexsort((some, -np.abs(difference_F), -sure_F))[:limit]
    found = [
        Differs(
            str(some[at]),
            float(x_PF[:, some[at]].mean()),
            float(y_QF[:, some[at]].mean()),
            float(difference_F[at]),
            (float(low_F[at]), float(high_F[at])) if np.isfinite(low_F[at]) else None,
            float(q_F[at]),
        )
        for at in order
    ]
    features = [int(some[at]) for at in order]
    return PairOfTexts(
        paired=paired, one=len(one), other=len(other), features=features, figures=found, searched=len(some)
    )


def _q(x_PF: np.ndarray, y_QF: np.ndarray, paired: bool) -> np.ndarray:
    """By feature, over all of them: of pairs by turning signs round, else by Mann and Whitney's test; 1 with too few texts."""
    if not x_PF.shape[1] or min(len(x_PF), len(y_QF)) < FEW:
        return np.ones(x_PF.shape[1])
    if not paired:
        return contrast(x_PF, y_QF).q_F
    difference_FP = (y_QF - x_PF).T
    one_sided_F = np.minimum(sign_flip_p(difference_FP), sign_flip_p(-difference_FP))
    return benjamini_hochberg(np.minimum(2 * one_sided_F, 1.0))


def _ends(x_PF: np.ndarray, y_QF: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the difference's interval by feature; nan with too few texts."""
    if min(len(x_PF), len(y_QF)) < FEW:
        return np.full(x_PF.shape[1], np.nan), np.full(x_PF.shape[1], np.nan)
    if paired:
        return bootstrap_means((y_QF - x_PF).T)
    ends = [
        bootstrap_difference((x, np.ones(len(x))), (y, np.ones(len(y))), paired=False)
        for x, y in zip(x_PF.T, y_QF.T, strict=True)
    ]
    low, high = zip(*(end or (np.nan, np.nan) for end in ends), strict=True) if ends else ((), ())
    return np.array(low), np.array(high)
