"""Train a cross-layer transcoder: batches with the rows of every layer in, one dictionary out.

It is one run, whose state is written as an SAE's is (`training/state.py`): killed at any moment, the same call goes on bit for bit. What
differs from `training/run.py` is that all parameters are of all layers, and so is the loss.

Axes    L layer, R rank, B batch row, D width read, O width written, F feature of one layer.
"""

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp import places
from interp.device import keeping_freed_memory
from interp.progress import bar
from interp.render.terminal import say
from interp.sae import SAE
from interp.sae.architecture import Moment
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.cross_layer_rule import CrossLayer
from interp.sae.metrics import Reconstruction, reconstruction_by_layer
from interp.training import parallel, signals, state, watch
from interp.training.batch import finite_rows, rows_of
from interp.training.config import TrainConfig
from interp.training.finish import finish_cross_layer
from interp.training.listeners import Listener, cut, json_log
from interp.training.loop import LOG
from interp.training.optimise import Measured, auxk, update
from interp.training.plan import Plan, nothing_left
from interp.training.queue import BatchQueue
from interp.training.run import HALVED_FROM, SAVE_SECONDS, elsewhere
from interp.training.step import Step
from interp.types import InterpError

INIT_ROWS = 4096
"""Rows from which the first parameters are made; of so many hook points that more would fill the memory."""
SEED_STRIDE = 7919
"""Between the seeds of two layers, whose features are not to begin in the same directions."""


@dataclass(frozen=True)
class Trained:
    """What a run ends with."""

    transcoder: CrossLayerTranscoder
    measured: list[Reconstruction]
    """Of each layer, on the held-out rows that its threshold was not set on."""
    tokens: int


@keeping_freed_memory()
def train_cross_layer(
    batches: Iterable[Any],
    rule: CrossLayer,
    config: TrainConfig | None = None,
    *,
    held_out: Sequence[Tensor],
    start: Sequence[SAE] = (),
    into: str | Path | None = None,
    restart: bool = False,
    listeners: Sequence[Listener] = (),
) -> Trained:
    """The trained transcoder. `batches` is any iterable of tuples of 2 L tensors: what each layer reads (B, D), then what each writes (B, O).

    One half of `held_out`, such a tuple, sets the thresholds, the other is measured. With `start`, a trained transcoder of each layer,
    it begins as these (as EleutherAI's clt-training does), else at random. With `into` the state and a JSON log are kept there, and the
    same call goes on after a kill, bit for bit.
    Raises InterpError when batches do not fit or run out before anything was trained, a loss is not finite, the disk has no room,
    another process trains into the folder, or a signal stopped the run.
    """
    with ExitStack() as held:
        if into is not None:
            held.enter_context(places.only_one(Path(into), "training"))
        folder = Path(into) if into is not None else None
        run = CrossLayerRun(batches, rule, config or TrainConfig(), folder, restart, start)
        ears = list(listeners)
        if run.folder is not None:
            cut(run.folder / LOG, run.state.step)
            ears.append(json_log(run.folder / LOG))
        sides([part[:1] for part in held_out], rule, run.device)  # says what does not fit before anything is trained
        advance = held.enter_context(bar("train a cross-layer transcoder", run.total, done=run.state.tokens))
        with signals.deferred() as asked:  # the step in hand is ended and saved before a signal takes its course
            while run.state.tokens < run.total and not asked():
                step = run.step()
                if step is None:
                    break
                advance(step.tokens - run.before, f"FVU {step.fvu:.3f}, L0 {step.l0:.0f}, dead {step.dead}")
                try:
                    for listen in ears:
                        listen(step)
                except Exception:
                    run.save()
                    raise
            run.save()
            stopped = asked()
        if stopped:  # a signal's own handler let it pass
            raise InterpError("the run was stopped before its end; the same call goes on from there.")
        for note in watch.ended_early(run.state.tokens, run.total):
            say(note)
        trained = run.finish(*sides(held_out, rule, run.device))
        if run.folder is not None:
            log_end(run.folder / LOG, run.state, trained)
        return trained


