"""A trained sparse autoencoder, ready to encode: exact float32 whatever the shortcut.

Axes    B batch row, D d_in, F d_sae, K active.
"""

from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.device import native_bfloat16
from interp.sae import kernels
from interp.sae.kernels import Active
from interp.types import InterpError

Rule = Literal["jumprelu", "topk"]
CHUNK_ROWS = 512
"""Rows of pre-activations held at a time while encoding: 512 x 9216 bfloat16 is 9 MB."""


class SAE(nn.Module):
    """z = rule((x - b_dec) W_enc + b_enc);  x̂ = z W_dec + b_dec.

    The rule is `jumprelu` (a pre-activation strictly above its feature's threshold, which is at least 0, passes as it
    is) or `topk` (the k largest positive pre-activations of a row pass).
    """

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "D F"],
        b_enc: Float[Tensor, " F"],
        W_dec: Float[Tensor, "F D"],
        b_dec: Float[Tensor, " D"],
        threshold: Float[Tensor, " F"] | None = None,
        k: int | None = None,
        name: str = "sae",
        hook_name: str = "",
    ) -> None:
        super().__init__()
        if (threshold is None) == (k is None):
            raise InterpError("an SAE has either a threshold (jumprelu) or k (topk).")
        self.register_buffer("W_enc", W_enc.float())
        self.register_buffer("b_enc", b_enc.float())
        self.register_buffer("W_dec", W_dec.float())
        self.register_buffer("b_dec", b_dec.float())
        self.register_buffer("threshold", None if threshold is None else threshold.float())
        self.k = k
        self.name, self.hook_name = name, hook_name
        self.W_enc: Tensor
        self.b_enc: Tensor
        self.W_dec: Tensor
        self.b_dec: Tensor
        self.threshold: Tensor | None

    @property
    def d_in(self) -> int:
        return int(self.W_enc.shape[0])

    @property
    def d_sae(self) -> int:
        return int(self.W_enc.shape[1])

    @property
    def rule(self) -> Rule:
        return "topk" if self.threshold is None else "jumprelu"

    @cached_property
    def _W_enc_FD(self) -> Tensor:
        return self.W_enc.T.contiguous()

    @cached_property
    def _coarse(self) -> tuple[Tensor, float, float]:
        """The encoder in bfloat16, the largest norm of its rows, and of its rows' rounding errors."""
        coarse = self._W_enc_FD.to(torch.bfloat16)
        error = (self._W_enc_FD - coarse.float()).norm(dim=1).max()
        return coarse, float(coarse.float().norm(dim=1).max()), float(error)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        for cached in ("_W_enc_FD", "_coarse"):
            self.__dict__.pop(cached, None)
        return super()._apply(fn, recurse)

    def pre_activations(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        """(x - b_dec) W_enc + b_enc, dense."""
        return (x.float() - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        """Feature activations, dense (for scorers that need them so; `encode_sparse` is the fast way)."""
        pre = self.pre_activations(x)
        if self.threshold is not None:
            return pre * (pre > self.threshold)
        assert self.k is not None
        top = pre.topk(min(self.k, self.d_sae), dim=-1)
        return torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())

    def active(self, x_BD: Float[Tensor, "B D"], *, bfloat16: bool | None = None) -> Active:
        """The active entries of each row, with exact float32 values.

        With a bfloat16 product (by default where native) candidates are those whose product lies above the threshold
        less a bound on its rounding error: |x·w - x̃·w̃| <= |x-x̃||w̃| + |x||w-w̃| (Cauchy–Schwarz), plus the rounding of
        the result. Each is then computed in float32, so nothing is missed and no value is coarse.
        """
        x_BD = x_BD.float() - self.b_dec
        if bfloat16 is None:
            bfloat16 = native_bfloat16(x_BD.device)
        if self.threshold is None:
            return self._active_topk(x_BD)
        if not bfloat16:
            return self._active_dense(x_BD)
        coarse_FD, w_norm, w_error = self._coarse
        rough_BD = x_BD.to(torch.bfloat16)
        # Float32 accumulation over D terms adds less than D 2^-23 |x||w|, and the result, near the cut, is rounded by
        # at most 2^-8 of the cut.
        x_norm_B = x_BD.norm(dim=1)
        slack_B = (x_BD - rough_BD.float()).norm(dim=1) * w_norm + x_norm_B * (w_error + self.d_in * 2**-23 * w_norm)
        cut_F = self.threshold - self.b_enc
        cut_F = cut_F - cut_F.abs() * 2**-7
        # In order of their slack, so that neighbours share one bound that is tight for all of them.
        slack_B, order = (slack_B * (1 + 2**-7)).sort()
        x_BD, rough_BD = x_BD[order], rough_BD[order]
        found = []
        scratch = rough_BD.new_empty(min(CHUNK_ROWS, len(x_BD)), self.d_sae)
        for start in range(0, len(x_BD), CHUNK_ROWS):
            pre_BF = kernels.product(rough_BD[start : start + CHUNK_ROWS], coarse_FD, out=scratch)
            found.append(kernels.above(pre_BF, cut_F, slack_B[start : start + CHUNK_ROWS]) + start * self.d_sae)
        flat = torch.cat(found) if found else order
        candidates = kernels.from_flat(flat, flat.new_zeros(len(flat), dtype=torch.float32), len(x_BD), self.d_sae)
        values = kernels.dots(candidates, x_BD, self._W_enc_FD) + self.b_enc[candidates.features]
        passed = values > self.threshold[candidates.features]
        rows, features = order[candidates.rows[passed]], candidates.features[passed]
        flat, back = (rows * self.d_sae + features).sort()
        return kernels.from_flat(flat, values[passed][back], len(x_BD), self.d_sae)

    def _active_dense(self, x_BD: Tensor) -> Active:
        assert self.threshold is not None
        pre_BF = kernels.product(x_BD, self._W_enc_FD)
        flat = kernels.above(pre_BF, self.threshold - self.b_enc)
        features = flat % self.d_sae
        values = pre_BF.view(-1)[flat] + self.b_enc[features]
        passed = values > self.threshold[features]
        return kernels.from_flat(flat[passed], values[passed], len(x_BD), self.d_sae)

    def _active_topk(self, x_BD: Tensor) -> Active:
        assert self.k is not None
        top = (kernels.product(x_BD, self._W_enc_FD) + self.b_enc).topk(min(self.k, self.d_sae), dim=1)
        flat = (top.indices + torch.arange(len(x_BD), device=x_BD.device)[:, None] * self.d_sae).view(-1)
        flat, order = flat.sort()
        values = top.values.reshape(-1)[order]
        return kernels.from_flat(flat[values > 0], values[values > 0], len(x_BD), self.d_sae)

    def encode_sparse(self, x_BD: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
        """(values, indices), K the largest number active in a row; entries with value 0 are padding."""
        return self.active(x_BD).padded()

    def encode_feature(self, x: Float[Tensor, "*B D"], feature: int) -> Float[Tensor, "*B"]:
        """One feature's activation (for topk: needs the whole row, so the dense code's column)."""
        if self.threshold is None:
            return self.encode(x)[..., feature]
        pre = (x.float() - self.b_dec) @ self.W_enc[:, feature] + self.b_enc[feature]
        return pre * (pre > self.threshold[feature])

    def decode(self, z: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        return z @ self.W_dec + self.b_dec

    def reconstruct(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """decode(encode(x)) through the active entries, in float32."""
        flat = x.reshape(-1, self.d_in)
        return (kernels.decode(self.active(flat), self.W_dec) + self.b_dec).reshape(x.shape)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.reconstruct(x)

    def extra_repr(self) -> str:
        return f"{self.name!r}, d_in={self.d_in}, d_sae={self.d_sae}, rule={self.rule}"
