"""A transcoder for every layer of SmolLM2-135M-Instruct: what its MLPs read, and what they add.

    python recipes/smollm2_transcoders.py            # about an hour on two cores, under 10 GB of memory, 1 GB of disk

One pass of the model feeds all thirty. It goes on where it stopped. Text: the mix of recipes/smollm2.py.
docs/circuits.md has what came of it.
"""

import argparse

import smollm2 as embedded

from interp import places
from interp.activations import stream
from interp.models import open_model
from interp.recipe.layers import train_layers
from interp.render.terminal import say
from interp.render.words import counted
from interp.training import TrainConfig

LAYERS = 30
D_SAE, K = 1536, 32
TOKENS = 2_000_000
WORK = places.cache() / "recipes" / "smollm2" / "transcoders"


def hooks_of(layer: int) -> tuple[str, str]:
    """What a layer's transcoder reads and writes."""
    return f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"


def train(tokens: int, layers: int) -> None:
    """All of them, into WORK."""
    pairs = {f"layer-{layer}": hooks_of(layer) for layer in range(layers)}
    every = [hook for pair in pairs.values() for hook in pair]
    source = stream(open_model("smollm2"), embedded.training_text(), every, tokens, split="train")
    train_layers(
        source,
        pairs,
        WORK,
        d_sae=D_SAE,
        k=K,
        config=TrainConfig(seed=0),
        licences=embedded.licences(),
        script="recipes/smollm2_transcoders.py",
    )
    say(f"{counted(layers, 'transcoder')} in {WORK}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    asked = parser.parse_args()
    train(asked.tokens, asked.layers)
