"""A sweep: every combination of a grid, trained in one pass over the activations."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp import places
from interp.activations import ActivationSource, ActivationStore, Batches, Stream, Together
from interp.device import check_memory, resolve_device
from interp.recipe.held_out import HeldOut, batches_of
from interp.recipe.record import asked_of, card_of, is_there, keep, recipe_of, trained_on
from interp.recipe.rules import PAIRED, bytes_of, check_several, make_rule
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE, Architecture
from interp.sae.options import options_of
from interp.training import Step, TrainConfig, train_many
from interp.types import Hook, Hooks, InterpError, as_hooks

Value = str | int | float | bool | tuple[int, ...] | None
Grid = Mapping[str, Iterable[Value]]
"""Values by key: `architecture`, `seed`, `lr`, and options of architectures."""
Row = dict[str, Value]
"""What was asked of one SAE, by the grid's keys, and its measures: fvu, l0, dead (features), tokens (rows trained on)."""
OF_TRAINING = ("seed", "lr")


@dataclass(frozen=True)
class _Wanted:
    """One SAE of a sweep."""

    hook: str
    given: Mapping[str, Any]
    """Its values of the grid, `architecture` among them."""
    rule: Architecture
    config: TrainConfig
    recipe: dict[str, Any]


def train_sweep(
    source: ActivationSource,
    hooks: Hooks,
    into: str | Path,
    grid: Grid,
    *,
    epochs: float = 1.0,
    batch: int = 4096,
    buffer: int | None = None,
    pairs: str | None = None,
    config: TrainConfig | None = None,
    held_out: ActivationStore | None = None,
    restart: bool = False,
) -> list[Row]:
    """Every combination of the grid at every hook point, from one pass over the activations; a row of measures each.

    The grid's keys are `architecture`, `seed`, `lr` and options of architectures (each takes those it has), such as
    {"architecture": ["batchtopk"], "d_sae": [2304], "k": [16, 32], "seed": [0, 1]}. Each SAE becomes a checkpoint in a
    folder named after what it is, and is skipped when that exists; each is bit-equal to training it alone (in the same `pairs`, if any: where one
    combination needs pairs, all read them).
    FVU, L0 and dead features are of held-out rows (see `train_checkpoint`), the half that set no threshold.

    Raises InterpError at once when a combination cannot be trained, when a folder holds another SAE than its name says,
    and when another process sweeps or trains there.
    """
    folder, config = Path(into), config or TrainConfig()
    measured = HeldOut.of(source, held_out)
    combinations = _combinations(source, as_hooks(hooks), grid)
    read = dict.fromkeys(hook for hook, _ in combinations.values())
    if pairs is None and any(given.get("temporal") for _, given in combinations.values()):
        pairs = "neighbours"
    parts = {hook: batches_of(source, hook, batch, epochs, buffer, measured, pairs) for hook in read}
    wanted = {name: _wanted(source, hook, given, config, parts[hook]) for name, (hook, given) in combinations.items()}
    with ExitStack() as held:
        held.enter_context(places.only_one(folder, "the sweep"))
        for name in wanted:  # one that is trained by itself at this moment, say
            if (folder / name).exists():
                held.enter_context(places.only_one(folder / name, "the sweep"))
        places.drop_partials(folder / ".run")
        todo = {
            name: one for name, one in wanted.items() if restart or not _is_there(folder, name, one, source, config)
        }
        if len(todo) < len(wanted):
            say(f"{len(wanted) - len(todo)} of {len(wanted)} exist already and are skipped.")

        def finish(name: str, sae: SAE) -> None:
            card = card_of(sae, source, todo[name].given["architecture"], todo[name].recipe)
            keep(sae, folder / name, folder / ".run" / name, card, trained_on(source, measured.training))

        _train_each(source, folder, parts, todo, measured, restart, finish)
        if (folder / ".run").exists() and not any((folder / ".run").iterdir()):
            (folder / ".run").rmdir()  # else it holds runs of another grid, which go on when they are asked
    return [_row(folder / name, one, ("architecture", *grid)) for name, one in wanted.items()]


