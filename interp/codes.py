"""Items through a model and a dictionary: which feature fires where, how strongly. The one loop that encodes.

1. Items of similar length are put side by side and the model reads them once (`read_items`; blocks of text, which are of
   one length already, in their order: `read_blocks`).
2. A `Mask` says which positions count, from norms and from what the input says is real.
3. The dictionary encodes the rows of these positions, some at a time (`encode_rows`; stored activations begin here).

`encode` does all three and gives `Codes`. From an open workbench: `wb.encode(texts)`, and its spectrum and largest
activations are made of it. Whoever needs few positions only takes them from `read_items` and hands them to `encode_rows`.

Axes    B item of a batch, T position, D d_in, F d_sae, N row, P position of all items, A active entry, I item.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from interp.mask import Mask, own_tokens
from interp.models import Model
from interp.models.families import given
from interp.sae.dictionary import Dictionary, join
from interp.types import InterpError

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

ITEMS_AT_ONCE = 32
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Read:
    """Some items side by side, as the model has read them."""

    item_B: Int[np.ndarray, " B"]
    """Which of the items each row is."""
    tokens_BT: Int[Tensor, "B T"]
    place_BT: Int[Tensor, "B T"]
    """Position in the item, counted from 0; -1 at padding."""
    real_BT: Bool[Tensor, "B T"]
    """Where an item's own token stands: no padding, no first position, no separator."""
    x: dict[str, Tensor]
    """float32 activations by hook point, (B, T, width)."""


def read_blocks(
    model: Model,
    hooks: Sequence[str],
    tokens_NT: Int[Tensor, "N T"],
    *,
    separator: int,
    at_once: int = 8,
    given_N: Shaped[Tensor, "N ..."] | None = None,
) -> Iterator[Read]:
    """The model's activations on blocks of text, `at_once` of them in a pass, in their order; of places of pictures or
    clips, each with what the model is given for it (`given_N`)."""
    for first in range(0, len(tokens_NT), at_once):
        some = tokens_NT[first : first + at_once]
        its = None if given_N is None else given_N[first : first + at_once]
        yield _read(model, hooks, np.arange(first, first + len(some)), some, None, separator, its)


def read_items(
    model: Model,
    hooks: Sequence[str],
    items: Sequence[Sequence[int]],
    *,
    separator: int,
    at_once: int = ITEMS_AT_ONCE,
) -> Iterator[Read]:
    """The model's activations on items of token ids (see `Model.prompt`), those of similar length in one pass.

    Shorter items are padded on the left; where a model would read its padding, only items of one length share a pass.
    Raises InterpError when an item is empty, or longer than the model reads.
    """
    lengths = [len(item) for item in items]
    for number, length in enumerate(lengths):
        if not 0 < length <= model.n_ctx:
            raise InterpError(
                f"text {number} has {length:,} tokens with what is put in front, and {model.name} reads 1 to "
                f"{model.n_ctx:,}; " + ("shorten it." if length else "give at least one word.")
            )
    order = sorted(range(len(items)), key=lengths.__getitem__)
    alike = len(set(lengths)) > 1 and not model.masks_padding
    while order:
        some = order[:at_once]
        if alike:
            some = [i for i in some if lengths[i] == lengths[some[0]]]
        order = order[len(some) :]
        chosen = [items[i] for i in some]
        tokens_BT, real_BT = model.padded(chosen)
        here_BT = None if bool(real_BT.all()) else real_BT
        yield _read(model, hooks, np.array(some), tokens_BT, here_BT, separator, given(chosen))


def _read(
    model: Model,
    hooks: Sequence[str],
    item_B: np.ndarray,
    tokens_BT: Tensor,
    here_BT: Tensor | None,
    separator: int,
    given: Tensor | None = None,
) -> Read:
    """One pass; `here_BT` is False at padding, and None where there is none."""
    activations = model.run(tokens_BT, hooks, real_BT=here_BT, given=given).activations
    tokens_BT = tokens_BT.to(model.device)
    place_BT = torch.arange(tokens_BT.shape[1], device=model.device).expand_as(tokens_BT)
    if here_BT is not None:
        place_BT = torch.where(here_BT, here_BT.long().cumsum(1) - 1, -1)
    real_BT = own_tokens(tokens_BT, separator, place_BT)
    return Read(item_B, tokens_BT, place_BT, real_BT, {hook: activations[hook].float() for hook in hooks})


@dataclass(frozen=True, eq=False)
class Entries:
    """Active entries of rows: ascending rows, features ascending within. Arrays on the CPU."""

    row_A: Int[np.ndarray, " A"]
    feature_A: Int[np.ndarray, " A"]
    value_A: Float[np.ndarray, " A"]


