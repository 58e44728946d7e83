"""Graphs of SmolLM2-135M-Instruct over the three SAEs of its residual stream: time, memory, and whether gradients say what an ablation does.

    python benchmarks/circuits_residual.py    # some ten minutes on two cores; results/circuits_residual.json

Of each of six prompts (a process each), with a target and a distractor, FEATURES features of each SAE are drawn among those that fire. What each does to the
difference of the two logits by whatever way is predicted by the gradient and by integrated gradients, and measured by taking it out of the model's
stream, the error as it was. Beside each, a feature that fires about as often but not there is taken out by the same norm. Then, of a
prompt of 20 tokens, seconds and memory of a whole graph, each in a process of its own, and how far the sum over all paths of the
graph comes to the same as the effect.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import peak_mib, report
from scipy.stats import pearsonr, spearmanr

from interp.circuits.attribute import attribute, difference
from interp.circuits.graph import FEATURE, LOGIT
from interp.circuits.intervene import Step, run_moved, total_effects
from interp.circuits.prune import score
from interp.circuits.residual import StreamReplacement, block_of, effects
from interp.steering.controls import matched_features
from interp.workbench import Workbench
from interp.workbench.replacing import open_stream

SAES = "saes/smollm2-135m-instruct"
PROMPTS = (
    ("The capital of the country that contains Lyon is", " Paris", " London"),
    ("Amanda is a very good friend, isn't", " she", " he"),
    ("The keys to the cabinet", " are", " is"),
    ("The war lasted from the year 1745 to the year 17", "5", "2"),
    ("When Mary and John went to the store, John gave a drink to", " Mary", " John"),
    ("Votre piscine est", " verte", " vert"),
)
SHORT = "When Mary and John went to the old store in the little village, John gave a drink to"
TOKENS = 20
FEATURES = 30
STEPS = (0, 4, 8, 16)


def opened() -> tuple[StreamReplacement, list[np.ndarray]]:
    """The model with its SAEs, and how often each feature fires."""
    made = open_stream([SAES], device="cpu")
    assert isinstance(made.replacement, StreamReplacement)
    often = [
        Workbench.open(folder, device="cpu").index.features["density"].to_numpy().astype(float)
        for folder in made.folders
    ]
    return made.replacement, often


def tried(number: int) -> list[dict[str, Any]]:
    """A row a feature of a prompt: predicted by each number of places, measured, and what its control does."""
    replacement, often = opened()
    model, rows = replacement.model, []
    for prompt, *ends in PROMPTS[number : number + 1]:
        read = replacement.read(torch.tensor(model.prompt(prompt)))
        target, distractor = (model.tokenize(each)[0] for each in ends)
        towards_1V = difference(read.clean.logits_V, target, distractor).towards_KV
        said = {steps: effects(replacement, read, towards_1V, steps) for steps in STEPS}
        moves, some = [], []
        for layer, own in enumerate(read.layers):
            drawn = random.Random(number).sample(range(len(own.value_E)), min(FEATURES, len(own.value_E)))
            for entry in drawn:
                at, feature = int(own.position_E[entry]), int(own.feature_E[entry])
                fires = set(own.feature_E[own.position_E == at].tolist())
                others = matched_features(often[layer], feature, 19, number)
                other = next(each for each in others if each not in fires)
                out_D = own.written_ED[entry]
                row_D = own.W_dec[other]
                moves += [[Step(layer, at, -out_D)], [Step(layer, at, -row_D * out_D.norm() / row_D.norm())]]
                some.append((layer, entry))
        did = run_moved(replacement, read, moves, "live", []).logits_BV - read.clean.logits_V
        effect_B = -(did @ towards_1V[0])
        for at, (layer, entry) in enumerate(some):
            rows.append(
                {
                    "prompt": number,
                    "layer": layer,
                    "effect": float(effect_B[2 * at]),
                    "control": float(effect_B[2 * at + 1]),
                    **{str(steps): float(said[steps][layer][0][0, entry]) for steps in STEPS},
                }
            )
    return rows


def told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Correlations of what was predicted and what happened."""
    did, control = (np.array([row[key] for row in rows]) for key in ("effect", "control"))
    found: dict[str, Any] = {
        "n": len(rows),
        "mean size of an effect": round(float(np.abs(did).mean()), 4),
        "mean size of a control": round(float(np.abs(control).mean()), 4),
    }
    for steps in STEPS:
        said = np.array([row[str(steps)] for row in rows])
        near = pearsonr(said, did)
        interval = near.confidence_interval()
        found[f"{steps} places" if steps else "gradient"] = {
            "pearson": round(float(near.statistic), 3),
            "95 % interval": [round(float(interval.low), 3), round(float(interval.high), 3)],
            "spearman": round(float(spearmanr(said, did).statistic), 3),
            "pearson with the controls": round(float(pearsonr(said, control).statistic), 3),
            "right sign": round(float((said * did > 0).mean()), 3),
            "error as a share of the effects": round(float(np.abs(said - did).sum() / np.abs(did).sum()), 3),
        }
    return found


