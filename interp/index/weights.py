"""What can be said of features from weights alone: logits, nearest features, aligned neurons.

Axes    F feature, D d_in, V vocabulary, M neuron (of all layers, one after the other).
Source  nostalgebraist 2020, "interpreting GPT: the logit lens" (a direction read by the unembedding); Bricken et al. 2023,
        "Towards Monosemanticity" (logit weights of features, their cosines with neurons and with each other).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.lenses.lens import readout
from interp.models import Model
from interp.render.terminal import say
from interp.sae import kernels
from interp.types import InterpError

TOP_LOGITS = 10
LOGIT_BINS = 50
NEIGHBOURS = 10
ALIGNED = 5
"""Neurons kept for each feature."""
NEURON_NEIGHBOURS = 10
"""Features kept for each neuron."""
ROWS = 512


@torch.inference_mode()
def logit_columns(W_dec: Float[Tensor, "F D"], unembedding: Float[Tensor, "D V"] | None) -> dict[str, Any]:
    """The tokens whose logits each decoder row raises and lowers most, and the spread of its effects."""
    if unembedding is None:
        empty = pa.array([[]] * len(W_dec), pa.list_(pa.uint32()))
        none = dict.fromkeys(("promoted", "suppressed", "logit_histogram"), empty)
        reals = {f"{name}_logits": empty.cast(pa.list_(pa.float16())) for name in ("promoted", "suppressed")}
        return none | reals | {"logit_std": np.zeros(len(W_dec), dtype=np.float32)}
    found: dict[str, list[Tensor]] = {name: [] for name in ("promoted", "suppressed")}
    logits: dict[str, list[Tensor]] = {name: [] for name in found}
    counts = []
    for rows_FD in W_dec.cpu().split(ROWS):
        effects_FV = rows_FD @ unembedding
        counts.append(histogram(effects_FV))
        for name in found:
            ids, values = _largest(effects_FV, TOP_LOGITS)
            found[name].append(ids)
            logits[name].append(values if name == "promoted" else -values)
            effects_FV.neg_()
    # The variance over tokens of d · W is d · cov(W) d.
    covariance_DD = unembedding @ unembedding.T / unembedding.shape[1]
    spread_F = ((W_dec.cpu() @ covariance_DD) * W_dec.cpu()).sum(1).clamp_min(0).sqrt()
    columns: dict[str, Any] = {"logit_std": spread_F.numpy(), "logit_histogram": lists(torch.cat(counts), pa.uint32())}
    for name in found:
        columns[name] = lists(torch.cat(found[name]), pa.uint32())
        columns[f"{name}_logits"] = lists(torch.cat(logits[name]), pa.float16())
    return columns


def histogram(values_FV: Float[Tensor, "F V"]) -> Int[Tensor, "F H"]:
    """Counts in LOGIT_BINS equal bins from each row's smallest to its largest value."""
    low, high = values_FV.amin(1, keepdim=True), values_FV.amax(1, keepdim=True)
    scale = LOGIT_BINS / (high - low).clamp_min(1e-30)
    bins = ((values_FV - low).mul_(scale)).to(torch.int32).clamp_(max=LOGIT_BINS - 1)
    bins += (torch.arange(len(bins), dtype=torch.int32) * LOGIT_BINS)[:, None]
    return torch.bincount(bins.flatten(), minlength=len(bins) * LOGIT_BINS).view(-1, LOGIT_BINS)


def centred_unembedding(model: Model) -> Float[Tensor, "D V"] | None:
    """What each logit reads from the residual stream, final norm's gain folded in, less its mean over tokens.

    The norm's scale, positive and common to all tokens, is left out: it does not order tokens. None, which is said, when
    the model has no unembedding or its final norm is not known.
    """
    try:
        return readout(model)
    except InterpError as error:
        say(f"index: no logit effects, for {error}")
        return None


def _largest(values: Float[Tensor, "A B"], count: int) -> tuple[Tensor, Tensor]:
    """(columns, values) of each row's largest, in order; equals by column."""
    count = min(count, values.shape[1])
    few = values.shape[1] < 4096  # the tournament orders positive values only
    columns = values.topk(count).indices if few else kernels.row_topk(values.view(torch.int32), count)
    columns = columns.sort(dim=1).values
    top = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, top.indices), top.values


