"""A trained sparse dictionary, ready to encode: exact float32 whatever the shortcut.

Axes    B batch row, D d_in, O d_out, F d_sae, K active.
"""

from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.device import native_bfloat16
from interp.renamed import warn_renamed
from interp.sae import dictionary, kernels
from interp.sae.kernels import Active
from interp.types import Hook, Hooks, InterpError, as_hooks

Rule = Literal["jumprelu", "topk"]
ROUND_UP = 1 + 2**-6
"""So that a bound stays one when it is rounded to bfloat16, on both sides of its product."""
NEVER = 1e30
"""A threshold that no pre-activation passes, and that bounds can be computed with."""


class SAE(nn.Module):
    """z = rule((x - b_dec) W_enc + b_enc);  x̂ = z W_dec + b_dec.

    The rule is `jumprelu` (a pre-activation strictly above its feature's threshold, which is at least 0, passes as it
    is; ReLU is a threshold of 0, and +inf switches a feature off) or `topk` (the k largest positive pre-activations of
    a row pass). A transcoder is not `centred` (b_dec is not taken off x), x̂ is of another hook point, and W_skip (O, D)
    adds x W_skipᵀ.
    It reads the hook points `reads` and writes `writes`, whose rows lie side by side in x and in x̂: for an SAE both are
    one and the same, a transcoder writes another, and a crosscoder reads and writes several.
    With `tanh` (early SAELens' tanh-relu) what passes a threshold is taken as its hyperbolic tangent.

    Rows may lie on any device: every method moves what it is given to the weights', and its results stay there.
    """

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "D F"],
        b_enc: Float[Tensor, " F"],
        W_dec: Float[Tensor, "F O"],
        b_dec: Float[Tensor, " O"],
        threshold: Float[Tensor, " F"] | None = None,
        k: int | None = None,
        W_skip: Float[Tensor, "O D"] | None = None,
        centred: bool = True,
        name: str = "sae",
        reads: Hooks = (),
        writes: Hooks | None = None,
        tanh: bool = False,
        hook_name: str = "",
        hook_name_out: str = "",
        widths: tuple[int, ...] = (),
    ) -> None:
        """Weights in any float type, kept as float32; `reads` and `writes` as in `set_hooks`.

        `hook_name`, `hook_name_out` and `widths` are what `reads` and `writes` were before there were these.
        Raises InterpError when it has both a threshold and k, or neither, and when hook points do not fit the weights.
        """
        super().__init__()
        if (threshold is None) == (k is None):
            raise InterpError("an SAE has either a threshold (jumprelu) or k (topk).")
        if tanh and threshold is None:
            raise InterpError("tanh is taken of what passes a threshold; an SAE of the k largest has none.")
        self.register_buffer("W_enc", W_enc.float())
        self.register_buffer("b_enc", b_enc.float())
        self.register_buffer("W_dec", W_dec.float())
        self.register_buffer("b_dec", b_dec.float())
        self.register_buffer("threshold", None if threshold is None else threshold.float())
        self.register_buffer("W_skip", None if W_skip is None else W_skip.float())
        self.k, self.centred, self.tanh = k, centred, tanh
        self.name = name
        self._reads: tuple[Hook, ...] = ()
        self._writes: tuple[Hook, ...] = ()
        self.W_enc: Tensor
        self.b_enc: Tensor
        self.W_dec: Tensor
        self.b_dec: Tensor
        self.threshold: Tensor | None
        self.W_skip: Tensor | None
        if hook_name or hook_name_out or widths:
            warn_renamed("SAE(hook_name, hook_name_out, widths)", "SAE(reads, writes)")
            reads = dictionary.with_widths(as_hooks(hook_name), widths)
            writes = hook_name_out or None
        self.set_hooks(reads, writes)

    @property
    def reads(self) -> tuple[Hook, ...]:
        """The hook points whose rows lie side by side in what it takes, each with its width; at least one."""
        return self._reads

    @property
    def writes(self) -> tuple[Hook, ...]:
        """The hook points whose rows lie side by side in what it gives back, each with its width; at least one."""
        return self._writes

    def set_hooks(self, reads: Hooks, writes: Hooks | None = None) -> None:
        """Name the hook points that it reads, and those that it writes where they are others.

        Widths that are not told are those of before, or what the weights leave for the one that is missing. Without
        `writes` an autoencoder writes what it reads, and a transcoder a hook point without a name.
        Raises InterpError when widths do not add up to `d_in` and `d_out`.
        """
        read = dictionary.fit(as_hooks(reads), self.d_in, self._reads, f"{self.name} reads")
        if writes is None and not self._is_transcoder:
            written = read
        else:
            written = dictionary.fit(as_hooks(writes or ()), self.d_out, self._writes, f"{self.name} writes")
        self._reads, self._writes = read, written

    @property
    def _is_transcoder(self) -> bool:
        """Whether its weights alone say so: one that writes as much as it reads need not."""
        return self.W_skip is not None or self.d_in != self.d_out

    @property
    def hook_name(self) -> str:
        """What it reads as cfg.json and card.json spell it: `h`, or `h1+h2`; `reads` has them apart."""
        return "+".join(map(str, self.reads)) if any(hook.name for hook in self.reads) else ""

    @hook_name.setter
    def hook_name(self, name: str) -> None:
        warn_renamed("setting SAE.hook_name", "SAE.set_hooks")
        self.set_hooks(name, self.hook_name_out or None)

    @property
    def hook_name_out(self) -> str:
        """What it writes, spelt like `hook_name`, where that is not what it reads; else empty."""
        if self.writes == self.reads or not any(hook.name for hook in self.writes):
            return ""
        return "+".join(map(str, self.writes))

    @hook_name_out.setter
    def hook_name_out(self, name: str) -> None:
        warn_renamed("setting SAE.hook_name_out", "SAE.set_hooks")
        self.set_hooks(self.reads, name or None)

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of what a crosscoder reads; empty where one hook point is read."""
        return tuple(hook.width for hook in self.reads) if len(self.reads) > 1 else ()

    def direction(self, feature: int, hook: Hook | str | None = None) -> Float[Tensor, " D"]:
        """The feature's decoder row, or the part of it that is written at one of several hook points.

        Raises InterpError when there is no such feature or hook point, and when none of several is named.
        """
        return dictionary.direction(self, feature, hook)

    @property
    def d_in(self) -> int:
        """Columns of what it takes."""
        return int(self.W_enc.shape[0])

    @property
    def d_out(self) -> int:
        """Columns of what it gives back; an autoencoder has d_in of them."""
        return int(self.W_dec.shape[1])

    @property
    def d_sae(self) -> int:
        """Features."""
        return int(self.W_enc.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so every result."""
        return self.b_dec.device

    @property
    def rule(self) -> Rule:
        """`jumprelu` or `topk`: what passes, see the class."""
        return "topk" if self.threshold is None else "jumprelu"

    @cached_property
    def _W_enc_FD(self) -> Tensor:
        return self.W_enc.T.contiguous()

    @cached_property
    def _bounds(self) -> dict[torch.dtype, Tensor]:
        """By dtype: the encoder's matrix less thresholds, with columns that bound its rounding (see `active`)."""
        return {}

    def _coarse(self, dtype: torch.dtype) -> Tensor:
        bounds = self._bounds  # this one, though another thread may move the weights and begin another
        if dtype not in bounds:
            W, shift = self._W_enc_FD, self.b_enc
            if self.threshold is not None:  # +inf switches a feature off, and inf - inf would be no bound
                shift = shift - self.threshold.clamp_max(NEVER)
            rounded = W.to(dtype).float()
            lost = (W - rounded).norm(dim=1) + self.d_in * 2**-23 * rounded.norm(dim=1)
            more = torch.stack([rounded.norm(dim=1), lost, shift.abs() * 2**-15], dim=1) * ROUND_UP
            bounds[dtype] = kernels.encoder_matrix(W, shift, dtype, more)
        return bounds[dtype]

    def _forget(self) -> None:
        """Drop what was derived from weights that are about to change."""
        for cached in ("_W_enc_FD", "_bounds"):
            self.__dict__.pop(cached, None)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self._forget()
        return super()._load_from_state_dict(*args, **kwargs)

    def pre_activations(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        """(x - b_dec) W_enc + b_enc, dense."""
        return self._input(x) @ self.W_enc + self.b_enc

    def _input(self, x: Tensor) -> Tensor:
        x = self._here(x)
        return x - self.b_dec if self.centred else x

    def _here(self, x: Tensor) -> Tensor:
        """In float32 on the weights' device."""
        return x.to(self.device, torch.float32)

    def encode(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        """Feature activations, dense (for scorers that need them so; `encode_sparse` is the fast way)."""
        pre = self.pre_activations(x)
        if self.threshold is not None:
            return self._taken(pre * (pre > self.threshold))
        assert self.k is not None
        top = pre.topk(min(self.k, self.d_sae), dim=-1)
        return torch.zeros_like(pre).scatter_(-1, top.indices, top.values.relu())

    def _taken(self, passed: Tensor) -> Tensor:
        """The activation of what passed its threshold; 0 stays 0."""
        return passed.tanh() if self.tanh else passed

    def active(self, x_BD: Float[Tensor, "B D"], *, bfloat16: bool | None = None) -> Active:
        """The active entries of each row, features ascending, with exact float32 values.

        The product (in bfloat16 by default where native) only proposes: candidates are the entries that it puts above
        the threshold less a bound on its error, |x·w - x̃·w̃| <= |x-x̃||w̃| + |x||w-w̃| (Cauchy–Schwarz) and what
        float32 accumulation and the bias lose. The bound is three more columns of the product. Each candidate is then
        computed in float32, so nothing is missed and no value is coarse.
        """
        u_BD = self._input(x_BD)
        if self.threshold is None:
            return self._active_topk(u_BD)
        if bfloat16 is None:
            bfloat16 = native_bfloat16(u_BD.device)
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        norm_B = u_BD.norm(dim=1)
        lost_B = (u_BD - u_BD.to(dtype).float()).norm(dim=1)
        more = torch.stack([lost_B, norm_B, torch.ones_like(norm_B)], dim=1) * ROUND_UP
        flat, _ = kernels.positive_entries(kernels.encoder_rows(u_BD, dtype, more), self._coarse(dtype))
        candidates = kernels.from_flat(flat, flat.new_zeros(len(flat), dtype=torch.float32), len(u_BD), self.d_sae)
        values = candidates.dots(u_BD, self._W_enc_FD) + candidates.at(self.b_enc)
        passed = values > candidates.at(self.threshold)
        return kernels.from_flat(flat[passed], self._taken(values[passed]), len(u_BD), self.d_sae)

    def _active_topk(self, u_BD: Tensor) -> Active:
        assert self.k is not None
        rows = kernels.encoder_rows(u_BD, torch.float32)
        flat, values = kernels.entries_topk(
            rows, self._coarse(torch.float32)[:, : rows.shape[1]], min(self.k, self.d_sae)
        )
        return kernels.from_flat(flat, values, len(u_BD), self.d_sae)

    def encode_sparse(self, x_BD: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
        """(values, indices), K the largest number active in a row; entries with value 0 are padding."""
        return self.active(x_BD).padded()

    def encode_feature(self, x: Float[Tensor, "*B D"], feature: int) -> Float[Tensor, "*B"]:
        """One feature's activation (for topk: needs the whole row, so the dense code's column)."""
        if self.threshold is None:
            return self.encode(x)[..., feature]
        pre = self._input(x) @ self.W_enc[:, feature] + self.b_enc[feature]
        return self._taken(pre * (pre > self.threshold[feature]))

    def decode(self, z: Float[Tensor, "*B F"]) -> Float[Tensor, "*B O"]:
        """The reconstruction from a dense code, without the part of a skip connection (see `decode_active`)."""
        return self._here(z) @ self.W_dec + self.b_dec

    def decode_active(self, active: Active, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """The reconstruction from the active entries of x, with the skip connection's part where there is one."""
        out = active.decode(active.values, self.W_dec) + self.b_dec
        return out if self.W_skip is None else out + self._here(x_BD) @ self.W_skip.T

    def reconstruct(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        """decode(encode(x)) through the active entries, in float32."""
        flat = x.reshape(-1, self.d_in)
        return self.decode_active(self.active(flat), flat).reshape(*x.shape[:-1], self.d_out)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B O"]:
        """As `reconstruct`."""
        return self.reconstruct(x)

    def extra_repr(self) -> str:
        return f"{self.name!r}, d_in={self.d_in}, d_sae={self.d_sae}, rule={self.rule}"