def encode_rows(
    dictionary: Dictionary, x_ND: Float[Tensor, "N D"], counted_N: Bool[Tensor, " N"], *, at_once: int = ROWS_AT_ONCE
) -> Entries:
    """What is active in the counted rows, in exact float32; rows are numbered through all of `x_ND`."""
    parts = []
    with torch.inference_mode():
        for rows in counted_N.nonzero().squeeze(1).split(at_once):
            active = dictionary.active(x_ND[rows])
            row = rows.cpu()[active.rows.cpu()]
            parts.append((row.numpy(), active.features.cpu().numpy(), active.values.cpu().numpy()))
    if not parts:
        return Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    return Entries(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class Codes:
    """What is active at every position of some items, in the order of the items."""

    items: int
    d_sae: int
    item_P: Int[np.ndarray, " P"]
    place_P: Int[np.ndarray, " P"]
    """Position in the item, the prefix at 0."""
    token_P: Int[np.ndarray, " P"]
    counted_P: Bool[np.ndarray, " P"]
    """False at sinks: first positions, separators, massive norms."""
    position_A: Int[np.ndarray, " A"]
    """Of each entry, ascending; features ascend within."""
    feature_A: Int[np.ndarray, " A"]
    value_A: Float[np.ndarray, " A"]
    vocabulary: Callable[[], Sequence[str]] = field(repr=False)
    """What each token id looks like."""

    @cached_property
    def matrix(self) -> "csr_matrix":
        """float32 activations, positions × features."""
        from scipy.sparse import csr_matrix

        offsets = np.searchsorted(self.position_A, np.arange(len(self.item_P) + 1))
        return csr_matrix((self.value_A, self.feature_A, offsets), shape=(len(self.item_P), self.d_sae))

    @cached_property
    def positions(self) -> "pd.DataFrame":
        """What each row of `matrix` is: item, place in it, token id, its text, and whether it counts."""
        import pandas as pd

        text = np.array(self.vocabulary(), dtype=object)[self.token_P]
        columns = {"item": self.item_P, "place": self.place_P, "token": self.token_P, "text": text}
        return pd.DataFrame(columns | {"counted": self.counted_P})

    def largest(self) -> Float[np.ndarray, "I F"]:
        """Each feature's largest activation on each item, 0 where it never fires."""
        out = np.zeros((self.items, self.d_sae), dtype=np.float32)
        np.maximum.at(out, (self.item_P[self.position_A], self.feature_A), self.value_A)
        return out


@torch.inference_mode()
def encode(
    model: Model,
    dictionary: Dictionary,
    items: Sequence[Sequence[int]],
    mask: Mask,
    *,
    separator: int | None = None,
    include_masked: bool = False,
    at_once: int = ITEMS_AT_ONCE,
    step: Callable[[int], None] = lambda items: None,
) -> Codes:
    """The codes of items of token ids, each with its prefix (see `Model.prompt`).

    Sinks (`mask`, the model's or the given separator, first positions) have no entries unless `include_masked`. An item
    alone is encoded bit for bit as anywhere else; beside others its activations differ by float32's rounding. `step` is
    told how many items each pass has read. Raises InterpError when an item is empty or too long, and when the dictionary
    reads hook points that this model has not.
    """
    hooks = hooks_read(model, dictionary)
    lengths = np.array([len(item) for item in items], dtype=np.int64)
    first_I = np.cumsum(lengths) - lengths
    counted_P = np.zeros(int(lengths.sum()), dtype=bool)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for read in read_items(
        model, hooks, items, separator=model.separator if separator is None else separator, at_once=at_once
    ):
        here_BT, counted_BT = read.place_BT >= 0, mask.counted(read.x, read.real_BT)
        position_BT = (first_I[read.item_B][:, None] + read.place_BT.cpu().numpy()).reshape(-1)
        counted_P[position_BT[here_BT.flatten().cpu().numpy()]] = counted_BT[here_BT].cpu().numpy()
        encoded_BT = here_BT if include_masked else counted_BT
        entries = encode_rows(dictionary, join(dictionary, read.x).flatten(0, 1), encoded_BT.flatten())
        parts.append((position_BT[entries.row_A], entries.feature_A, entries.value_A))
        step(len(read.item_B))
    position_A, feature_A, value_A = _in_order(parts)
    return Codes(
        items=len(items),
        d_sae=dictionary.d_sae,
        item_P=np.repeat(np.arange(len(items)), lengths),
        place_P=np.arange(len(counted_P)) - np.repeat(first_I, lengths),
        token_P=np.fromiter((token for item in items for token in item), np.int64, len(counted_P)),
        counted_P=counted_P,
        position_A=position_A,
        feature_A=feature_A,
        value_A=value_A,
        vocabulary=lambda: model.vocabulary,
    )


def _in_order(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of all passes in order of their positions."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    position_A, feature_A, value_A = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(position_A, kind="stable")
    return position_A[order], feature_A[order], value_A[order]


def hooks_read(model: Model, dictionary: Dictionary) -> list[str]:
    """Names of the hook points that the dictionary reads; InterpError when this model alone cannot give them."""
    for hook in dictionary.reads:
        if hook.model:
            raise InterpError(
                f"{dictionary.name} reads {', '.join(map(str, dictionary.reads))}, hook points of several models, and "
                f"only {model.name} is open; train and measure it on stores of these models."
            )
        model.check_hook(hook.name)
    return [hook.name for hook in dictionary.reads]
