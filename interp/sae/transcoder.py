"""Transcoders: read one hook point, write another; with `skip`, beside a linear map from the one to the other.

Axes    B batch row, D d_in, O d_out, F d_sae.
Source  Dunefsky, Chlenski and Nanda 2024, "Transcoders Find Interpretable LLM Feature Circuits"; Paulo, Shabalin and
        Belrose 2025, "Transcoders Beat Sparse Autoencoders for Interpretability" (the skip connection).
b_dec is not taken off the input (it lives in the output's space). The decoder starts at 0 and is free in its norm;
b_enc starts as -W_enc x̄. The selection is BatchTopK's, saved as JumpReLU with a measured threshold.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.sae.architecture import Inference, Moment, Outcome, Params, Traits, check_sizes
from interp.sae.batchtopk import BatchTopK
from interp.sae.shards import ONE, Shards


@dataclass(frozen=True, kw_only=True)
class Transcoder:
    """d_in inputs at one hook point, d_out outputs at another, d_sae features, on average k active a row."""

    d_in: int
    d_out: int
    d_sae: int
    k: int
    skip: bool = False
    traits = Traits(centred=False, auxk=True, measured=True, pairs=True, rate=0.5)
    """At an SAE's rate the decoder, which starts at 0, leaves a tenth to a fifth of the features dead (docs/training.md)."""

    def __post_init__(self) -> None:
        check_sizes(d_in=self.d_in, d_out=self.d_out, d_sae=self.d_sae, k=self.k)

    def initial(self, p: Params, u_BD: Tensor, shards: Shards = ONE) -> Params:
        made = {**p, "W_dec": p["W_enc"].new_zeros(len(p["W_enc"]), self.d_out), "b_enc": -(p["W_enc"] @ u_BD.mean(0))}
        return made | ({"W_skip": p["W_enc"].new_zeros(self.d_out, self.d_in)} if self.skip else {})

    def gradients(self, p: Params, u_BD: Tensor, t_BO: Tensor, moment: Moment) -> Outcome:
        rule = BatchTopK(d_in=self.d_in, d_sae=self.d_sae, k=self.k)
        if not self.skip:
            return rule.gradients(p, u_BD, t_BO, moment)
        outcome = rule.gradients(p, u_BD, torch.addmm(t_BO, u_BD, p["W_skip"].T, alpha=-1), moment)
        outcome.grads["W_skip"] = outcome.g_BO.T @ u_BD
        return outcome

    def inference(self, p: Params) -> Inference:
        return Inference(p["W_enc"], p["b_enc"], per_row=self.k)
