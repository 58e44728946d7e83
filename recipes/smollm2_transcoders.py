"""A transcoder for every layer of SmolLM2-135M-Instruct: what its MLPs read, and what they add.

    python recipes/smollm2_transcoders.py                # all: about an hour on two cores, 12 GB of memory
    python recipes/smollm2_transcoders.py pack describe  # or some stages

train    one pass of the model feeds all thirty; nothing is harvested. It goes on where it stopped. Text: the mix of recipes/smollm2.py.
pack     8-bit rows with scales, one file, which `interp circuit` expands at its first use.
describe on which tokens each feature fires, on text that nothing was trained on, and which it makes likelier: its name in a graph.
measure  on text that is held out: FVU of each layer as trained and as packed; and what the model says with every MLP replaced.

docs/circuits.md has what came of it.
"""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import smollm2 as embedded
import torch

from interp import places
from interp.activations import stream
from interp.checkpoint import open_bundle
from interp.checkpoint.eight_bit import open_layers, pack_layers, write_features
from interp.circuits.frozen import note
from interp.circuits.replacement import make_replacement
from interp.corpus import tokenize
from interp.mask import Mask
from interp.models import Edit, Model, open_model
from interp.progress import bar
from interp.recipe.layers import train_layers
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE
from interp.training import TrainConfig

LAYERS = 30
D_SAE, K = 1536, 32
TOKENS = 2_000_000
MEASURED_TOKENS, BATCH = 8_192, 4
DESCRIBED_TOKENS, SHOWN_TOKENS = 131_072, 4
INTO = embedded.INTO / "transcoders"
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


def pack(layers: int) -> None:
    """As one file, into the project."""
    pack_layers({f"layer-{layer}": WORK / f"layer-{layer}" for layer in range(layers)}, INTO)


@torch.inference_mode()
def measure() -> None:
    """FVU of each layer before and after packing, and of the model with every MLP replaced its loss and likeliest token."""
    model = open_model("smollm2", dtype="float32")
    packed, cutoffs, _ = open_layers(INTO)
    sets = {"trained": list(open_bundle(WORK)), "packed": list(packed)}
    blocks = tokenize(embedded.training_text(), model, MEASURED_TOKENS, split="heldout")
    every = [hook for layer in range(LAYERS) for hook in hooks_of(layer)]
    left = {name: torch.zeros(LAYERS, dtype=torch.float64) for name in sets}
    l0 = {name: torch.zeros(LAYERS, dtype=torch.float64) for name in sets}
    sums, squares, whole = (
        [torch.zeros(1).double()] * LAYERS,
        torch.zeros(LAYERS).double(),
        torch.zeros(LAYERS).double(),
    )
    losses = dict.fromkeys(("untouched", "replaced", "MLPs left out"), 0.0)
    agree = dict.fromkeys(losses, 0.0)
    rows = 0
    make_replacement(model, sets["packed"], cutoffs)  # which says what does not fit
    with bar("measuring", len(blocks.tokens_NT)) as advance:
        for first in range(0, len(blocks.tokens_NT), BATCH):
            tokens = blocks.tokens_NT[first : first + BATCH]
            real = blocks.real_NT()[first : first + BATCH]
            run = model.run(tokens, every, logits=True)
            assert run.logits is not None
            for layer in range(LAYERS):
                read, written = hooks_of(layer)
                seen = {hook: run.activations[hook] for hook in (read, written)}
                counted_BT = Mask({hook: cutoffs[hook] for hook in seen}).counted(seen, real)
                x, y = seen[read][counted_BT], seen[written][counted_BT].double()
                sums[layer] = sums[layer] + y.sum(0)
                squares[layer] += y.square().sum()
                whole[layer] += len(y)
                for name, of in sets.items():
                    left[name][layer] += (of[layer].reconstruct(x).double() - y).square().sum()
                    l0[name][layer] += len(of[layer].active(x).values)
            top = run.logits[:, :-1].argmax(-1)
            ways = {"untouched": [], "replaced": sets["packed"], "MLPs left out": None}
            scored = real[:, 1:]
            rows += int(scored.sum())
            for name, of in ways.items():
                logits = model.run(tokens, [], edits(of, real), logits=True).logits
                assert logits is not None
                loss = torch.nn.functional.cross_entropy(
                    logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
                )
                losses[name] += float(loss[scored].double().sum())
                agree[name] += float((logits[:, :-1].argmax(-1) == top)[scored].sum())
            advance(len(tokens), "")
    fvu = {}
    for name in sets:
        total = [float(squares[n] - sums[n].square().sum() / whole[n]) for n in range(LAYERS)]
        fvu[name] = [round(float(left[name][n]) / total[n], 5) for n in range(LAYERS)]
    found = {
        "tokens": rows,
        "fvu": fvu,
        "l0": {name: [round(float(l0[name][n] / whole[n]), 2) for n in range(LAYERS)] for name in sets},
        "loss, nats": {name: round(total / rows, 4) for name, total in losses.items()},
        "same likeliest token": {name: round(total / rows, 4) for name, total in agree.items()},
    }
    places.write_json(embedded.ROOT / "benchmarks/results/transcoders.json", found)
    say(str(found))


