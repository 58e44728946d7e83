"""A transcoder for every layer of SmolLM2-135M-Instruct: what its MLPs read, and what they add.

    python recipes/smollm2_transcoders.py                # all: about an hour on two cores, 12 GB of memory
    python recipes/smollm2_transcoders.py pack describe  # or some stages
    python recipes/smollm2_transcoders.py train --d-sae 3072 --into wide    # wider ones; then `interp circuit … --transcoders wide`

train    one pass of the model feeds all thirty; nothing is harvested. It goes on where it stopped. Text: the mix of recipes/smollm2.py.
pack     8-bit rows with scales, one file, which `interp circuit` expands at its first use.
describe what each feature fires on, and which tokens it makes likelier: its name in a graph. Those of the shipped graphs get labels that are
         tried on documents they were not made from (an hour beside other work); with --all every one (hours).
measure  on text that is held out: FVU of each layer as trained and as packed; and what the model says with every MLP replaced.

docs/circuits.md has what came of it.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from interp.circuits.graph import FEATURE
from interp.circuits.replacement import make_replacement
from interp.corpus import tokenize
from interp.mask import Mask
from interp.models import Edit, open_model
from interp.predicates import Text
from interp.progress import bar
from interp.recipe.layers import train_layers
from interp.recipe.naming import Layer, describe_layers
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae import SAE
from interp.training import TrainConfig
from interp.workbench import Workbench
from interp.workbench.circuits import Circuit, named, read_circuit, write_circuit
from interp.workbench.replacing import open_circuits

LAYERS = 30
D_SAE, K = 1536, 32
TOKENS = 2_000_000
MEASURED_TOKENS, BATCH = 8_192, 4
TRAINING_BLOCKS = 1_000
INTO, GRAPHS = embedded.INTO / "transcoders", embedded.INTO / "graphs"
WORK = places.cache() / "recipes" / "smollm2" / "transcoders"


def hooks_of(layer: int) -> tuple[str, str]:
    """What a layer's transcoder reads and writes."""
    return f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"


def train(tokens: int, layers: int, d_sae: int, into: Path) -> None:
    """All of them, into a folder that `interp circuit --transcoders` takes."""
    pairs = {f"layer-{layer}": hooks_of(layer) for layer in range(layers)}
    every = [hook for pair in pairs.values() for hook in pair]
    source = stream(open_model("smollm2"), embedded.training_text(), every, tokens, split="train")
    train_layers(
        source,
        pairs,
        into,
        d_sae=d_sae,
        k=K,
        config=TrainConfig(seed=0),
        licences=embedded.licences(),
        script="recipes/smollm2_transcoders.py",
    )
    say(f"{counted(layers, 'transcoder')} in {into}.")


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


def describe(every: bool = False) -> None:
    """Beside the packed file; of the features in the shipped graphs, or of all, names too. Then the graphs say them."""
    packed, cutoffs, _ = open_layers(INTO)
    saes = list(packed)
    describe_into(INTO, saes, cutoffs, [one.W_dec for one in saes], None if every else features_of(GRAPHS))
    opened = open_circuits(INTO.relative_to(embedded.ROOT))
    for file in sorted(GRAPHS.glob("*.json")):
        graph = read_circuit(str(file)).graph
        write_circuit(Circuit(named(opened, replace(graph, groups=(), names={}))), file)


def features_of(graphs: Path) -> dict[int, list[int]]:
    """By layer, the features that are in any of these graphs."""
    found: dict[int, set[int]] = {layer: set() for layer in range(LAYERS)}
    for file in graphs.glob("*.json"):
        n = read_circuit(str(file)).graph.nodes
        for layer, feature in zip(n.layer_N[n.kind_N == FEATURE], n.index_N[n.kind_N == FEATURE], strict=True):
            found[int(layer)].add(int(feature))
    return {layer: sorted(some) for layer, some in found.items()}


def describe_into(
    folder: Path,
    saes: Sequence[SAE],
    cutoffs: Mapping[str, float],
    written: Sequence[torch.Tensor],
    features: Mapping[int, Sequence[int]] | None,
) -> None:
    """What each feature fires on, by the text of the embedded SAEs' index: all its documents that nothing was trained on, and some of the others.
    `written` is what each writes in all, (F, D) by layer; `features` are those that are named, None for all."""
    wb = Workbench.open(str(embedded.folder_of("blocks.15.hook_resid_post")))
    text = wb.index.passages
    layers = [
        Layer(
            reads=hooks_of(number)[0],
            mask=Mask({hook: cutoffs[hook] for hook in hooks_of(number)}),
            active=one.active,
            written_FD=written_FD,
        )
        for number, (one, written_FD) in enumerate(zip(saes, written, strict=True))
    ]
    digest = hashlib.sha256(b"".join(x.numpy().tobytes() for one in saes for x in (one.W_enc, one.b_enc)))
    rows = describe_layers(
        open_model("smollm2"),
        layers,
        text,
        blocks_of(text),
        wb.meanings,
        WORK.parent / "names",
        follows_from={"encoders": digest.hexdigest(), "text": wb.index.meta["text_sha256"]},
        features=features,
    )
    told = []
    for number, some in enumerate(rows):
        verdicts = Counter(row["verdict"] for row in some if row["verdict"])
        say(f"layer {number}: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))
        told.append(some)
    write_features(folder, told)


def blocks_of(text: Text) -> np.ndarray:
    """Blocks with documents that names are chosen and tried on, and TRAINING_BLOCKS of the others to make them from."""
    split_N = np.array(text.split_D)[text.document_N]
    whole = len(split_N) // text.block * text.block
    tried_N = np.isin(split_N[:whole], ("heldout", "labels")).reshape(-1, text.block).any(axis=1)
    others = np.random.default_rng(0).permutation(np.flatnonzero(~tried_N))[:TRAINING_BLOCKS]
    return np.sort(np.concatenate([np.flatnonzero(tried_N), others]))


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
    parser.add_argument("--d-sae", type=int, default=D_SAE, help="train: features of each layer")
    parser.add_argument(
        "--into", type=Path, default=WORK, help="train: another folder, for others than those that ship"
    )
    parser.add_argument("--all", action="store_true", help="describe: names for every feature")
    asked = parser.parse_args()
    for stage in asked.stages or ["train", "pack", "describe", "measure"]:
        if stage == "train":
            train(asked.tokens, asked.layers, asked.d_sae, asked.into)
        elif stage == "pack":
            pack(asked.layers)
        elif stage == "describe":
            describe(asked.all)
        else:
            measure()
