"""The embedded SAE: BatchTopK, 9,216 features, k 32, on the residual stream after block 15 of SmolLM2-135M-Instruct.

    python recipes/smollm2_layer15.py            # everything, about an hour and a half on two cores
    python recipes/smollm2_layer15.py harvest    # or one stage: harvest, train, index, evaluate

Each stage goes on where it stopped. Text: packaged corpora only (see `mixture`), of which the index keeps
the Wikipedia leads and the CPython source, whose licences allow passing them on.
"""

import sys
from pathlib import Path

import torch

from interp import places
from interp.activations import harvest
from interp.corpus import Corpus, mix, open_corpus
from interp.models import open_model

HOOK = "blocks.15.hook_resid_post"
TRAIN_TOKENS = 8_000_000
HELDOUT_TOKENS = 300_000
WORK = places.cache() / "recipes" / "smollm2_layer15"
INTO = Path(__file__).parent.parent / "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"


def mixture() -> Corpus:
    """Wikipedia in three languages, mixed prose, code. Shares are of characters."""
    shares = {"wiki-en": 0.14, "wiki-fr": 0.10, "wiki-es": 0.08, "python": 0.22}
    parts = [(open_corpus(name), share) for name, share in shares.items()]
    return mix([*parts, (open_corpus("sae-probes").filter(min_chars=400), 0.46)])


def stage_harvest() -> None:
    model = open_model("smollm2")
    harvest(model, mixture(), [HOOK], HELDOUT_TOKENS, WORK / "heldout", split="heldout")
    harvest(model, mixture(), [HOOK], TRAIN_TOKENS, WORK / "train", split="train")


STAGES = {"harvest": stage_harvest}

if __name__ == "__main__":
    torch.set_num_threads(2)
    for stage in sys.argv[1:] or list(STAGES):
        STAGES[stage]()
