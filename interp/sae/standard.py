"""Standard: ReLU features held sparse by an L1 penalty that is weighted by decoder norms.

Axes    B batch row, D d_in, F d_sae.
Source  Conerly et al. 2024, "Circuits Updates, April 2024: Update on how we train SAEs":
        ‖x̂ - x‖² + l1 Σ_f z_f ‖W_dec,f‖, decoder rows of norm 0.1 at first, the penalty rising over the first twentieth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.sae import kernels
from interp.sae.architecture import (
    Inference,
    Moment,
    Outcome,
    Params,
    Traits,
    add_norms,
    add_to,
    check_positive,
    check_sizes,
    gate_,
)
from interp.sae.shards import ONE, Shards

FIRST_NORM = 0.1
RISE = 0.05


@dataclass(frozen=True, kw_only=True)
class Standard:
    """d_in inputs, d_sae features; a larger l1 makes fewer of them active."""

    d_in: int
    d_sae: int
    l1: float = 5.0
    traits = Traits()

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae)
        check_positive(l1=self.l1)

    @property
    def d_out(self) -> int:
        return self.d_in

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        return {**p, "W_enc": p["W_enc"] * FIRST_NORM, "W_dec": p["W_enc"] * FIRST_NORM}

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        batch, norm_F, shards = len(t_BO), p["W_dec"].norm(dim=1), moment.shards
        weight = self.l1 * min(moment.share / RISE, 1.0) / batch
        total: dict[str, Tensor] = {}
        errors = []
        here = float(moment.hint) / shards.features
        for rows, code in kernels.codes(u_BD, p["W_enc"], p["b_enc"], moment.dtype, here):
            z = code.values
            error_BO = shards.sum_features(code.decode(z, p["W_dec"])) - t_BO[rows]
            g_BO = error_BO * (2 / batch)
            dz = gate_(code.dots(g_BO, p["W_dec"]).add_(code.at(norm_F * weight)), z)
            add_to(total, W_enc=code.outer(dz, u_BD[rows]), b_enc=code.sums(dz))
            add_to(total, W_dec=code.outer(z, g_BO), z=code.sums(z), count=code.sums(torch.sign(z, out=dz)))
            errors.append(error_BO)
        z_F, count_F, error_BO = total.pop("z"), total.pop("count"), torch.cat(errors)
        add_norms(total["W_dec"], p["W_dec"], z_F * weight)
        return Outcome(
            grads=total,
            g_BO=error_BO * (2 / batch),
            into_F=total["b_enc"],
            error_BO=error_BO,
            fired_F=count_F > 0,
            entries=int(count_F.sum()),
            hint=shards.mean_rows(shards.sum_features(count_F.sum())) / batch,
            penalty=shards.add(float((z_F * norm_F).sum())) * weight,
        )

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], threshold=torch.zeros_like(p["b_enc"]))
