"""Blocks of the index, drawn at random and made anew with the model, both ways: what is stored must come out, and what
comes out must be stored, as far as the index keeps it.

1. Draw B of the index's blocks, from a seed that whoever wrote the index could not know.
2. Run the model on their tokens; which positions count, and every pre-activation there, in float32.
3. A stored row differs when its pre-activation lies further from its value than LARGEST times the 95th percentile of all
   rows' distances (in units of ‖x‖‖w‖, in which rounding in the model is about alike everywhere), and by more than float16
   rounds. Where that percentile is that of another dtype or processor, by more than most of its value, too.
4. What comes out above its threshold by as much must be among the rows: everywhere where all is kept, else in the windows
   of the feature's examples; and as many features must fire at a position as the index counts.

Axes    B block, T position, N position of the sample, D d_in, F d_sae, M stored row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.checkpoint import Card
from interp.index import FeatureIndex
from interp.index.format import WINDOW
from interp.mask import Mask, own_tokens
from interp.models import Model
from interp.sae import SAE
from interp.verification.measure import activations, linear, offset
from interp.verification.verdict import Check, differs, holds, unchecked

BLOCKS = 40
LARGEST = 16.0
QUIET = 3e-4
"""95 % of rows within this share of ‖x‖‖w‖: the numbers come out as they were stored, but for rounding to float16."""
WRONG = 0.75
"""Where they do not: the share of its value by which a row must be off."""
NEAR = 0.01
"""Of the norm's cut-off: norms that near may fall on either side."""
ROWS = 512


@dataclass(frozen=True)
class Sample:
    """Blocks of an index with the model's activations on them, and the stored rows that lie there."""

    numbers: list[int]
    tokens_BT: Tensor
    x_BTD: Tensor
    kept_N: np.ndarray
    active_N: np.ndarray
    position_M: np.ndarray
    """Counted through the sample's blocks."""
    feature_M: np.ndarray
    value_M: np.ndarray
    index: FeatureIndex

    @property
    def rows(self) -> list[tuple[int, int, float]]:
        """(position, feature, value) as `diagnose` takes them."""
        columns = (self.position_M.tolist(), self.feature_M.tolist(), self.value_M.tolist())
        return list(zip(*columns, strict=True))


def readable(index: FeatureIndex) -> np.ndarray:
    """The blocks of the index whose tokens are all known on this machine, by number."""
    return np.flatnonzero(~index.missing.reshape(-1, index.block).any(axis=1))


