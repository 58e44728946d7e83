"""SAEs that found nothing, and trained ones of the same length to hold them against: block 15 of SmolLM2-135M-Instruct.

    python recipes/smollm2_nulls.py                  # after the harvest of recipes/smollm2.py and the random one of smollm2_again.py
    python recipes/smollm2_nulls.py trained frozen   # or some stages: trained, frozen, random

Each stage goes on where it stopped, and a trained SAE is kept. All are of the embedded recipe and width on the harvest's first three
million training tokens, TRIAL_EPOCHS times over, so that a trained SAE and a null differ in one thing only; each takes three
to five minutes of two cores and 25 MB.

trained  the recipe as it is, with SEEDS.
frozen   decoder rows stay the random ones that they begin as; encoder, biases and threshold are trained.
random   the recipe on activations of a copy of the model with shuffled weights, over the same tokens. Seed 0 is the SAE that
         `smollm2_again.py random` has made, the others are trained on its activations (`random/train`, which that recipe says may be
         deleted; then they are not made, and there is a single SAE).
"""

from dataclasses import replace
from pathlib import Path

import smollm2 as embedded
import smollm2_again as again

from interp.activations import ActivationStore
from interp.checkpoint import Card
from interp.render.terminal import say

HOOK, D_SAE = again.HOOK, again.D_SAE
SEEDS = (0, 1, 2)
FROZEN = ("W_dec",)
KINDS = ("trained", "frozen", "random")


def folder(kind: str, seed: int) -> Path:
    """Where the SAE of a kind (one of KINDS) and a seed is kept."""
    if (kind, seed) == ("random", 0):
        return again.random_folder()
    return embedded.WORK / "nulls" / kind / f"seed-{seed}"


def train(kind: str, seed: int, store: ActivationStore, heldout: Path, frozen: tuple[str, ...] = ()) -> None:
    """One SAE of the embedded recipe, but for its length, seed, and what of it is frozen."""
    recipe, into = embedded.TRIALS[embedded.CHOSEN], folder(kind, seed)
    how = recipe.config | {"seed": seed} | ({"frozen": frozen} if frozen else {})
    name = f"smollm2-135m-instruct/{HOOK}/{kind}-{seed}"
    one = replace(recipe, config=how)
    one.train(store, HOOK, D_SAE, into, embedded.TRIAL_EPOCHS, heldout=heldout, name=name, licences=embedded.licences())
    told = Card.read(into).recipe
    say(f"{name}: {told['rows_seen']:,} rows; it is in {into}.")


def stage_trained() -> None:
    """The embedded recipe, as short as the nulls."""
    store = ActivationStore.open(embedded.WORK / "train", shards=embedded.TRIAL_SHARDS)
    for seed in SEEDS:
        train("trained", seed, store, embedded.WORK / "heldout")


def stage_frozen() -> None:
    """The same with decoders that stay random."""
    store = ActivationStore.open(embedded.WORK / "train", shards=embedded.TRIAL_SHARDS)
    for seed in SEEDS:
        train("frozen", seed, store, embedded.WORK / "heldout", FROZEN)


def stage_random() -> None:
    """The same of the random copy; without its training activations there is its one SAE only."""
    work = embedded.WORK / "random"
    if not (folder("random", 0) / "card.json").exists():
        again.stage_random()
    if not (work / "train" / "manifest.json").exists():
        say(f"{work / 'train'} has been deleted: SAEs of further seeds need it (smollm2_again.py random makes it).")
        return
    store = ActivationStore.open(work / "train")
    for seed in SEEDS[1:]:
        train("random", seed, store, work / "heldout")


STAGES = {"trained": stage_trained, "frozen": stage_frozen, "random": stage_random}


if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
