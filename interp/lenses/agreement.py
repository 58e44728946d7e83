"""How far two halves of the text lead to the same lens, seen in what is read of it.

Axes    P direction, D width at the hook point, O width of the final residual, V vocabulary.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOP = 10


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of the two halves of a fit; means over directions."""

    positions: int
    """Positions that each entry of the matrix rests on, both halves together."""
    cosine: float
    """Of what the halves map a direction to."""
    tokens: float
    """Correlation over all tokens of the scores that the halves give."""
    top: float
    """Share of one half's first TOP tokens that are among the other's."""

    @property
    def whole(self) -> float:
        """What `tokens` would be between two fits of all the text each (Spearman 1910, Brown 1910)."""
        return 2 * self.tokens / (1 + self.tokens) if self.tokens > -1 else -1.0

    def to_json(self) -> dict[str, Any]:
        """The figures, and `whole` beside them."""
        return asdict(self) | {"whole": self.whole}


@dataclass(frozen=True, eq=False)
class Readers:
    """What halves are compared by: directions that will be read, and how tokens read the final residual."""

    directions_PD: Float[Tensor, "P D"]
    readout_OV: Float[Tensor, "O V"]
    among_V: Bool[Tensor, " V"] | None = None
    """Which tokens count in `top`."""

    @cached_property
    def _metric_OO(self) -> Float[Tensor, "O O"]:
        return self.readout_OV @ self.readout_OV.T

    @torch.inference_mode()
    def agreement(self, a_OD: Float[Tensor, "O D"], b_OD: Float[Tensor, "O D"], positions: int) -> Agreement:
        """Of two fits; where both map everything to nothing they agree."""
        a_PO, b_PO = (self.directions_PD.float() @ matrix.float().T for matrix in (a_OD, b_OD))
        return Agreement(
            positions=positions,
            cosine=float(_cosine(a_PO, b_PO, None).mean()),
            tokens=float(_cosine(a_PO, b_PO, self._metric_OO).mean()),
            top=float(self._shared(a_PO, b_PO)),
        )

    def _shared(self, a_PO: Tensor, b_PO: Tensor) -> float:
        if not a_PO.any() and not b_PO.any():
            return 1.0
        firsts = []
        for mapped_PO in (a_PO, b_PO):
            scores_PV = mapped_PO @ self.readout_OV
            if self.among_V is not None:
                scores_PV.masked_fill_(~self.among_V, -torch.inf)
            firsts.append(scores_PV.topk(min(TOP, scores_PV.shape[1])).indices)
        return float((firsts[0][:, :, None] == firsts[1][:, None]).any(2).float().mean())


def _cosine(a_PO: Tensor, b_PO: Tensor, metric_OO: Tensor | None) -> Tensor:
    """Of the rows, in the metric; with the readout's, whose scores have mean 0, it is the correlation of the scores."""

    def inner(x: Tensor, y: Tensor) -> Tensor:
        return ((x if metric_OO is None else x @ metric_OO) * y).sum(1)

    norms = (inner(a_PO, a_PO) * inner(b_PO, b_PO)).clamp_min(0).sqrt()
    none = inner(a_PO, a_PO) + inner(b_PO, b_PO) <= 0
    return torch.where(none, torch.ones_like(norms), inner(a_PO, b_PO) / norms.clamp_min(1e-30))
