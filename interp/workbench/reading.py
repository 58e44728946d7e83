"""Texts read by the model: which features fire on which token.

Axes    B text, T token, D width at the hook point, N position.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from interp.index import Example, FeatureIndex
from interp.progress import bar
from interp.views import Spectrum
from interp.workbench.opening import Opened

TEXTS_AT_ONCE = 32
SHARES = 3
"""Features that are named where a neuron fires."""


@torch.inference_mode()
def spectrum(wb: Opened, text: str, *, include_masked: bool = False, special: bool = False) -> Spectrum:
    """Which features fire on each token of a text. Sinks are left out unless `include_masked`.

    Special tokens that the text spells stay text unless `special` (see `Model.prompt`).
    Raises InterpError when the text is empty or longer than the model reads.
    """
    wb.check_kind("the spectrum", writes=False)
    ids = wb.model.prompt(text, special=special)
    hook = wb.card.hook_name
    x_TD = wb.model.run(torch.tensor([ids]), [hook]).activations[hook][0].float()
    tokens = torch.tensor(ids, device=x_TD.device)
    counted = (tokens != wb.card.separator) & (x_TD.norm(dim=1) <= wb.card.norm_cutoff)
    counted[0] = False
    kept = torch.ones_like(counted) if include_masked else counted
    where = kept.nonzero().squeeze(1)
    active = wb.sae.active(x_TD[where])
    vocabulary = wb.model.vocabulary
    return Spectrum(
        tokens=[vocabulary[token] for token in ids],
        counted=counted.tolist(),
        rows=where.cpu()[active.rows.cpu()].numpy(),
        features=active.features.cpu().numpy(),
        values=active.values.cpu().numpy(),
    )


@torch.inference_mode()
def largest(wb: Opened, texts: Sequence[str], tokens: int) -> np.ndarray:
    """Each feature's largest activation on the first `tokens` tokens of each text, float32 (texts, features).

    Sinks are left out, as everywhere. Texts of similar length are run together.
    """
    wb.check_kind("running texts", writes=False)
    ids = [[wb.model.separator, *wb.model.tokenize(text)[:tokens]] for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = np.zeros((len(ids), wb.sae.d_sae), dtype=np.float32)
    with bar("reading texts", len(ids), "texts") as step:
        for start in range(0, len(order), TEXTS_AT_ONCE):
            rows = order[start : start + TEXTS_AT_ONCE]
            tokens_BT, x_BTD = _activations(wb, [ids[i] for i in rows])
            width, x_ND = tokens_BT.shape[1], x_BTD.flatten(0, 1)
            real_N = (tokens_BT != wb.card.separator).flatten().to(x_ND.device)
            where = (real_N & (x_ND.norm(dim=1) <= wb.card.norm_cutoff)).nonzero().squeeze(1)
            active = wb.sae.active(x_ND[where])
            row_N = np.array(rows)[(where.cpu()[active.rows.cpu()] // width).numpy()]
            np.maximum.at(out, (row_N, active.features.cpu().numpy()), active.values.cpu().numpy())
            step(len(rows))
    return out


@torch.inference_mode()
def untangled(wb: Opened, neurons: FeatureIndex, examples: list[Example]) -> dict[int, list[tuple[int, float, str]]]:
    """See `NeuronPage.untangled`; each example is read in its own window, without what stood before it."""
    wb.check_kind("running texts", writes=False)
    peak_F = np.maximum(wb.index.features["max"].to_numpy(), 1e-12)
    named: dict[int, list[tuple[int, float, str]]] = {}
    for start in range(0, len(examples), TEXTS_AT_ONCE):
        some = examples[start : start + TEXTS_AT_ONCE]
        first = [e.position - e.peak for e in some]
        windows = [neurons.tokens[low : low + len(e.tokens)].tolist() for low, e in zip(first, some, strict=True)]
        x_BTD = _activations(wb, [[wb.model.separator, *window] for window in windows])[1]
        x_BD = x_BTD[range(len(some)), [e.peak + 1 for e in some]]
        active = wb.sae.active(x_BD)
        features, values = active.features.cpu().numpy(), active.values.cpu().numpy()
        for row in (x_BD.norm(dim=1) <= wb.card.norm_cutoff).nonzero().squeeze(1).tolist():
            own = slice(int(active.offsets[row]), int(active.offsets[row + 1]))
            share = values[own] / peak_F[features[own]]
            best = np.argsort(-share, kind="stable")[:SHARES]
            pairs = zip(features[own][best].tolist(), share[best].tolist(), strict=True)
            named[some[row].position] = [(f, s, wb.name(f)) for f, s in pairs]
    return named


def _activations(wb: Opened, ids: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Texts of token ids side by side, (texts, longest), and their activations at the SAE's hook point in float32."""
    tokens_BT = torch.full((len(ids), max(map(len, ids))), wb.model.separator)
    for row, text in enumerate(ids):  # padded on the right: attention is causal, so nothing before it changes
        tokens_BT[row, : len(text)] = torch.tensor(text)
    hook = wb.card.hook_name
    return tokens_BT, wb.model.run(tokens_BT, [hook]).activations[hook].float()
