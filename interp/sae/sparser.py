"""An SAE read at another sparsity than its own: only the strongest of what it passes, the SAE itself left as it is.

How strong an active entry is, is the norm of what it writes: its activation times the norm of its feature's decoder row, so
that it does not depend on how a library shares a feature's size between encoder and decoder. What an entry adds to the
squared error when it is dropped alone is the square of that, where decoder rows are orthogonal. An SAE of the rule `topk`
keeps the k strongest of each row (`keep_strongest`), as one with a smaller k would; an SAE with thresholds keeps what is at
least as strong as one level for all rows (`keep_above`), as one with higher thresholds would. Neither can pass more than
the SAE does, and values are not changed: an SAE that was trained at the lower L0 would have other ones.

Axes    B batch row, N entry, F d_sae, D d_in, O d_out.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.sae import kernels
from interp.sae.kernels import Active
from interp.sae.sae import SAE
from interp.types import Hook, InterpError


def keep_above(active: Active, strength_N: Float[Tensor, " N"], level: float) -> Active:
    """The entries that are at least so strong."""
    return _kept(active, strength_N >= level)


def keep_strongest(active: Active, strength_N: Float[Tensor, " N"], k: int) -> Active:
    """The k strongest entries of each row, all of a row that has fewer; of equals the one of the lower feature."""
    order = torch.argsort(-strength_N, stable=True)
    order = order[torch.argsort(active.rows[order], stable=True)]
    rank_N = torch.empty_like(order)
    rank_N[order] = torch.arange(len(order), device=order.device) - active.offsets[active.rows[order]]
    return _kept(active, rank_N < k)


def level_of(strength_N: Float[Tensor, " N"], entries: int) -> float:
    """The level that so many of the entries reach (more, where some are as strong as the last of them).

    Raises InterpError when there are not so many, and for none.
    """
    if not 0 < entries <= len(strength_N):
        raise InterpError(f"{entries:,} entries were asked of {len(strength_N):,}; ask for a smaller L0.")
    return float(strength_N.kthvalue(len(strength_N) - entries + 1).values)


def _kept(active: Active, keep_N: Bool[Tensor, " N"]) -> Active:
    flat = (active.rows * active.d_sae + active.features)[keep_N]
    return kernels.from_flat(flat, active.values[keep_N], len(active.offsets) - 1, active.d_sae)


@dataclass(frozen=True, eq=False)
class Sparser:
    """A dictionary that passes the strongest of what an SAE passes: `k` in each row, or all from `level` on.

    Without either it passes what the SAE passes.
    """

    sae: SAE
    level: float | None = None
    k: int | None = None

    def thin(self, active: Active) -> Active:
        """Those of the SAE's own active entries that it passes."""
        if self.level is None and self.k is None:
            return active
        if self.level is not None:
            active = keep_above(active, self.strengths(active), self.level)
        return active if self.k is None else keep_strongest(active, self.strengths(active), self.k)

    def strengths(self, active: Active) -> Float[Tensor, " N"]:
        """The norm of what each entry writes."""
        return active.values.abs() * active.at(self._norm_F)

    @cached_property
    def _norm_F(self) -> Tensor:
        return self.sae.W_dec.norm(dim=1)

    def active(self, x_BD: Float[Tensor, "B D"], /) -> Active:
        """The active entries of each row."""
        return self.thin(self.sae.active(x_BD))

    def reconstruct(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """What they come to."""
        return self.decode_active(self.active(x_BD), x_BD)

    def decode_active(self, active: Active, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """What active entries come to; as the SAE's."""
        return self.sae.decode_active(active, x_BD)

    @property
    def name(self) -> str:
        return self.sae.name

    @property
    def reads(self) -> tuple[Hook, ...]:
        return self.sae.reads

    @property
    def writes(self) -> tuple[Hook, ...]:
        return self.sae.writes

    @property
    def d_in(self) -> int:
        return self.sae.d_in

    @property
    def d_out(self) -> int:
        return self.sae.d_out

    @property
    def d_sae(self) -> int:
        return self.sae.d_sae

    @property
    def W_dec(self) -> Tensor:
        return self.sae.W_dec

    def direction(self, feature: int, hook: Hook | str | None = None) -> Tensor:
        """What a unit of the feature writes at a hook point."""
        return self.sae.direction(feature, hook)
