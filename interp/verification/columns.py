"""Columns of the index that follow from weights alone, compared whole: neighbours, logits, aligned neurons.

A list holds when its numbers are those of the entries it names (float32), and no entry that it leaves out is clearly
larger than its smallest (a bfloat16 product, with its rounding): so equal values may stand in any order. Whatever decoder row was swapped or edited shows in these.

Axes    F feature, D d_out, V vocabulary, M neuron, K entry of a list.
"""

import numpy as np
import torch
from torch import Tensor

from interp.device import native_bfloat16
from interp.index import FeatureIndex, weights
from interp.models import Model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification.verdict import Check, differs, holds, unchecked

ROWS = 512
COSINE = 1e-3
"""Rounding of a stored cosine (float16), with room for another order of sums."""
PROPOSED = 0.01
"""What may stand above a list of cosines: the product that looks for it is bfloat16's, as that which made the list was."""
HISTOGRAMS = 64
"""Features whose histogram of logits is made anew."""


@torch.inference_mode()
def check_columns(index: FeatureIndex, sae: SAE, model: Model | None) -> list[Check]:
    """Every feature's neighbours, logits and neurons against the weights; without a model (or with another than the
    SAE's) only the neighbours."""
    rows_FD = sae.W_dec.float().cpu()
    unit_FD = torch.nn.functional.normalize(rows_FD, dim=1)
    checks = [_neighbours(index, unit_FD)]
    if model is None:
        return [*checks, unchecked("logits of features", "they need the model that the SAE was made for")]
    return [*checks, _logits(index, rows_FD, model), _neurons(index, unit_FD, model)]


def _neighbours(index: FeatureIndex, unit_FD: Tensor) -> Check:
    ids, cosines = _lists(index, "nearest"), _lists(index, "nearest_cosine")
    bad_F = _unlike(unit_FD, unit_FD, ids, cosines, torch.tensor(COSINE))
    other = _coarse(unit_FD)
    for start in range(0, len(unit_FD), ROWS):
        here = slice(start, start + ROWS)
        cosine = other[here] @ other.T
        own = torch.arange(len(cosine))
        cosine[own, own + start] = -2
        bad_F[here] |= _outdone(cosine, cosines[here], torch.tensor(PROPOSED))
    return _answer("nearest features", bad_F)


def _logits(index: FeatureIndex, rows_FD: Tensor, model: Model) -> Check:
    what = "logits of features"
    unembedding = weights.centred_unembedding(model)
    ids = {name: _lists(index, name) for name in ("promoted", "suppressed")}
    if unembedding is None or unembedding.shape[0] != rows_FD.shape[1] or ids["promoted"].shape[1] == 0:
        return unchecked(what, "this SAE writes nothing that an unembedding reads, or the index has none")
    values = {name: _lists(index, f"{name}_logits") for name in ids}
    covariance_DD = unembedding @ unembedding.T / unembedding.shape[1]
    spread_F = ((rows_FD @ covariance_DD) * rows_FD).sum(1).clamp_min(0).sqrt()
    stored_F = torch.from_numpy(index.features["logit_std"].to_numpy().copy()).float()
    bad_F = (spread_F - stored_F).abs() > 1e-3 * spread_F + 1e-6
    read_VD = unembedding.T
    for name in ids:
        bad_F |= _unlike(rows_FD, read_VD, ids[name], values[name], 2e-3 * spread_F[:, None])
    coarse_DV, some_FD = _coarse(unembedding), _coarse(rows_FD)
    for start in range(0, len(rows_FD), ROWS):
        here = slice(start, start + ROWS)
        effects_FV, slack = some_FD[here] @ coarse_DV, 0.05 * spread_F[here, None]
        bad_F[here] |= _outdone(effects_FV, values["promoted"][here], slack)
        bad_F[here] |= _outdone(effects_FV.neg_(), -values["suppressed"][here], slack)
    some = np.linspace(0, len(rows_FD) - 1, min(HISTOGRAMS, len(rows_FD))).astype(int)
    counts, made = _lists(index, "logit_histogram"), weights.histogram(rows_FD[some] @ unembedding)
    bad_F |= counts.sum(1) != read_VD.shape[0]
    bad_F[some] |= (counts[some] - made).abs().sum(1) > 0.02 * read_VD.shape[0] + 4
    return _answer(what, bad_F)


