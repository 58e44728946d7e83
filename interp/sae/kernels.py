"""Sparse mathematics of an SAE, with its gradients, in plain PyTorch.

Axes    B batch row, D input, F d_sae, N entry (an active feature of a row), C column of an encoder matrix.

The one dense product is the encoder's. It goes block by block, so that a block is searched for its large values while
it is still in cache and the (B, F) matrix never exists. All else touches entries only, as segment sums
(`embedding_bag`) whose cost is N * D instead of B * F * D. `Dense` has the same methods for codes that are not sparse,
as an L1-trained SAE's are when it begins. Each function has an obvious twin in tests/test_kernels.py.

Positive floats are ordered as their bits are, so searches compare integers, which is several times faster.
"""

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.sae import gpu

BLOCK_ROWS = 512
"""Rows of pre-activations that exist at a time: 512 x 9216 bfloat16 is 9 MB, which stays in cache (on a GPU: gpu.py)."""
BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


@cache
def _know_sparse_csr() -> None:
    """Make the first sparse tensor of this process, with which PyTorch says once that they are in beta (or unchecked); here to nobody."""
    nothing = torch.zeros(0, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")  # PyTorch 2.11
        torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.int64), nothing, nothing, (1, 1), check_invariants=False)


@dataclass(frozen=True)
class Active:
    """Entries in order of their rows; row b owns entries offsets[b] to offsets[b + 1]."""

    rows: Int[Tensor, " N"]
    features: Int[Tensor, " N"]
    values: Float[Tensor, " N"]
    offsets: Int[Tensor, " B1"]
    d_sae: int

    def padded(self) -> tuple[Float[Tensor, "B K"], Int[Tensor, "B K"]]:
        """(values, indices) of shape (B, K), K the largest number active in a row; value 0 fills."""
        counts = self.offsets.diff()
        width = max(int(counts.max()) if len(counts) else 0, 1)
        place = torch.arange(len(self.rows), device=self.rows.device) - self.offsets[self.rows]
        values = self.values.new_zeros(len(counts), width)
        indices = self.features.new_zeros(len(counts), width)
        values[self.rows, place] = self.values
        indices[self.rows, place] = self.features
        return values, indices

    def none(self) -> "Active":
        """The same rows without any entry."""
        nothing = self.rows[:0]
        return Active(nothing, nothing, self.values[:0], torch.zeros_like(self.offsets), self.d_sae)

    def picked(self, which_M: Int[Tensor, " M"]) -> "Active":
        """The entries of these numbers, which ascend."""
        rows, features, values = (x.index_select(0, which_M) for x in (self.rows, self.features, self.values))
        edges = torch.arange(len(self.offsets), device=rows.device)
        return Active(rows, features, values, torch.searchsorted(rows, edges), self.d_sae)

    def dense(self) -> Float[Tensor, "B F"]:
        """The entries as a matrix of rows by features, 0 where there is none."""
        out = self.values.new_zeros(len(self.offsets) - 1, self.d_sae)
        out[self.rows, self.features] = self.values
        return out

    def at(self, v_F: Tensor) -> Float[Tensor, " N"]:
        """Each entry's value of something that features have."""
        return v_F[self.features]

    def decode(self, weights_N: Float[Tensor, " N"], W_FD: Float[Tensor, "F D"]) -> Float[Tensor, "B D"]:
        """For each row, the sum over its entries of weight times the feature's row of W."""
        if gpu.runs(W_FD):
            return gpu.segment_sums(self.rows, self.features, weights_N, W_FD, len(self.offsets) - 1)
        return F.embedding_bag(
            self.features, W_FD, self.offsets, mode="sum", per_sample_weights=weights_N, include_last_offset=True
        )

    def dots(self, g_BD: Float[Tensor, "B D"], W_FD: Float[Tensor, "F D"]) -> Float[Tensor, " N"]:
        """For each entry, g[row] · W[feature]: the gradient of `decode` in its weights."""
        if gpu.runs(W_FD):
            return gpu.dots(self.rows, self.features, g_BD, W_FD)
        if g_BD.device.type == "mps":  # which has no sparse matrices
            return (g_BD[self.rows] * W_FD[self.features]).sum(-1)
        shape = len(self.offsets) - 1, self.d_sae
        _know_sparse_csr()
        where = torch.sparse_csr_tensor(
            self.offsets, self.features, torch.zeros_like(self.values), shape, check_invariants=False
        )
        return torch.sparse.sampled_addmm(where, g_BD, W_FD.T, beta=0.0).values()

    @cached_property
    def by_feature(self) -> tuple["Active", Tensor]:
        """The same entries with rows and features exchanged, so in order of their features; and that order.

        Sums over a feature's rows are its sums over entries of a row, and they are sooner done where each feature's
        weights stay in cache.
        """
        features, order = torch.sort(self.features.int(), stable=True)
        edges = torch.arange(self.d_sae + 1, device=order.device, dtype=torch.int32)
        offsets, batch = torch.searchsorted(features, edges), len(self.offsets) - 1
        rows, values = self.rows.index_select(0, order), self.values.index_select(0, order)
        return Active(features, rows, values, offsets, batch), order

    def outer(self, weights_N: Float[Tensor, " N"], y_BD: Float[Tensor, "B D"]) -> Float[Tensor, "F D"]:
        """For each feature, the sum over its entries of weight times y[row]: the gradient of `decode` in W."""
        swapped, order = self.by_feature
        return swapped.decode(weights_N.index_select(0, order), y_BD)

    def sums(self, weights_N: Float[Tensor, " N"]) -> Float[Tensor, " F"]:
        """For each feature, the sum of its entries' weights."""
        return weights_N.new_zeros(self.d_sae).index_add_(0, self.features, weights_N)


