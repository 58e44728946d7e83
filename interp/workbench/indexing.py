"""Indexes built: of the SAE's features, and of a layer's raw neurons."""

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np

from interp import objects, places
from interp.activations import ActivationStore, Stream, stream
from interp.checkpoint.shared import share as share_text
from interp.checkpoint.trained import TrainedOn
from interp.corpus import Corpus, open_corpus
from interp.index import FeatureIndex, Neurons
from interp.render.words import counted
from interp.sae.dictionary import one_read
from interp.types import InterpError, unknown
from interp.workbench.opening import Opened

INDEXED = 1_000_000
"""Positions of a corpus that are indexed when nobody says how many."""
NO_CUTOFF = 1e30
"""A norm that no position exceeds; JSON has no infinity."""
KEEPS = ("all", "examples")


def build_index(
    wb: Opened,
    corpus: str | Corpus | ActivationStore,
    tokens: int | None = None,
    *,
    keep: str = "all",
    beside: bool = False,
    share: bool = False,
    extend: bool = False,
    restart: bool = False,
    into: str = "",
    memory_gib: float = 2.0,
    together: bool = False,
) -> Path | str:
    """Index the SAE over `tokens` positions of a corpus, or over harvested activations (all of them, without
    `tokens`); where it lies comes back.

    The full index lies under INTERP_HOME, where this workbench and every later one find it; `beside` writes
    it into the checkpoint's folder, to be shared, and with `share` its text into a folder that the model's SAEs have in
    common (see `checkpoint.shared`); `into` sends a copy to a URL that fsspec knows (one that could not be sent is built already when this is called again). `extend` adds
    documents that the index does not have yet. A killed build goes on when called again, unless `restart`. With `together` any
    number of processes that were given the same share the work; each returns when the index is there.
    Raises InterpError when the dictionary reads several hook points, and for activations of another model.
    """
    from interp.index.build import IndexConfig
    from interp.index.build import build_index as build

    hook_name = one_read(wb.sae, "an index").name
    if keep not in KEEPS:
        raise unknown("way to keep activations", keep, KEEPS)
    if together and (extend or restart or share or into):
        raise InterpError(
            "several processes build an index together from its beginning, and leave it where it is: extend, restart, share and "
            "into are for one process."
        )
    folder = index_folder(wb, beside=beside)
    if into:  # what would fail when all is done fails now
        objects.ObjectFolder.at(into).sizes()
    # Alone it is held before the text is read, which takes minutes.
    with nullcontext() if together else places.only_one(folder, "the index"):
        known = set(FeatureIndex.open(folder).documents["sha256"]) if extend else set()
        source = _source(wb, corpus, hook_name, tokens, known)
        if (beside or into) and keep == "all":
            _refuse_whole(source)
        kept: Literal["all", "examples"] = "all" if keep == "all" else "examples"
        unsent = bool(into) and not (extend or restart) and objects.is_unsent(folder, into)
        config = IndexConfig(
            keep=kept, memory_gib=memory_gib, extend=extend, restart=restart, together=together, only_missing=unsent
        )
        norm, sha = wb.card.norm_cutoff, wb.card.sae_sha256
        trained = TrainedOn.read(wb.folder, wb.card)
        build(wb.sae, source, wb.model, folder, config, norm_cutoff=norm, sae_sha256=sha, trained=trained)
    wb.__dict__.pop("index", None)
    if into:
        objects.send_folder(folder, into)
    if beside and share:
        share_text(wb.folder, wb.card.hook_name)
    return into or folder


def index_folder(wb: Opened, *, beside: bool = False) -> Path:
    """Where an index of the SAE's features is written: under INTERP_HOME, or `beside` the SAE."""
    return wb.folder / "index" if beside else wb.full_index_folder


def _source(
    wb: Opened, corpus: str | Corpus | ActivationStore, hook_name: str, tokens: int | None, known: set[str]
) -> ActivationStore | Stream:
    """What is indexed, without the documents that are known."""
    if isinstance(corpus, ActivationStore):
        return _stored(wb, corpus, tokens, known)
    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    return stream(wb.model, text.without(known), hook_name, tokens or INDEXED)


def _refuse_whole(source: ActivationStore | Stream) -> None:
    """Raises InterpError when the text has documents that may not be passed on: from all activations it can be read back."""
    kept_back = source.blocks.documents["passes_on"].to_pylist().count(False)
    if kept_back:
        raise InterpError(
            f"the text of {counted(kept_back, 'document')} may not be passed on, and from all activations it could be read "
            "back: beside the checkpoint or at a URL, an index over it keeps examples only (--keep examples)."
        )


def _stored(wb: Opened, store: ActivationStore, tokens: int | None, known: set[str]) -> ActivationStore:
    """The store's first shards with that many positions, when they are this model's and hold no known document."""
    made_by = store.recipe["model_sha256"]
    if made_by != wb.model.fingerprint_like(made_by):
        raise InterpError(
            f"the activations in {store.where} were made by other weights ({made_by[:12]}…) than those this SAE "
            f"reads ({wb.card.model_sha256[:12]}…)."
        )
    if tokens is not None:
        held = np.cumsum([shard["positions"] for shard in store.shards])
        store = store.head(int(np.searchsorted(held, min(tokens, int(held[-1])))) + 1)
    twice = known & set(store.blocks.documents["sha256"].to_pylist())
    if twice:
        raise InterpError(
            f"{counted(len(twice), 'document')} of {store.where} {'is' if len(twice) == 1 else 'are'} in the index already; it "
            "takes new ones only."
        )
    return store


def neurons(wb: Opened, layer: int) -> Neurons:
    """The raw MLP neurons of a layer as a dictionary; InterpError when the model's cannot be told."""
    outputs = wb.model.neuron_outputs(wb.sae.d_out)
    if layer not in outputs:
        known = f"layers 0 to {len(outputs) - 1} are known" if outputs else "its MLP weights could not be told"
        raise InterpError(f"no neurons of layer {layer} in {wb.card.model}: {known}.")
    return Neurons(f"{wb.card.model} layer {layer} neurons", layer, outputs[layer])


def build_neuron_index(
    wb: Opened,
    layer: int,
    corpus: str | Corpus,
    tokens: int = INDEXED,
    *,
    keep: str = "all",
    memory_gib: float = 2.0,
    restart: bool = False,
) -> Path:
    """Index the raw neurons of a layer, by the same code as features; found again by `neuron_index`."""
    from interp.index.build import IndexConfig
    from interp.index.build import build_index as build

    dictionary = neurons(wb, layer)
    text = open_corpus(corpus) if isinstance(corpus, str) else corpus
    hook = dictionary.reads[0].name
    folder = wb.neuron_index_folder(hook)
    with places.only_one(folder, "the index"):
        source = stream(wb.model, text, hook, tokens)
        config = IndexConfig(keep="all" if keep == "all" else "examples", memory_gib=memory_gib, restart=restart)
        build(dictionary, source, wb.model, folder, config, norm_cutoff=NO_CUTOFF)
    return folder


def neuron_index(wb: Opened, layer: int) -> FeatureIndex:
    """The index of a layer's neurons; row 2n is neuron n where positive, row 2n + 1 where negative.

    Raises InterpError when it is not built.
    """
    folder = wb.neuron_index_folder(f"blocks.{layer}.mlp.hook_post")
    if not (folder / "index.json").exists():
        raise InterpError(
            f"there is no index of the neurons of layer {layer}; `interp index {wb.folder} --neurons {layer}` builds it."
        )
    return FeatureIndex.open(folder)
