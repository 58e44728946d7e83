"""How well an SAE stands in for the activations it reads: FVU, L0, dead features, and the loss of the model.

Axes    N block, T position, D d_in.

Definitions
    FVU          Σ‖x - x̂‖² / Σ‖x - mean x‖², one global sum each (see sae.metrics).
    CE           mean next-token cross entropy in nats over predictions made at counted positions.
    ΔCE          CE with x̂ in place of x, less CE untouched.
    recovered    (CE ablated - CE with x̂) / (CE ablated - CE untouched), against zero and against mean ablation.
Sinks and separators are left as they are in every one of these passes, ablations included, and are not counted.
Intervals are 95 % bootstraps over blocks of 256 tokens (`statistics`); a single block has none. Where an ablation's
effect on the loss cannot be told from 0 (its interval reaches 0), no share of it is recovered: None.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.codes import read_blocks
from interp.corpus import TokenBlocks
from interp.mask import Mask, own_tokens
from interp.models import Edit, Model, Site
from interp.progress import bar
from interp.sae import SAE
from interp.sae.metrics import Reconstruction
from interp.statistics import bootstrap_ratio
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Report:
    """Held-out measurements of one SAE; `*_interval` are 95 %."""

    tokens: int
    """Counted positions."""
    blocks: int
    fvu: float
    fvu_interval: tuple[float, float] | None
    l0: float
    dead: int
    """Features that fire on none of `tokens`."""
    dead_share: float
    ce: float
    ce_sae: float
    ce_zero: float
    ce_mean: float
    delta_ce: float
    delta_ce_interval: tuple[float, float] | None
    recovered_zero: float | None
    recovered_mean: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.inference_mode()
def evaluate(model: Model, sae: SAE, blocks: TokenBlocks, *, norm_cutoff: float, batch_blocks: int = 8) -> Report:
    """The report of `sae` over the blocks; runs the model five times over them.

    Raises InterpError when no position counts, or none with a real token after it.
    """
    hook = sae.hook_name
    model.check_hook(hook)
    parts, mask = blocks.tokens_NT.split(batch_blocks), Mask({hook: norm_cutoff})
    sums, per_block = Reconstruction(sae.d_sae), []
    with bar("evaluate, five passes", 5 * blocks.positions, "tokens read") as step:
        for read in read_blocks(model, [hook], blocks.tokens_NT, separator=blocks.separator, at_once=batch_blocks):
            for x_TD, keep_T in zip(read.x[hook], mask.counted(read.x, read.real_BT), strict=True):
                before, x = sums.error, x_TD[keep_T].double()
                sums.add(x_TD[keep_T], sae)
                per_block.append((sums.error - before, float(x.square().sum()), x.sum(0).cpu(), len(x)))
            step(read.tokens_BT.numel())
        if sums.rows == 0:
            raise InterpError("no position of this text counts: all are separators or sinks; give more text.")
        spread_about_mean = sums.square - float(sums.total.square().sum()) / sums.rows
        if spread_about_mean <= 1e-9 * sums.square:
            raise InterpError(
                "the activations at the counted positions are all the same: FVU has no meaning; give more text."
            )
        mean_D = (sums.total / sums.rows).float()
        replacements: dict[str, Callable[[Tensor], Tensor] | None] = {
            "ce": None,
            "ce_sae": sae.reconstruct,
            "ce_zero": torch.zeros_like,
            "ce_mean": lambda x: mean_D.to(x.device).expand_as(x),
        }
        losses = {
            name: _losses(model, hook, parts, blocks.separator, mask, f, step) for name, f in replacements.items()
        }
    if not losses["ce"][1].sum():
        raise InterpError("no counted position of this text has a token after it to be predicted; give longer texts.")
    mean = {name: float(sum_N.sum() / count_N.sum()) for name, (sum_N, count_N) in losses.items()}
    centre = mean_D.double()
    errors = np.array([error for error, *_ in per_block])
    # Σ‖x - mean‖² of a block, from its sums.
    spread = np.array([sq - 2 * float(total @ centre) + n * float(centre @ centre) for _, sq, total, n in per_block])
    counts = losses["ce"][1]
    extra = losses["ce_sae"][0] - losses["ce"][0]
    delta = mean["ce_sae"] - mean["ce"]
    return Report(
        tokens=sums.rows,
        blocks=len(blocks.tokens_NT),
        fvu=sums.fvu,
        fvu_interval=bootstrap_ratio(errors, spread),
        l0=sums.l0,
        dead=sums.dead,
        dead_share=sums.dead / sae.d_sae,
        **mean,
        delta_ce=delta,
        delta_ce_interval=bootstrap_ratio(extra, counts),
        recovered_zero=_recovered(losses, "ce_zero"),
        recovered_mean=_recovered(losses, "ce_mean"),
    )


def _recovered(losses: dict[str, tuple[np.ndarray, np.ndarray]], ablated: str) -> float | None:
    """The share of what the ablation adds to the loss that the SAE does not; None where that is not surely above 0."""
    untouched, counts = losses["ce"]
    added = losses[ablated][0] - untouched
    interval = bootstrap_ratio(added, counts)
    if interval is None or interval[0] <= 0:
        return None
    return float(1 - (losses["ce_sae"][0] - untouched).sum() / added.sum())


def _losses(
    model: Model,
    hook: str,
    parts: tuple[Tensor, ...],
    separator: int,
    mask: Mask,
    replace: Callable[[Tensor], Tensor] | None,
    step: Callable[..., None],
) -> tuple[np.ndarray, np.ndarray]:
    """(sum of losses, number of predictions) of each block, over counted positions whose next token is real."""
    sums, counts = [], []
    for tokens_NT in parts:
        kept: list[Tensor] = []

        def swap(x_NTD: Tensor, site: Site, kept: list[Tensor] = kept) -> Float[Tensor, "N T D"]:
            keep_NT = mask.counted({hook: x_NTD}, own_tokens(site.tokens_BT, separator))
            kept.append(keep_NT)
            if replace is None:
                return x_NTD
            out = x_NTD.clone()
            out[keep_NT] = replace(x_NTD[keep_NT].float()).to(x_NTD)
            return out

        logits = model.run(tokens_NT, edits=[Edit(hook, swap)], logits=True).logits
        assert logits is not None
        target = tokens_NT[:, 1:].to(logits.device)
        predicted = kept[0][:, :-1] & (target != separator)
        for row in range(len(tokens_NT)):
            loss = torch.nn.functional.cross_entropy(logits[row, :-1].float(), target[row], reduction="none")
            sums.append(float((loss * predicted[row]).sum()))
            counts.append(int(predicted[row].sum()))
        step(tokens_NT.numel())
    return np.array(sums), np.array(counts)
