"""One SAE in the making: its state, its folder, and what it says.

Axes    B batch row, D d_in.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp import places
from interp.checkpoint import save_weights
from interp.sae import SAE, Architecture
from interp.sae.metrics import reconstruction
from interp.sae.shards import ONE, Shards
from interp.training import parallel, state, watch
from interp.training.batch import finite_rows, joined, pick, rows_of, sides
from interp.training.config import TrainConfig
from interp.training.finish import finish, with_feature_thresholds
from interp.training.grid import LostRank
from interp.training.optimise import optimise
from interp.training.plan import HELD_BACK, INIT_ROWS, Plan
from interp.training.step import Step
from interp.types import InterpError

LATEST_ROWS = 8_192
SAVE_SECONDS = 300.0
"""A state is also saved when this long has passed, however few tokens that was: a kill costs no more."""
HALVED_FROM = 128
"""Held-out rows from which one half sets the threshold and the other half judges it."""
LATEST = "latest"


class Run:
    """One of the runs of a pass."""

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
        whole = " and ".join(n for n in ("orthogonal", "thresholds") if getattr(config, n) not in (0, "one"))
        self.shards = parallel.shards_of(made, config.feature_ranks, needs_whole=whole)
        if folder is not None and self.shards.leads:
            _clear(folder, restart)
        self.shards.wait()
        kept = state.recipe(folder) if folder else {}
        # Runs were once as long as was asked, whatever the batches held: one that was saved so goes on so.
        self.total = plan.asked if kept.get("tokens") == plan.asked else plan.tokens
        self.config = config.resolved(made, self.total)
        self.device = torch.device(self.config.device)
        self.recipe = {"architecture": type(made).__name__, **asdict(made), **asdict(self.config)}  # type: ignore[call-overload]
        for where in ("device", "feature_ranks"):  # a run goes on wherever it is taken up
            del self.recipe[where]
        own = batches.parts[column] if column is not None and hasattr(batches, "parts") else batches
        if made.traits.along and not getattr(own, "pairs", None):
            raise InterpError(
                "temporal contrast compares two positions of one document, and these batches do not say that their rows are "
                'pairs (rows 2i and 2i + 1): take batches(pairs="neighbours") or "document" of a store or a stream, give '
                "your own iterable an attribute `pairs`, or leave temporal at 0."
            )
        self.recipe["batches"] = {"batch_size": getattr(own, "batch_size", None), **getattr(own, "recipe", {})}
        self.findable: int | None = getattr(batches, "findable", None)
        """How many features the batches hold, where somebody knows."""
        self.shards.check_same(json.dumps(self.recipe, sort_keys=True, default=str), "settings")
        self.state = state.load(folder, self.recipe, made, self.device, self.shards) if folder else None
        self.saved, self.saved_at = self.tokens, time.monotonic()
        self.held: tuple[Tensor, Tensor] | None = None
        self.notes: list[str] = []
        if self.state:
            self.notes += elsewhere(self.state, self.shards)
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
        """Make the first state, or take up the saved one; say what the run will take.

        Raises InterpError when there are no rows, or none to learn from.
        """
        if held_out is not None:
            self.held = self._check(sides(pick(held_out, self.column), self.architecture, self.device))
        opening = [part for batch in opening if (part := pick(batch, self.column)) is not None]
        if not opening and self.state is not None:
            return  # all its batches are behind it: only finishing is left
        if not opening:
            raise InterpError("the batches gave no rows, so nothing can be trained; check the corpus and the mask.")
        if self.state is None:
            self.state = self._first_state(opening)
        sides(opening[0], self.architecture, self.device)  # which says what does not fit
        left = self.batches_left(rows_of(opening[0]))
        self.watch = watch.Watch(opening, self.architecture, left, self.findable)

    def _first_state(self, opening: list[Any]) -> state.State:
        x_BD, y_BO = joined(opening, self.architecture, INIT_ROWS, self.device)
        whole = finite_rows(x_BD, y_BO)
        if not bool(whole.any()):
            raise InterpError("every one of the first rows holds a NaN or an infinity; harvest again in float32.")
        if not bool(whole.all()):
            x_BD, y_BO = x_BD[whole], y_BO[whole]
        if bool((x_BD == x_BD[:1]).all() | (y_BO == y_BO[:1]).all()):
            raise InterpError(f"all of the first {len(x_BD):,} rows are the same, so there is nothing to learn.")
        first = state.initial(x_BD, y_BO, self.architecture, self.config.seed, self.shards)
        for name in self.config.frozen:
            if not self.shards.agree(bool(first.p[name].any())):
                raise InterpError(
                    f"{name} of a {type(self.architecture).__name__} begins at 0, so frozen it gives nothing."
                )
        return first

    def batches_left(self, rows: int) -> int:
        """Whole batches of that many rows that are still to come."""
        return (self.total - self.tokens) // rows

    def sizes(self, rows: int, waiting: int) -> watch.Sizes:
        """As `watch.sizes`."""
        assert self.state is not None
        judged = self.plan.back or self.judged
        return watch.sizes(self.state, self.architecture, self.config, rows, waiting, self.plan.back, judged)

    def seconds_a_step(self, opening: list[Any], clock: Callable[[], float] = time.perf_counter) -> float:
        """By a trial on the first batch."""
        assert self.state is not None
        batch, done = pick(opening[0], self.column), self.tokens / self.total
        return watch.seconds_a_step(self.state, self.architecture, self.config, batch, done, self.shards, clock)

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
        """Train on one batch; InterpError, with the run's name, when the loss is not finite."""
        assert self.state is not None
        began = time.perf_counter()
        done = self.state.tokens / self.total
        try:
            measured = optimise(self.state, self.architecture, self.config, batch, done, self.shards)
        except LostRank:
            raise
        except InterpError as error:
            raise InterpError(f"{self.name}: {error}" if self.name else str(error)) from error
        self.state.tokens += rows_of(batch)
        self.state.loss, self.state.lr = measured.loss, float(self.config.lr or 0.0) * self.config.rate(done)
        notes = (*self.notes, *self.watch.look(batch, measured, done))
        self.notes = []
        if self.state.tokens - self.saved >= self.config.save_every or (self.late() and not self.shards.several):
            self.save()
        return self._event(measured.fvu, measured.l0, measured.dead, began, notes)

    def late(self) -> bool:
        """Whether the last state was saved long ago: several ranks, whose clocks differ, agree on that before a batch."""
        return time.monotonic() - self.saved_at >= SAVE_SECONDS

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
            self.state.save(self.folder, self.recipe, self.shards)
            sae, latest = self._sae(self.held[0] if self.held else None), self.folder / LATEST
            hooks = self.recipe["batches"].get("hooks", ())
            if latest.exists() or self.shards.several:
                # Its cfg.json stays as it is, so either weights belong to it; where there is none yet, it comes last.
                save_weights(sae, latest, hooks=hooks, shards=self.shards)
            else:
                with places.whole_folder(latest) as partial:
                    save_weights(sae, partial, hooks=hooks)
        self.saved, self.saved_at = self.tokens, time.monotonic()

    def _sae(self, held_out_BD: Tensor | None) -> SAE:
        assert self.state is not None
        return finish(self.state, self.architecture, held_out_BD, self.shards)

    def finish(self, held_out: tuple[Tensor, Tensor]) -> Step:
        """The last event. Thresholds are set on the first half of the held-out rows; FVU, L0 and dead features are of
        the others, which they have not seen.

        Raises InterpError when there are no held-out rows.
        """
        assert self.state is not None
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
        if self.config.thresholds == "feature":
            k = self.architecture.inference(self.state.p).per_row
            assert k is not None  # as TrainConfig.resolved made sure
            sae = with_feature_thresholds(sae, x_BD[: half or None], y_BO[: half or None], k)
        sums = reconstruction(sae, x_BD[half:], y_BO[half:], shards=self.shards)
        self.notes += watch.off_target(sums.l0, watch.wanted_l0(self.architecture))
        self.notes += watch.ended_early(self.tokens, self.total)
        return self._event(sums.fvu, sums.l0, sums.dead, began, self.notes, sae)


def _clear(folder: Path, restart: bool) -> None:
    """Take away what another run, or one that was killed, left in the folder."""
    if restart:
        (folder / state.FILE).unlink(missing_ok=True)
    if not (folder / state.FILE).exists():
        shutil.rmtree(folder / LATEST, ignore_errors=True)
    for place in (folder, folder / LATEST):
        places.drop_partials(place)


def elsewhere(saved: state.State, shards: Shards = ONE) -> list[str]:
    """The warning that a run goes on on another kind of device, or on more or fewer threads or ranks, from where it goes on."""
    ranks = f"{shards.data} x {shards.features}"
    before = f"{saved.threads} threads" if saved.made_on == saved.device.type else saved.made_on
    now = f"{torch.get_num_threads()} threads" if saved.made_on == saved.device.type else saved.device.type
    if saved.ranks != ranks:
        before, now = (f"{n} ranks (rows x features) of {what}" for n, what in ((saved.ranks, before), (ranks, now)))
    saved.threads, saved.made_on, saved.ranks = torch.get_num_threads(), saved.device.type, ranks
    if before == now:
        return []
    return [
        f"warning: this run was saved on {before} and goes on on {now}: the weights' last bits may differ from those of "
        "an uninterrupted run."
    ]
