"""How well a dictionary stands in for the activations it writes: FVU, L0, dead features, and the loss of the model.

An SAE writes what it reads, a transcoder another hook point, a crosscoder several: y is what stands at the hook points
that are written, side by side, and ŷ what the dictionary makes of what it reads.

Axes    N block, T position, D d_in, O d_out, W width of one hook point.

Definitions
    FVU          Σ‖y - ŷ‖² / Σ‖y - mean y‖², one global sum each, in float64 (see sae.metrics).
    CE           mean next-token cross entropy in nats over predictions made at counted positions.
    ΔCE          CE with ŷ in place of y at every hook point that is written, less CE untouched. What one hook point
                 gives is read in the same pass; where several are read, of which the later would see what was put in at
                 the earlier, in an untouched pass before it.
    recovered    (CE ablated - CE with x̂) / (CE ablated - CE untouched), against zero and against mean ablation.
Sinks and separators are left as they are in every one of these passes, ablations included, and are not counted.
Intervals are 95 % bootstraps over blocks of 256 tokens (`statistics`); a single block has none. Where an ablation's
effect on the loss cannot be told from 0 (its interval reaches 0), no share of it is recovered: None.

Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders" (loss with the SAE in place); Rajamanoharan et al.
        2024, "Improving dictionary learning with gated sparse autoencoders" (loss recovered, against zero ablation).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.codes import hooks_read, read_blocks
from interp.corpus import TokenBlocks
from interp.mask import Mask
from interp.models import Edit, Model, Site
from interp.progress import bar
from interp.sae import SAE
from interp.sae.dictionary import join, reads_what_it_writes, split
from interp.sae.metrics import Reconstruction
from interp.statistics import bootstrap_ratio
from interp.types import InterpError


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Held-out measurements of one dictionary; `*_interval` are 95 %."""

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
def evaluate(
    model: Model,
    sae: SAE,
    blocks: TokenBlocks,
    *,
    norm_cutoff: float | Mapping[str, float],
    batch_blocks: int = 8,
) -> Fidelity:
    """The fidelity of an SAE, transcoder or crosscoder over the blocks; runs the model five times over them (six for one
    that reads several hook points).

    `norm_cutoff` is of the first hook point that it reads, or by hook point (`Card.mask`). Raises InterpError when the model lacks a hook point, when one
    that is written fires before the one that is read, and when no position counts, or none with a real token after it.
    """
    hooks, written = hooks_read(model, sae), [str(hook) for hook in sae.writes]
    _check_order(model, hooks, written, sae.name)
    cutoffs = norm_cutoff if isinstance(norm_cutoff, Mapping) else {hooks[0]: norm_cutoff}
    mask, passes = Mask(cutoffs), 5 + (len(hooks) > 1)
    with bar(f"evaluate, {'six' if passes == 6 else 'five'} passes", passes * blocks.positions, "tokens read") as step:
        fit = _fit(model, sae, blocks, mask, batch_blocks, step)
        mean = split(sae, fit.mean_O)
        change = {
            "ce": _Change(dict.fromkeys(written, _as_it_is)),
            "ce_sae": _Change({}, sae),
            "ce_zero": _Change(dict.fromkeys(written, torch.zeros_like)),
            "ce_mean": _Change({hook: _constant(mean[hook]) for hook in written}),
        }
        losses = {
            name: _losses(model, one, hooks, blocks, fit.counted_NT.split(batch_blocks), step)
            for name, one in change.items()
        }
    return _report(sae, fit, losses)


def _check_order(model: Model, read: list[str], written: list[str], name: str) -> None:
    """Raises InterpError when what is written cannot be made of what is read in the same pass."""
    for hook in written:
        model.check_hook(hook)
    if len(read) > 1 or read == written:
        return
    order = model.hook_names()
    if any(hook in order and read[0] in order and order.index(hook) < order.index(read[0]) for hook in written):
        raise InterpError(
            f"{name} writes {', '.join(written)}, which the model reaches before {read[0]}, which it reads; nothing can "
            "be put in there. Name the hook points the other way round."
        )


@dataclass(frozen=True, eq=False)
class _Fit:
    """What the first pass gives."""

    sums: Reconstruction
    counted_NT: Tensor
    mean_O: Tensor
    errors_N: np.ndarray
    spread_N: np.ndarray
    """Σ‖y - ŷ‖² and Σ‖y - mean y‖² of each block."""


def _fit(model: Model, sae: SAE, blocks: TokenBlocks, mask: Mask, at_once: int, step: Callable[..., None]) -> _Fit:
    hooks = dict.fromkeys([str(hook) for hook in (*sae.reads, *sae.writes)])
    itself = reads_what_it_writes(sae)
    sums, per_block, counted = Reconstruction(sae.d_sae), [], []
    for read in read_blocks(model, list(hooks), blocks.tokens_NT, separator=blocks.separator, at_once=at_once):
        x_NTD, counted_NT = join(sae, read.x), mask.counted(read.x, read.real_BT)
        y_NTO = x_NTD if itself else torch.cat([read.x[str(hook)] for hook in sae.writes], dim=-1)
        for x_TD, y_TO, keep_T in zip(x_NTD, y_NTO, counted_NT, strict=True):
            before, y = sums.error, y_TO[keep_T].double()
            sums.add(x_TD[keep_T], sae, None if itself else y_TO[keep_T])
            per_block.append((sums.error - before, float(y.square().sum()), y.sum(0).cpu(), len(y)))
        counted.append(counted_NT.cpu())
        step(read.tokens_BT.numel())
    if sums.rows == 0:
        raise InterpError("no position of this text counts: all are separators or sinks; give more text.")
    spread_about_mean = sums.square - float(sums.total.square().sum()) / sums.rows
    if spread_about_mean <= 1e-9 * sums.square:
        raise InterpError(
            "the activations at the counted positions are all the same: FVU has no meaning; give more text."
        )
    mean_O = (sums.total / sums.rows).float()
    centre = mean_O.double()
    # Σ‖y - mean‖² of a block, from its sums.
    spread = [sq - 2 * float(total @ centre) + n * float(centre @ centre) for _, sq, total, n in per_block]
    errors = np.array([error for error, *_ in per_block])
    return _Fit(sums, torch.cat(counted), mean_O, errors, np.array(spread))