def lists(rows: Any, kind: pa.DataType) -> pa.Array:
    """A matrix as a list column."""
    array = np.asarray(rows).astype(kind.to_pandas_dtype())
    offsets = np.arange(len(array) + 1, dtype=np.int32) * array.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(array.reshape(-1), kind))


@torch.inference_mode()
def neighbour_columns(W_dec: Float[Tensor, "F D"]) -> dict[str, Any]:
    """The features whose decoder rows have the largest cosine with each one's."""
    unit_FD = torch.nn.functional.normalize(W_dec.cpu(), dim=1)
    ids, cosines = [], []
    for start in range(0, len(unit_FD), ROWS):
        cosine = unit_FD[start : start + ROWS] @ unit_FD.T
        own = torch.arange(len(cosine))
        cosine[own, own + start] = -2
        top = _largest(cosine, min(NEIGHBOURS, len(unit_FD) - 1))
        ids.append(top[0])
        cosines.append(top[1])
    return {"nearest": lists(torch.cat(ids), pa.uint32()), "nearest_cosine": lists(torch.cat(cosines), pa.float16())}


@torch.inference_mode()
def neuron_columns(
    W_dec: Float[Tensor, "F D"], outputs: Mapping[int, Float[Tensor, "M D"]]
) -> tuple[dict[str, Any], pa.Table]:
    """Aligned neurons of each feature, and the features nearest to each neuron, by cosine with what the neuron writes.

    `outputs` has by layer the vector that each MLP neuron adds to the residual stream when active. A bfloat16 product
    proposes twice as many as are kept; float32 decides among them.
    """
    layers = sorted(outputs)
    if not layers:
        empty = pa.array([[]] * len(W_dec), pa.list_(pa.uint32()))
        none = {"neuron_layers": empty, "neurons": empty, "neuron_cosines": empty.cast(pa.list_(pa.float16()))}
        return none, _neuron_table([], [], [], [])
    unit_FD = torch.nn.functional.normalize(W_dec.cpu(), dim=1)
    width = len(outputs[layers[0]])
    unit_MD = torch.nn.functional.normalize(torch.cat([outputs[layer].float().cpu() for layer in layers]), dim=1)
    best = [_exact(_coarse(rows, unit_MD, 2 * ALIGNED), rows, unit_MD, ALIGNED) for rows in unit_FD.split(ROWS)]
    ids, cosines = (torch.cat([part[i] for part in best]) for i in range(2))
    columns = {
        "neuron_layers": lists(torch.tensor(layers)[ids // width], pa.uint32()),
        "neurons": lists(ids % width, pa.uint32()),
        "neuron_cosines": lists(cosines, pa.float16()),
    }
    count = min(NEURON_NEIGHBOURS, len(unit_FD))
    near = [_exact(_coarse(rows, unit_FD, 2 * count), rows, unit_FD, count) for rows in unit_MD.split(ROWS)]
    features, values = (torch.cat([part[i] for part in near]) for i in range(2))
    at = torch.arange(len(unit_MD)).repeat_interleave(count)
    layer = torch.tensor(layers)[at // width]
    return columns, _neuron_table(layer, at % width, features.reshape(-1), values.reshape(-1))


def _coarse(rows_AD: Tensor, others_BD: Tensor, count: int) -> Tensor:
    product = rows_AD.bfloat16() @ others_BD.bfloat16().T if _bfloat16() else rows_AD @ others_BD.T
    return _largest(product.float(), count)[0]


def _bfloat16() -> bool:
    from interp.device import native_bfloat16

    return native_bfloat16(torch.device("cpu"))


def _exact(columns: Tensor, rows_AD: Tensor, others_BD: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best of the proposed columns, by float32 products."""
    values = torch.einsum("ad,abd->ab", rows_AD, others_BD[columns])
    top = values.topk(min(count, values.shape[1]))
    return columns.gather(1, top.indices), top.values


def _neuron_table(layer: Any, neuron: Any, feature: Any, cosine: Any) -> pa.Table:
    return pa.table(
        {
            "layer": pa.array(np.asarray(layer, dtype=np.uint16)),
            "neuron": pa.array(np.asarray(neuron, dtype=np.uint32)),
            "feature": pa.array(np.asarray(feature, dtype=np.uint32)),
            "cosine": pa.array(np.asarray(cosine, dtype=np.float16)),
        }
    )
