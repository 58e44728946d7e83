"""Numbers of an SAE on token blocks, and how far two sets of them lie apart.

Axes    N block, T position, D d_in, F d_sae, P counted position, R reference row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.codes import encode_rows, read_blocks
from interp.models import Model
from interp.sae import SAE
from interp.sae.metrics import Reconstruction

EDGES = 2.0 ** np.arange(-8, 13)
"""Bins of activations, an octave each; the first and last take what lies beyond."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """What an SAE makes of blocks of tokens."""

    tokens_NT: Int[Tensor, "N T"]
    x_NTD: Float[Tensor, "N T D"]
    counted_NT: Bool[Tensor, "N T"]
    l0: float
    ev: float
    """1 - FVU over the counted positions; with none it is 1, and says nothing."""
    positions: Int[np.ndarray, " A"]
    """Of each active entry, counted through the blocks; ascending, features ascending within."""
    features: Int[np.ndarray, " A"]
    values: Float[np.ndarray, " A"]

    @property
    def mean_norm(self) -> float:
        """Of the activations at counted positions; 0 where none counts."""
        if not bool(self.counted_NT.any()):
            return 0.0
        return float(self.x_NTD[self.counted_NT].norm(dim=1).mean())

    def histogram(self) -> list[int]:
        """Counts of active values in the bins between EDGES."""
        return np.bincount(np.searchsorted(EDGES, self.values), minlength=len(EDGES) + 1).tolist()

    def sample(self, every: int = 4, top: int = 4) -> list[tuple[int, int, float]]:
        """(position, feature, value) of the strongest few at every few counted positions."""
        rows = []
        for position in np.unique(self.positions)[::every]:
            at = slice(*np.searchsorted(self.positions, [position, position + 1]))
            order = np.argsort(-self.values[at], kind="stable")[:top]
            rows += [
                (int(position), int(f), float(v))
                for f, v in zip(self.features[at][order], self.values[at][order], strict=True)
            ]
        return rows


@torch.inference_mode()
def activations(model: Model, hooks: Sequence[str], tokens_NT: Tensor, blocks_at_once: int = 4) -> dict[str, Tensor]:
    """Activations at the hook points, float32 on the CPU; of a model of pictures or sound on noise, for a checkpoint holds
    none of its items (see `probe`)."""
    media = model.media
    given_N = None if media is None else media.sample(len(tokens_NT))[1]
    parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for read in read_blocks(
        model, hooks, tokens_NT, separator=model.separator, at_once=blocks_at_once, given_N=given_N
    ):
        for hook in hooks:
            parts[hook].append(read.x[hook].cpu())
    return {hook: torch.cat(part) for hook, part in parts.items()}


@torch.inference_mode()
def measure(
    sae: SAE,
    tokens_NT: Int[Tensor, "N T"],
    x_NTD: Float[Tensor, "N T D"],
    counted_NT: Bool[Tensor, "N T"],
    y_NTO: Float[Tensor, "N T O"] | None = None,
) -> Numbers:
    """The SAE's numbers on activations at the counted positions; `y_NTO` is what a transcoder is to give."""
    rows_PD = x_NTD[counted_NT]
    sums = Reconstruction(sae.d_sae)
    sums.add(rows_PD.to(sae.device), sae, None if y_NTO is None else y_NTO[counted_NT].to(sae.device))
    entries = encode_rows(sae, x_NTD.flatten(0, 1), counted_NT.flatten())
    return Numbers(
        tokens_NT=tokens_NT,
        x_NTD=x_NTD,
        counted_NT=counted_NT,
        l0=sums.l0,
        ev=1 - sums.fvu,
        positions=entries.row_A,
        features=entries.feature_A,
        values=entries.value_A,
    )


def apart(a: Numbers, b: Numbers) -> dict[str, float]:
    """How far two measurements of the same tokens lie apart, each between 0 and about 1 (l0 and ev as they are)."""
    width = int(max(a.features.max(initial=0), b.features.max(initial=0))) + 1
    one, two = a.positions * width + a.features, b.positions * width + b.features
    both, i, j = np.intersect1d(one, two, return_indices=True)
    error = np.abs(a.values[i] - b.values[j]) / np.maximum(np.abs(a.values[i]), 1e-9)
    return {
        "codes": 1 - len(both) / max(len(one) + len(two) - len(both), 1),
        "values": float(np.quantile(error, 0.95)) if len(both) else 1.0,
        "l0": abs(a.l0 - b.l0),
        "ev": abs(a.ev - b.ev),
        "histogram": histogram_distance(a.histogram(), b.histogram()),
    }


def histogram_distance(a: Sequence[int], b: Sequence[int]) -> float:
    """Total variation between two histograms: the share that would have to move."""
    p, q = np.asarray(a, float), np.asarray(b, float)
    return float(np.abs(p / max(p.sum(), 1) - q / max(q.sum(), 1)).sum() / 2)


def misses(sae: SAE, x_NTD: Tensor, rows: Any) -> tuple[float, float]:
    """Of reference rows (position, feature, value): the share that is silent now, the 95th percentile of relative error.

    Positions count through the blocks of x.
    """
    if not rows:
        return 0.0, 0.0
    position, feature, value = _columns(rows)
    flat = x_NTD.reshape(-1, x_NTD.shape[-1])
    spots, back = position.unique(return_inverse=True)
    active = sae.active(flat[spots].to(sae.b_dec.device))
    dense = torch.zeros(len(spots), sae.d_sae)
    dense[active.rows.cpu(), active.features.cpu()] = active.values.cpu()
    now = dense[back, feature]
    fired = now > 0
    error = (now - value).abs()[fired] / value[fired].abs().clamp_min(1e-9)
    return 1 - float(fired.float().mean()), float(error.quantile(0.95)) if len(error) else 1.0


def agreement(sae: SAE, x_NTD: Tensor, rows: Any, within: float = 0.05, scale: float = 1.0) -> float:
    """Share of reference rows whose pre-activation comes within a twentieth of the stored value, whatever the rule."""
    position, feature, value = _columns(rows)
    x_RD = x_NTD.reshape(-1, x_NTD.shape[-1])[position] * scale
    pre = linear(sae, x_RD, feature) + offset(sae, feature)
    return float(((pre - value).abs() <= within * value.abs() + 1e-3).float().mean())


def linear(sae: SAE, x_RD: Tensor, feature: Tensor) -> Float[Tensor, " R"]:
    """x · w of each row's feature."""
    return (x_RD * sae.W_enc.cpu()[:, feature].T).sum(1)


def offset(sae: SAE, feature: Tensor) -> Float[Tensor, " R"]:
    """What the pre-activation adds to x · w."""
    shift = sae.b_enc.cpu()[feature]
    return shift - linear(sae, sae.b_dec.cpu().expand(len(feature), -1), feature) if sae.centred else shift


def _columns(rows: Any) -> tuple[Tensor, Tensor, Tensor]:
    position, feature, value = zip(*rows, strict=True)
    return torch.tensor(position), torch.tensor(feature), torch.tensor(value, dtype=torch.float32)