def _report(sae: SAE, fit: _Fit, losses: dict[str, tuple[np.ndarray, np.ndarray]]) -> Fidelity:
    if not losses["ce"][1].sum():
        raise InterpError("no counted position of this text has a token after it to be predicted; give longer texts.")
    mean = {name: float(sum_N.sum() / count_N.sum()) for name, (sum_N, count_N) in losses.items()}
    sums, counts = fit.sums, losses["ce"][1]
    return Fidelity(
        tokens=sums.rows,
        blocks=len(fit.counted_NT),
        fvu=sums.fvu,
        fvu_interval=bootstrap_ratio(fit.errors_N, fit.spread_N),
        l0=sums.l0,
        dead=sums.dead,
        dead_share=sums.dead / sae.d_sae,
        **mean,
        delta_ce=mean["ce_sae"] - mean["ce"],
        delta_ce_interval=bootstrap_ratio(losses["ce_sae"][0] - losses["ce"][0], counts),
        recovered_zero=_recovered(losses, "ce_zero"),
        recovered_mean=_recovered(losses, "ce_mean"),
    )


def _recovered(losses: dict[str, tuple[np.ndarray, np.ndarray]], ablated: str) -> float | None:
    """The share of what the ablation adds to the loss that the dictionary does not; None where that is not surely above 0."""
    untouched, counts = losses["ce"]
    added = losses[ablated][0] - untouched
    interval = bootstrap_ratio(added, counts)
    if interval is None or interval[0] <= 0:
        return None
    return float(1 - (losses["ce_sae"][0] - untouched).sum() / added.sum())


# ---- the loss with something else in place ----

Replace = Callable[[Tensor], Tensor]
"""What stands at the counted positions of a hook point, (P, W), as something else of that shape."""


def _as_it_is(x_PW: Tensor) -> Tensor:
    return x_PW


def _constant(mean_W: Tensor) -> Replace:
    return lambda x_PW: mean_W.to(x_PW.device).expand_as(x_PW)


@dataclass(frozen=True, eq=False)
class _Change:
    """What is put in at hook points: by a function of what stands there, or by a dictionary's reconstruction."""

    by_hook: Mapping[str, Replace]
    sae: SAE | None = None

    def edits(self, model: Model, hooks: Sequence[str], tokens_NT: Tensor, counted_NT: Tensor) -> list[Edit]:
        """The change as the model takes it, for one batch of blocks."""
        if self.sae is None:
            return [Edit(hook, _swap(counted_NT, replace)) for hook, replace in self.by_hook.items()]
        sae, made = self.sae, {}
        if len(hooks) > 1:
            seen = model.run(tokens_NT, hooks).activations
            rows_PD = join(sae, {hook: seen[hook][counted_NT.to(seen[hook].device)].float() for hook in hooks})
            made.update(split(sae, sae.reconstruct(rows_PD)))

        def keep(x_NTD: Float[Tensor, "N T D"], site: Site) -> Float[Tensor, "N T D"]:
            made.update(split(sae, sae.reconstruct(x_NTD[counted_NT.to(x_NTD.device)].float())))
            return x_NTD

        reader = [Edit(hooks[0], keep)] if len(hooks) == 1 else []
        return reader + [Edit(str(hook), _swap(counted_NT, _given(made, str(hook)))) for hook in sae.writes]


def _given(made: Mapping[str, Tensor], hook: str) -> Replace:
    return lambda x_PW: made[hook]


def _swap(counted_NT: Tensor, replace: Replace) -> Callable[[Tensor, Site], Tensor]:
    def swap(x_NTW: Float[Tensor, "N T W"], site: Site) -> Float[Tensor, "N T W"]:
        keep_NT, out = counted_NT.to(x_NTW.device), x_NTW.clone()
        out[keep_NT] = replace(x_NTW[keep_NT].float()).to(x_NTW)
        return out

    return swap


def _losses(
    model: Model,
    change: _Change,
    hooks: Sequence[str],
    blocks: TokenBlocks,
    counted: Sequence[Tensor],
    step: Callable[..., None],
) -> tuple[np.ndarray, np.ndarray]:
    """(sum of losses, number of predictions) of each block, over counted positions whose next token is real."""
    sums, counts = [], []
    for tokens_NT, counted_NT in zip(blocks.tokens_NT.split(len(counted[0])), counted, strict=True):
        edits = change.edits(model, hooks, tokens_NT, counted_NT)
        logits = model.run(tokens_NT, edits=edits, logits=True).logits
        assert logits is not None
        target = tokens_NT[:, 1:].to(logits.device)
        predicted = (counted_NT[:, :-1] & (tokens_NT[:, 1:] != blocks.separator)).to(logits.device)
        for row in range(len(tokens_NT)):
            loss = torch.nn.functional.cross_entropy(logits[row, :-1].float(), target[row], reduction="none")
            sums.append(float((loss * predicted[row]).sum()))
            counts.append(int(predicted[row].sum()))
        step(tokens_NT.numel() * (1 + (change.sae is not None and len(hooks) > 1)))
    return np.array(sums), np.array(counts)
