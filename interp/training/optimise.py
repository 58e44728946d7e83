"""One step of optimisation: the batch in scaled units, the architecture's gradients, dead features, Adam.

Axes    B batch row, D d_in, O d_out, F d_sae.
Source  Gao et al. 2024, "Scaling and evaluating sparse autoencoders": AuxK (appendix A.2), unit decoder rows with the
        parallel part of their gradient removed (A.3). Bricken et al. 2023, "Towards Monosemanticity": resampling.
        Korznikov et al. 2025, "OrtSAE: Orthogonal Sparse Autoencoders Uncover Atomic Features": the penalty on cosines.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sae import gpu, kernels
from interp.sae.architecture import Architecture, Moment, Outcome, Params, add_to, gate_, unit_rows
from interp.sae.kernels import Dense
from interp.sae.shards import ONE, Shards
from interp.training.batch import Batch, sides
from interp.training.config import TrainConfig
from interp.training.state import SHARED, State
from interp.types import InterpError

ROWS = 512
"""Decoder rows that are taken at a time where a copy of them is needed for a moment: they stay in cache."""
CLOSED = -1e30
"""The bias of a feature that is in a product to fill it up only."""
PARTED = 256
"""Decoder rows a step whose nearest other row is looked for."""


@dataclass(frozen=True)
class Measured:
    """A batch under the parameters before the step."""

    fvu: float
    l0: float
    dead: int
    loss: float


@torch.no_grad()
def optimise(
    state: State,
    architecture: Architecture,
    config: TrainConfig,
    batch: Batch,
    done: float,
    shards: Shards = ONE,
) -> Measured:
    """Move the state by one batch, when `done` of the run is over; `config` is resolved.

    Where several ranks share rows or features, each is given the whole batch, takes its rows, and moves its features.

    Raises InterpError when the loss is not finite; the state is then as it was.
    """
    raw_BD, raw_BO = sides(shards.own(batch), architecture, state.device)
    traits, p = architecture.traits, state.p
    if traits.along and len(raw_BD) % 2:
        raise InterpError(f"batch {state.step} has {len(raw_BD)} rows, which are no whole pairs.")
    t_BO = (raw_BO * state.scale_out).sub_(p["b_dec"])
    u_BD = t_BO if traits.centred else raw_BD * state.scale_in
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    out = architecture.gradients(p, u_BD, t_BO, Moment(done, state.hint, dtype, shards))
    dead_after = config.dead_after or 1  # resolved: never None
    dead_F = state.idle_F >= dead_after
    rows, sized = shards.rows(len(t_BO)), [out.error_BO, t_BO, *([] if traits.centred else [u_BD])]
    deaths, entries = shards.over_features(dead_F.sum(), torch.tensor(out.entries))
    sums = [t_BO.sum(0), out.fired_F, entries, torch.tensor(out.penalty, dtype=torch.float64)]
    norms, (total, fired_F, entries, penalty) = shards.over_rows([torch.linalg.vector_norm(x) for x in sized], sums)
    # Fetched together: on a GPU each number that is asked for waits until all before it is done.
    asked = [*norms[:2], total.square().sum().float(), deaths.float(), *norms[2:]]
    error, targets, mean, dead, *inputs = torch.stack(asked).cpu().tolist()
    square = error**2
    loss = square / rows + float(penalty) / shards.data
    # A row of NaN inputs has no entries, so a transcoder's loss would not show it.
    if not all(abs(number) < float("inf") for number in (loss, *inputs)):
        raise InterpError(
            f"the loss is not finite at step {state.step + 1} (batch {state.step}, counted from 0); the last saved "
            "state is good. Look for massive or missing activations in that batch, or lower lr."
        )
    through = shards.sum_features(out.into_F @ p["W_enc"]) if traits.centred else 0.0
    grads = out.grads | {"b_dec": out.g_BO.sum(0) - through}
    if dead and traits.auxk and config.aux_alpha > 0:
        auxk(p, grads, dead_F.nonzero().squeeze(1), u_BD, out.error_BO, config, dtype, traits.centred, shards)
    grads = shards.mean_each(grads)
    if config.orthogonal:
        _part(p["W_dec"], grads["W_dec"], config.orthogonal * t_BO.shape[1], state.step, dtype, traits.unit_decoder)
    update(state, grads, (config.lr or 0.0) * config.rate(done), traits.unit_decoder, config.frozen)
    state.hint = out.hint
    state.idle_F += rows
    state.idle_F.masked_fill_(fired_F.bool(), 0)
    if config.resample and not (traits.auxk and config.aux_alpha > 0):
        _resample(state, config, u_BD, out, done, shards)
    # Of the targets less b_dec, whose mean is small, so that the difference of sums keeps its digits.
    variance = targets**2 - mean / rows
    return Measured(square / max(variance, 1e-30), int(entries) / rows, int(dead), loss)


def auxk(
    p: Params,
    grads: Params,
    dead: Tensor,
    u_BD: Float[Tensor, "B D"],
    error_BO: Float[Tensor, "B O"],
    config: TrainConfig,
    dtype: torch.dtype,
    centred: bool,
    shards: Shards = ONE,
) -> None:
    """Add the gradient of alpha ‖r - r̂‖² / B, r̂ what the strongest dead features make of the residual r.

    r is a constant of this loss; where inputs are centred, b_dec has a part in it through the encoder.
    """
    count = shards.alike().count(len(dead))
    taken = _filled(dead)
    W_enc, b_enc, W_dec = (p[name][taken] for name in ("W_enc", "b_enc", "W_dec"))
    b_enc[len(dead) :] = CLOSED
    k = min(config.aux_k or 1, count)
    rows, matrix = kernels.encoder_rows(u_BD, dtype), kernels.encoder_matrix(W_enc, b_enc, dtype)
    total: Params = {}
    casts: dict[int, Tensor] = {}
    for start, pre in kernels.blocks(rows, matrix):
        part = slice(start, start + len(pre))
        code = Dense((shards.keep_largest(pre, k) if k < count else pre).relu_(), casts)
        made_BO = shards.sum_features(code.decode(code.values, W_dec))
        miss_BO = (made_BO + error_BO[part]) * (2 * config.aux_alpha / len(error_BO))
        dz = gate_(code.dots(miss_BO, W_dec), code.values)
        add_to(total, W_enc=code.outer(dz, u_BD[part]), b_enc=code.sums(dz), W_dec=code.outer(code.values, miss_BO))
    for name, grad in total.items():
        grads[name].index_add_(0, dead, grad[: len(dead)])
    if centred:
        grads["b_dec"] -= shards.sum_features(total["b_enc"] @ W_enc)


def _filled(dead: Tensor) -> Tensor:
    """With its first once more for as often as is needed for one of four sizes an octave.

    oneDNN keeps what it made for each shape of a product, megabytes for each: as many as there are numbers of dead features.
    """
    step = max(1 << max(len(dead).bit_length() - 3, 0), 8)
    return torch.cat([dead, dead[:1].expand(-len(dead) % step)])


def _part(W_FO: Tensor, grad_FO: Tensor, weight: float, step: int, dtype: torch.dtype, unit: bool) -> None:
    """Add the gradient of `weight` times the mean over features of max_j cos²(w_i, w_j), j another feature.

    PARTED features a step stand for all, each in its turn, and are compared with every other (the paper compares all of
    them with a random part): a step costs PARTED · F · O, and the nearest is the true one.
    """
    rows = torch.arange(step * PARTED, step * PARTED + min(PARTED, len(W_FO)), device=W_FO.device) % len(W_FO)
    if len(W_FO) == 1:
        return
    unit_FO = torch.empty_like(W_FO, dtype=dtype).copy_(W_FO if unit else unit_rows(W_FO))
    cosines = (unit_FO.index_select(0, rows) @ unit_FO.T).abs_()
    cosines[torch.arange(len(rows), device=W_FO.device), rows] = 0.0
    nearest = kernels.row_topk(cosines.view(kernels.BITS[dtype]), 1).squeeze(1)
    a, b = W_FO[rows], W_FO[nearest]
    norm_a, norm_b = (w.norm(dim=1, keepdim=True).clamp_min(1e-12) for w in (a, b))
    a, b = a / norm_a, b / norm_b
    cosine = (a * b).sum(1, keepdim=True)
    slope = cosine * (2 * weight / len(rows))
    grad_FO.index_add_(0, rows, (b - cosine * a) * slope / norm_a)
    grad_FO.index_add_(0, nearest, (a - cosine * b) * slope / norm_b)


def update(state: State, grads: Params, lr: float, unit_decoder: bool, frozen: tuple[str, ...]) -> None:
    """One step of Adam, which passes over what has no gradient: the frozen matrices keep every bit."""
    p = state.p
    unit_decoder = unit_decoder and "W_dec" not in frozen
    if unit_decoder:
        _drop_along(grads["W_dec"], p["W_dec"])
    for name, parameter in p.items():
        parameter.grad = None if name in frozen else grads[name]
    for group in state.optimiser.param_groups:
        group["lr"] = lr * group["rate"]
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    if unit_decoder and gpu.runs(p["W_dec"]):
        gpu.divide_by_norm_(p["W_dec"])
    elif unit_decoder:
        p["W_dec"].div_(p["W_dec"].norm(dim=1, keepdim=True))
    if "threshold" in p:
        p["threshold"].clamp_(min=0.0)
    state.step += 1


def _drop_along(grad_FO: Tensor, W_FO: Tensor) -> None:
    """In place: the gradient of each row less its part along the row, whose norm is 1."""
    if gpu.runs(W_FO):
        gpu.drop_along_(grad_FO, W_FO)
        return
    for g, W in zip(grad_FO.split(ROWS), W_FO.split(ROWS), strict=True):
        g.addcmul_(torch.linalg.vecdot(g, W)[:, None], W, value=-1)


def _resample(state: State, config: TrainConfig, u_BD: Tensor, out: Outcome, done: float, shards: Shards) -> None:
    """Give dead features the directions of rows drawn by their squared error; weak at first, with fresh moments."""
    dead_after = config.dead_after or 1
    every = max(dead_after // shards.rows(len(u_BD)), 1)
    dead_F = state.idle_F >= dead_after
    if state.step % every or done > 0.8:
        return
    dead, square_B = dead_F.nonzero().squeeze(1), shards.gather_rows(out.error_BO.square().sum(1)).cpu()
    count, first = shards.alike().count(len(dead)), shards.before(len(dead))
    if not count or not bool(square_B.any()):
        return
    p, alive_F = state.p, ~dead_F
    draw = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
    chosen = torch.multinomial(square_B, count, replacement=True, generator=draw)
    chosen = chosen[first : first + len(dead)].to(state.device)
    living = len(dead_F) * shards.features > count
    one = p["W_dec"].new_ones(())
    decoder = shards.mean_features(p["W_dec"][alive_F].norm(dim=1)) if living else one
    encoder = shards.mean_features(p["W_enc"][alive_F].norm(dim=1)) if living else one
    p["W_dec"][dead] = -unit_rows(shards.pick_rows(out.error_BO, chosen)) * decoder
    p["W_enc"][dead] = unit_rows(shards.pick_rows(u_BD, chosen)) * encoder * 0.2
    p["b_enc"][dead] = 0.0
    for name in [name for name in p if name not in SHARED]:
        if name not in ("W_dec", "W_enc", "b_enc") and living:  # thresholds, gates: as the living have them
            p[name][dead] = shards.mean_features(p[name][alive_F])
        for moment in ("exp_avg", "exp_avg_sq"):
            state.optimiser.state[p[name]][moment][dead] = 0.0
    state.idle_F[dead] = 0
