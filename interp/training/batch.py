"""What a batch is: one tensor of rows, or a tuple of them, checked against the architecture and brought to its device.

Axes    B batch row, D d_in, O d_out.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.sae.architecture import Architecture
from interp.types import InterpError

Batch = Tensor | tuple[Tensor, ...]
"""Rows (B, d_in) of one hook point; or, for transcoders and crosscoders, as many tensors as they have hook points."""
Columns = tuple[Batch | None, ...]
"""What several runs read in one pass: a batch each, None where one has no more."""


def sides(batch: Batch, architecture: Architecture, device: torch.device) -> tuple[Tensor, Tensor]:
    """(inputs, targets) of a batch in float32 on the device, checked against the architecture; one tensor where they are
    the same. Batches reach a run through here, wherever they were made.

    Raises InterpError, saying what was given and what is needed, for anything else than such a batch.
    """
    parts = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    traits = architecture.traits
    alone: tuple[int, ...] = (architecture.d_in, architecture.d_out) if traits.pairs else (architecture.d_in,)
    wanted = traits.widths or alone
    kind = type(architecture).__name__
    for part in parts:
        if not isinstance(part, Tensor) or part.ndim != 2:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise InterpError(f"a batch is a tensor of shape (B, d_in), or a tuple of them; this one is {shape}.")
    if len(parts) != len(wanted):
        raise InterpError(f"{kind} reads batches of {len(wanted)} tensors; this one has {len(parts)}.")
    for part, width in zip(parts, wanted, strict=True):
        if part.shape[1] != width:
            raise InterpError(
                f"the batches have {part.shape[1]} columns and {kind} was made for {width} "
                f"(d_in is {architecture.d_in}); they must agree."
            )
    if traits.widths:
        long = torch.cat([part.to(device, torch.float32) for part in parts], dim=1)
        return long, long
    first = parts[0].to(device, torch.float32)
    return first, parts[1].to(device, torch.float32) if len(parts) > 1 else first


def rows_of(batch: object) -> int:
    """Rows of a batch, or of the first part of one that is there; 1 for what is no batch (`sides` says what one is)."""
    if isinstance(batch, tuple | list):
        there = [part for part in batch if part is not None]
        return rows_of(there[0]) if there else 0
    return len(batch) if isinstance(batch, Tensor) and batch.ndim else 1


def total_rows(batches: Any, column: int | None = None) -> int | None:
    """Rows that the batches (or a column of them) hold, when they say so."""
    if column is not None and hasattr(batches, "lengths"):
        return int(batches.lengths[column]) * int(batches.batch_size)
    if hasattr(batches, "__len__") and hasattr(batches, "batch_size"):
        return len(batches) * int(batches.batch_size)
    return None


def pick(batch: Any, column: int | None) -> Any:
    """The part of a batch that a run reads."""
    return batch if column is None else batch[column]


def finite_rows(x_BD: Float[Tensor, "B D"], y_BO: Float[Tensor, "B O"]) -> Bool[Tensor, " B"]:
    """True where neither inputs nor targets hold a NaN or an infinity."""
    return x_BD.sum(1).isfinite() & y_BO.sum(1).isfinite()  # isfinite of every entry makes copies


def joined(batches: list[Any], architecture: Architecture, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(inputs, targets) of the first rows of the batches on the device, one tensor where they are the same."""
    if not batches:
        return torch.zeros(0, architecture.d_in, device=device), torch.zeros(0, architecture.d_out, device=device)
    inputs, targets = zip(*(sides(batch, architecture, device) for batch in batches), strict=True)
    x_BD = torch.cat(inputs)[:rows]
    return x_BD, x_BD if inputs[0] is targets[0] else torch.cat(targets)[:rows]


def fingerprint(given: Any) -> Any:
    """Something short that differs where what is given does: tensors by shape, type and a sum of their bits by place."""
    if isinstance(given, Tensor):
        if not given.numel():
            return tuple(given.shape)
        bits = given.detach().float().contiguous().view(torch.int32)
        by_row = bits.view(len(bits), -1).sum(1) if bits.ndim else bits
        place = torch.arange(1, by_row.numel() + 1, device=bits.device)
        return tuple(given.shape), str(given.dtype), int((by_row.view(-1) * place).sum())
    if isinstance(given, list | tuple):
        return tuple(fingerprint(part) for part in given)
    return given
