"""Is what an SAE finds the model's? The embedded recipe of block 15 with two more seeds, and on a random-weight copy of the model.

    python recipes/smollm2_again.py                # after the harvest, train and reserved stages of recipes/smollm2.py
    python recipes/smollm2_again.py seeds random   # or some stages: seeds, random, labels, compare

Each stage goes on where it stopped, and a trained SAE is kept.

seeds    the very recipe and harvest of the embedded SAE, with seeds 1 and 2: another initialisation and another order of rows.
         An index of each over the embedded one's text. Two hours on two cores, 0.7 GB.
random   a copy of the model with shuffled weights (see `interp.models.randomised`; seed 1), harvested over the same text
         (three million training tokens, 100,000 held out, the index's, and the testing documents beside it), an SAE as wide
         by the same recipe, of TRIAL_EPOCHS, and its index. An hour and a half, 5.5 GB of activations, of which the
         training ones (3.5 GB) may be deleted when the index is there.
labels   names for the random copy's features, proposed and tried as `interp autolabel` does, and written into no book: what
         the method reaches where there is nothing to find. Minutes.
compare  the embedded SAE's features looked for in the other seeds', beside what the random copy's SAE gives by chance, and its labels
         held against those of the random copy; both become parts of its evidence (docs/replication.md). Minutes.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import smollm2 as embedded
import torch

from interp import places
from interp.activations import ActivationStore, harvest
from interp.models import Model, open_model
from interp.render.terminal import say
from interp.types import InterpError
from interp.workbench import Workbench
from interp.workbench.indexing import build_index

HOOK = embedded.TESTED
D_SAE = embedded.SAES[HOOK]
SEEDS = (1, 2)
"""Beside 0, the embedded SAE's."""
RANDOM_SEED = 1
RANDOM_TRAIN_TOKENS = embedded.TRIAL_SHARDS * 65_536
RANDOM_HELDOUT_TOKENS = 100_000


def seed_folder(seed: int) -> Path:
    """Where the SAE of another seed is kept."""
    return embedded.WORK / "seeds" / f"seed-{seed}"


def random_folder() -> Path:
    """Where the random copy's SAE is kept; its activations are beside it."""
    return embedded.WORK / "random" / f"seed-{RANDOM_SEED}"


def stage_seeds() -> None:
    """The embedded recipe once more, but for the seed, each with an index over the embedded one's text."""
    recipe, store = embedded.TRIALS[embedded.CHOSEN], ActivationStore.open(embedded.WORK / "train")
    for seed in SEEDS:
        into = seed_folder(seed)
        one = replace(recipe, config=recipe.config | {"seed": seed})
        name = f"smollm2-135m-instruct/{HOOK}/seed-{seed}"
        one.train(store, HOOK, D_SAE, into, embedded.EPOCHS, name=name, licences=embedded.licences())
        indexed(into, embedded.WORK / "index")


@cache
def random_copy() -> Model:
    """The model with shuffled weights, which takes longer to shuffle than to read: once."""
    return open_model("smollm2", random=RANDOM_SEED)


def random_rows() -> tuple[ActivationStore, Path]:
    """The random copy's activations that its SAEs are trained on, and the folder of those that are held out."""
    work, model, text = embedded.WORK / "random", random_copy(), embedded.training_text()
    harvest(model, text, [HOOK], RANDOM_HELDOUT_TOKENS, work / "heldout", split="heldout")
    store = harvest(model, text, [HOOK], RANDOM_TRAIN_TOKENS, work / "train", split="train")
    check_text(work / "train", embedded.WORK / "train")
    return store, work / "heldout"


def train_random() -> None:
    """The random copy's SAE, trained or kept; without an index."""
    into = random_folder()
    if (into / "card.json").exists() and not (into / ".run").exists():
        return
    store, heldout = random_rows()
    embedded.TRIALS[embedded.CHOSEN].train(
        store,
        HOOK,
        D_SAE,
        into,
        embedded.TRIAL_EPOCHS,
        heldout=heldout,
        name=f"{random_copy().name}/{HOOK}/{into.name}",
        licences=embedded.licences(),
    )


def stage_random() -> None:
    """The random copy: its activations, an SAE of them, and that one's index."""
    into, work = random_folder(), embedded.WORK / "random"
    model = random_copy()
    text, further = embedded.training_text(), embedded.not_indexed()
    train_random()
    harvest(model, text, [HOOK], embedded.INDEX_TOKENS, work / "index")
    check_text(work / "index", embedded.WORK / "index")
    harvest(model, further, [HOOK], embedded.RESERVED_TOKENS, work / "testing", split="labels")
    indexed(into, work / "index", work / "testing")


def check_text(one: Path, other: Path) -> None:
    """Raises InterpError when the first harvest's tokens are not those that the other, if there is one, begins with."""
    if not (other / "manifest.json").exists():
        return
    own, theirs = (ActivationStore.open(folder).blocks.tokens_NT for folder in (one, other))
    if not torch.equal(own, theirs[: len(own)]):
        raise InterpError(f"{one} is not of the text that {other} begins with; delete it and harvest again.")


def indexed(folder: Path, first: Path, *further: Path) -> None:
    """The full index over one harvest, and then over the documents of others; each is added once."""
    wb = Workbench.open(folder)
    if not (wb.full_index_folder / "index.json").exists():
        build_index(wb, ActivationStore.open(first))
    for more in further:
        store = ActivationStore.open(more)
        if not set(store.blocks.documents["sha256"].to_pylist()) & set(wb.index.documents["sha256"]):
            build_index(wb, store, extend=True)
    say(f"{wb.card.name}: {len(wb.index.tokens):,} positions are indexed.")


def stage_labels() -> None:
    """What the method of naming reaches on the random copy's features."""
    wb = Workbench.open(random_folder())
    named = wb.autolabel(dry_run=True)
    places.write_json(embedded.WORK / "random" / "verdicts.json", {"asked": named.asked, "verdicts": named.verdicts})
    said = ", ".join(f"{name} {count:,}" for name, count in named.verdicts.items())
    say(f"{wb.card.name}: of {named.asked:,} features, {len(named.labels):,} get a claim: {said}; {named.tested_on}.")


def stage_compare() -> None:
    """Two parts of the embedded SAE's evidence, joined with the rest."""
    wb = Workbench.open(embedded.folder_of(HOOK))
    wb.replication([seed_folder(seed) for seed in SEEDS], random_folder())
    wb.build_evidence(["labels"])
    null = wb.random_null(random_folder())
    say(f"{len(null.f1_N):,} labels of the random copy's features could be judged.")
    for sentence in wb.build_evidence(["labels"]).sentences:
        say(sentence)


STAGES = {"seeds": stage_seeds, "random": stage_random, "labels": stage_labels, "compare": stage_compare}


if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