def draw(index: FeatureIndex, card: Card, model: Model, seed: int, blocks: int = BLOCKS) -> Sample:
    """So many readable blocks of the index (all, if it has fewer), with the model's activations at the card's hook point."""
    block, there = index.block, readable(index)
    chosen = np.sort(np.random.default_rng(seed).choice(there, min(blocks, len(there)), replace=False))
    at = (chosen[:, None] * block + np.arange(block)).reshape(-1)
    tokens_BT = torch.from_numpy(index.tokens[at].astype(np.int64)).reshape(-1, block)
    numbers = ", ".join(map(str, chosen.tolist()))
    rows = index.sql(
        f"SELECT feature, position, value FROM {{activations}} WHERE position // {block} IN ({numbers}) ORDER BY position, feature"
    )
    position = rows["position"].to_numpy().astype(np.int64)
    return Sample(
        numbers=chosen.tolist(),
        tokens_BT=tokens_BT,
        x_BTD=activations(model, [card.hook_name], tokens_BT)[card.hook_name],
        kept_N=index.kept[at],
        active_N=np.diff(index.offsets)[at],
        position_M=np.searchsorted(chosen, position // block) * block + position % block,
        feature_M=rows["feature"].to_numpy().astype(np.int64),
        value_M=rows["value"].to_numpy().astype(np.float32),
        index=index,
    )


@torch.inference_mode()
def check_sample(sample: Sample, card: Card, sae: SAE) -> list[Check]:
    """`numbers of the index`: the sample's rows and counts, made anew, and what the sample could have missed."""
    what = "numbers of the index"
    x_ND = sample.x_BTD.flatten(0, 1)
    wrong_kept = _kept_apart(sample, card, x_ND)
    if not len(sample.value_M) or not sample.kept_N.any():
        if wrong_kept:
            return [differs(what, wrong_kept)]
        return [unchecked(what, f"no position of the {len(sample.numbers)} blocks drawn has a stored activation")]
    spots, features = torch.from_numpy(sample.position_M), torch.from_numpy(sample.feature_M)
    value_M = torch.from_numpy(sample.value_M)
    now_M = torch.cat(
        [linear(sae, x_ND[p], f) + offset(sae, f) for p, f in zip(spots.split(4096), features.split(4096), strict=True)]
    )
    u_ND = x_ND - sae.b_dec.cpu() if sae.centred else x_ND
    length_F, norm_N = sae.W_enc.cpu().norm(dim=0), u_ND.norm(dim=1)
    unit_M = (norm_N[spots] * length_F[features]).clamp_min(1e-12)
    far_M = (now_M - value_M).abs()
    usual = float(np.quantile((far_M / unit_M).numpy(), 0.95))
    quiet = usual <= QUIET
    wrong_M = far_M > LARGEST * usual * unit_M + 2**-9 * value_M.abs()
    if not quiet:
        wrong_M &= far_M > WRONG * value_M.abs()
    wrong = [wrong_kept] if wrong_kept else []
    if bool(wrong_M.any()):
        named = sorted(set(features[wrong_M].tolist()))[:4]
        wrong.append(f"{int(wrong_M.sum()):,} rows have values that do not come out, of features such as {named}")
    margin = LARGEST * max(usual, 1e-6) * (1 if quiet else 2)
    wrong += _both_ways(sample, sae, u_ND, (norm_N * margin, length_F))
    said = _said(sample, far_M, quiet)
    return [differs(what, "; ".join(wrong) + f" ({said})") if wrong else holds(what, said)]


def _kept_apart(sample: Sample, card: Card, x_ND: Tensor) -> str:
    """What is wrong with the positions that count; empty when nothing is, but for norms at the cut-off's edge."""
    real_BT, norm_BT = own_tokens(sample.tokens_BT, card.separator), {card.hook_name: sample.x_BTD.norm(dim=-1)}
    low, high = (
        Mask({card.hook_name: card.norm_cutoff * (1 + s * NEAR)}).counted(norm_BT, real_BT).reshape(-1).numpy()
        for s in (-1, 1)
    )
    wrong = int(((low & ~sample.kept_N) | (sample.kept_N & ~high)).sum())
    return (
        f"{wrong:,} of {len(x_ND):,} positions count in the index and not here, or the other way round" if wrong else ""
    )


def _both_ways(sample: Sample, sae: SAE, u_ND: Tensor, margins: tuple[Tensor, Tensor]) -> list[str]:
    """What fires here by more than a margin (its position's times its feature's) and is not stored, and positions at
    which another number of features fires."""
    absent, counts = set[int](), 0
    stored = np.sort(sample.position_M * sae.d_sae + sample.feature_M)
    windows = _windows(sample) if sample.index.partial else None
    W, b = sae.W_enc.cpu(), sae.b_enc.cpu()
    for some in torch.from_numpy(np.flatnonzero(sample.kept_N)).split(ROWS):
        pre_NF, margin = u_ND[some] @ W + b, margins[0][some, None] * margins[1]
        if sae.threshold is not None:
            edge = sae.threshold.cpu().expand_as(pre_NF)
        else:
            assert sae.k is not None
            edge = pre_NF.topk(min(sae.k + 1, sae.d_sae), dim=1).values[:, -1:].clamp_min(0).expand_as(pre_NF)
        sure = pre_NF > edge + margin
        active = torch.from_numpy(sample.active_N[some.numpy()].astype(np.int64))
        counts += int(((sure.sum(1) > active) | ((pre_NF > edge - margin).sum(1) < active)).sum())
        row, feature = (part.numpy() for part in sure.nonzero(as_tuple=True))
        key = some.numpy()[row] * sae.d_sae + feature
        if windows is not None:
            key = key[np.isin(_window_key(sample, key // sae.d_sae, key % sae.d_sae), windows)]
        absent |= set(key[~np.isin(key, stored)].tolist())
    wrong = []
    if absent:
        named = sorted({key % sae.d_sae for key in absent})[:4]
        wrong.append(f"{len(absent):,} activations that come out are not stored, of features such as {named}")
    if counts:
        wrong.append(f"at {counts:,} positions another number of features fires than the index counts")
    return wrong


def _windows(sample: Sample) -> np.ndarray:
    """Keys of the stretches in which all activations of an example's feature are kept (as `index.stats` keeps them)."""
    examples = sample.index.sql("SELECT feature, position FROM {examples}")
    chunk = examples["position"].to_numpy().astype(np.int64) // WINDOW
    feature = examples["feature"].to_numpy().astype(np.int64) << 32
    return np.unique(np.concatenate([feature + chunk + step for step in (-1, 0, 1)]))


def _window_key(sample: Sample, position_M: np.ndarray, feature_M: np.ndarray) -> np.ndarray:
    block = sample.index.block
    in_index = np.array(sample.numbers)[position_M // block] * block + position_M % block
    return (feature_M.astype(np.int64) << 32) + in_index // WINDOW


def _said(sample: Sample, far_M: Tensor, quiet: bool) -> str:
    """What was looked at, how well it came out, and what an edit's chance of being seen was."""
    value_M = torch.from_numpy(sample.value_M)
    error = np.quantile((far_M / value_M.clamp_min(1e-9)).numpy(), 0.95)
    drawn, total = len(sample.numbers), len(sample.index.tokens) // sample.index.block
    scattered, together = powers(len(value_M), drawn, total)
    seen = (
        "" if quiet else "; by another dtype or processor than the index, so only rows off by most of their value show"
    )
    return (
        f"{len(value_M):,} rows in {drawn:,} of {total:,} blocks drawn at random, 95 % within {error:.2%}{seen}. Were 1 % "
        f"of the index's rows edited, at least one would be among these with probability {scattered:.1%}; were they all "
        f"in 1 % of its blocks, {together:.1%}"
    )


def powers(rows: int, drawn: int, total: int) -> tuple[float, float]:
    """The probability that at least one edited row is drawn, of 1 % of all rows: anywhere, and all in 1 % of the blocks."""
    edited = max(round(total / 100), 1)
    missed = np.prod([max(total - edited - i, 0) / (total - i) for i in range(drawn)])
    return 1 - 0.99**rows, float(1 - missed)
