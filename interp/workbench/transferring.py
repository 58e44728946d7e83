"""Labels carried from the open SAE to another of the same model, by features that are matched on the same text.

The text is that of the two indexes: where both are full ones of the same tokens, activations are read from them; else both
SAEs read a sample of it. Half of the sample are blocks with examples of the features in question and of those whose rows are
nearest to them, so that features which fire seldom are seen to fire; the other half lies evenly over the text.

Axes    N block, T position of a block, P counted position, F feature.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.checkpoint import Card
from interp.codes import ROWS_AT_ONCE, encode_rows, hooks_read, read_blocks
from interp.corpus import open_corpus, tokenize
from interp.index import FeatureIndex
from interp.progress import bar
from interp.render.terminal import say
from interp.sae import SAE
from interp.sae.dictionary import join
from interp.types import InterpError
from interp.workbench.opening import Opened

if TYPE_CHECKING:  # SciPy's sparse matrices are imported where they are used, for nothing else here needs them
    from scipy.sparse import csr_matrix

    from interp.labels.carrying import Carried

ENCODED, READ = 65_536, 524_288
"""Tokens of text that features are compared on unless told: where the model runs, and where activations are read."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What becomes of the labels of one SAE in another."""

    old: str
    new: str
    labels: "list[Carried]"
    text: str
    """What the features were compared on, in words."""
    positions: int
    """Counted positions of it."""
    notes: list[str] = field(default_factory=list)
    """What to bear in mind."""
    seldom: int = 0
    """Labels of features that fire too seldom in the text to be judged; more tokens may help."""
    written: int = 0


def transfer_labels(
    wb: Opened,
    into: Opened,
    *,
    write: bool = False,
    doubtful: bool = False,
    corpus: str = "",
    tokens: int | None = None,
) -> Transfer:
    """Carry this SAE's labels to the features of another SAE that are the same; nothing is written unless `write`.

    The other SAE is of the same model, and better of the same hook point too. Doubtful matches are left unless `doubtful`;
    a feature that has, or had, a label keeps it. `corpus` is a text to compare on instead of the indexes'.
    Raises InterpError when there is nothing to carry, the two cannot be compared, or there is no text.
    """
    from interp.labels.carrying import carry, plan
    from interp.labels.matching import FEW, Side, match_features

    labels = wb.labels.all()
    if wb.card.sae_sha256 == into.card.sae_sha256:
        raise InterpError(f"{wb.folder} and {into.folder} are one SAE, which has its labels already; give another one.")
    if not labels:
        raise InterpError(f"{wb.folder} has no labels on this machine, so there is nothing to carry over.")
    check_same_model(wb, into)
    notes = _check_hooks(wb.card, into.card)
    compared = _compared(wb, into, list(labels), corpus, tokens)
    sides = Side(_rows(wb.sae), compared.old), Side(_rows(into.sae), compared.new)
    planned = plan(labels, match_features(*sides, list(labels)), into.labels.taken(), doubtful=doubtful)
    if write:
        planned = carry(planned, wb.labels.sae, into.labels)
    return Transfer(
        old=str(wb.folder),
        new=str(into.folder),
        labels=planned,
        text=compared.text,
        positions=compared.old.shape[0],
        notes=notes,
        seldom=sum(min(each.match.fires, each.match.fires_new) < FEW for each in planned),
        written=sum(each.outcome == "carried" for each in planned) if write else 0,
    )


def _rows(sae: SAE) -> Tensor:
    return sae.W_dec.detach().float().cpu()


def check_same_model(wb: Opened, other: Opened) -> None:
    """Raises InterpError for SAEs of two models. A card of before may spell the hash of the same weights in another way, which
    only the model itself can tell."""
    one, two = wb.card.model_sha256, other.card.model_sha256
    if one != two and other.model.fingerprint_like(one) != one:
        raise InterpError(
            f"{wb.card.name} was made for {wb.card.model} ({one[:12]}…) and {other.card.name} for {other.card.model} "
            f"({two[:12]}…); labels are carried between SAEs of one model only."
        )


def _check_hooks(old: Card, new: Card) -> list[str]:
    """A warning where the two do not read and write the same places."""
    ways = [" → ".join(filter(None, (card.hook_name, card.hook_name_out))) for card in (old, new)]
    if ways[0] == ways[1]:
        return []
    warning = (
        f"{old.name} is of {ways[0]} and {new.name} of {ways[1]}: what a feature means at one place it need not mean at "
        "another, however alike they are."
    )
    say(f"warning: {warning}")
    return [warning]


@dataclass(frozen=True, eq=False)
class _Compared:
    """Activations of both SAEs at the same counted positions of a text."""

    old: "csr_matrix"
    new: "csr_matrix"
    text: str