@dataclass(frozen=True)
class Dense:
    """Every feature of every row, with `Active`'s methods; entries are (B, F) matrices in the products' dtype."""

    values: Float[Tensor, "B F"]
    casts: dict[int, Tensor] = field(default_factory=dict)
    """Decoders in the products' dtype, made once for all blocks of a step."""

    def at(self, v_F: Tensor) -> Float[Tensor, " F"]:
        return v_F.to(self.values.dtype)

    def decode(self, weights_BF: Float[Tensor, "B F"], W_FD: Float[Tensor, "F D"]) -> Float[Tensor, "B D"]:
        return (weights_BF @ self._cast(W_FD)).float()

    def dots(self, g_BD: Float[Tensor, "B D"], W_FD: Float[Tensor, "F D"]) -> Float[Tensor, "B F"]:
        return g_BD.to(self.values.dtype) @ self._cast(W_FD).T

    def _cast(self, W_FD: Tensor) -> Tensor:
        if id(W_FD) not in self.casts:
            self.casts[id(W_FD)] = W_FD.to(self.values.dtype)
        return self.casts[id(W_FD)]

    def outer(self, weights_BF: Float[Tensor, "B F"], y_BD: Float[Tensor, "B D"]) -> Float[Tensor, "F D"]:
        return weights_BF.T @ y_BD.to(weights_BF.dtype)

    def sums(self, weights_BF: Float[Tensor, "B F"]) -> Float[Tensor, " F"]:
        return weights_BF.sum(0, dtype=torch.float32)


def from_flat(flat: Int[Tensor, " N"], values: Float[Tensor, " N"], batch: int, d_sae: int) -> Active:
    """Entries from positions in the flattened (B, F) matrix whose rows ascend."""
    rows = torch.div(flat, d_sae, rounding_mode="floor")
    edges = torch.arange(batch + 1, device=rows.device)
    return Active(rows, flat - rows * d_sae, values, torch.searchsorted(rows, edges), d_sae)


def encoder_matrix(
    W_FD: Float[Tensor, "F D"], b_F: Float[Tensor, " F"], dtype: torch.dtype, more_FE: Tensor | None = None
) -> Float[Tensor, "F C"]:
    """W with b as two more columns (its value in `dtype`, and what that rounds away), then `more_FE` if given.

    The bias is so added inside the product, in float32, before the result is rounded.
    """
    d = W_FD.shape[1]
    out = _aligned(len(W_FD), d + 2 + _width(more_FE), dtype, W_FD.device)
    out[:, :d] = W_FD
    out[:, d] = b_F
    out[:, d + 1] = b_F - out[:, d].to(b_F.dtype)
    if more_FE is not None:
        out[:, d + 2 : d + 2 + _width(more_FE)] = more_FE
    return out


def encoder_rows(u_BD: Float[Tensor, "B D"], dtype: torch.dtype, more_BE: Tensor | None = None) -> Float[Tensor, "B C"]:
    """Rows to multiply with an `encoder_matrix`."""
    d = u_BD.shape[1]
    out = _aligned(len(u_BD), d + 2 + _width(more_BE), dtype, u_BD.device)
    out[:, :d] = u_BD
    out[:, d : d + 2] = 1
    if more_BE is not None:
        out[:, d + 2 : d + 2 + _width(more_BE)] = more_BE
    return out


