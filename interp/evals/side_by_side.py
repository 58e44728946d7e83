"""Several dictionaries on the same tokens of one model: what each reading of each comes to, document by document.

1. `survey` reads the text once, up to the last hook point: which positions count for all of the dictionaries, the mean of
   what they write, how many entries each passes, and how strong these are.
2. `measure` reads it once more. A batch passes the model untouched, and what stands at the hook points is encoded once by each
   dictionary; a *reading* (`sae.sparser`) keeps all of the entries or the strongest. Then the batch passes the model with each
   reading's reconstruction in place, and once with zeros and once with the mean at each place that is written.

What is put in is made of the untouched activations, so that dictionaries that read several hook points, or another than they
write, need nothing of their own. Separators, first positions and whatever is a sink for one of the dictionaries stay as they
are in every pass and are not counted. Everything is kept as a sum over the positions of a document, in float64.

Axes    N block, T position, P counted position of a batch, Q prediction of a batch, D document, O d_out,
        E entry, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.codes import hooks_read, read_blocks
from interp.corpus import TokenBlocks
from interp.mask import Mask
from interp.models import Edit, Model, Site
from interp.sae import SAE
from interp.sae.dictionary import join, split
from interp.sae.sparser import Sparser
from interp.types import InterpError

Written = tuple[str, ...]
"""The hook points that a dictionary writes, as their names."""


@dataclass(frozen=True)
class Reading:
    """One dictionary at one sparsity."""

    sae: str
    """The name it is compared by."""
    wanted: int | None
    """The L0 it is read at; None: its own."""
    sparser: Sparser
    whole: bool = False
    """Whether it passes all that the dictionary passes, so that it is the reading at its own L0 once more."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What the first reading of the text gives."""

    counted_NT: Bool[Tensor, "N T"]
    mean_O: dict[Written, Float[Tensor, " O"]]
    rows: int
    strengths: dict[str, Float[Tensor, " E"]]
    """By dictionary, of every entry that it passes at counted positions."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Sums over each document's counted positions, in the order of the documents."""

    rows_D: np.ndarray
    predictions_D: np.ndarray
    """Counted positions with a token of the document after them."""
    ce_D: np.ndarray
    spread_D: dict[Written, np.ndarray]
    """Σ‖y - mean‖², the mean over all counted positions."""
    ablated_D: dict[tuple[Written, str], np.ndarray]
    """Cross entropy with zeros, or the mean, in place: `zero`, `mean`."""
    readings: dict[tuple[str, int | None], "Sums"]

    def that_count(self) -> "Documents":
        """Without the documents that have no position that counts."""
        keep_D = self.rows_D > 0
        return Documents(
            self.rows_D[keep_D], self.predictions_D[keep_D], self.ce_D[keep_D],
            {place: each_D[keep_D] for place, each_D in self.spread_D.items()},
            {key: each_D[keep_D] for key, each_D in self.ablated_D.items()},
            {key: sums.of(keep_D) for key, sums in self.readings.items()},
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sums:
    """Of one reading, by document."""

    entries_D: np.ndarray
    error_D: np.ndarray
    ce_D: np.ndarray
    kl_D: np.ndarray

    def of(self, keep_D: np.ndarray) -> "Sums":
        """Of some documents."""
        return Sums(self.entries_D[keep_D], self.error_D[keep_D], self.ce_D[keep_D], self.kl_D[keep_D])


def written(sae: SAE) -> Written:
    """The hook points that it writes."""
    return tuple(str(hook) for hook in sae.writes)


def all_hooks(model: Model, saes: Mapping[str, SAE]) -> list[str]:
    """Every hook point that one of them reads or writes.

    Raises InterpError when the model has not one of them, or its width there is another.
    """
    hooks = []
    for letter, sae in saes.items():
        hooks_read(model, sae)
        for hook in (*sae.reads, *sae.writes):
            model.check_hook(hook.name)
            width = model.width(hook.name)
            if hook.width != width:
                raise InterpError(
                    f"{letter} ({sae.name}) takes rows of width {hook.width} at {hook}, and {model.name} has width {width} "
                    "there: it was made for another model or another hook point."
                )
            hooks.append(str(hook))
    return list(dict.fromkeys(hooks))


def survey(
    model: Model, saes: Mapping[str, SAE], blocks: TokenBlocks, mask: Mask, at_once: int, step: Callable[[int], None]
) -> Survey:
    """Read the text up to the last hook point. Raises InterpError when no position counts."""
    counted, rows, total = [], 0, {written(sae): torch.zeros(sae.d_out, dtype=torch.float64) for sae in saes.values()}
    found: dict[str, list[Tensor]] = {letter: [] for letter in saes}
    hooks = all_hooks(model, saes)
    for read in read_blocks(model, hooks, blocks.tokens_NT, separator=blocks.separator, at_once=at_once):
        counted_NT = mask.counted(read.x, read.real_BT)
        here = {hook: x[counted_NT] for hook, x in read.x.items()}
        for place in total:
            total[place] += torch.cat([here[hook] for hook in place], dim=-1).cpu().double().sum(0)
        for letter, sae in saes.items():
            found[letter].append(Sparser(sae).strengths(sae.active(join(sae, here))).cpu())
        rows += int(counted_NT.sum())
        counted.append(counted_NT.cpu())
        step(read.tokens_BT.numel())
    if not rows:
        raise InterpError("no position of this text counts: all are separators or sinks; give more text.")
    means = {place: (sums / rows).float() for place, sums in total.items()}
    return Survey(torch.cat(counted), means, rows, {letter: torch.cat(each) for letter, each in found.items()})


def measure(
    model: Model,
    readings: Sequence[Reading],
    blocks: TokenBlocks,
    seen: Survey,
    at_once: int,
    step: Callable[[int], None],
) -> Documents:
    """Read the text again, with every reading in place once; the documents that have a position that counts come back."""
    saes = {reading.sae: reading.sparser.sae for reading in readings}
    documents = len(blocks.documents)

    def none() -> np.ndarray:
        return np.zeros(documents)

    sums = Documents(
        none(), none(), none(), {place: none() for place in seen.mean_O},
        {(place, how): none() for place in seen.mean_O for how in ("zero", "mean")},
        {(r.sae, r.wanted): Sums(none(), none(), none(), none()) for r in readings},
    )  # fmt: skip
    hooks = all_hooks(model, saes)
    for start in range(0, len(blocks.tokens_NT), at_once):
        batch = _Batch(model, blocks, seen, hooks, slice(start, start + at_once), documents)
        sums.rows_D[:] += batch.by_document(np.ones(len(batch.document_P)), batch.document_P)
        sums.predictions_D[:] += batch.by_document(np.ones(len(batch.document_Q)), batch.document_Q)
        sums.ce_D[:] += batch.by_document(batch.untouched_Q, batch.document_Q)
        for place, mean_O in seen.mean_O.items():
            batch.ablate(sums, place, mean_O, step)
        for letter, sae in saes.items():
            batch.put_in(sums, sae, [r for r in readings if r.sae == letter and not r.whole], step)
        step(batch.tokens_NT.numel())
    for reading in readings:
        if reading.whole:
            sums.readings[reading.sae, reading.wanted] = sums.readings[reading.sae, None]
    return sums.that_count()


class _Batch:
    """Some blocks, as they pass the model untouched, and what comes of them with something else in place."""

    def __init__(
        self, model: Model, blocks: TokenBlocks, seen: Survey, hooks: Sequence[str], some: slice, documents: int
    ) -> None:
        model.check_causal("the loss of the next token")
        self.model, self.documents = model, documents
        self.tokens_NT, self.counted_NT = blocks.tokens_NT[some], seen.counted_NT[some]
        predicted_NT = self.counted_NT.clone()
        predicted_NT[:, -1] = False
        predicted_NT[:, :-1] &= self.tokens_NT[:, 1:] != blocks.separator
        self.predicted_NT = predicted_NT
        document_NT = blocks.document_NT[some]
        self.document_P = document_NT[self.counted_NT].numpy()
        self.document_Q = document_NT[predicted_NT].numpy()
        run = model.run(self.tokens_NT, hooks, logits=True)
        assert run.logits is not None
        self.logits = run.logits
        keep = self.counted_NT
        self.x = {hook: run.activations[hook][keep.to(run.logits.device)].float() for hook in hooks}
        self.untouched_Q, _ = self._losses(run.logits)

    def by_document(self, values: np.ndarray, document: np.ndarray) -> np.ndarray:
        """Their sums, document by document."""
        return np.bincount(document, weights=values, minlength=self.documents)

    def ablate(self, sums: Documents, place: Written, mean_O: Tensor, step: Callable[[int], None]) -> None:
        """Zeros, and then the mean, at one place; and how far its activations are from their mean."""
        y_PO = torch.cat([self.x[hook] for hook in place], dim=-1)
        spread_P = (y_PO.cpu().double() - mean_O.double()).square().sum(1).numpy()
        sums.spread_D[place][:] += self.by_document(spread_P, self.document_P)
        widths = [self.x[hook].shape[-1] for hook in place]
        for how, row_O in (("zero", torch.zeros_like(mean_O)), ("mean", mean_O)):
            made = {hook: row_W.to(y_PO.device) for hook, row_W in zip(place, row_O.split(widths), strict=True)}
            ce_Q, _ = self._with(made)
            sums.ablated_D[place, how][:] += self.by_document(ce_Q, self.document_Q)
            step(self.tokens_NT.numel())

    def put_in(self, sums: Documents, sae: SAE, readings: Sequence[Reading], step: Callable[[int], None]) -> None:
        """Each reading of one dictionary, which encodes once."""
        x_PD = join(sae, self.x)
        y_PO = torch.cat([self.x[hook] for hook in written(sae)], dim=-1)
        active = sae.active(x_PD)
        for reading in readings:
            kept, into = reading.sparser.thin(active), sums.readings[reading.sae, reading.wanted]
            made_PO = sae.decode_active(kept, x_PD)
            error_P = (y_PO.to(made_PO.device) - made_PO).cpu().double().square().sum(1).numpy()
            entries_P = kept.offsets.diff().cpu().double().numpy()
            ce_Q, kl_Q = self._with(split(sae, made_PO))
            into.error_D[:] += self.by_document(error_P, self.document_P)
            into.entries_D[:] += self.by_document(entries_P, self.document_P)
            into.ce_D[:] += self.by_document(ce_Q, self.document_Q)
            into.kl_D[:] += self.by_document(kl_Q, self.document_Q)
            step(self.tokens_NT.numel())

    def _with(self, made: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """(cross entropy, KL from the untouched model) of every prediction, with these rows at the counted positions."""
        edits = [Edit(hook, _swap(self.counted_NT, rows)) for hook, rows in made.items()]
        logits = self.model.run(self.tokens_NT, edits=edits, logits=True).logits
        assert logits is not None
        return self._losses(logits)

    def _losses(self, logits_NTV: Tensor) -> tuple[np.ndarray, np.ndarray]:
        # Block by block: the logarithms of a batch in float32 would be most of the memory.
        ce, kl = [], []
        for row, keep_T in enumerate(self.predicted_NT.to(logits_NTV.device)):
            target_Q = self.tokens_NT[row, 1:].to(logits_NTV.device)[keep_T[:-1]]
            here_QV = logits_NTV[row][keep_T].float().log_softmax(-1)
            ce.append(-here_QV.gather(1, target_Q[:, None])[:, 0].cpu())
            if logits_NTV is self.logits:
                kl.append(torch.zeros(len(target_Q)))
                continue
            there_QV = self.logits[row][keep_T].float().log_softmax(-1)
            kl.append((there_QV.exp() * (there_QV - here_QV)).sum(1).cpu())
        return torch.cat(ce).double().numpy(), torch.cat(kl).double().numpy()


def _swap(counted_NT: Bool[Tensor, "N T"], rows: Float[Tensor, "... W"]) -> Callable[[Tensor, Site], Tensor]:
    def swap(x_NTW: Float[Tensor, "N T W"], site: Site) -> Float[Tensor, "N T W"]:
        keep_NT, out = counted_NT.to(x_NTW.device), x_NTW.clone()
        out[keep_NT] = rows.to(x_NTW)
        return out

    return swap
