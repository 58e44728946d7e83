"""Texts read by the model: which features fire on which token.

Axes    B text, T token, D d_in, N position.
"""

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import places
from interp.circuits.logit_lens import LayerReadings, read_layers
from interp.circuits.points import RESIDUAL, each_layer
from interp.codes import ITEMS_AT_ONCE, Codes, encode_rows, hooks_read, read_items
from interp.codes import encode as encode_items
from interp.index import Example, FeatureIndex
from interp.progress import bar
from interp.sae.dictionary import join, reads_what_it_writes
from interp.types import InterpError
from interp.views import Spectrum
from interp.workbench.looking import medium
from interp.workbench.opening import Opened

LAYERS = 8
"""Depths at which a text is read by the logit lens: each costs a pass."""
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
    """Which features fire on each token of a text, or on each patch or frame of a picture or clip, which is named by its file.
    Sinks are left out unless `include_masked`.

    Special tokens that the text spells stay text unless `special` (see `Model.prompt`).
    Raises InterpError when the text is empty or longer than the model reads.
    """
    ids = wb.model.prompt(text, special=special)
    vocabulary, separator = wb.model.vocabulary, wb.card.separator
    with torch.inference_mode():
        (read,) = read_items(wb.model, hooks_read(wb.model, wb.sae), [ids], separator=separator, at_once=ITEMS_AT_ONCE)
        counted_T = wb.card.mask.counted(read.x, read.real_BT)[0]
        x_TD = join(wb.sae, read.x)[0]
        entries = encode_rows(wb.sae, x_TD, torch.ones_like(counted_T) if include_masked else counted_T)
    return Spectrum(
        tokens=[vocabulary[token] for token in ids],
        counted=counted_T.tolist(),
        rows=entries.row_A,
        features=entries.feature_A,
        values=entries.value_A,
        unexplained=_unexplained(wb, x_TD, counted_T) if reads_what_it_writes(wb.sae) else None,
        medium=None if wb.model.media is None else medium(wb, places.named_file(text)),
    )


def layers_say(wb: Opened, text: str, *, depths: int = LAYERS) -> LayerReadings:
    """What the model's layers would say after each token of a text (`circuits.logit_lens`), at so many depths: the last residual
    stream, the SAE's own where it is one, and others spread evenly before them.

    Raises InterpError when the text is empty or longer than the model reads, and for a model that does not say what comes next.
    """
    model = wb.model
    model.check_causal("what layers say next")
    names, final = each_layer(model, RESIDUAL), model.last_residual
    own = [
        f"blocks.{int(at) + 1}.{RESIDUAL}" for at in re.findall(r"^blocks\.(\d+)\.hook_resid_post$", wb.card.hook_name)
    ]
    kept = {
        names[at] for at in np.linspace(1, len(names) - 1, min(depths, len(names) - 1)).round().astype(int).tolist()
    }
    chosen = [name for name in names if name in kept or name in own]
    ids = torch.tensor([model.prompt(text)])
    return read_layers(model, ids, hook_names=[*chosen, *([final] if final is not None else [])])


@torch.inference_mode()
def _unexplained(wb: Opened, x_TD: Float[Tensor, "T D"], counted_T: Bool[Tensor, " T"]) -> Float[np.ndarray, " T"]:
    """Squared error over the squared error of no feature, the SAE's bias alone; not a number where it does not count."""
    rows_ND = x_TD[counted_T].to(wb.sae.device)
    bias_1D = wb.sae.decode(torch.zeros(1, wb.sae.d_sae, device=wb.sae.device))
    left_N = (rows_ND - wb.sae.reconstruct(rows_ND)).square().sum(-1) / (rows_ND - bias_1D).square().sum(-1)
    out_T = np.full(len(x_TD), np.nan)
    out_T[counted_T.cpu().numpy()] = left_N.cpu().numpy()
    return out_T


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