def describe() -> None:
    """Beside the packed file."""
    packed, cutoffs, _ = open_layers(INTO)
    describe_into(INTO, list(packed), cutoffs, [one.W_dec for one in packed])


@torch.inference_mode()
def describe_into(
    folder: Path, saes: Sequence[SAE], cutoffs: Mapping[str, float], written: Sequence[torch.Tensor]
) -> None:
    """On which tokens each feature fires, by the sum of its activations, and which what it writes in all (F, D) makes likelier, layer by layer."""
    model = open_model("smollm2")
    blocks = tokenize(embedded.training_text(), model, DESCRIBED_TOKENS, split="heldout")
    every = [hook for layer in range(LAYERS) for hook in hooks_of(layer)]
    entries: list[list[np.ndarray]] = [[] for _ in range(LAYERS)]
    rows = torch.zeros(LAYERS, dtype=torch.int64)
    with bar("describing", len(blocks.tokens_NT)) as advance:
        for first in range(0, len(blocks.tokens_NT), 16):
            tokens, real = blocks.tokens_NT[first : first + 16], blocks.real_NT()[first : first + 16]
            run = model.run(tokens, every)
            for layer, one in enumerate(saes):
                seen = {hook: run.activations[hook] for hook in hooks_of(layer)}
                counted_BT = Mask({hook: cutoffs[hook] for hook in seen}).counted(seen, real)
                active = one.active(seen[hooks_of(layer)[0]][counted_BT].float())
                token = tokens[counted_BT][active.rows]
                rows[layer] += int(counted_BT.sum())
                entries[layer].append(np.stack([active.features.numpy(), token.numpy(), active.values.numpy()]))
            advance(len(tokens), "")
    W_VD, gain_D = model.unembedding()
    write_features(
        folder,
        [
            _described(written[n], np.concatenate(part, 1), int(rows[n]), model, W_VD * gain_D)
            for n, part in enumerate(entries)
        ],
    )


def _described(
    written_FD: torch.Tensor, entries: np.ndarray, rows: int, model: Model, W_VD: torch.Tensor
) -> list[dict[str, object]]:
    d_sae = len(written_FD)
    feature, token, value = entries[0].astype(np.int64), entries[1].astype(np.int64), entries[2]
    fires = np.bincount(feature, minlength=d_sae)
    pairs, inverse = np.unique(feature * len(W_VD) + token, return_inverse=True)
    mass = np.bincount(inverse, value)
    order = np.lexsort((-mass, pairs // len(W_VD)))
    owner, which = pairs[order] // len(W_VD), pairs[order] % len(W_VD)
    first = np.searchsorted(owner, np.arange(d_sae + 1))
    whole = np.bincount(feature, value, minlength=d_sae)
    promoted = (written_FD @ W_VD.T).topk(SHOWN_TOKENS).indices
    return [
        {
            "density": float(fires[f] / rows),
            "fires_on": [model.decode([int(t)]) for t in which[first[f] : first[f + 1]][:SHOWN_TOKENS]],
            "share": float(mass[order][first[f] : first[f + 1]][:SHOWN_TOKENS].sum() / max(whole[f], 1e-9)),
            "promotes": [model.decode([int(t)]) for t in promoted[f].tolist()],
        }
        for f in range(d_sae)
    ]


def edits(of: list[SAE] | None, real: torch.Tensor) -> list[Edit]:
    """Every MLP's output replaced at real positions, by what its transcoder says or (None) by nothing."""
    if of == []:
        return []
    edits = []
    for layer in range(LAYERS):
        now: dict[str, torch.Tensor] = {}
        read, written = hooks_of(layer)
        edits += [Edit(read, partial(note, now)), Edit(written, partial(_say, now, of and of[layer], real))]
    return edits


def _say(
    now: dict[str, torch.Tensor], one: SAE | None, real: torch.Tensor, out: torch.Tensor, _: object
) -> torch.Tensor:
    x = now.pop("x")
    said = torch.zeros_like(out) if one is None else one.reconstruct(x.reshape(-1, x.shape[-1])).view(out.shape)
    return torch.where(real[..., None], said, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=["train", "pack", "describe", "measure", []], default=[])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    asked = parser.parse_args()
    for stage in asked.stages or ["train", "pack", "describe", "measure"]:
        if stage == "train":
            train(asked.tokens, asked.layers)
        elif stage == "pack":
            pack(asked.layers)
        elif stage == "describe":
            describe()
        else:
            measure()
