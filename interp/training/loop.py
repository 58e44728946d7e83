"""The training loop as an iterator of steps; saving is its own, printing and plotting subscribe to it.

Axes    B batch row, D d_in.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.checkpoint import save_weights
from interp.device import keep_freed_memory
from interp.progress import bar, say
from interp.sae import SAE, Architecture
from interp.sae.metrics import reconstruction
from interp.training import signals, state, watch
from interp.training.config import TrainConfig
from interp.training.finish import finish
from interp.training.listeners import Listener, json_log
from interp.training.optimise import Batch, optimise, sides
from interp.training.plan import HELD_BACK, Plan, nothing_left
from interp.training.source import Source, pick, rows_of
from interp.training.step import Step
from interp.types import InterpError

INIT_ROWS = 16_384
LATEST_ROWS = 8_192
LATEST = "latest"
EXPECT_FROM = 50
"""Runs of fewer steps are over before an estimate is made."""


def train(
    batches: Iterable[Batch],
    architecture: Architecture,
    config: TrainConfig | None = None,
    *,
    held_out: Batch | None = None,
    into: str | Path | None = None,
    restart: bool = False,
    listeners: Sequence[Listener] = (),
) -> SAE:
    """The trained SAE. `batches` is any iterable of float tensors (B, d_in), or of tuples of them for transcoders
    (inputs, targets) and crosscoders; no language model is needed.

    `held_out` rows set the threshold; without them the last 65,536 rows of the batches (or a tenth, if fewer) are
    kept back. With `into`, the state, a JSON log and the latest checkpoint (which opens on its own) are kept there,
    and the same call goes on after a kill, bit for bit.
    """
    runs = {"": (architecture, config or TrainConfig())}
    return train_many(batches, runs, held_out=held_out, into=into, restart=restart, listeners=listeners)[""]


def train_many(
    batches: Iterable[Any],
    runs: Mapping[str, tuple[Architecture, TrainConfig]],
    *,
    held_out: Any = None,
    into: str | Path | None = None,
    restart: bool = False,
    listeners: Sequence[Listener] = (),
    columns: Mapping[str, int] | None = None,
) -> dict[str, SAE]:
    """Several SAEs from one pass over the batches, each bit-equal to training it alone; `into` has a folder a run.

    With `columns` a batch (and `held_out`) is a tuple, and each run reads the part of that number: the activations of
    one hook point, say (see activations.Together).
    """
    columns = columns or {}
    plans = (
        Plan.of(batches, config, held_out=held_out is not None, column=columns.get(name))
        for name, (_, config) in runs.items()
    )
    total = sum(plan.tokens for plan in plans)
    title = " + ".join(f"{name or type(made).__name__} {made.d_sae}" for name, (made, _) in runs.items())
    ears = list(listeners)
    if into is not None:
        ears.append(_log_each({name: _folder(into, name) for name in runs}))
    done, made = dict.fromkeys(runs, 0), dict[str, SAE]()
    with bar(f"train {title}" if len(runs) < 4 else f"train {len(runs)} SAEs", max(total, 1)) as advance:
        for step in steps_many(batches, runs, held_out=held_out, into=into, restart=restart, columns=columns):
            advance(step.tokens - done[step.run], f"FVU {step.fvu:.3f}, L0 {step.l0:.0f}, dead {step.dead}")
            done[step.run] = step.tokens
            for note in step.notes:
                say(f"{step.run}: {note}" if step.run else note)
            for listen in ears:
                listen(step)
            if step.sae is not None:
                made[step.run] = step.sae
    missing = [name for name in runs if name not in made]
    if missing:
        raise InterpError("the batches gave no rows, so nothing was trained; check the corpus and the mask.")
    return made


def _log_each(folders: dict[str, Path]) -> Listener:
    logs = {name: json_log(folder / "log.jsonl") for name, folder in folders.items()}
    return lambda step: logs[step.run](step)


def _folder(into: str | Path, name: str) -> Path:
    return Path(into) / name if name else Path(into)


def steps(
    batches: Iterable[Batch],
    architecture: Architecture,
    config: TrainConfig | None = None,
    *,
    held_out: Batch | None = None,
    into: str | Path | None = None,
    restart: bool = False,
) -> Iterator[Step]:
    """The loop behind `train`: yields after every step, and once more with the finished SAE."""
    runs = {"": (architecture, config or TrainConfig())}
    return steps_many(batches, runs, held_out=held_out, into=into, restart=restart)


def steps_many(
    batches: Iterable[Any],
    runs: Mapping[str, tuple[Architecture, TrainConfig]],
    *,
    held_out: Any = None,
    into: str | Path | None = None,
    restart: bool = False,
    columns: Mapping[str, int] | None = None,
) -> Iterator[Step]:
    """The loop behind `train_many`: the events of all runs, batch by batch."""
    keep_freed_memory()
    columns = columns or {}
    made = []
    for name, (architecture, config) in runs.items():
        column = columns.get(name)
        plan = Plan.of(batches, config, held_out=held_out is not None, column=column)
        made.append(_Run(name, architecture, config, plan, batches, column, into, restart))
    first = min(run.begins() for run in made)
    if held_out is None and len({run.plan for run in made}) > 1:
        raise InterpError("runs of different lengths have different last rows to keep back; give held_out rows.")
    source = Source(batches, first, made[0].plan.back)
    opening = source.peek(INIT_ROWS)
    for run in made:
        run.open(opening, held_out)
    # Nothing to iterate over when a run was killed after its last step.
    going = enumerate(source, start=first) if any(run.wants(first) for run in made) else ()
    with signals.deferred() as asked:
        for number, batch in going:
            for run in made:
                if run.wants(number):
                    yield run.step(batch)
            if asked():
                for run in made:
                    run.save()
                return  # the signal is raised again as `deferred` ends
            if not any(run.wants(number + 1) for run in made):
                break
    for run in made:
        if not run.begins():
            raise nothing_left(source.held, source.back)
        if held_out is not None:
            rows = sides(pick(held_out, run.column), run.architecture)
        else:
            rows = source.kept(run.architecture, run.column)
        yield run.finish(rows)


class _Run:
    """One SAE in the making: its state, its folder, and what it says."""

    def __init__(
        self,
        name: str,
        made: Architecture,
        config: TrainConfig,
        plan: Plan,
        batches: Any,
        column: int | None,
        into: str | Path | None,
        restart: bool,
    ) -> None:
        self.name, self.architecture, self.column, self.plan = name, made, column, plan
        self.folder = _folder(into, name) if into is not None else None
        if self.folder is not None and restart:
            for stale in (state.FILE, "log.jsonl"):
                (self.folder / stale).unlink(missing_ok=True)
        kept = state.recipe(self.folder) if self.folder else {}
        # Runs were once as long as was asked, whatever the batches held: one that was saved so goes on so.
        self.total = plan.asked if kept.get("tokens") == plan.asked else plan.tokens
        self.config = config.resolved(made, self.total)
        self.recipe = {"architecture": type(made).__name__, **asdict(made), **asdict(self.config)}  # type: ignore[call-overload]
        own = batches.parts[column] if column is not None and hasattr(batches, "parts") else batches
        self.recipe["batches"] = {"batch_size": getattr(own, "batch_size", None), **getattr(own, "recipe", {})}
        self.device = getattr(batches, "device", torch.device("cpu"))
        self.state = state.load(self.folder, self.recipe, made, self.device) if self.folder else None
        self.notes: list[str] = []
        if config.tokens and self.total < config.tokens:
            back = f", of which {plan.back:,} are kept back" if plan.back else ""
            self.notes.append(
                f"trains on {self.total:,} of the {config.tokens:,} tokens asked: the batches hold no more{back}"
            )
        self.last: Step | None = None
        self.saved = self.state.tokens if self.state else 0
        self.held: tuple[Tensor, Tensor] | None = None

    def begins(self) -> int:
        """The number of the first batch that this run has not had."""
        return self.state.step if self.state else 0

    def open(self, opening: list[Any], held_out: Any) -> None:
        """Make the first state, or take up the saved one; say what the run will take."""
        opening = [part for batch in opening if (part := pick(batch, self.column)) is not None]
        if not opening and self.state is not None:
            return  # all its batches are behind it: only finishing is left
        if not opening:
            raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
        pairs = [sides(batch, self.architecture) for batch in opening]
        if self.state is None:
            x_BD, y_BO = (torch.cat(side)[:INIT_ROWS] for side in zip(*pairs, strict=True))
            whole = x_BD.isfinite().all(1) & y_BO.isfinite().all(1)
            if not bool(whole.any()):
                raise InterpError("every one of the first rows holds a NaN or an infinity; harvest again in float32.")
            x_BD, y_BO = x_BD[whole], y_BO[whole]
            self.state = state.initial(x_BD, y_BO, self.architecture, self.config.seed)
        self.watch = watch.Watch(opening, self.architecture)
        left = self.total - self.state.tokens
        if left // rows_of(opening[0]) >= EXPECT_FROM:
            expected = watch.expect(self.state, self.architecture, self.config, opening[0], left)
            self.notes.append(str(expected))
            if self.folder is not None:
                watch.check_disk(self.folder, expected)
        if held_out is not None:
            x_BD, y_BO = sides(pick(held_out, self.column), self.architecture)
            self.held = x_BD[:LATEST_ROWS], y_BO[:LATEST_ROWS]

    def wants(self, number: int) -> bool:
        """Whether the batch of that number is this run's next."""
        assert self.state is not None
        return self.state.step == number and self.state.tokens < self.total

    def step(self, batch: Any) -> Step:
        assert self.state is not None
        batch = pick(batch, self.column)
        began = time.perf_counter()
        done = self.state.tokens / self.total
        try:
            measured = optimise(self.state, self.architecture, self.config, batch, done)
        except InterpError:
            if self.state.step:
                self.save()
            raise
        self.state.tokens += rows_of(batch)
        notes = (*self.notes, *self.watch.look(batch, measured))
        self.notes = []
        if self.state.tokens - self.saved >= self.config.save_every:
            self.save()
        lr = float(self.config.lr or 0.0) * self.config.rate(done)
        where = self.state.step, self.state.tokens
        seconds = time.perf_counter() - began
        self.last = Step(*where, measured.fvu, measured.l0, measured.dead, measured.loss, lr, seconds, notes, self.name)
        return self.last

    def save(self) -> None:
        """Write the state, and beside it the checkpoint as it stands: an SAE that opens on its own."""
        assert self.state is not None
        self.saved = self.state.tokens
        if self.folder is not None:
            self.state.save(self.folder, self.recipe)
            save_weights(self._sae(self.held[0] if self.held else None), self.folder / LATEST)

    def _sae(self, held_out_BD: Tensor | None) -> SAE:
        assert self.state is not None
        return finish(self.state, self.architecture, held_out_BD)

    def finish(self, held_out: tuple[Tensor, Tensor]) -> Step:
        """The last event; the threshold is set on the held-out rows, and FVU and L0 are of them."""
        assert self.state is not None
        x_BD, y_BO = held_out
        if not len(x_BD):
            raise InterpError("there are no held-out rows to measure the threshold on; give held_out, or more batches.")
        if self.folder is not None and self.state.tokens > self.saved:
            self.save()
        sae = self._sae(x_BD[:HELD_BACK])
        sums = reconstruction(sae, x_BD[:HELD_BACK], y_BO[:HELD_BACK])
        wanted = getattr(self.architecture, "k", None) or getattr(self.architecture, "l0", None)
        if getattr(self.architecture, "form", "quadratic") != "quadratic":
            wanted = None
        notes = watch.off_target(sums.l0, wanted) + watch.ended_early(self.state.tokens, self.total)
        last = self.last or Step(self.state.step, self.state.tokens, 0.0, 0.0, 0, 0.0, 0.0, 0.0)
        where = last.step, last.tokens
        return Step(
            *where, sums.fvu, sums.l0, last.dead, last.loss, last.lr, last.seconds, tuple(notes), self.name, sae
        )
