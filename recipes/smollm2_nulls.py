"""SAEs that found nothing, and trained ones of the same length to hold them against: block 15 of SmolLM2-135M-Instruct.

    python recipes/smollm2_nulls.py                  # after `interp setup --texts`; the stage `seeds` alone needs smollm2_again.py
    python recipes/smollm2_nulls.py trained frozen   # or some stages: trained, frozen, random, seeds, planted, sibling

Each stage goes on where it stopped, and a trained SAE is kept. All are of the embedded recipe and width on the first three
million tokens that it was trained on, TRIAL_EPOCHS times over, so that a trained SAE and a null differ in one thing only; each takes three
to five minutes of two cores and 25 MB. Without the harvest of recipes/smollm2.py these tokens are harvested at block 15 alone, and again
of the random copy: twelve minutes on a quiet machine and 3.5 GB each, which may be deleted when the SAEs are there.

trained  the recipe as it is, with SEEDS.
frozen   decoder rows stay the random ones that they begin as; encoder, biases and threshold are trained.
random   the recipe on activations of a copy of the model with shuffled weights, over the same tokens. Seed 0 is the SAE that
         `smollm2_again.py random` reads, the others are trained on its activations.
seeds    copies of the SAEs of full length that `smollm2_again.py seeds` has made.
planted  the recipe, trained and frozen, in a world whose features are known (`interp.recipe.worlds`); kept, three minutes each.
sibling  the model, fine-tuned on SIBLING_STEPS batches of Python's own library; ten minutes of one core, half a gigabyte.

`interp evaluate SAE --everything --nulls FOLDER` then finds all of them in the folder `nulls` of the recipe's cache.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import smollm2 as embedded
import smollm2_again as again
import torch

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint import Card
from interp.corpus import open_corpus, tokenize
from interp.models import open_model
from interp.models.embedded import smollm2_folder
from interp.progress import bar
from interp.recipe import worlds
from interp.recipe.worlds import measure_recipe
from interp.render.terminal import say

HOOK, D_SAE = again.HOOK, again.D_SAE
SEEDS = (0, 1, 2)
FROZEN = ("W_dec",)
NULLS = embedded.WORK / "nulls"
OWN = embedded.WORK / "nulls-rows"
"""Activations, where the embedded recipe has left none."""
SIBLING_STEPS, SIBLING_BLOCKS, SIBLING_RATE = 60, 4, 1e-4


def folder(kind: str, seed: int) -> Path:
    """Where the SAE of a kind (trained, frozen, random) and a seed is kept."""
    return NULLS / kind / f"seed-{seed}"


def copied(made: Path, into: Path) -> None:
    """A checkpoint that another recipe made, put beside the others; whole or not at all."""
    if not (into / "card.json").exists():
        with places.whole_folder(into) as partial:
            shutil.copytree(made, partial, ignore=shutil.ignore_patterns("index", ".*"), dirs_exist_ok=True)


def rows() -> tuple[ActivationStore, Path]:
    """What is trained on, and the folder of what is held out."""
    if (embedded.WORK / "train" / "manifest.json").exists():
        return ActivationStore.open(embedded.WORK / "train", shards=embedded.TRIAL_SHARDS), embedded.WORK / "heldout"
    model, text = open_model("smollm2"), embedded.training_text()
    harvest(model, text, [HOOK], again.RANDOM_HELDOUT_TOKENS, OWN / "heldout", split="heldout")
    return harvest(model, text, [HOOK], again.RANDOM_TRAIN_TOKENS, OWN / "train", split="train"), OWN / "heldout"


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
    store, heldout = rows()
    for seed in SEEDS:
        train("trained", seed, store, heldout)


def stage_frozen() -> None:
    """The same with decoders that stay random."""
    store, heldout = rows()
    for seed in SEEDS:
        train("frozen", seed, store, heldout, FROZEN)


def stage_random() -> None:
    """The same of the random copy."""
    again.train_random()
    copied(again.random_folder(), folder("random", 0))
    store, heldout = again.random_rows()
    for seed in SEEDS[1:]:
        train("random", seed, store, heldout)


def stage_seeds() -> None:
    """Those of full length with other seeds."""
    for seed in again.SEEDS:
        if not (again.seed_folder(seed) / "card.json").exists():
            again.stage_seeds()
        copied(again.seed_folder(seed), NULLS / "seeds" / f"seed-{seed}")


def stage_planted() -> None:
    """What the recipe finds in a planted world, and what a frozen decoder does there."""
    for kind in ("trained", "frozen"):
        for seed in SEEDS:
            found = measure_recipe(Card.read(folder(kind, seed)).recipe, seed=seed, rows=worlds.ROWS)
            say(f"planted, {kind}, seed {seed}: MCC {found['mcc'].value:.3f}")


def stage_sibling() -> None:
    """The model, trained a little on code: what a user's own fine-tune is to the SAE."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    into = NULLS / "sibling"
    if (into / "config.json").exists():
        return
    source = smollm2_folder()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokens = SIBLING_STEPS * SIBLING_BLOCKS * 256
    blocks = tokenize(open_corpus("python"), open_model("smollm2"), tokens, split="train")
    rule = torch.optim.AdamW(model.parameters(), lr=SIBLING_RATE)
    with bar("fine-tune", SIBLING_STEPS, "steps") as step:
        for tokens_NT in blocks.tokens_NT.split(SIBLING_BLOCKS)[:SIBLING_STEPS]:
            tokens_NT = tokens_NT.long()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(tokens_NT, labels=tokens_NT).loss
            rule.zero_grad()
            loss.backward()
            rule.step()
            step(1)
    say(f"sibling: the loss of its last batch is {loss.item():.3f} nats.")
    with places.whole_folder(into) as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        AutoTokenizer.from_pretrained(source).save_pretrained(partial)


STAGES = {
    "trained": stage_trained,
    "frozen": stage_frozen,
    "random": stage_random,
    "seeds": stage_seeds,
    "planted": stage_planted,
    "sibling": stage_sibling,
}


if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