def _wanted(
    source: ActivationSource, hook: str, given: Mapping[str, Any], config: TrainConfig, batches: Batches
) -> _Wanted:
    own: Any = {key: value for key, value in given.items() if key not in ("architecture", *OF_TRAINING)}
    settings = replace(config, **{key: given[key] for key in OF_TRAINING if key in given})
    rule = make_rule(given["architecture"], settings, {"d_in": source.width(hook)}, own)
    recipe = recipe_of("interp sweep", given["architecture"], rule, settings, batches)
    return _Wanted(hook, given, rule, settings, recipe)


def _is_there(folder: Path, name: str, one: _Wanted, source: ActivationSource, config: TrainConfig) -> bool:
    asked = asked_of(source, [Hook(one.hook)], [], one.recipe, config)
    return is_there(folder / name, folder / ".run" / name, asked)


def _train_each(
    source: ActivationSource,
    folder: Path,
    parts: Mapping[str, Batches],
    todo: Mapping[str, _Wanted],
    measured: HeldOut,
    restart: bool,
    finish: Callable[[str, SAE], None],
) -> None:
    """Train them, each at its hook point and on that one's batches (`parts`), and `finish` each."""
    read = list(dict.fromkeys(one.hook for one in todo.values()))
    # A stream runs the model once for all hook points. A store has each on its own, and as many rows as count there.
    for group in [read] if read and isinstance(source, Stream) else [[hook] for hook in read]:
        runs = {name: one for name, one in todo.items() if one.hook in group}
        needed, first = sum(bytes_of(one.rule) for one in runs.values()), next(iter(runs.values()))
        check_memory(needed, f"{counted(len(runs), 'SAE')} at once", resolve_device(first.config.device))
        saes = train_many(
            Together(tuple(parts[hook] for hook in group)),
            {name: (one.rule, one.config) for name, one in runs.items()},
            held_out=tuple(measured.rows(hook) for hook in group),
            into=folder / ".run",
            restart=restart,
            columns={name: group.index(one.hook) for name, one in runs.items()},
            listeners=[lambda step: _note(folder, step)],
        )
        for name, sae in saes.items():
            sae.name = name
            sae.set_hooks(todo[name].hook)
            finish(name, sae)


def _row(folder: Path, one: _Wanted, keys: Sequence[str]) -> Row:
    """What was asked of one SAE and what was measured; an L0 that was aimed at is not the one measured."""
    asked = {"target_l0" if key == "l0" else key: one.given.get(key) for key in keys}
    measures: Row = places.read_json(folder / "measures.json")
    return {"name": folder.name, "hook_name": one.hook} | asked | measures


def _combinations(source: ActivationSource, hooks: Sequence[Hook], grid: Grid) -> dict[str, tuple[str, dict[str, Any]]]:
    """(hook point, values) by a name that says them, each with the keys that its architecture has.

    Raises InterpError when one cannot be.
    """
    for hook in hooks:
        check_several(source, [hook])
    return {name: (str(hook), given) for hook in hooks for name, given in _at_hook(source, str(hook), grid).items()}


def _at_hook(source: ActivationSource, hook: str, grid: Grid) -> dict[str, dict[str, Any]]:
    source.check_hook(hook)
    values: dict[str, list[Any]] = {key: list(given) for key, given in grid.items()}
    values.setdefault("architecture", ["batchtopk"])
    empty = [key for key, given in values.items() if not given]
    if empty:
        raise InterpError(f"the sweep has no value for {empty[0]}.")
    made, used = {}, set[str]()
    for architecture in values.pop("architecture"):
        if architecture in PAIRED:
            raise InterpError(f"{architecture} reads several hook points; train it by itself (`interp train`).")
        known = {*OF_TRAINING, *(field.name for field in options_of(architecture))}
        own = {key: given for key, given in values.items() if key in known}
        used |= own.keys()
        for combination in itertools.product(*own.values()):
            given = dict(zip(own, combination, strict=True))
            rest = [f"{key}{value}".replace(", ", "_") for key, value in given.items()]
            made["-".join([architecture, hook, *rest])] = {"architecture": architecture, **given}
    idle = [key for key in values if key not in used]
    if idle:
        raise InterpError(f"none of the sweep's architectures takes {idle[0]}.")
    return made


def _note(folder: Path, step: Step) -> None:
    """Keep a finished run's measures until its checkpoint is written."""
    if step.sae is not None:
        measures = {"fvu": step.fvu, "l0": step.l0, "dead": step.dead, "tokens": step.tokens}
        places.write_json(folder / step.run / "measures.json", measures)