def _neurons(index: FeatureIndex, unit_FD: Tensor, model: Model) -> Check:
    """Aligned neurons of features, and the features nearest to each neuron, from one product."""
    what = "aligned neurons"
    outputs = model.neuron_outputs(unit_FD.shape[1])
    ids, layers = _lists(index, "neurons"), _lists(index, "neuron_layers")
    if not outputs or not ids.shape[1] or "neurons.parquet" not in index.meta["files"]:
        return unchecked(what, "the model's neurons cannot be told, or the index has none")
    known = sorted(outputs)
    width = len(outputs[known[0]])
    unit_MD = torch.nn.functional.normalize(torch.cat([outputs[layer].float().cpu() for layer in known]), dim=1)
    table = index.neurons
    count = len(table) // max(len(unit_MD), 1)
    order = np.repeat(np.arange(len(unit_MD)), max(count, 1))
    same = len(order) == len(table) and bool(
        (np.array(known)[order // width] == table["layer"].to_numpy()).all()
        and (order % width == table["neuron"]).all()
    )
    if not same:
        return differs(what, "neurons.parquet has not a row for each neuron and its nearest features, in order")
    near = torch.from_numpy(table["feature"].to_numpy().astype(np.int64)).reshape(-1, count)
    cosines = torch.from_numpy(table["cosine"].to_numpy().astype(np.float32)).reshape(-1, count)
    at_FK = torch.searchsorted(torch.tensor(known), layers) * width + ids
    if int(at_FK.max()) >= len(unit_MD) or int(near.max()) >= len(unit_FD):
        return differs(what, "neurons or features are named that there are not")
    stored_FK = _lists(index, "neuron_cosines")
    bad_F = _unlike(unit_FD, unit_MD, at_FK, stored_FK, torch.tensor(COSINE))
    neurons = _unlike(unit_MD, unit_FD, near, cosines, torch.tensor(COSINE))
    above_F = torch.zeros(len(unit_FD), dtype=torch.int64)
    edge_F = _edge(stored_FK, torch.tensor(PROPOSED))
    coarse_MD, coarse_FD = _coarse(unit_MD), _coarse(unit_FD)
    for start in range(0, len(unit_MD), ROWS):
        here = slice(start, start + ROWS)
        cosine_MF = coarse_MD[here] @ coarse_FD.T
        above_F += (cosine_MF > edge_F.squeeze(1).to(cosine_MF.dtype)).sum(0)
        neurons[here] |= _outdone(cosine_MF, cosines[here], torch.tensor(PROPOSED))
    bad_F |= above_F > ids.shape[1]
    if bool(neurons.any()):
        first = int(neurons.nonzero()[0])
        return differs(
            what, f"{int(neurons.sum()):,} of {len(neurons):,} neurons have other nearest features than neurons.parquet "
            f"says, such as {known[first // width]}.{first % width}"
        )  # fmt: skip
    return _answer(what, bad_F)


def _unlike(rows_AD: Tensor, others_BD: Tensor, ids_AK: Tensor, stored_AK: Tensor, slack: Tensor) -> Tensor:
    """For each row whether its list's numbers are not those of the entries it names, in float32, or one is named twice."""
    if not ids_AK.shape[1]:
        return torch.zeros(len(rows_AD), dtype=torch.bool)
    there_AK = ids_AK < len(others_BD)
    ids = ids_AK.clamp_max(len(others_BD) - 1)
    parts = zip(rows_AD.split(ROWS), ids.split(ROWS), strict=True)
    now_AK = torch.cat([torch.einsum("ad,akd->ak", rows, others_BD[some]) for rows, some in parts])
    far = (now_AK - stored_AK).abs() > slack + 2**-9 * stored_AK.abs()
    twice = (ids_AK.sort(1).values.diff(dim=1) == 0).any(1)
    return far.any(1) | twice | ~there_AK.all(1)


def _edge(stored_AK: Tensor, slack: Tensor) -> Tensor:
    """What an entry that a list leaves out may not exceed: its smallest number, and what a coarse product may be off by."""
    return (stored_AK + slack + 2**-7 * stored_AK.abs()).amin(1, keepdim=True)


def _outdone(now_AB: Tensor, stored_AK: Tensor, slack: Tensor) -> Tensor:
    """For each row whether more entries than its list has lie clearly above the list's smallest."""
    if not stored_AK.shape[1]:
        return torch.zeros(len(now_AB), dtype=torch.bool)
    return (now_AB > _edge(stored_AK, slack).to(now_AB.dtype)).sum(1) > stored_AK.shape[1]


def _coarse(rows: Tensor) -> Tensor:
    """In bfloat16 where that is native, which is several times as fast: enough to see what lies clearly above."""
    return rows.bfloat16().contiguous() if native_bfloat16(torch.device("cpu")) else rows.contiguous()


def _lists(index: FeatureIndex, name: str) -> Tensor:
    """A list column as a matrix; InterpError when its lists are not of one length."""
    column = index.features[name]
    lengths = {len(row) for row in column}
    if len(lengths) > 1:
        raise InterpError(
            f"features.parquet has lists of {sorted(lengths)} entries in {name}, where all are of one length"
        )
    matrix = np.stack(column.to_numpy()) if lengths else np.zeros((0, 0))
    return torch.from_numpy(matrix.astype(np.float32 if matrix.dtype.kind == "f" else np.int64))


def _answer(what: str, bad_F: Tensor) -> Check:
    if not bool(bad_F.any()):
        return holds(what, f"those of all {len(bad_F):,} features follow from the weights")
    some = ", ".join(str(f) for f in bad_F.nonzero().squeeze(1)[:6].tolist())
    return differs(
        what, f"those of {int(bad_F.sum()):,} of {len(bad_F):,} features do not follow from the weights, such as {some}: "
        "decoder rows or rows of the index were swapped or edited"
    )  # fmt: skip
