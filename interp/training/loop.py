"""The training loop as an iterator of steps; saving is its own, printing and plotting subscribe to it.

Axes    B batch row, D d_in.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from interp import places
from interp.checkpoint import save_weights
from interp.device import keep_freed_memory
from interp.progress import bar, say
from interp.sae import SAE, Architecture
from interp.sae.metrics import reconstruction
from interp.training import signals, state, watch
from interp.training.config import TrainConfig
from interp.training.finish import finish
from interp.training.listeners import Listener, cut, json_log
from interp.training.optimise import Batch, optimise, sides
from interp.training.plan import HELD_BACK, INIT_ROWS, Plan, nothing_left
from interp.training.source import Source, finite_rows, joined, pick, rows_of
from interp.training.step import Step
from interp.types import InterpError

LATEST_ROWS = 8_192
HALVED_FROM = 128
"""Held-out rows from which one half sets the threshold and the other half judges it."""
LATEST, LOG = "latest", "log.jsonl"


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
    whole = _Pass(batches, runs, held_out, into, restart, columns)
    title = " + ".join(f"{name or type(made).__name__} {made.d_sae}" for name, (made, _) in runs.items())
    title = f"train {title}" if len(runs) < 4 else f"train {len(runs)} SAEs"
    ears = [*listeners, *([_log_each(whole.runs)] if into is not None else [])]
    done, made = {run.name: run.tokens for run in whole.runs}, dict[str, SAE]()
    total = sum(run.total for run in whole.runs)
    asked: Callable[[], bool] | None = None
    with ExitStack() as stack, bar(title, max(total, 1), done=sum(done.values())) as advance:
        for step in whole:
            # From here on there is something to lose, between two steps as well, while somebody listens.
            asked = asked or stack.enter_context(signals.deferred())
            advance(step.tokens - done[step.run], f"FVU {step.fvu:.3f}, L0 {step.l0:.0f}, dead {step.dead}")
            done[step.run] = step.tokens
            for note in step.notes:
                say(f"{step.run}: {note}" if step.run else note)
            try:
                for listen in ears:
                    listen(step)
            except Exception:
                whole.save()
                raise
            if step.sae is not None:
                made[step.run] = step.sae
            if asked():
                whole.save()
                break
    if len(made) < len(runs):  # a signal's own handler let it pass
        raise InterpError("the run was stopped before its end; the same call goes on from there.")
    return made


def _log_each(runs: "list[_Run]") -> Listener:
    logs = {}
    for run in runs:
        assert run.folder is not None
        cut(run.folder / LOG, run.begins())
        logs[run.name] = json_log(run.folder / LOG)
    return lambda step: logs[step.run](step)


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
    return iter(_Pass(batches, runs, held_out, into, restart, columns))


class _Pass:
    """Several runs over the same batches, an iterable of their events."""

    def __init__(
        self,
        batches: Iterable[Any],
        runs: Mapping[str, tuple[Architecture, TrainConfig]],
        held_out: Any,
        into: str | Path | None,
        restart: bool,
        columns: Mapping[str, int] | None,
    ) -> None:
        if not runs:
            raise InterpError("there is nothing to train; give at least one architecture with its config.")
        keep_freed_memory()
        self.batches, self.held_out = batches, held_out
        self.runs: list[_Run] = []
        for name, (architecture, config) in runs.items():
            column = (columns or {}).get(name)
            plan = Plan.of(batches, config, held_out=held_out is not None, column=column)
            folder = None if into is None else Path(into) / name if name else Path(into)
            self.runs.append(_Run(name, architecture, config, plan, batches, column, folder, restart))
        if held_out is None and len({run.plan for run in self.runs}) > 1:
            raise InterpError("runs of different lengths have different last rows to keep back; give held_out rows.")

    def __iter__(self) -> Iterator[Step]:
        # Runs that are over need no batches but those kept back.
        number = min((run.begins() for run in self.runs if not run.over), default=self.runs[0].begins())
        before = psutil.Process().memory_info().rss
        source = Source(self.batches, number, self.runs[0].plan.back)
        opening = source.peek(INIT_ROWS)
        drawn = psutil.Process().memory_info().rss - before
        for run in self.runs:
            if run.begins() == number:
                source.check_skipped(run.tokens, number)
            run.open(opening, self.held_out)
        pace = self._expect(source, opening, drawn)
        going = iter(source)
        while not all(run.over for run in self.runs):
            # The step in hand is ended and saved before a signal takes its course.
            with signals.deferred() as asked:
                events = self._advance(number, going)
                if asked():
                    self.save()
            if events is None:
                break
            yield from events
            number += 1
            self.runs[0].notes += pace.look() if pace else []
        for run in self.runs:
            if not run.begins():
                raise nothing_left(source.held, source.back)
            if self.held_out is not None:
                rows = sides(pick(self.held_out, run.column), run.architecture)
            else:
                rows = source.kept(run.architecture, run.column)
            yield run.finish(rows)

    def _expect(self, source: Source, opening: list[Any], drawn: int) -> watch.Pace | None:
        """Say once what all runs together will take, when that is long; refuse when the disk has no room.

        `drawn` bytes were taken while the first batches were drawn: those batches, and what they are drawn from.
        """
        going = [run for run in self.runs if opening and not run.over and pick(opening[0], run.column) is not None]
        if not going:
            return None
        rows, waiting = rows_of(opening[0]), sum(map(watch.own_bytes, opening))
        sizes = [run.sizes(rows, waiting // source.held) for run in self.runs]
        if going[0].folder is not None:
            new = [size.disk for run, size in zip(self.runs, sizes, strict=True) if not run.saved]
            watch.check_disk(going[0].folder, new, [size.disk for size in sizes])
        batches = max(run.batches_left(rows) for run in going)
        if batches < watch.EXPECT_FROM:
            return None
        seconds = sum(run.batches_left(rows) * run.seconds_a_step(opening) for run in going)
        seconds += source.seconds_of(batches)
        self.runs[0].notes.append(watch.expects(sizes, max(drawn - waiting, 0), seconds / 60))
        return watch.Pace(batches, seconds, len(opening), source.fill)

    def _advance(self, number: int, going: Iterator[Any]) -> list[Step] | None:
        """The runs' events of the next batch, which has that number; None when there is none."""
        try:
            batch = next(going, None)
            if batch is None:
                return None
            parts = [(run, pick(batch, run.column)) for run in self.runs if run.begins() == number and not run.over]
            return [run.step(part) for run, part in parts if part is not None]
        except InterpError:
            self.save()
            raise

    def save(self) -> None:
        for run in self.runs:
            run.save()


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
        folder: Path | None,
        restart: bool,
    ) -> None:
        self.name, self.architecture, self.column, self.plan, self.folder = name, made, column, plan, folder
        if folder is not None:
            if restart:
                (folder / state.FILE).unlink(missing_ok=True)
            if not (folder / state.FILE).exists():
                shutil.rmtree(folder / LATEST, ignore_errors=True)  # of another recipe
            for place in (folder, folder / LATEST):
                places.drop_partials(place)
        kept = state.recipe(folder) if folder else {}
        # Runs were once as long as was asked, whatever the batches held: one that was saved so goes on so.
        self.total = plan.asked if kept.get("tokens") == plan.asked else plan.tokens
        self.config = config.resolved(made, self.total)
        self.recipe = {"architecture": type(made).__name__, **asdict(made), **asdict(self.config)}  # type: ignore[call-overload]
        own = batches.parts[column] if column is not None and hasattr(batches, "parts") else batches
        self.recipe["batches"] = {"batch_size": getattr(own, "batch_size", None), **getattr(own, "recipe", {})}
        self.device = getattr(batches, "device", torch.device("cpu"))
        self.state = state.load(folder, self.recipe, made, self.device) if folder else None
        self.saved = self.tokens
        self.held: tuple[Tensor, Tensor] | None = None
        self.notes: list[str] = []
        if self.state and self.state.threads != torch.get_num_threads():
            self.notes.append(
                f"warning: this run was saved on {self.state.threads} threads and goes on on {torch.get_num_threads()}: "
                "the weights' last bits may differ from those of an uninterrupted run."
            )
            self.state.threads = torch.get_num_threads()
        if config.tokens and self.total < config.tokens:
            back = f", of which {plan.back:,} are kept back" if plan.back else ""
            self.notes.append(
                f"trains on {self.total:,} of the {config.tokens:,} tokens asked: the batches hold no more{back}"
            )

    def begins(self) -> int:
        """The number of the first batch that this run has not had."""
        return self.state.step if self.state else 0

    @property
    def tokens(self) -> int:
        """Rows trained on."""
        return self.state.tokens if self.state else 0

    @property
    def over(self) -> bool:
        """Whether only finishing is left."""
        return self.tokens >= self.total

    def open(self, opening: list[Any], held_out: Any) -> None:
        """Make the first state, or take up the saved one; say what the run will take."""
        if held_out is not None:
            self.held = self._check(sides(pick(held_out, self.column), self.architecture))
        opening = [part for batch in opening if (part := pick(batch, self.column)) is not None]
        if not opening and self.state is not None:
            return  # all its batches are behind it: only finishing is left
        if not opening:
            raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
        if self.state is None:
            self.state = self._first_state(opening)
        sides(opening[0], self.architecture)  # which says what does not fit
        self.watch = watch.Watch(opening, self.architecture, self.batches_left(rows_of(opening[0])))

    def _first_state(self, opening: list[Any]) -> state.State:
        x_BD, y_BO = joined(opening, self.architecture, INIT_ROWS)
        whole = finite_rows(x_BD, y_BO)
        if not bool(whole.any()):
            raise InterpError("every one of the first rows holds a NaN or an infinity; harvest again in float32.")
        if not bool(whole.all()):
            x_BD, y_BO = x_BD[whole], y_BO[whole]
        if bool((x_BD == x_BD[:1]).all() | (y_BO == y_BO[:1]).all()):
            raise InterpError(f"all of the first {len(x_BD):,} rows are the same, so there is nothing to learn.")
        return state.initial(x_BD, y_BO, self.architecture, self.config.seed)

    def batches_left(self, rows: int) -> int:
        return (self.total - self.tokens) // rows

    def sizes(self, rows: int, waiting: int) -> watch.Sizes:
        """As `watch.sizes`."""
        assert self.state is not None
        judged = self.plan.back or self.judged
        return watch.sizes(self.state, self.architecture, self.config, rows, waiting, self.plan.back, judged)

    def seconds_a_step(self, opening: list[Any]) -> float:
        """By a trial on the first batch."""
        assert self.state is not None
        batch, done = pick(opening[0], self.column), self.tokens / self.total
        return watch.seconds_a_step(self.state, self.architecture, self.config, batch, done)

    def _check(self, held_out: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Held-out rows for checkpoints of unfinished runs; raises InterpError before anything is trained in vain."""
        x_BD, y_BO = (side[:HELD_BACK] for side in held_out)
        if not len(x_BD):
            raise InterpError("held_out has no rows; give some, or leave it out: the batches' last are then kept back.")
        broken = len(x_BD) - int(finite_rows(x_BD, y_BO).sum())
        if broken:
            raise InterpError(
                f"{broken:,} of {len(x_BD):,} held-out rows hold a NaN or an infinity, so no threshold can be measured on "
                "them; leave those out, or harvest again in float32."
            )
        self.judged = len(x_BD)
        return x_BD[:LATEST_ROWS], y_BO[:LATEST_ROWS]

    def step(self, batch: Any) -> Step:
        assert self.state is not None
        began = time.perf_counter()
        done = self.state.tokens / self.total
        try:
            measured = optimise(self.state, self.architecture, self.config, batch, done)
        except InterpError as error:
            raise InterpError(f"{self.name}: {error}" if self.name else str(error)) from error
        self.state.tokens += rows_of(batch)
        self.state.loss, self.state.lr = measured.loss, float(self.config.lr or 0.0) * self.config.rate(done)
        notes = (*self.notes, *self.watch.look(batch, measured, done))
        self.notes = []
        if self.state.tokens - self.saved >= self.config.save_every:
            self.save()
        return self._event(measured.fvu, measured.l0, measured.dead, began, notes)

    def _event(
        self, fvu: float, l0: float, dead: int, began: float, notes: Sequence[str], sae: SAE | None = None
    ) -> Step:
        assert self.state is not None
        now, seconds = self.state, time.perf_counter() - began
        return Step(now.step, now.tokens, fvu, l0, dead, now.loss, now.lr, seconds, tuple(notes), self.name, sae)

    def save(self) -> None:
        """Write the state, and beside it the checkpoint as it stands (an SAE that opens on its own), if they are new."""
        if self.folder is not None and self.tokens > self.saved:
            assert self.state is not None
            self.state.save(self.folder, self.recipe)
            sae, latest = self._sae(self.held[0] if self.held else None), self.folder / LATEST
            if latest.exists():
                save_weights(sae, latest)  # its cfg.json stays as it is, so either weights belong to it
            else:
                with places.whole_folder(latest) as partial:
                    save_weights(sae, partial)
        self.saved = self.tokens

    def _sae(self, held_out_BD: Tensor | None) -> SAE:
        assert self.state is not None
        return finish(self.state, self.architecture, held_out_BD)

    def finish(self, held_out: tuple[Tensor, Tensor]) -> Step:
        """The last event. The threshold is set on the first half of the held-out rows; FVU, L0 and dead features are of
        the others, which it has not seen."""
        began = time.perf_counter()
        self.save()
        x_BD, y_BO = (side[:HELD_BACK] for side in held_out)
        whole = finite_rows(x_BD, y_BO)
        broken = len(whole) - int(whole.sum())
        if broken:
            self.notes.append(f"warning: {broken:,} of the {len(whole):,} rows kept back are not finite, and left out.")
            x_BD, y_BO = x_BD[whole], y_BO[whole]
        if not len(x_BD):
            raise InterpError("there are no held-out rows to measure the threshold on; give held_out, or more batches.")
        half = len(x_BD) // 2 if len(x_BD) >= HALVED_FROM else 0
        sae = self._sae(x_BD[: half or None])
        sums = reconstruction(sae, x_BD[half:], y_BO[half:])
        self.notes += watch.off_target(sums.l0, watch.wanted_l0(self.architecture))
        self.notes += watch.ended_early(self.tokens, self.total)
        return self._event(sums.fvu, sums.l0, sums.dead, began, self.notes, sae)
