"""Gated: one path decides whether a feature fires, another how strongly; the L1 penalty touches the first alone.

Axes    B batch row, D d_in, F d_sae.
Source  Rajamanoharan et al. 2024, "Improving Dictionary Learning with Gated Sparse Autoencoders", section 3.2 and
        appendix: the auxiliary reconstruction passes through a decoder that gets no gradient from it.
With a = u · W_enc:  π = a + b_enc (the gate's bias),  m = a e^r_mag + b_mag,  z = [π > 0] ReLU(m).
After training the two paths are one JumpReLU: π > 0 is m > b_mag - e^r_mag b_enc.
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

RISE = 0.05


@dataclass(frozen=True, kw_only=True)
class Gated:
    """d_in inputs, d_sae features; a larger l1 opens fewer gates."""

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
        zero_F = torch.zeros_like(p["b_enc"])
        return {**p, "W_dec": p["W_enc"].clone(), "r_mag": zero_F, "b_mag": zero_F.clone()}

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        batch, norm_F, gain_F = len(t_BO), p["W_dec"].norm(dim=1), p["r_mag"].exp()
        weight = self.l1 * min(moment.share / RISE, 1.0) / batch
        total: dict[str, Tensor] = {}
        errors, shards = [], moment.shards
        here = float(moment.hint) / shards.features
        for rows, code in kernels.codes(u_BD, p["W_enc"], p["b_enc"], moment.dtype, here):
            opened = code.values  # ReLU(π)
            a = opened - code.at(p["b_enc"])
            z = gate_((a * code.at(gain_F)).add_(code.at(p["b_mag"])).relu_(), opened)
            error_BO = shards.sum_features(code.decode(z, p["W_dec"])) - t_BO[rows]
            g_BO = error_BO * (2 / batch)
            aux_BO = (shards.sum_features(code.decode(opened, p["W_dec"])) - t_BO[rows]) * (2 / batch)
            # In place where it can be: each of these matrices is as large as a block.
            add_to(total, W_dec=code.outer(z, g_BO), opened=code.sums(opened), aux=aux_BO.square().sum() * (batch / 4))
            dm = gate_(code.dots(g_BO, p["W_dec"]), z)
            add_to(total, count=code.sums(z.sign_()), b_mag=code.sums(dm))
            da = dm.mul_(code.at(gain_F))
            add_to(total, r_mag=code.sums(a.mul_(da)))
            dgate = gate_(code.dots(aux_BO, p["W_dec"]).add_(code.at(norm_F * weight)), opened)
            da.add_(dgate)
            add_to(total, b_enc=code.sums(dgate), into=code.sums(da), open=code.sums(torch.sign(opened, out=dgate)))
            add_to(total, W_enc=code.outer(da, u_BD[rows]))
            errors.append(error_BO)
        opened_F, count_F, into_F = total.pop("opened"), total.pop("count"), total.pop("into")
        open_F = total.pop("open")
        error_BO, aux = torch.cat(errors), total.pop("aux")
        add_norms(total["W_dec"], p["W_dec"], opened_F * weight)
        return Outcome(
            grads=total,
            g_BO=error_BO * (2 / batch),
            into_F=into_F,
            error_BO=error_BO,
            fired_F=count_F > 0,
            entries=int(count_F.sum()),
            hint=shards.mean_rows(shards.sum_features(open_F.sum())) / batch,
            penalty=shards.add(float((opened_F * norm_F).sum())) * weight + float(aux),
        )

    def inference(self, p: Params) -> Inference:
        gain_F = p["r_mag"].exp()
        threshold = (p["b_mag"] - gain_F * p["b_enc"]).clamp_min(0.0)
        return Inference(p["W_enc"] * gain_F[:, None], p["b_mag"], threshold=threshold)