def graph(steps: int) -> dict[str, Any]:
    """A whole graph of the prompt of 20 tokens."""
    began = time.perf_counter(), time.process_time()
    replacement = open_stream([SAES], steps=steps, device="cpu").replacement
    assert isinstance(replacement, StreamReplacement)
    tokens = torch.tensor(replacement.model.prompt(SHORT))[:TOKENS]
    opening = time.perf_counter() - began[0]
    read = replacement.read(tokens)
    made = attribute(replacement, tokens, read=read)
    seconds, of_cpu = time.perf_counter() - began[0] - opening, time.process_time() - began[1]
    n, scores = made.nodes, score(made)
    apart = {}
    for layer, by_all in enumerate(effects(replacement, read, made.directions_KV[:1])):
        own = np.flatnonzero((n.kind_N == FEATURE) & (n.layer_N == layer))
        first = int((n.kind_N == LOGIT).argmax())
        by_paths = total_effects(made, own.tolist())[first]
        at, index = (torch.from_numpy(of[own]) for of in (n.position_N, n.index_N))
        whole = by_all[0][0, read.layers[layer].find(at, index)]
        apart[str(replacement.blocks[layer])] = round(float(pearsonr(by_paths, whole).statistic), 3)
    return {
        "tokens": len(tokens),
        "active features": read.entries,
        "features attributed": int((n.kind_N == FEATURE).sum()),
        "seconds to open": round(opening, 1),
        "seconds of the graph": round(seconds, 1),
        "seconds of a CPU, the opening included": round(of_cpu, 1),
        "peak GiB of the process": round(peak_mib() / 1024, 2),
        "replacement": round(scores.replacement, 3),
        "completeness": round(scores.completeness, 3),
        "pearson of the sum over the graph's paths and the effect by whatever way, by block": apart,
    }


def alone(what: str, number: int) -> Any:
    """What a process of its own found."""
    asked = [sys.executable, __file__, what, str(number)]
    return json.loads(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def main() -> None:
    """The predictions, then the graphs."""
    rows = [row for number in range(len(PROMPTS)) for row in alone("prompt", number)]
    blocks = [block_of(sae.name) for sae in sorted(Path(SAES).glob("blocks.*"))]
    found: dict[str, Any] = {
        "all": told(rows),
        "by block": {
            str(block): told([row for row in rows if row["layer"] == layer])
            for layer, block in enumerate(sorted(blocks))
        },
        "by prompt": {
            prompt[0]: told([row for row in rows if row["prompt"] == number]) for number, prompt in enumerate(PROMPTS)
        },
    }
    for steps in (0, 4):
        found[f"graph, {steps} places" if steps else "graph, gradient"] = alone("graph", steps)
    report("circuits_residual", found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps((graph if sys.argv[1] == "graph" else tried)(int(sys.argv[2]))))
    else:
        main()
