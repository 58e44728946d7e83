"""Which positions count: the one place that decides it, for training, indexes, evaluations, statistics and edits.

A position counts where the input says that it is real (a document's own token: `own_tokens`) and where it is no sink: its
norm is at most the cut-off at every hook point that is read. Sinks have norms of 100 times the median at layer 15 of
SmolLM2, and thousands of features "fire" there.

Axes    B row, T position, D width at a hook point, N position of all rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.types import InterpError

SINK_RATIO = 6.0
"""A position is a sink when its norm exceeds this many times the median."""


def norm_cutoff(norms: Float[Tensor, "*N"], real: Bool[Tensor, "*N"] | None = None) -> float:
    """`SINK_RATIO` times the median of the finite norms at real positions (all, unless told): above it are sinks.

    Raises InterpError when there is no such position.
    """
    some = norms.reshape(-1) if real is None else norms[real]
    finite = some[some.isfinite()]
    if not len(finite):
        raise InterpError(
            f"none of {len(some):,} positions has a finite norm, so no cut-off for sinks can be set; give more text, "
            "or run the model in float32."
        )
    return SINK_RATIO * float(finite.median())


def own_tokens(
    tokens: Int[Tensor, "*B T"], separator: int, position: Int[Tensor, "*B T"] | None = None
) -> Bool[Tensor, "*B T"]:
    """True where a text's own token stands: not at its first position, not at a separator.

    `position` counts from each text's own beginning, and is needed where rows are padded on the left.
    """
    own = tokens != separator
    if position is None:
        own[..., 0] = False
        return own
    return own & (position > 0)


@dataclass(frozen=True)
class Mask:
    """The norms beyond which positions are sinks, by hook point: of one dictionary, for each has its own."""

    cutoffs: Mapping[str, float]
    """By `str` of the hook point; infinity cuts nothing off."""

    def counted(self, x: Mapping[str, Tensor], real: Bool[Tensor, "*N"]) -> Bool[Tensor, "*N"]:
        """Real positions whose norm is at most the cut-off at every hook point of the mask; on `real`'s device.

        `x` has by hook point the activations, shape (*N, D), or their norms where these are known, shape (*N). What is
        not finite never counts.
        """
        counted = real
        for name, cutoff in self.cutoffs.items():
            norms = x[name] if x[name].ndim == real.ndim else x[name].float().norm(dim=-1)
            counted = counted & (norms <= cutoff).to(real.device)
        return counted