def log_end(path: Path, now: state.State, trained: Trained) -> None:
    """The log's last line, as of an SAE: the last step, with what was measured on held-out rows in the mean over layers."""
    count = len(trained.measured)
    fvu, l0 = (sum(getattr(one, name) for one in trained.measured) / count for name in ("fvu", "l0"))
    dead = sum(one.dead for one in trained.measured)
    last = Step(now.step, now.tokens, fvu, l0, dead, now.loss, now.lr, 0.0).record() | {"finished": True}
    try:
        with path.open("a", encoding="utf-8") as out:
            out.write(places.strict_json(last) + "\n")
    except OSError as error:
        raise places.disk_error(path, error) from error


class CrossLayerRun:
    """A run as it stands; `state.p` has W_enc (L, F, D), b_enc (L, F), W_dec (L, R, F, O), b_dec (L, O) and mix (L, R, L)."""

    def __init__(
        self,
        batches: Iterable[Any],
        rule: CrossLayer,
        config: TrainConfig,
        folder: Path | None,
        restart: bool = False,
        start: Sequence[SAE] = (),
    ) -> None:
        parallel.refuse_several("a cross-layer transcoder")
        self.rule, self.folder = rule, folder
        plan = Plan.of(batches, config, held_out=True)
        self.total, self.before = plan.tokens, 0
        self.config = config.resolved(rule.layer, self.total)
        self.device = torch.device(self.config.device)
        self.recipe: dict[str, Any] = {"architecture": type(rule).__name__, **asdict(rule), **asdict(self.config)}
        for where in ("device", "feature_ranks"):  # a run goes on wherever it is taken up
            del self.recipe[where]
        self.recipe["batches"] = {
            "batch_size": getattr(batches, "batch_size", None),
            **getattr(batches, "recipe", {}),
        }
        if start:
            self.recipe["start"] = digest(start)
        if folder is not None:
            places.drop_partials(folder)
            if restart:
                (folder / state.FILE).unlink(missing_ok=True)
        saved = state.load(folder, self.recipe, rule.layer, self.device) if folder is not None else None
        queue = BatchQueue(batches, saved.step if saved else 0, 0)
        if saved:
            queue.check_skipped(saved.tokens, saved.step)
            for note in elsewhere(saved):
                say(note)
        self.state = saved or begin(queue.peek(INIT_ROWS), rule, self.config.seed, self.device, start)
        self.batches = iter(queue)
        self.saved, self.saved_at = self.state.tokens, time.monotonic()
        if folder is not None and not saved:
            size = 12 * sum(value.numel() for value in self.state.p.values())
            watch.check_disk(folder, [size], [size])

    def step(self) -> Step | None:
        """Train on the next batch; None when there is none.

        Raises InterpError when the loss is not finite; the state is saved as it was before.
        """
        now = self.state
        try:
            batch = next(self.batches, None)
            if batch is None:
                return None
            began, done = time.perf_counter(), now.tokens / self.total
            measured = move(now, self.rule, self.config, batch, done)
        except InterpError:
            self.save()
            raise
        self.before = now.tokens
        now.tokens += rows_of(batch)
        now.loss, now.lr = measured.loss, float(self.config.lr or 0.0) * self.config.rate(done)
        if now.tokens - self.saved >= self.config.save_every or time.monotonic() - self.saved_at >= SAVE_SECONDS:
            self.save()
        seconds = time.perf_counter() - began
        return Step(now.step, now.tokens, measured.fvu, measured.l0, measured.dead, now.loss, now.lr, seconds)

    def save(self) -> None:
        """Write the state, if there is anything new in it."""
        if self.folder is not None and self.state.tokens > self.saved:
            self.state.save(self.folder, self.recipe)
        self.saved, self.saved_at = self.state.tokens, time.monotonic()

    def finish(self, x_LBD: Float[Tensor, "L B D"], y_LBO: Float[Tensor, "L B O"]) -> Trained:
        """The transcoder in raw units, thresholds set on the first half of the rows and all measured on the other (few rows: on the same).

        Raises InterpError when nothing was trained, and when the rows are not finite.
        """
        if not self.state.step:
            raise nothing_left(0, 0)
        for x, y in zip(x_LBD, y_LBO, strict=True):
            if not len(x) or not bool(finite_rows(x, y).all()):
                raise InterpError(
                    "the held-out rows are none, or hold a NaN or an infinity; harvest them again in float32."
                )
        half = x_LBD.shape[1] // 2 if x_LBD.shape[1] >= HALVED_FROM else 0
        made = finish_cross_layer(self.state, self.rule, x_LBD[:, : half or None])
        return Trained(made, reconstruction_by_layer(made, x_LBD[:, half:], y_LBO[:, half:]), self.state.tokens)


