"""The training loop as an iterator of steps; saving is its own, printing and plotting subscribe to it.

Axes    B batch row, D d_in.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from interp import places
from interp.device import keeping_freed_memory
from interp.progress import bar
from interp.render.terminal import say
from interp.sae import SAE, Architecture
from interp.training import parallel, signals, watch
from interp.training.batch import Batch, Columns, pick, rows_of, sides
from interp.training.config import TrainConfig
from interp.training.listeners import Listener, cut, json_log
from interp.training.plan import INIT_ROWS, Plan, nothing_left
from interp.training.queue import BatchQueue
from interp.training.run import Run
from interp.training.step import Step
from interp.types import InterpError

LOG = "log.jsonl"


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

    One half of `held_out` (of its first 65,536 rows) sets the threshold, the other half is measured; without it the
    last 65,536 rows of the batches (or a tenth, if fewer) are kept back. With `into`, the state, a JSON log and the
    latest checkpoint (which opens on its own) are kept there, and the same call goes on after a kill, bit for bit.
    Raises InterpError as `train_many` does.
    """
    runs = {"": (architecture, config or TrainConfig())}
    return train_many(batches, runs, held_out=held_out, into=into, restart=restart, listeners=listeners)[""]


def train_many(
    batches: Iterable[Batch | Columns],
    runs: Mapping[str, tuple[Architecture, TrainConfig]],
    *,
    held_out: Batch | Columns | None = None,
    into: str | Path | None = None,
    restart: bool = False,
    listeners: Sequence[Listener] = (),
    columns: Mapping[str, int] | None = None,
) -> dict[str, SAE]:
    """Several SAEs from one pass over the batches, each bit-equal to training it alone; `into` has a folder a run.

    With `columns` a batch (and `held_out`) is a tuple, and each run reads the part of that number: the activations of
    one hook point, say (see activations.Together).

    Raises InterpError when nothing is given to train, batches do not fit or run out, a loss is not finite, the machine has no
    room, another process trains into the folder, or a signal stopped the run.
    """
    whole = _Pass(batches, runs, held_out, into, restart, columns)
    title = " + ".join(f"{name or type(made).__name__} {made.d_sae}" for name, (made, _) in runs.items())
    title = f"train {title}" if len(runs) < 4 else f"train {len(runs)} SAEs"
    ears = [*listeners, *([_log_each(whole.runs)] if into is not None and whole.leads else [])]
    done, made = {run.name: run.tokens for run in whole.runs}, dict[str, SAE]()
    total = sum(run.total for run in whole.runs)
    asked: Callable[[], bool] | None = None
    with ExitStack() as stack:
        advance = stack.enter_context(bar(title, max(total, 1), done=sum(done.values()))) if whole.leads else _nothing
        for step in whole:
            # From here on there is something to lose, between two steps as well, while somebody listens.
            asked = asked or stack.enter_context(signals.deferred())
            advance(step.tokens - done[step.run], f"FVU {step.fvu:.3f}, L0 {step.l0:.0f}, dead {step.dead}")
            done[step.run] = step.tokens
            if whole.leads:
                whole.tell(step, ears)
            if step.sae is not None:
                made[step.run] = step.sae
            whole.stop = asked
            if asked() and not whole.shards.several:
                whole.save()
                break
        if whole.stopped:
            parallel.part()  # before the signal takes its course
    if len(made) < len(runs):  # a signal's own handler let it pass
        raise InterpError("the run was stopped before its end; the same call goes on from there.")
    return made


def _nothing(*_: object) -> None:
    """What a rank says that is not the first."""


def _log_each(runs: list[Run]) -> Listener:
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
    """The loop behind `train`: yields after every step, and once more with the finished SAE. Raises what `train` raises."""
    runs = {"": (architecture, config or TrainConfig())}
    return steps_many(batches, runs, held_out=held_out, into=into, restart=restart)


def steps_many(
    batches: Iterable[Batch | Columns],
    runs: Mapping[str, tuple[Architecture, TrainConfig]],
    *,
    held_out: Batch | Columns | None = None,
    into: str | Path | None = None,
    restart: bool = False,
    columns: Mapping[str, int] | None = None,
) -> Iterator[Step]:
    """The loop behind `train_many`: the events of all runs, batch by batch. Raises what `train_many` raises."""
    return iter(_Pass(batches, runs, held_out, into, restart, columns))


