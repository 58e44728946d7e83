"""A cross-layer transcoder of SmolLM2-135M-Instruct: features read at one layer, and write into its MLP's output and every later one's.

    python recipes/smollm2_cross_layer.py                                # train, measure, describe
    python recipes/smollm2_cross_layer.py train --tokens 200000 --rank 2
    python recipes/smollm2_cross_layer.py measure --into FOLDER

train    one pass of the model feeds all layers; nothing is harvested. It goes on where it stopped. Text: the mix of recipes/smollm2.py.
measure  on text that is held out: FVU and L0 of each layer, beside those of the shipped transcoders of each layer at the same positions; and what
         the model says with every MLP replaced, by the one and by the others.

describe on which tokens each feature fires, and which all that it writes makes likelier: its name in a graph; with --all a label that is tried.

With --from-layers it begins as the shipped transcoders (then take --lr 0.001). With --apart nothing is written across layers: a transcoder for
each layer, trained on the same rows, to compare with.
docs/circuits.md has what came of it.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import smollm2 as embedded
import smollm2_transcoders as layered
import torch

from interp import places
from interp.activations import stream
from interp.checkpoint import Card
from interp.checkpoint.cross_layer import load_cross_layer
from interp.checkpoint.eight_bit import open_layers
from interp.corpus import tokenize
from interp.models import Edit, Model, open_model
from interp.progress import bar
from interp.recipe.cross_layer import train_cross_layer_checkpoint
from interp.render.terminal import say
from interp.sae import SAE
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.kernels import Active
from interp.sae.metrics import Reconstruction
from interp.training import TrainConfig

LAYERS, D_SAE, K, RANK = layered.LAYERS, layered.D_SAE, layered.K, 3
TOKENS = layered.TOKENS
MEASURED_TOKENS, BATCH = layered.MEASURED_TOKENS, layered.BATCH
WORK = places.cache() / "recipes" / "smollm2" / "cross-layer"


def train(asked: argparse.Namespace) -> None:
    """Into the folder that is asked."""
    pairs = [layered.hooks_of(layer) for layer in range(LAYERS)]
    every = [hook for pair in pairs for hook in pair]
    source = stream(open_model("smollm2"), embedded.training_text(), every, asked.tokens, split="train")
    train_cross_layer_checkpoint(
        source,
        pairs,
        asked.into,
        d_sae=asked.d_sae,
        k=asked.k,
        rank=1 if asked.apart else asked.rank,
        apart=asked.apart,
        start=list(open_layers(layered.INTO)[0]) if asked.from_layers else (),
        batch=asked.batch,
        config=TrainConfig(seed=asked.seed, lr=asked.lr),
        licences=embedded.licences(),
        script="recipes/smollm2_cross_layer.py",
    )
    say(f"a cross-layer transcoder in {asked.into}.")


@torch.inference_mode()
def measure(folder: Path) -> None:
    """By layer FVU and L0 of it and of the shipped transcoders, and the model's loss with every MLP replaced."""
    model = open_model("smollm2", dtype="float32")
    made, mask = load_cross_layer(folder), Card.read(folder).mask
    apart = list(open_layers(layered.INTO)[0])
    sets: dict[str, Callable[[Sequence[torch.Tensor]], list[tuple[torch.Tensor, Active]]]] = {
        "cross-layer": partial(_crossed, made),
        "a transcoder a layer": partial(_apart, apart),
    }
    sums = {
        name: [Reconstruction(D_SAE if name != "cross-layer" else made.per_layer) for _ in range(LAYERS)]
        for name in sets
    }
    every = [hook for layer in range(LAYERS) for hook in layered.hooks_of(layer)]
    blocks = tokenize(embedded.training_text(), model, MEASURED_TOKENS, split="heldout")
    losses = dict.fromkeys(("untouched", *sets), 0.0)
    positions = rows = 0
    with bar("measuring", len(blocks.tokens_NT)) as advance:
        for first in range(0, len(blocks.tokens_NT), BATCH):
            tokens, real = (of[first : first + BATCH] for of in (blocks.tokens_NT, blocks.real_NT()))
            run = model.run(tokens, every)
            seen = {hook: run.activations[hook] for hook in every}
            counted_BT = mask.counted(seen, real)
            positions, rows = positions + int(counted_BT.sum()), rows + int(real[:, 1:].sum())
            x = [seen[layered.hooks_of(layer)[0]][counted_BT] for layer in range(LAYERS)]
            y = [seen[layered.hooks_of(layer)[1]][counted_BT] for layer in range(LAYERS)]
            for name, say_all in sets.items():
                for one, target, (said, active) in zip(sums[name], y, say_all(x), strict=True):
                    one.count(target, said, active)
            ways = {
                "untouched": [],
                "cross-layer": _edits(made, real),
                "a transcoder a layer": layered.edits(apart, real),
            }
            for name, edits in ways.items():
                losses[name] += _loss(model, tokens, real, edits)
            advance(len(tokens), "")
    found: dict[str, Any] = {"positions": positions, "tokens": rows}
    for name, of in sums.items():
        fvu = [one.fvu for one in of]
        found[name] = {
            "mean fvu": round(sum(fvu) / LAYERS, 5),
            "mean l0": round(sum(one.l0 for one in of) / LAYERS, 2),
            "fvu": [round(value, 5) for value in fvu],
            "l0": [round(one.l0, 2) for one in of],
            "silent": sum(one.dead for one in of),
        }
    found["loss, nats"] = {name: round(total / rows, 4) for name, total in losses.items()}
    places.write_json(folder / "measured.json", found)
    say(str(found))


