"""Crosscoders: one set of features that reads and writes several hook points, or several models, at once.

Source  Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing"; the selection is
        BatchTopK's, over decoder rows of norm 1 across all hook points together.
A batch is a tuple with one tensor a hook point. Each is scaled on its own (so none drowns the others), then they lie
side by side, and a crosscoder is an SAE on the long rows: its decoder row is a feature's direction at each hook point.
"""

from dataclasses import dataclass

from torch import Tensor

from interp.sae.architecture import Inference, Moment, Outcome, Params, Traits, check_sizes
from interp.sae.batchtopk import BatchTopK
from interp.sae.shards import ONE, Shards
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Crosscoder:
    """Hook points of the given widths, d_sae shared features, on average k active a row."""

    widths: tuple[int, ...]
    d_sae: int
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise InterpError(f"widths are {self.widths}; a crosscoder needs those of two hook points or more.")
        check_sizes(d_sae=self.d_sae, k=self.k)

    @property
    def traits(self) -> Traits:
        return Traits(unit_decoder=True, auxk=True, measured=True, widths=self.widths)

    @property
    def d_in(self) -> int:
        return sum(self.widths)

    @property
    def d_out(self) -> int:
        return self.d_in

    @property
    def _rule(self) -> BatchTopK:
        return BatchTopK(d_in=self.d_in, d_sae=self.d_sae, k=self.k)

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        return self._rule.initial(p, u_BD)

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        return self._rule.gradients(p, u_BD, t_BO, moment)

    def inference(self, p: Params) -> Inference:
        return self._rule.inference(p)
