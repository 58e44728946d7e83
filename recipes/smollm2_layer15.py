"""The embedded SAE: BatchTopK, 9,216 features, k 32, on the residual stream after block 15 of SmolLM2-135M-Instruct.

    python recipes/smollm2_layer15.py            # everything, about an hour and a half on two cores
    python recipes/smollm2_layer15.py train      # or one stage: harvest, train, evaluate, overlap, index

Each stage goes on where it stopped, and a trained SAE is kept; `--restart` trains another in its place. Text: packaged corpora only. The index keeps Wikipedia leads and CPython source,
whose licences allow passing them on. The Python whose standard library is read is this one; the card names it.
"""

import argparse
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint import Card, load
from interp.checkpoint.trained import TrainedOn
from interp.corpus import Corpus, Document, mix, near_duplicates, open_corpus, tokenize
from interp.evals import evaluate
from interp.index import build_index
from interp.index.build import IndexConfig
from interp.models import open_model
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.sae import SAE
from interp.sae.metrics import reconstruction
from interp.types import InterpError

HOOK = "blocks.15.hook_resid_post"
TRAIN_TOKENS = 8_000_000
HELDOUT_TOKENS = 300_000
INDEX_TOKENS = 1_100_000
EPOCHS = 3.0
WORK = places.cache() / "recipes" / "smollm2_layer15"
INTO = Path(__file__).parent.parent / "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"
LICENCES = {
    "weights": "Apache-2.0 (this SAE; the model it reads, SmolLM2-135M-Instruct, is Apache-2.0 too)",
    "index text": "leads of English, French and Spanish Wikipedia articles, CC BY-SA 4.0, their titles in "
    "index/documents.parquet; CPython's standard library, PSF-2.0",
}


def training_text() -> Corpus:
    """Wikipedia in three languages, mixed prose, code. Shares are of characters."""
    shares = {"wiki-en": 0.14, "wiki-fr": 0.10, "wiki-es": 0.08, "python": 0.22}
    parts = [(open_corpus(name), share) for name, share in shares.items()]
    return mix([*parts, (open_corpus("sae-probes").filter(min_chars=400), 0.46)])


def index_text() -> Corpus:
    """Only text that may be passed on."""
    shares = {"wiki-en": 0.38, "wiki-fr": 0.12, "wiki-es": 0.10, "python": 0.40}
    return mix([(open_corpus(name), share) for name, share in shares.items()])


def stage_harvest() -> None:
    model = open_model("smollm2")
    harvest(model, training_text(), [HOOK], HELDOUT_TOKENS, WORK / "heldout", split="heldout")
    harvest(model, training_text(), [HOOK], TRAIN_TOKENS, WORK / "train", split="train")
    harvest(model, index_text(), [HOOK], INDEX_TOKENS, WORK / "index")


def stage_train(restart: bool) -> None:
    train_checkpoint(
        ActivationStore.open(WORK / "train"),
        HOOK,
        INTO,
        "batchtopk",
        d_sae=9216,
        k=32,
        epochs=EPOCHS,
        held_out=ActivationStore.open(WORK / "heldout"),
        name="smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216",
        licences=LICENCES,
        script="recipes/smollm2_layer15.py",
        restart=restart,
    )


def stage_evaluate() -> None:
    """Held-out text only: documents that no training row came from."""
    card, sae = Card.read(INTO), load(INTO)
    heldout = ActivationStore.open(WORK / "heldout")
    report = evaluate(open_model("smollm2"), sae, heldout.blocks, norm_cutoff=card.norm_cutoff)
    say(str(report))
    text = {"text": heldout.recipe["corpus"], "tokens_sha256": heldout.recipe["tokens_sha256"]}
    replace(
        card, metrics={"held_out": report.to_dict() | text | {"fvu_by_source": by_source(sae, heldout, card)}}
    ).write(INTO)


def by_source(sae: SAE, heldout: ActivationStore, card: Card) -> dict[str, dict[str, float]]:
    """FVU and number of tokens for each source: near-duplicates inside sae-probes could flatter the whole."""
    keep = heldout.keep(HOOK, card.norm_cutoff)
    x = torch.cat([x for _, x in heldout.in_order(HOOK)])
    sources = np.array(heldout.blocks.documents["source"].to_pylist())[heldout.blocks.document_NT.reshape(-1).numpy()]
    found = {}
    for source in sorted(set(sources)):
        sums = reconstruction(sae, x[keep & torch.from_numpy(sources == source)].float())
        found[source] = {"tokens": sums.rows, "fvu": round(sums.fvu, 4), "l0": round(sums.l0, 2)}
    return found


def stage_overlap() -> None:
    """How many held-out documents share at least half of their 13-grams with the training text."""
    model, text = open_model("smollm2"), training_text()

    def used(tokens: int, split: str) -> Iterator[Document]:
        chosen = set(tokenize(text, model, tokens, split=split).documents["sha256"].to_pylist())
        return (doc for doc in text.documents(split) if doc.digest.hex() in chosen)

    for source, found in sorted(near_duplicates(used(HELDOUT_TOKENS, "heldout"), used(TRAIN_TOKENS, "train")).items()):
        say(
            f"overlap: {source}: {found.near} of {found.documents} held-out documents, {found.share:.1%} ({found.short} too short)"
        )


def stage_index() -> None:
    card, sae = Card.read(INTO), load(INTO)
    store = ActivationStore.open(WORK / "index")
    options: dict[str, Any] = {"norm_cutoff": card.norm_cutoff, "sae_sha256": card.sae_sha256}
    options["trained"] = TrainedOn.read(INTO, card)
    build_index(sae, store, open_model("smollm2"), INTO / "index", IndexConfig(keep="examples"), **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="stage", help="all without")
    parser.add_argument("--restart", action="store_true", help="train anew, and replace the SAE that is there")
    given = parser.parse_args()
    train = partial(stage_train, restart=given.restart)
    stages = {"harvest": stage_harvest, "train": train, "evaluate": stage_evaluate, "overlap": stage_overlap}
    stages |= {"index": stage_index}
    for stage in given.stages:
        if stage not in stages:
            parser.error(f"no stage {stage!r}: there is {', '.join(stages)}.")
    torch.set_num_threads(2)
    for stage in given.stages or stages:
        try:
            stages[stage]()
        except InterpError as error:
            sys.exit(f"{stage}: {error}")
        say(f"{stage}: peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB so far")


if __name__ == "__main__":
    main()
