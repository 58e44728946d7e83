"""A cross-layer transcoder from a model's own passes: nothing is harvested, and only the state of the run is on disk."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from interp import places
from interp.activations import Stream
from interp.checkpoint.cross_layer import KIND, load_cross_layer, save_cross_layer
from interp.device import check_memory, resolve_device
from interp.recipe.held_out import hold_out_last
from interp.recipe.layers import BUFFER, HELD_OUT_BLOCKS, Pair
from interp.recipe.record import asked_of, card_of, is_there, recipe_of, trained_on
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.cross_layer_rule import CrossLayer
from interp.training import TrainConfig
from interp.training.cross_layer import Trained, digest, train_cross_layer
from interp.types import Hook, InterpError


def train_cross_layer_checkpoint(
    source: Stream,
    pairs: Sequence[Pair],
    into: str | Path,
    *,
    d_sae: int,
    k: int,
    rank: int = 1,
    apart: bool = False,
    start: Sequence[SAE] = (),
    batch: int = 2048,
    buffer: int = BUFFER,
    config: TrainConfig | None = None,
    licences: Mapping[str, str] | None = None,
    script: str = "interp.recipe.train_cross_layer_checkpoint",
    restart: bool = False,
) -> CrossLayerTranscoder:
    """Train on a stream, write the folder, and return the transcoder as saved.

    `pairs` has (what is read, what is written) of each layer, in the order of the layers; `d_sae` features and on average `k` active a
    layer; with `start` it begins as these transcoders. A position counts where it is a sink at none of these hook points. Thresholds are
    set, and FVU and L0 of each layer are measured, on the text's last HELD_OUT_BLOCKS blocks; the others come in an order that the seed
    draws. A folder that holds this very transcoder is left as it is; a run that was killed goes on from `into/.run`.

    Raises InterpError when a hook point is not streamed, widths differ between layers, the text is too short, the folder holds another
    transcoder (unless `restart`), the memory does not hold it, and when another process trains there.
    """
    folder, config = Path(into), config or TrainConfig()
    reads, writes = ([pair[side] for pair in pairs] for side in (0, 1))
    d_in, d_out = _width(source, reads), _width(source, writes)
    rule = CrossLayer(layers=len(pairs), d_in=d_in, d_out=d_out, d_sae=d_sae, k=k, rank=rank, apart=apart)
    source, measured = hold_out_last(source, config.seed, HELD_OUT_BLOCKS)
    hooks = (*reads, *writes)
    batches = replace(source.batches(hooks, batch, buffer=buffer, blocks=measured.training), held_out=measured.recipe)
    recipe = recipe_of(script, KIND, rule.layer, config, batches) | {"architecture": {"name": KIND, **asdict(rule)}}
    recipe["start"] = digest(start) if start else ""
    run = folder / ".run"
    with places.only_one(folder, "training"):
        asked = asked_of(source, [Hook(hook) for hook in reads], [Hook(hook) for hook in writes], recipe, config)
        if not restart and is_there(folder, run, asked):
            say(f"{folder} holds this transcoder already; --restart makes it anew.")
            return load_cross_layer(folder)
        what = f"{counted(rule.layers * rule.d_sae, 'feature')} at once"
        check_memory(_bytes_of(rule, batch, buffer), what, resolve_device(config.device))
        held = measured.rows(hooks)
        assert isinstance(held, tuple)  # of several hook points
        made = train_cross_layer(batches, rule, config, held_out=held, start=start, into=run, restart=restart)
        made.transcoder.name = folder.name
        made.transcoder.set_hooks(reads, writes)
        card = card_of(made.transcoder, source, KIND, recipe, licences)
        cutoffs = {hook: source.norm_cutoff(hook) for hook in hooks}
        trained_on(source, measured.training).write(folder)
        save_cross_layer(made.transcoder, folder, replace(card, norm_cutoffs=cutoffs, metrics=_metrics(made)))
        shutil.copyfile(run / "log.jsonl", folder / "training_log.jsonl")
        places.drop_folder(run)
    return load_cross_layer(folder)


def _width(source: Stream, hooks: Sequence[str]) -> int:
    widths = {hook: source.model.width(hook) for hook in hooks}
    if len(set(widths.values())) > 1:
        raise InterpError(
            f"layers of a cross-layer transcoder are of one width, and these differ: {', '.join(f'{h} {w}' for h, w in widths.items())}."
        )
    return next(iter(widths.values()), 0)


def _bytes_of(rule: CrossLayer, batch: int, buffer: int) -> int:
    """Parameters with gradients and two moments, what a step holds, and a buffer of half-precision rows, mixed from another."""
    parameters = rule.layers * rule.d_sae * (rule.d_in + rule.rank * rule.d_out)
    both = rule.layers * (rule.d_in + rule.d_out)
    return 16 * parameters + 4 * batch * (2 * both + rule.layers * rule.d_out * (rule.rank + 1)) + 4 * buffer * both


def _metrics(made: Trained) -> dict[str, Any]:
    measured = made.measured
    return {
        "tokens": made.tokens,
        "rows": measured[0].rows,
        "fvu": [round(one.fvu, 5) for one in measured],
        "l0": [round(one.l0, 2) for one in measured],
        "dead": [one.dead for one in measured],
    }