def begin(
    batches: Sequence[Any], rule: CrossLayer, seed: int, device: torch.device, start: Sequence[SAE] = ()
) -> state.State:
    """The first state, from the first rows: each layer as a transcoder of it alone begins, from a seed of its own, or as it was trained
    (`start`).

    Raises InterpError when there are no rows, when those of a layer are all the same, and when `start` does not fit.
    """
    if not batches:
        raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
    parts = [torch.cat(part)[:INIT_ROWS] for part in zip(*batches, strict=True)]
    x_LBD, y_LBO = sides(parts, rule, device)
    for n, (x, y) in enumerate(zip(x_LBD, y_LBO, strict=True)):
        if bool((x == x[:1]).all() | (y == y[:1]).all()):
            raise InterpError(
                f"all of the first {len(x):,} rows of layer {n} are the same, so there is nothing to learn."
            )
    layers = [
        state.initial(x, y, rule.layer, seed + SEED_STRIDE * n)
        for n, (x, y) in enumerate(zip(x_LBD, y_LBO, strict=True))
    ]
    if start:
        check_start(start, rule)
        for one, sae in zip(layers, start, strict=True):
            one.p |= scaled(sae, one.scale_in[0], one.scale_out[0])
    p = {name: torch.stack([one.p[name] for one in layers]) for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
    W_dec = p["W_dec"].new_zeros(rule.layers, rule.rank, rule.d_sae, rule.d_out)
    W_dec[:, 0] = p["W_dec"]
    p["W_dec"] = W_dec
    p["mix"] = rule.profiles().to(device)
    return state.State(
        p=p,
        scale_in=torch.stack([one.scale_in[0] for one in layers]),
        scale_out=torch.stack([one.scale_out[0] for one in layers]),
        idle_F=torch.stack([one.idle_F for one in layers]),
        hint=torch.stack([one.hint for one in layers]),
        step=0,
        tokens=0,
        optimiser=state.adam(p, rule.layer),
        made_on=device.type,
    )


def scaled(sae: SAE, scale_in: Tensor, scale_out: Tensor) -> dict[str, Tensor]:
    """A trained transcoder's parameters in scaled units, as training had them: features stand in the order in which one threshold for all of
    them chooses, and encoder rows have a median norm of 1."""
    assert sae.threshold is not None
    W_enc, unit_F = sae.W_enc.T / scale_in, sae.threshold.clamp_min(1e-12)
    unit_F = unit_F * (W_enc.norm(dim=1) / unit_F).median()
    return {
        "W_enc": W_enc / unit_F[:, None],
        "b_enc": sae.b_enc / unit_F,
        "W_dec": sae.W_dec * unit_F[:, None] * scale_out,
        "b_dec": sae.b_dec * scale_out,
    }


def check_start(start: Sequence[SAE], rule: CrossLayer) -> None:
    """Raises InterpError when these are no transcoders of every layer, of the rule's widths and with thresholds."""
    sizes = [(one.d_in, one.d_out, one.d_sae) for one in start]
    wanted = (rule.d_in, rule.d_out, rule.d_sae)
    plain = all(one.threshold is not None and one.W_skip is None and not one.centred for one in start)
    if sizes != [wanted] * rule.layers or not plain:
        raise InterpError(
            f"it can begin as {rule.layers} transcoders with thresholds and without skip connections, {wanted[0]} wide where they read, "
            f"{wanted[1]} where they write, of {wanted[2]} features each; what was given are {len(start)} of other sizes or kinds."
        )


def digest(start: Sequence[SAE]) -> str:
    """SHA-256 of the weights of some SAEs."""
    hashed = hashlib.sha256()
    for one in start:
        for value in one.state_dict().values():
            hashed.update(value.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def sides(batch: Sequence[Tensor], rule: CrossLayer, device: torch.device) -> tuple[Tensor, Tensor]:
    """(what the layers read (L, B, D), what they are to write (L, B, O)) of a batch, in float32 on the device.

    Raises InterpError when the batch is not 2 L tensors of these widths.
    """
    widths = [rule.d_in] * rule.layers + [rule.d_out] * rule.layers
    shapes = [tuple(part.shape) for part in batch]
    if [shape[1:] for shape in shapes] != [(width,) for width in widths] or len({shape[0] for shape in shapes}) > 1:
        raise InterpError(
            f"a batch of a cross-layer transcoder of {rule.layers} layers is {len(widths)} tensors of as many rows: what each layer "
            f"reads ({rule.d_in} wide), then what each writes ({rule.d_out}); this one has shapes {str(shapes)[:120]}."
        )
    x, y = batch[: rule.layers], batch[rule.layers :]
    return torch.stack([part.float() for part in x]).to(device), torch.stack([part.float() for part in y]).to(device)


@torch.no_grad()
def move(now: state.State, rule: CrossLayer, config: TrainConfig, batch: Sequence[Tensor], done: float) -> Measured:
    """Move the state by one batch, when `done` of the run is over; `config` is resolved.

    Raises InterpError when the loss is not finite; the state is then as it was.
    """
    u_LBD, t_LBO = sides(batch, rule, now.device)
    p, rows = now.p, u_LBD.shape[1]
    u_LBD *= now.scale_in[:, None, None]
    t_LBO.mul_(now.scale_out[:, None, None]).sub_(p["b_dec"][:, None])
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    by_layer, hint_L = rule.select(p, u_LBD, [Moment(done, hint, dtype) for hint in now.hint])
    out = rule.gradients(p, by_layer, u_LBD, t_LBO)
    square_L, targets_L = out.error_LBO.square().sum((1, 2)), t_LBO.square().sum((1, 2))
    loss = float(square_L.sum()) / rows
    if not (math.isfinite(loss) and bool(u_LBD.sum((1, 2)).isfinite().all())):  # rows of NaN have no entries
        raise InterpError(
            f"the loss is not finite at step {now.step + 1} (batch {now.step}, counted from 0); the last saved state is good. "
            "Look for massive or missing activations in that batch, or lower lr."
        )
    dead_LF = now.idle_F >= (config.dead_after or 1)
    if config.aux_alpha > 0:
        for n, dead_F in enumerate(dead_LF):
            dead = dead_F.nonzero().squeeze(1)
            if len(dead):  # which learn, by their first decoder, from what their own layer leaves over
                own = {"W_enc": p["W_enc"][n], "b_enc": p["b_enc"][n], "W_dec": p["W_dec"][n, 0]}
                grads = {name: out.grads[name][n] for name in ("W_enc", "b_enc")} | {"W_dec": out.grads["W_dec"][n, 0]}
                auxk(own, grads, dead, u_LBD[n], out.error_LBO[n], config, dtype, centred=False)
    update(now, out.grads, (config.lr or 0.0) * config.rate(done), False, config.frozen)
    now.hint = hint_L
    now.idle_F += rows
    now.idle_F.masked_fill_(out.fired_LF, 0)
    variance_L = targets_L - t_LBO.sum(1).square().sum(1) / rows
    fvu = float((square_L / variance_L.clamp_min(1e-30)).mean())
    return Measured(fvu, out.entries / rows / rule.layers, int(dead_LF.sum()), loss)