class _Pass:
    """Several runs over the same batches, an iterable of their events."""

    def __init__(
        self,
        batches: Iterable[Batch | Columns],
        runs: Mapping[str, tuple[Architecture, TrainConfig]],
        held_out: Batch | Columns | None,
        into: str | Path | None,
        restart: bool,
        columns: Mapping[str, int] | None,
    ) -> None:
        if not runs:
            raise InterpError("there is nothing to train; give at least one architecture with its config.")
        self.batches, self.held_out = batches, held_out
        self.runs: list[Run] = []
        with ExitStack() as held:
            if into is not None and parallel.leads():
                held.enter_context(places.only_one(Path(into), "training"))
            for name, (architecture, config) in runs.items():
                column = (columns or {}).get(name)
                plan = Plan.of(batches, config, held_out=held_out is not None, column=column)
                folder = Path(into) / name if into is not None else None
                self.runs.append(Run(name, architecture, config, plan, batches, column, folder, restart))
            if held_out is None and len({run.plan for run in self.runs}) > 1:
                raise InterpError(
                    "runs of different lengths have different last rows to keep back; give held_out rows."
                )
            self.held = held.pop_all()  # until the iteration ends
        self.shards = self.runs[0].shards
        """Those of any run: how all ranks agree does not depend on who shares what."""
        self.leads = self.shards.leads
        self.stop: Callable[[], bool] = lambda: False
        """Whether this process was asked to stop; several ranks do so together, before the next batch."""
        self.stopped = False

    def __iter__(self) -> Iterator[Step]:
        with self.held, keeping_freed_memory():
            yield from self._events()

    def _events(self) -> Iterator[Step]:
        # Runs that are over need no batches but those kept back.
        number = min((run.begins() for run in self.runs if not run.over), default=self.runs[0].begins())
        before = watch.own_memory()
        queue = BatchQueue(self.batches, number, self.runs[0].plan.back)
        opening = queue.peek(INIT_ROWS)
        self.shards.check_same([opening, self.held_out], "activations")
        drawn = watch.own_memory() - before
        for run in self.runs:
            if run.begins() == number:
                queue.check_skipped(run.tokens, number)
            run.open(opening, self.held_out)
        pace = self._expect(queue, opening, drawn)
        going = iter(queue)
        while not all(run.over for run in self.runs):
            # The step in hand is ended and saved before a signal takes its course.
            with signals.deferred() as asked:
                events = self._advance(number, going)
                if asked() and not self.shards.several:
                    self.save()
            if events is None:
                break
            yield from events
            number += 1
            self.runs[0].notes += pace.look() if pace else []
        if self.stopped:
            return
        for run in self.runs:
            if not run.begins():
                raise nothing_left(queue.held, queue.back)
            if self.held_out is not None:
                rows = sides(pick(self.held_out, run.column), run.architecture, run.device)
            else:
                rows = queue.kept(run.architecture, run.column, run.device)
                self.shards.check_same(rows, "activations")
            yield run.finish(rows)

    def _expect(self, queue: BatchQueue, opening: list[Any], drawn: int) -> watch.Pace | None:
        """Say once what all runs together will take, when that is long; refuse when the disk has no room.

        `drawn` bytes were taken while the first batches were drawn: those batches, and what they are drawn from.
        """
        going = [run for run in self.runs if opening and not run.over and pick(opening[0], run.column) is not None]
        if not going:
            return None
        rows, waiting = rows_of(opening[0]), sum(map(watch.own_bytes, opening))
        sizes = [run.sizes(rows, waiting // queue.held) for run in self.runs]
        if going[0].folder is not None:
            new = [size.disk for run, size in zip(self.runs, sizes, strict=True) if not run.saved]
            watch.check_disk(going[0].folder, new, [size.disk for size in sizes])
        batches = max(run.batches_left(rows) for run in going)
        if batches < watch.EXPECT_FROM:
            return None
        seconds = sum(run.batches_left(rows) * run.seconds_a_step(opening) for run in going)
        seconds += queue.seconds_of(batches)
        self.runs[0].notes.append(watch.expects(sizes, max(drawn - waiting, 0), seconds / 60))
        return watch.Pace(batches, seconds, len(opening), queue.fill)

    def _advance(self, number: int, going: Iterator[Any]) -> list[Step] | None:
        """The runs' events of the next batch, which has that number; None when there is none."""
        try:
            batch = next(going, None)
            late = any(run.late() for run in self.runs)
            self.stopped, late = self.shards.check_same(batch, "activations", self.stop(), late)
            if self.shards.several and (self.stopped or late):
                self.save()
            if batch is None or (self.shards.several and self.stopped):
                return None
            parts = [(run, pick(batch, run.column)) for run in self.runs if run.begins() == number and not run.over]
            return [run.step(part) for run, part in parts if part is not None]
        except InterpError:
            self._keep()
            raise

    def tell(self, step: Step, listeners: Sequence[Listener]) -> None:
        """Let everybody hear of a step."""
        for note in step.notes:
            say(f"{step.run}: {note}" if step.run else note)
        try:
            for listen in listeners:
                listen(step)
        except Exception:
            self._keep()
            raise

    def _keep(self) -> None:
        """Save after an error; not where other ranks, which may not have it, would have to write as well."""
        if not self.shards.several:
            self.save()

    def save(self) -> None:
        """Save the state of every run; several ranks do it together."""
        for run in self.runs:
            run.save()
