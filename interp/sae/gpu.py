"""What kernels.py does otherwise on a GPU of NVIDIA's: sparse sums in Triton, larger blocks, aligned products.

Axes    B row of pre-activations, F d_sae, N entry, D column.

Without Triton everything runs in plain PyTorch, with the same results but for the order of sums. Importing this does not
import it. Sums of a feature with many entries are added in an order of the device's own, so their last bits vary.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_BYTES = 2**30
"""Of pre-activations that exist at a time: a GPU's cache holds no useful block, and few large products are faster."""
ALIGN = 64
"""Columns of an encoder matrix are filled up with zeros to a multiple of this: tensor cores need rows that begin at
multiples of 16 bytes."""
SPARSE_SHARE = 1 / 192
"""As in kernels.py, reckoned and not measured; dense products cost a GPU less."""
TILE, CHUNK, COLUMNS, ENTRIES = 2048, 32, 256, 16


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def runs(x: Tensor) -> bool:
    """Whether Triton can work on the tensor."""
    return x.is_cuda and _has_triton()


@contextmanager
def whole_sums() -> Iterator[None]:
    """Within it cuBLAS adds up the parts of a bfloat16 product in float32 (by default it may do so in bfloat16, beyond any
    bound on a product's error)."""
    flags = torch.backends.cuda.matmul
    before = flags.allow_bf16_reduced_precision_reduction
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        flags.allow_bf16_reduced_precision_reduction = before


def block_rows(d_sae: int, dtype: torch.dtype) -> int:
    """Rows of pre-activations that exist at a time."""
    return max(BLOCK_BYTES // (d_sae * dtype.itemsize), 1)


def entries_over(bits_BF: Int[Tensor, "B F"], cut_B: Int[Tensor, " B"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """(flat positions, bits) of the entries whose bits lie over their row's cut, positions ascending."""
    from interp.sae import triton_kernels

    batch, width = bits_BF.shape
    tiles = -(-width // TILE)
    counts = torch.empty(batch * tiles, dtype=torch.int32, device=bits_BF.device)
    cut_B = cut_B.int()
    triton_kernels.count_over[(batch, tiles)](bits_BF, cut_B, counts, width, TILE=TILE)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    flat, kept = ends.new_empty(total), bits_BF.new_empty(total)
    if total:
        triton_kernels.write_over[(batch, tiles)](bits_BF, cut_B, ends, counts, flat, kept, width, TILE=TILE)
    return flat, kept


def segment_sums(
    segments_N: Int[Tensor, " N"],
    items_N: Int[Tensor, " N"],
    weights_N: Float[Tensor, " N"],
    table_ID: Float[Tensor, "I D"],
    count: int,
) -> Float[Tensor, "S D"]:
    """For each of `count` segments, the sum over its entries of weight times the item's row; segments ascend."""
    from interp.sae import triton_kernels

    n, width = len(segments_N), table_ID.shape[1]
    out = torch.zeros(count, width, dtype=torch.float32, device=table_ID.device)
    if n:
        grid = (-(-n // CHUNK), -(-width // COLUMNS))
        given = (segments_N.contiguous(), items_N.contiguous(), weights_N.contiguous(), table_ID.contiguous())
        triton_kernels.segment_sums[grid](*given, out, n, width, CHUNK=CHUNK, COLUMNS=COLUMNS, num_warps=2)
    return out


def dots(
    left_N: Int[Tensor, " N"], right_N: Int[Tensor, " N"], one_LD: Float[Tensor, "L D"], other_RD: Float[Tensor, "R D"]
) -> Float[Tensor, " N"]:
    """For each entry the product of its row of one table with its row of the other."""
    from interp.sae import triton_kernels

    n, width = len(left_N), one_LD.shape[1]
    out = torch.empty(n, dtype=torch.float32, device=one_LD.device)
    if n:
        given = (left_N.contiguous(), right_N.contiguous(), one_LD.contiguous(), other_RD.contiguous())
        triton_kernels.dots[(-(-n // ENTRIES),)](*given, out, n, width, ENTRIES=ENTRIES, COLUMNS=128)
    return out


def drop_along_(grad_FD: Float[Tensor, "F D"], unit_FD: Float[Tensor, "F D"]) -> None:
    """In place: each row of the gradient less its part along the unit row."""
    from interp.sae import triton_kernels

    assert grad_FD.is_contiguous()
    assert unit_FD.is_contiguous()
    triton_kernels.drop_along[(len(grad_FD),)](grad_FD, unit_FD, grad_FD.shape[1], COLUMNS=1024)


def divide_by_norm_(W_FD: Float[Tensor, "F D"]) -> None:
    """In place: each row divided by its norm."""
    from interp.sae import triton_kernels

    assert W_FD.is_contiguous()
    triton_kernels.divide_by_norm[(len(W_FD),)](W_FD, W_FD.shape[1], COLUMNS=1024)
