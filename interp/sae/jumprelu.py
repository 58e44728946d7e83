"""JumpReLU: a threshold for each feature, learnt through a window of width `bandwidth` around it.

Axes    B batch row, D d_in, F d_sae.
Source  z = p [p > θ] for pre-activations p; K = [|p - θ| < ε/2], ∂z/∂θ = -(θ/ε) K and ∂‖z‖₀/∂θ = -(1/ε) K.
        step       ‖e‖² + c ‖z‖₀: Rajamanoharan et al. 2024, "Jumping Ahead", section 3; gradients of the jump reach θ only.
        quadratic  ‖e‖² + c (L0 / l0 - 1)²: a target L0 held, as in Gemma Scope 2.
        tanh       ‖e‖² + c Σ tanh(4 z ‖w‖) + 3e-6 Σ ReLU(θ - p) ‖w‖: Conerly et al. 2025, "Circuits Updates, January
                   2025"; the jump's gradient reaches p as well, c rises over the whole run.
θ itself is the parameter, in float32 and never below 0: as a logarithm it hardly moves under Adam. Published starts
(θ of 0.001) need billions of tokens; here θ (in `tanh` the bias) starts where the
target, or `FIRST_L0` features a row, are active.
"""

from dataclasses import dataclass
from typing import Any

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
)
from interp.sae.shards import ONE, Shards
from interp.types import InterpError, unknown

FORMS = {"step": (1.5, 0.2), "quadratic": (None, 0.2), "tanh": (2.0, 2.0)}
"""Of each form, the coefficient (None: d_in) and the bandwidth that are taken when none is given."""
FIRST_L0 = 128
TANH_SLOPE = 4.0
TANH_THRESHOLD = 0.1
PRE_WEIGHT = 3e-6
THRESHOLD_RATE = 10.0
"""Encoders change faster than thresholds can follow at their rate: on SmolLM2 L0 fell to 11 of 32 within a million
tokens."""