def _compared(wb: Opened, into: Opened, features: list[int], corpus: str, tokens: int | None) -> _Compared:
    """What both do on the named text, or on the text of their indexes."""
    from interp.index.chosen import block_tokens, choose_blocks

    if corpus:
        return _encoded(wb, into, tokenize(open_corpus(corpus), into.model, tokens or ENCODED).tokens_NT, corpus)
    near = _nearest(wb, into, features)
    old, new = _with_text(wb), _with_text(into)
    if old is not None and new is not None and old.block == new.block and np.array_equal(old.tokens, new.tokens):
        return _on_one_text(wb, into, (old, new), (features, near), tokens)
    texts = [(index, some) for index, some in ((old, features), (new, near)) if index is not None]
    if not texts:
        raise InterpError(
            f"neither {wb.folder} nor {into.folder} has an index whose text can be read; name a text to compare the "
            "features on (--corpus wiki-en)."
        )
    texts = [text for text in texts if text[0].block == texts[0][0].block]
    parts = []
    for index, some in texts:
        chosen = choose_blocks(index, some, _blocks(tokens or ENCODED, index.block * len(texts)))
        parts.append(torch.from_numpy(block_tokens(index, chosen)))
    whose = "both indexes" if len(texts) > 1 else f"the index of {into.card.name if old is None else wb.card.name}"
    return _encoded(wb, into, torch.cat(parts), f"the text of {whose}")


def _on_one_text(
    wb: Opened,
    into: Opened,
    indexes: tuple[FeatureIndex, FeatureIndex],
    asked: tuple[list[int], list[int]],
    tokens: int | None,
) -> _Compared:
    """As the two indexes have it where both are full; else both SAEs read some blocks of their text."""
    from interp.index.chosen import block_activations, block_counted, block_tokens, choose_blocks

    old, new = indexes
    both_full = not (old.partial or new.partial)
    count = _blocks(tokens or (READ if both_full else ENCODED), old.block)
    # The examples of the one index lie in the text of the other.
    blocks = np.union1d(
        *(choose_blocks(index, some, -(-count // 2)) for index, some in zip(indexes, asked, strict=True))
    )
    if not both_full:
        return _encoded(wb, into, torch.from_numpy(block_tokens(old, blocks)), "the text of both indexes")
    counted_BT = block_counted(old, blocks) & block_counted(new, blocks)
    first, second = (block_activations(index, blocks, counted_BT) for index in indexes)
    return _Compared(first, second, "the text that both indexes were made of")


def _blocks(tokens: int, block: int) -> int:
    return max(tokens // block, 1)


def _with_text(wb: Opened) -> FeatureIndex | None:
    """The index, if there is one and its text can be read; what stands against it is said."""
    from interp.index.chosen import readable_blocks

    index = wb.index_or_none()
    try:
        return index if index is not None and len(readable_blocks(index)) else None
    except InterpError as error:
        say(f"the index of {wb.card.name} is passed over: {error}")
        return None


def _nearest(wb: Opened, into: Opened, features: list[int]) -> list[int]:
    """The other SAE's feature whose row is nearest to each feature's, each once."""
    old, new = (torch.nn.functional.normalize(_rows(each.sae), dim=1) for each in (wb, into))
    best = [(some @ new.T).argmax(1) for some in old[features].split(ROWS_AT_ONCE)]
    return list(dict.fromkeys(torch.cat(best).tolist()))


@torch.inference_mode()
def _encoded(wb: Opened, into: Opened, tokens_NT: Int[Tensor, "N T"], text: str) -> _Compared:
    """What both SAEs do on these blocks, which the model reads once; positions that count for both."""
    from scipy.sparse import csr_matrix, vstack

    model, benches = into.model, (wb, into)
    for bench in benches:
        bench.sae.to(model.device)
    hooks = list(dict.fromkeys(hook for bench in benches for hook in hooks_read(model, bench.sae)))
    rows: list[list[csr_matrix]] = [[], []]
    with bar("comparing features", tokens_NT.numel(), "tokens") as step:
        for read in read_blocks(model, hooks, tokens_NT, separator=into.card.separator):
            counted = read.real_BT
            for bench in benches:
                counted = bench.card.mask.counted(read.x, counted)
            here = counted.flatten().cpu().numpy()
            for bench, parts in zip(benches, rows, strict=True):
                entries = encode_rows(bench.sae, join(bench.sae, read.x).flatten(0, 1), counted.flatten())
                places = (entries.row_A, entries.feature_A)
                parts.append(csr_matrix((entries.value_A, places), shape=(len(here), bench.sae.d_sae))[here])
            step(read.tokens_BT.numel())
    old, new = (vstack(parts, format="csr") for parts in rows)
    return _Compared(old, new, text)