def _width(more: Tensor | None) -> int:
    return 0 if more is None else more.shape[1]


def _aligned(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty matrix; on a GPU with columns of zeros after those asked for, where its products need them."""
    if device.type != "cuda":
        return torch.empty(rows, columns, dtype=dtype, device=device)
    out = torch.empty(rows, -(-columns // gpu.ALIGN) * gpu.ALIGN, dtype=dtype, device=device)
    out[:, columns:] = 0
    return out


def blocks(rows_BC: Float[Tensor, "B C"], matrix_FC: Float[Tensor, "F C"]) -> Iterator[tuple[int, Tensor]]:
    """(first row, pre-activations) of BLOCK_ROWS rows at a time; each block is overwritten by the next."""
    size = gpu.block_rows(len(matrix_FC), rows_BC.dtype) if rows_BC.is_cuda else BLOCK_ROWS
    scratch = rows_BC.new_empty(min(size, len(rows_BC)), len(matrix_FC))
    for start in range(0, len(rows_BC), size):
        part = rows_BC[start : start + size]
        with gpu.whole_sums() if rows_BC.is_cuda else nullcontext():
            pre = torch.mm(part, matrix_FC.T, out=scratch[: len(part)])
        yield start, pre


def positive_(pre_BF: Float[Tensor, "B F"]) -> tuple[Int[Tensor, " N"], Tensor]:
    """(flat positions, values) of the positive entries, positions ascending; the matrix is used up.

    Words of eight bytes are tested first, then the members of those that are not 0.
    """
    if gpu.runs(pre_BF):
        cut_B = torch.zeros(len(pre_BF), dtype=torch.int32, device=pre_BF.device)
        flat, kept = gpu.entries_over(pre_BF.view(BITS[pre_BF.dtype]), cut_B)
        return flat, kept.view(pre_BF.dtype)
    bits = pre_BF.view(BITS[pre_BF.dtype]).clamp_(min=0).view(-1)
    n = 8 // bits.element_size()
    if len(bits) % n:
        flat = bits.nonzero().squeeze(1)
        return flat, pre_BF.view(-1).index_select(0, flat)
    # On a CPU, nonzero and index_select take a tenth of the time of indexing by a mask or by numbers.
    words = bits.view(torch.int64).nonzero().squeeze(1)
    members = bits.view(-1, n).index_select(0, words).view(-1)
    passed = members.nonzero().squeeze(1)
    flat = words.index_select(0, passed // n).mul_(n).add_(passed % n)
    return flat, members.index_select(0, passed).view(pre_BF.dtype)


def positive_entries(
    rows_BC: Float[Tensor, "B C"], matrix_FC: Float[Tensor, "F C"]
) -> tuple[Int[Tensor, " N"], Tensor]:
    """`positive_` of the whole product, without ever holding it. A cut is part of the matrix's bias."""
    found = []
    for start, pre in blocks(rows_BC, matrix_FC):
        flat, values = positive_(pre)
        found.append((flat.add_(start * pre.shape[1]), values))
    return _joined(found, rows_BC)


def _joined(parts: list[tuple[Tensor, Tensor]], rows_BC: Tensor) -> tuple[Int[Tensor, " N"], Tensor]:
    """The blocks' (positions, values) as one; no rows have none."""
    parts = parts or [(torch.zeros(0, dtype=torch.int64, device=rows_BC.device), rows_BC.new_zeros(0))]
    return torch.cat([flat for flat, _ in parts]), torch.cat([values for _, values in parts])


def row_topk(bits_BF: Int[Tensor, "B F"], k: int) -> Int[Tensor, "B k"]:
    """Columns of each row's k largest integers, in no order: a tournament between groups of columns.

    The k largest lie in the k groups with the largest maxima, so only those are looked into.
    """
    batch, width = bits_BF.shape
    n = next((n for n in (16, 4) if width % n == 0 and width >= 4 * n * k and (n == 4 or width > 2048)), 1)
    if n == 1:
        return bits_BF.topk(k, dim=1, sorted=False).indices
    groups = width // n
    best = row_topk(bits_BF.reshape(batch, n, groups).amax(1), k)
    columns = best[:, None, :] + (torch.arange(n, device=best.device) * groups)[:, None]
    columns = columns.reshape(batch, n * k)
    return columns.gather(1, row_topk(bits_BF.gather(1, columns), k))


def keep_largest(pre_BF: Float[Tensor, "B F"], k: int) -> Float[Tensor, "B F"]:
    """In place: all but each row's k largest become 0."""
    columns = row_topk(pre_BF.view(BITS[pre_BF.dtype]), k)
    kept = pre_BF.gather(1, columns)
    return pre_BF.zero_().scatter_(1, columns, kept)


def entries_topk(
    rows_BC: Float[Tensor, "B C"], matrix_FC: Float[Tensor, "F C"], k: int
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """(flat positions, values) of each row's k largest pre-activations, those that are positive; positions ascend."""
    d_sae = len(matrix_FC)
    fold = next(n for n in (64, 16, 4, 1) if d_sae % n == 0 and (d_sae >= 4 * n * k or n == 1))
    found = []
    for start, pre in blocks(rows_BC, matrix_FC):
        # At least k entries reach the k-th largest maximum of groups of columns, and not many more than k.
        bits = pre.view(BITS[pre.dtype])
        maxima = bits.view(len(pre), fold, d_sae // fold).amax(1) if fold > 1 else bits
        below = maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).sub_(1).clamp_(min=0)
        if gpu.runs(pre):
            flat, passed = gpu.entries_over(bits, below.squeeze(1))
            rows, values = torch.div(flat, d_sae, rounding_mode="floor"), passed.view(pre.dtype)
        else:
            torch.maximum(bits, below, out=bits).sub_(below)
            flat, over = positive_(pre)
            rows = torch.div(flat, d_sae, rounding_mode="floor")
            values = over.view(bits.dtype).add_(below.view(-1).index_select(0, rows)).view(pre.dtype)
        kept = _largest_of_rows(rows, values, len(pre), k)
        found.append((flat.index_select(0, kept).add_(start * d_sae), values.index_select(0, kept)))
    flat, values = _joined(found, rows_BC)
    return flat, values.float()


def _largest_of_rows(rows_N: Int[Tensor, " N"], values_N: Tensor, batch: int, k: int) -> Int[Tensor, " M"]:
    """Which entries are among their row's k largest; rows ascend."""
    offsets = torch.searchsorted(rows_N, torch.arange(batch + 1, device=rows_N.device))
    width = max(int(offsets.diff().max()), k)
    place = torch.arange(len(rows_N), device=rows_N.device) + (rows_N * width - offsets.index_select(0, rows_N))
    grid = values_N.new_zeros(batch * width).index_copy_(0, place, values_N).view(batch, width)
    best = grid.topk(k, dim=1, sorted=False).indices
    kept = torch.zeros_like(grid, dtype=torch.bool).scatter_(1, best, True)
    return kept.view(-1).index_select(0, place).nonzero().squeeze(1)


def largest(values_N: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest of positive values; among equals the first are taken."""
    if count <= 0 or count >= len(values_N):
        return torch.full_like(values_N, count > 0, dtype=torch.bool)
    edge = _edge(values_N, count)
    mask = values_N > edge
    ties = (values_N == edge).nonzero().squeeze(1)
    mask[ties[: count - int(mask.sum())]] = True
    return mask


def _edge(values_N: Tensor, count: int) -> Tensor:
    """The smallest of the `count` largest."""
    if values_N.dtype == torch.bfloat16:  # of which there are few: counting them is a tenth of the work
        bits = values_N.view(torch.int16)
        larger = torch.bincount(bits, minlength=2**15).flip(0).cumsum(0)
        return (2**15 - 1 - torch.searchsorted(larger, count)).to(torch.int16).view(torch.bfloat16)
    return values_N.topk(count, sorted=False).values.min()  # several times faster than kthvalue


SPARSE_SHARE = 1 / 48
"""Below this share of active features the sparse sums cost less than five dense products (measured at 9216)."""


def codes(
    u_BD: Float[Tensor, "B D"], W_FD: Float[Tensor, "F D"], b_F: Float[Tensor, " F"], dtype: torch.dtype, per_row: float
) -> Iterator[tuple[slice, Any]]:
    """(rows, code) whose values are the positive part of u Wᵀ + b: one `Active`, or `Dense` blocks of rows.

    `per_row` is the number of entries a row had lately; 0 when nobody knows.
    """
    rows, matrix = encoder_rows(u_BD, dtype), encoder_matrix(W_FD, b_F, dtype)
    share = gpu.SPARSE_SHARE if rows.is_cuda else SPARSE_SHARE
    if 0 < per_row < len(W_FD) * share:
        flat, values = positive_entries(rows, matrix)
        yield slice(0, len(u_BD)), from_flat(flat, values.float(), len(u_BD), len(W_FD))
        return
    casts: dict[int, Tensor] = {}
    for start, pre in blocks(rows, matrix):
        yield slice(start, start + len(pre)), Dense(pre.relu_(), casts)