def describe(folder: Path, every: bool) -> None:
    """Beside its weights."""
    made = load_cross_layer(folder)
    written = [
        torch.stack([made.decoder(layer, later) for later in range(layer, LAYERS)]).sum(0) for layer in range(LAYERS)
    ]
    layered.describe_into(folder, made.layers, Card.read(folder).mask.cutoffs, written, None if every else {})


def _crossed(made: CrossLayerTranscoder, x: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, Active]]:
    by_layer = made.active_by_layer(torch.cat(list(x), dim=1))
    return list(zip(made.decode_layers(by_layer), by_layer, strict=True))


def _apart(saes: Sequence[SAE], x: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, Active]]:
    actives = [one.active(part) for one, part in zip(saes, x, strict=True)]
    return [(one.decode_active(active, part), active) for one, active, part in zip(saes, actives, x, strict=True)]


def _loss(model: Model, tokens: torch.Tensor, real: torch.Tensor, edits: Sequence[Edit]) -> float:
    """Summed over scored tokens, nats."""
    logits = model.run(tokens, [], list(edits), logits=True).logits
    assert logits is not None
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    return float(loss[real[:, 1:]].double().sum())


def _edits(made: CrossLayerTranscoder, real: torch.Tensor) -> list[Edit]:
    """Every MLP's output replaced at real positions by what the features of its own and earlier layers write, each read off the edited pass."""
    so_far: list[Active] = []
    edits = []
    for layer in range(LAYERS):
        read, written = layered.hooks_of(layer)
        edits += [
            Edit(read, partial(_note, made, layer, so_far)),
            Edit(written, partial(_write, made, layer, so_far, real)),
        ]
    return edits


def _note(made: CrossLayerTranscoder, layer: int, so_far: list[Active], x: torch.Tensor, _: object) -> torch.Tensor:
    so_far.append(made.layers[layer].active(x.reshape(-1, x.shape[-1])))
    return x


def _write(
    made: CrossLayerTranscoder, layer: int, so_far: list[Active], real: torch.Tensor, out: torch.Tensor, _: object
) -> torch.Tensor:
    said = made.b_dec[layer].repeat(out[..., 0].numel(), 1)
    for source, active in enumerate(so_far):
        said += active.decode(active.values, made.decoder(source, layer))
    return torch.where(real[..., None], said.view_as(out), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=["train", "measure", "describe", []], default=[])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--d-sae", type=int, default=D_SAE, help="features of each layer")
    parser.add_argument("--k", type=int, default=K, help="active features of each layer, on average")
    parser.add_argument("--rank", type=int, default=RANK, help="decoders of each layer")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--apart", action="store_true", help="write nothing across layers")
    parser.add_argument("--from-layers", action="store_true", help="begin as the shipped transcoders of each layer")
    parser.add_argument("--into", type=Path, default=WORK)
    parser.add_argument("--all", action="store_true", help="describe: labels for every feature, which takes hours")
    given = parser.parse_args()
    stages = {"train": partial(train, given), "measure": partial(measure, given.into)}
    stages["describe"] = partial(describe, given.into, given.all)
    for stage in given.stages or stages:
        stages[stage]()
