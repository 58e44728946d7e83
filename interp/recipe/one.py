"""One SAE, from activations to its checkpoint."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Unpack

from interp import places
from interp.activations import ActivationSource, ActivationStore
from interp.checkpoint import load_part
from interp.device import check_memory, resolve_device
from interp.recipe.held_out import HeldOut, batches_of
from interp.recipe.record import asked_of, card_of, is_there, keep, recipe_of, trained_on
from interp.recipe.rules import bytes_of, check_hooks, check_several, kind_of, make_rule, pairing_of, sizes_of
from interp.renamed import renamed_arguments
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE, Architecture, Options
from interp.sae.shards import Shards
from interp.training import TrainConfig, parallel, train
from interp.training.listeners import Listener
from interp.types import Hooks, InterpError, as_hooks


@renamed_arguments(hook_name="reads", hook_name_out="writes")
def train_checkpoint(
    source: ActivationSource,
    reads: Hooks,
    into: str | Path,
    architecture: str | Architecture = "batchtopk",
    *,
    writes: Hooks = (),
    epochs: float = 1.0,
    batch: int = 4096,
    buffer: int | None = None,
    pairs: str | None = None,
    config: TrainConfig | None = None,
    held_out: ActivationStore | None = None,
    name: str | None = None,
    licences: dict[str, str] | None = None,
    script: str = "interp train",
    restart: bool = False,
    listeners: Sequence[Listener] = (),
    **options: Unpack[Options],
) -> SAE:
    """Train on a store or a stream, write the checkpoint into a folder, and return the SAE as saved.

    `architecture` is a name with its `options` (d_sae, k, l1 and so on), or a configuration that has all of them, such
    as BatchTopK(d_in=576, d_sae=9216, k=32). A transcoder `writes` another hook point than it `reads`; a crosscoder
    reads several. The threshold is set, and FVU and L0 are measured, on `held_out` (of the same model), or else on the
    text's last blocks, which no epoch trains on. The state of an unfinished run lies in `into/.run`, from which the same
    call goes on. A folder that holds this very SAE is left as it is. Rows are (batch, d_in); `buffer` counts tokens. With `pairs`
    rows 2i and 2i + 1 of a batch are of one document: `neighbours` (which temporal contrast takes unless told) or any two
    of a `document`. Under torchrun, inside `training.parallel.joined`, all ranks make the one SAE; those that share its
    features each get back their own.

    Raises InterpError when the architecture does not fit its options, the hook points or the memory, when the folder
    holds another SAE (unless `restart`), and when another process trains into it.
    """
    folder = Path(into)
    if not folder.name:
        raise InterpError("the checkpoint takes its folder's name; name a folder.")
    kind, run, config = kind_of(architecture), folder / ".run", config or TrainConfig()
    read, written = as_hooks(reads), as_hooks(writes)
    hooks = check_hooks(kind, read, written)
    check_several(source, hooks)
    rule = make_rule(architecture, config, sizes_of(source, kind, hooks), options)
    shards = parallel.shards_of(rule, config.feature_ranks)
    check_memory(bytes_of(rule) // shards.features, counted(rule.d_sae, "feature"), resolve_device(config.device))
    names, measured = str(hooks[0]) if len(hooks) == 1 else tuple(map(str, hooks)), HeldOut.of(source, held_out)
    batches = batches_of(source, names, batch, epochs, buffer, measured, pairs or pairing_of(rule))
    made = recipe_of(script, kind, rule, config, batches)
    with places.only_one(folder, "training") if shards.leads else nullcontext():
        if shards.leads:
            places.drop_partials(folder)
        if not restart and is_there(folder, run, asked_of(source, read, written, made, config)):
            return _kept(folder, shards)
        shards.wait()
        held = measured.rows(names)
        sae = train(batches, rule, config, held_out=held, into=run, restart=restart, listeners=listeners)
        sae.name = name or folder.name
        sae.set_hooks(read, written or None)
        card = card_of(sae, source, kind, made, licences)
        keep(sae, folder, run, card, trained_on(source, measured.training), shards)
    return sae


def _kept(folder: Path, shards: Shards) -> SAE:
    if shards.leads:
        say(f"{folder} holds this SAE already; --restart makes it anew.")
    return load_part(folder, shards)