@dataclass(frozen=True, kw_only=True)
class JumpReLU:
    """d_in inputs, d_sae features; `coefficient` weighs sparsity, and `l0` is what the quadratic form aims at."""

    d_in: int
    d_sae: int
    form: str = "quadratic"
    l0: float = 32.0
    """Active features a row to aim at (quadratic only)."""
    coefficient: float | None = None
    """c; without: 1.5 (step), d_in (quadratic), 2 (tanh)."""
    bandwidth: float | None = None
    """ε; without: 0.2 (step, quadratic), 2 (tanh)."""
    traits = Traits(threshold_rate=THRESHOLD_RATE)

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_sae=self.d_sae)
        if self.form not in FORMS:
            raise unknown("form of JumpReLU", self.form, FORMS)
        for name, value in zip(("coefficient", "bandwidth"), FORMS[self.form], strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value or float(self.d_in))
        if self.form == "quadratic" and self.l0 > self.d_sae:
            raise InterpError(f"l0 is {self.l0:g}, more than the {self.d_sae} features; aim at fewer, or raise d_sae.")
        check_positive(l0=self.l0, coefficient=float(self.coefficient or 0), bandwidth=float(self.bandwidth or 0))

    @property
    def d_out(self) -> int:
        return self.d_in

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        some = u_BD[:: max(len(u_BD) // 64, 1)]
        pre = (some @ p["W_enc"].T).view(-1)
        first = self.l0 if self.form == "quadratic" else FIRST_L0
        wanted = max(min(round(first * len(some)), pre.numel() * shards.features // 4), 1)
        best = pre.topk(min(wanted, pre.numel())).values
        level = shards.gather_features(best).topk(wanted).values[-1].clamp_min(1e-3)
        made = {**p, "W_dec": p["W_enc"].clone()}
        if self.form == "tanh":
            return made | {"b_enc": p["b_enc"] - level, "threshold": torch.full_like(p["b_enc"], TANH_THRESHOLD)}
        return made | {"threshold": torch.ones_like(p["b_enc"]) * level}

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        batch, half, shards = len(t_BO), float(self.bandwidth or 0) / 2, moment.shards
        theta_F = p["threshold"]
        total: dict[str, Any] = {}
        errors = []
        # Entries are p > θ - ε/2, and their values the excess over that: nothing below it has a value or a gradient.
        shifted = p["b_enc"] - theta_F + half
        here = float(moment.hint) / shards.features
        for rows, code in kernels.codes(u_BD, p["W_enc"], shifted, moment.dtype, here):
            over = code.values - half  # p - θ
            passed = (over > 0).to(over.dtype)
            window = ((over > -half) & (over < half)).to(over.dtype)
            z = (over + code.at(theta_F)) * passed
            error_BO = shards.sum_features(code.decode(z, p["W_dec"])) - t_BO[rows]
            g_BO = error_BO * (2 / batch)
            dz = code.dots(g_BO, p["W_dec"])
            if self.form == "tanh":
                dz, sums = self._tanh(p, code, z, passed, over, dz, u_BD[rows], moment.share / batch)
                add_to(total, **sums)
            # In place from here: each of these matrices is as large as a block.
            add_to(total, W_dec=code.outer(z, g_BO), window=code.sums(window), count=code.sums(passed))
            add_to(total, threshold=code.sums(torch.mul(dz, window, out=over)))
            add_to(total, entries=code.sums(torch.sign(code.values, out=z)).sum())
            into = passed.add_(window.mul_(code.at(theta_F / (2 * half)))) if self.form == "tanh" else passed
            into.mul_(dz)
            add_to(total, W_enc=code.outer(into, u_BD[rows]), b_enc=code.sums(into))
            errors.append(error_BO)
        window_F, count_F = total.pop("window"), total.pop("count")
        hint = shards.mean_rows(shards.sum_features(total.pop("entries"))) / batch
        total["threshold"] = total["threshold"] * theta_F / (-2 * half)
        penalty = self._penalty(p, total, window_F, count_F, u_BD, batch, half, shards)
        error_BO = torch.cat(errors)
        return Outcome(
            grads=total,
            g_BO=error_BO * (2 / batch),
            into_F=total["b_enc"],
            error_BO=error_BO,
            fired_F=count_F > 0,
            entries=int(count_F.sum()),
            hint=hint,
            penalty=penalty,
        )

    def _tanh(
        self, p: Params, code: Any, z: Tensor, passed: Tensor, over: Tensor, dz: Tensor, u_BD: Tensor, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """dz with the tanh penalty's part, and the sums that `_penalty` needs."""
        norm, weight = code.at(p["W_dec"].norm(dim=1)), float(self.coefficient or 0) * share
        squashed = (z * norm * TANH_SLOPE).tanh()
        slope = (1 - squashed.square()) * (weight * TANH_SLOPE)
        return dz + slope * norm, {
            "tanh": code.sums(squashed).sum() * weight,
            "norm": code.sums(slope * z),
            "passed_u": code.outer(passed, u_BD),
            "passed_over": code.sums(over * passed),
        }

    def _penalty(
        self,
        p: Params,
        total: dict[str, Any],
        window_F: Tensor,
        count_F: Tensor,
        u_BD: Tensor,
        batch: int,
        half: float,
        shards: Shards,
    ) -> float:
        """The loss beside the squared error; its gradients are added to `total`."""
        c, l0 = float(self.coefficient or 0), float(shards.mean_rows(shards.sum_features(count_F.sum()))) / batch
        if self.form == "tanh":
            return shards.add(float(total.pop("tanh")) + self._pre_activations(p, total, count_F, u_BD, batch))
        per_feature = c if self.form == "step" else 2 * c * (l0 / self.l0 - 1) / self.l0
        total["threshold"] -= window_F * (per_feature / (2 * half * batch))
        return c * l0 if self.form == "step" else c * (l0 / self.l0 - 1) ** 2

    def _pre_activations(self, p: Params, total: dict[str, Any], count_F: Tensor, u_BD: Tensor, batch: int) -> float:
        """PRE_WEIGHT Σ ReLU(θ - p) ‖w‖, summed over the rows where a feature is silent as all rows less the others."""
        norm_F, theta_F = p["W_dec"].norm(dim=1), p["threshold"]
        weight_F = norm_F * (PRE_WEIGHT / batch)
        u_D = u_BD.sum(0)
        silent_F = batch - count_F
        short_F = batch * (theta_F - p["b_enc"]) - p["W_enc"] @ u_D + total.pop("passed_over")
        total["W_enc"] -= weight_F[:, None] * (u_D - total.pop("passed_u"))
        total["b_enc"] -= weight_F * silent_F
        total["threshold"] += weight_F * silent_F
        by_norm_F = total.pop("norm") + short_F * (PRE_WEIGHT / batch)
        add_norms(total["W_dec"], p["W_dec"], by_norm_F)
        return float((weight_F * short_F).sum())

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], threshold=p["threshold"].clamp_min(0.0))
