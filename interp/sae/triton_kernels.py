# mypy: allow-untyped-defs
"""Sparse sums on a GPU in Triton; only `gpu.py` imports this, where Triton is.

Axes    N entry, D column of a table.
What a kernel reads and writes is contiguous. Numbers are float32 but for pre-activations, which are taken as their bits.
"""

import triton
import triton.language as tl


@triton.jit
def count_over(bits_ptr, cut_ptr, counts_ptr, width, TILE: tl.constexpr):
    """Of each tile of each row, how many entries have bits over the row's cut."""
    row, tile = tl.program_id(0), tl.program_id(1)
    column = tile * TILE + tl.arange(0, TILE)
    bits = tl.load(bits_ptr + row.to(tl.int64) * width + column, mask=column < width, other=0).to(tl.int32)
    over = (bits > tl.load(cut_ptr + row)) & (column < width)
    tl.store(counts_ptr + row * tl.num_programs(1) + tile, tl.sum(over.to(tl.int32), 0))


@triton.jit
def write_over(bits_ptr, cut_ptr, ends_ptr, counts_ptr, flat_ptr, kept_ptr, width, TILE: tl.constexpr):
    """Their flat positions, ascending, and their bits; a tile's last one is the `ends`-th of all."""
    row, tile = tl.program_id(0), tl.program_id(1)
    at = row * tl.num_programs(1) + tile
    count = tl.load(counts_ptr + at)
    if count > 0:
        column = tile * TILE + tl.arange(0, TILE)
        flat = row.to(tl.int64) * width + column
        bits = tl.load(bits_ptr + flat, mask=column < width, other=0)
        over = (bits.to(tl.int32) > tl.load(cut_ptr + row)) & (column < width)
        place = tl.load(ends_ptr + at) - count - 1 + tl.cumsum(over.to(tl.int32), 0)
        tl.store(flat_ptr + place, flat, mask=over)
        tl.store(kept_ptr + place, bits, mask=over)


@triton.jit
def segment_sums(
    segments_ptr, items_ptr, weights_ptr, table_ptr, out_ptr, n, width, CHUNK: tl.constexpr, COLUMNS: tl.constexpr
):
    """out[segment] += weight * table[item] over entries in order of their segments; `out` begins as 0.

    A program has CHUNK entries, however long their segments are. A segment that lies in one chunk is written; one that
    lies in several is added up by them, in an order of the device's own.
    """
    first = tl.program_id(0) * CHUNK
    last = tl.minimum(first + CHUNK, n)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    segment = tl.load(segments_ptr + first)
    whole = tl.load(segments_ptr + tl.maximum(first - 1, 0)) != segment
    whole = whole | (first == 0)
    sums = tl.zeros((COLUMNS,), dtype=tl.float32)
    for i in range(first, last):
        now = tl.load(segments_ptr + i)
        if now != segment:
            into = out_ptr + segment.to(tl.int64) * width + column
            if whole:
                tl.store(into, sums, mask=inside)
            else:
                tl.atomic_add(into, sums, mask=inside)
            sums = tl.zeros((COLUMNS,), dtype=tl.float32)
            segment = now
            whole = first == first
        row = tl.load(items_ptr + i).to(tl.int64)
        sums += tl.load(weights_ptr + i) * tl.load(table_ptr + row * width + column, mask=inside, other=0.0)
    into = out_ptr + segment.to(tl.int64) * width + column
    after = tl.load(segments_ptr + tl.minimum(last, n - 1))
    if whole & ((last == n) | (after != segment)):
        tl.store(into, sums, mask=inside)
    else:
        tl.atomic_add(into, sums, mask=inside)


@triton.jit
def dots(left_ptr, right_ptr, one_ptr, other_ptr, out_ptr, n, width, ENTRIES: tl.constexpr, COLUMNS: tl.constexpr):
    """out[i] = one[left[i]] · other[right[i]]."""
    entry = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    there = entry < n
    left = tl.load(left_ptr + entry, mask=there, other=0).to(tl.int64) * width
    right = tl.load(right_ptr + entry, mask=there, other=0).to(tl.int64) * width
    sums = tl.zeros((ENTRIES, COLUMNS), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        mask = there[:, None] & (column < width)[None, :]
        a = tl.load(one_ptr + left[:, None] + column[None, :], mask=mask, other=0.0)
        b = tl.load(other_ptr + right[:, None] + column[None, :], mask=mask, other=0.0)
        sums += a * b
    tl.store(out_ptr + entry, tl.sum(sums, 1), mask=there)


@triton.jit
def drop_along(grad_ptr, unit_ptr, width, COLUMNS: tl.constexpr):
    """In place: each row of `grad` less its part along the row of `unit`, whose norm is 1."""
    row = tl.program_id(0).to(tl.int64) * width
    sums = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        g = tl.load(grad_ptr + row + column, mask=column < width, other=0.0)
        sums += g * tl.load(unit_ptr + row + column, mask=column < width, other=0.0)
    along = tl.sum(sums, 0)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        g = tl.load(grad_ptr + row + column, mask=column < width, other=0.0)
        w = tl.load(unit_ptr + row + column, mask=column < width, other=0.0)
        tl.store(grad_ptr + row + column, g - along * w, mask=column < width)


@triton.jit
def divide_by_norm(table_ptr, width, COLUMNS: tl.constexpr):
    """In place: each row divided by its norm."""
    row = tl.program_id(0).to(tl.int64) * width
    sums = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        w = tl.load(table_ptr + row + column, mask=column < width, other=0.0)
        sums += w * w
    norm = tl.sqrt(tl.sum(sums, 0))
    for start in range(0, width, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        w = tl.load(table_ptr + row + column, mask=column < width, other=0.0)
        tl.store(table_ptr + row + column, w / norm, mask=column < width)
