"""Which positions of a text make pairs, for losses that compare two positions of one document (temporal contrast).

Axes    N position, P pair.
A pair lies in one block and one document, both of its positions count, and no position is in two pairs. `neighbours` are
positions t and t + 1; `document` pairs any two positions of a document's part in a block, drawn anew at each call.
Source  Bhalla et al. 2025, "Temporal Sparse Autoencoders", section 4 (neighbours) and appendix A.1.1, where a random
        earlier position of the same text was better for syntax and for semantics. There a position is in several pairs.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.types import InterpError, unknown

Pairing = Literal["neighbours", "document"]
PAIRINGS: dict[str, Pairing] = {"neighbours": "neighbours", "document": "document"}


def pairing(name: str | None, batch_size: int) -> Pairing | None:
    """The pairing of that name, checked; InterpError when there is none, and when a batch is of no whole pairs."""
    if name is None:
        return None
    if name not in PAIRINGS:
        raise unknown("pairing of rows", name, PAIRINGS)
    if batch_size % 2:
        raise InterpError(f"a batch of {batch_size} rows cannot be made of pairs; choose an even number.")
    return PAIRINGS[name]


def paired(
    kept_N: Bool[Tensor, " N"], document_N: Int[Tensor, " N"], block: int, pairs: Pairing, draw: torch.Generator
) -> Int[Tensor, "P 2"]:
    """The pairs' positions, the earlier first, in the order of the text; `draw` leaves one position of an odd run out."""
    positions, run = _runs(kept_N, document_N, block, pairs)
    if pairs == "document":
        chance = torch.rand(len(positions), generator=draw, dtype=torch.float64)
        positions = positions[torch.argsort(run + chance, stable=True)]
    length = torch.bincount(run)
    first = length.cumsum(0) - length
    # Of a run of odd length the first or the last position is left out.
    shift = (torch.rand(len(length), generator=draw) < 0.5) & (length % 2 == 1)
    rank = torch.arange(len(positions)) - (first + shift)[run]
    whole = (rank >= 0) & (rank < (length // 2 * 2)[run])
    return positions[whole].view(-1, 2).sort(dim=1).values


def paired_rows(kept_N: Bool[Tensor, " N"], document_N: Int[Tensor, " N"], block: int, pairs: Pairing) -> int:
    """Rows that `paired` gives, whatever is drawn: two a pair."""
    _, run = _runs(kept_N, document_N, block, pairs)
    return int((torch.bincount(run) // 2 * 2).sum())


def _runs(
    kept_N: Bool[Tensor, " N"], document_N: Int[Tensor, " N"], block: int, pairs: Pairing
) -> tuple[Tensor, Tensor]:
    """(positions that count, number of the run that each is in): runs within which pairs are made."""
    positions = kept_N.nonzero().squeeze(1)
    document, row = document_N[positions], positions // block
    new = (document[1:] != document[:-1]) | (row[1:] != row[:-1])
    if pairs == "neighbours":
        new |= positions.diff() != 1
    return positions, torch.cat([torch.zeros(min(len(positions), 1), dtype=torch.int64), new.cumsum(0)])
