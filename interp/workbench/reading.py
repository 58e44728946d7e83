"""Texts read by the model: which features fire on which token.

Axes    B text, T token, D d_in, N position.
"""

from collections.abc import Sequence

import numpy as np
import torch

from interp.codes import ITEMS_AT_ONCE, Codes, encode_rows, hooks_read, read_items
from interp.codes import encode as encode_items
from interp.index import Example, FeatureIndex
from interp.progress import bar
from interp.sae.dictionary import join
from interp.types import InterpError
from interp.views import Spectrum
from interp.workbench.opening import Opened

SHARES = 3
"""Features that are named where a neuron fires."""


def encode(wb: Opened, texts: Sequence[str], *, include_masked: bool = False, special: bool = False) -> Codes:
    """Every feature's activation at every position of the texts: `.matrix`, a SciPy sparse matrix of positions × features,
    and `.positions`, a table of what each row is (item, place in it, token id, text, whether it counts).

    Sinks have empty rows unless `include_masked`. Special tokens that a text spells stay text unless `special` (see
    `Model.prompt`). Texts of similar length are run together. Raises InterpError, naming the text by its number, when one
    is empty or longer than the model reads.
    """
    if isinstance(texts, str):
        raise InterpError("encode takes a list of texts; put the text into one.")
    items = []
    for number, text in enumerate(texts):
        try:
            items.append(wb.model.prompt(text, special=special))
        except InterpError as error:
            raise InterpError(f"text {number}: {error}") from None
    return _encoded(wb, items, include_masked=include_masked)


def _encoded(wb: Opened, items: Sequence[Sequence[int]], *, include_masked: bool = False) -> Codes:
    separator = wb.card.separator
    with bar("reading texts", len(items), "texts") as step:
        return encode_items(
            wb.model, wb.sae, items, wb.card.mask, separator=separator, include_masked=include_masked, step=step
        )


def spectrum(wb: Opened, text: str, *, include_masked: bool = False, special: bool = False) -> Spectrum:
    """Which features fire on each token of a text. Sinks are left out unless `include_masked`.

    Special tokens that the text spells stay text unless `special` (see `Model.prompt`).
    Raises InterpError when the text is empty or longer than the model reads.
    """
    ids = wb.model.prompt(text, special=special)
    codes = encode_items(
        wb.model, wb.sae, [ids], wb.card.mask, separator=wb.card.separator, include_masked=include_masked
    )
    vocabulary = wb.model.vocabulary
    return Spectrum(
        tokens=[vocabulary[token] for token in ids],
        counted=codes.counted_P.tolist(),
        rows=codes.position_A,
        features=codes.feature_A,
        values=codes.value_A,
    )


def largest(wb: Opened, texts: Sequence[str], tokens: int) -> np.ndarray:
    """Each feature's largest activation on the first `tokens` tokens of each text, float32 (texts, features).

    Sinks are left out, as everywhere. Texts of similar length are run together.
    """
    return _encoded(wb, [wb.model.framed(wb.model.tokenize(text)[:tokens]) for text in texts]).largest()


def untangled(wb: Opened, neurons: FeatureIndex, examples: list[Example]) -> dict[int, list[tuple[int, float, str]]]:
    """See `NeuronPage.untangled`; each example is read in its own window, without what stood before it."""
    peak_F = np.maximum(wb.index.features["max"].to_numpy(), 1e-12)
    first = [e.position - e.peak for e in examples]
    items = [
        wb.model.framed(neurons.tokens[low : low + len(e.tokens)].tolist())
        for low, e in zip(first, examples, strict=True)
    ]
    named: dict[int, list[tuple[int, float, str]]] = {}
    hooks, separator = hooks_read(wb.model, wb.sae), wb.card.separator
    for read in read_items(wb.model, hooks, items, separator=separator, at_once=ITEMS_AT_ONCE):
        some = [examples[i] for i in read.item_B]
        peak_B = torch.tensor([e.peak + 1 for e in some], device=read.place_BT.device)
        at_peak_BT = wb.card.mask.counted(read.x, read.place_BT >= 0) & (read.place_BT == peak_B[:, None])
        entries = encode_rows(wb.sae, join(wb.sae, read.x).flatten(0, 1), at_peak_BT.flatten())
        row_A = entries.row_A // read.place_BT.shape[1]
        for row in at_peak_BT.any(1).nonzero().squeeze(1).tolist():
            own = slice(*np.searchsorted(row_A, [row, row + 1]))
            share = entries.value_A[own] / peak_F[entries.feature_A[own]]
            best = np.argsort(-share, kind="stable")[:SHARES]
            pairs = zip(entries.feature_A[own][best].tolist(), share[best].tolist(), strict=True)
            named[some[row].position] = [(f, s, wb.name(f)) for f, s in pairs]
    return named
