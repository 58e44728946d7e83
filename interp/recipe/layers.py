"""The transcoders of many layers, from one pass of the model: nothing is harvested, and nothing large is on disk."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from interp import places
from interp.activations import Batches, Stream, Together
from interp.checkpoint import load
from interp.checkpoint.eight_bit import CUTOFF_OUT
from interp.device import check_memory, resolve_device
from interp.recipe.held_out import HeldOut, hold_out_last
from interp.recipe.record import asked_of, card_of, is_there, keep, recipe_of, trained_on
from interp.recipe.rules import bytes_of, make_rule
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE, Architecture, Options
from interp.training import TrainConfig, train_many
from interp.types import Hook

HELD_OUT_BLOCKS = 32
"""Of the text's last blocks: rows of every hook point are in memory at once."""
BUFFER = 24_576
"""Tokens whose activations at all hook points are mixed."""
Pair = tuple[str, str]
"""Hook points: what is read, and what is written."""


def train_layers(
    source: Stream,
    pairs: Mapping[str, Pair],
    into: str | Path,
    architecture: str = "transcoder",
    *,
    batch: int = 2048,
    buffer: int = BUFFER,
    config: TrainConfig | None = None,
    licences: dict[str, str] | None = None,
    script: str = "interp.recipe.train_layers",
    **options: Unpack[Options],
) -> dict[str, SAE]:
    """A transcoder for each pair of hook points, all fed by the same passes; each is a checkpoint in `into/<name>`.

    `pairs` has (what is read, what is written) by name. Thresholds are set, and FVU and L0 are measured, on the text's last
    HELD_OUT_BLOCKS blocks, which are not trained on; the others come in an order that the seed draws, so that a buffer holds parts
    of many texts. A folder that holds this very transcoder is left as it is; a run that was
    killed goes on from `into/.run`.

    Raises InterpError when a pair's hook point is not streamed, when a folder holds another transcoder, when the memory does
    not hold them all, and when another process trains there.
    """
    folder, config = Path(into), config or TrainConfig()
    source, measured = hold_out_last(source, config.seed, HELD_OUT_BLOCKS)
    made: dict[str, tuple[Architecture, Batches, dict[str, Any]]] = {}
    for name, hooks in pairs.items():
        sizes: Any = dict(zip(("d_in", "d_out"), map(source.width, hooks), strict=True))
        rule = make_rule(architecture, config, sizes, options)
        batches = source.batches(hooks, batch, buffer=buffer, blocks=measured.training)
        batches = replace(batches, held_out=measured.recipe)
        made[name] = (rule, batches, recipe_of(script, architecture, rule, config, batches))
    with ExitStack() as held:
        held.enter_context(places.only_one(folder, "training"))
        todo = [name for name in pairs if not _is_there(source, folder, name, pairs[name], made[name][2], config)]
        if len(todo) < len(pairs):
            say(f"{len(pairs) - len(todo)} of {len(pairs)} exist already and are skipped.")
        if todo:
            needed = sum(bytes_of(made[name][0]) for name in todo)
            check_memory(needed, f"{counted(len(todo), 'transcoder')} at once", resolve_device(config.device))
            _train(source, folder, pairs, made, todo, measured, config, licences, architecture)
    return {name: load(folder / name) for name in pairs}


def _is_there(
    source: Stream, folder: Path, name: str, hooks: Pair, recipe: dict[str, Any], config: TrainConfig
) -> bool:
    asked = asked_of(source, [Hook(hooks[0])], [Hook(hooks[1])], recipe, config)
    return is_there(folder / name, folder / ".run" / name, asked)


def _train(
    source: Stream,
    folder: Path,
    pairs: Mapping[str, Pair],
    made: Mapping[str, tuple[Architecture, Batches, dict[str, Any]]],
    todo: Sequence[str],
    measured: HeldOut,
    config: TrainConfig,
    licences: dict[str, str] | None,
    architecture: str,
) -> None:
    saes = train_many(
        Together(tuple(made[name][1] for name in todo)),
        {name: (made[name][0], config) for name in todo},
        held_out=tuple(measured.rows(pairs[name]) for name in todo),
        into=folder / ".run",
        columns={name: number for number, name in enumerate(todo)},
    )
    for name, sae in saes.items():
        sae.name = name
        sae.set_hooks(*pairs[name])
        recipe = made[name][2] | {CUTOFF_OUT: source.norm_cutoff(pairs[name][1])}
        recipe["blocks_shuffled"] = source.recipe["blocks_shuffled"]
        card = card_of(sae, source, architecture, recipe, licences)
        keep(sae, folder / name, folder / ".run" / name, card, trained_on(source, measured.training))
    places.drop_folder(folder / ".run")
