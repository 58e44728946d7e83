"""One prompt in several ways: attribution graphs of SmolLM2-135M-Instruct over transcoders, a cross-layer transcoder and its own neurons, side by side.

    python benchmarks/circuits_neurons.py                         # some ten minutes on two cores; results/circuits_neurons.json
    python benchmarks/circuits_neurons.py --cross-layer FOLDER    # with a cross-layer transcoder, which does not ship (recipes/smollm2_cross_layer.py)

Of each way (a process of its own): seconds and peak memory of the graph, scores, and of the first prompt how many of the 20 edges through which most
influence passes, and of the 20 such between two features or neurons, are confirmed when tried (`interp check-circuit`). Then how far the ways agree on where the
influence comes from, and each way with itself in a paraphrase.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from common import peak_mib, report

PROMPTS = {
    "capital": ("The capital of the country that contains Lyon is", " Paris", " London"),
    "paraphrase": ("Lyon lies in a country, and the capital of it is", " Paris", " London"),
}
"""Prompt, target, distractor."""
WAYS: dict[str, dict[str, Any]] = {
    "transcoders": {},
    "neurons, gate held": {"over": "neurons"},
    "neurons, gate half": {"over": "neurons", "gate": "half"},
}
CROSS_LAYER = "cross-layer transcoder"
PARAPHRASED = ("transcoders", "neurons, gate held", CROSS_LAYER)
CHECKED = {"capital": 20, "paraphrase": 0}


def measure(name: str, way: str, file: str, given: str) -> None:
    """A graph, its edges tried; printed as JSON."""
    from interp.commands.circuits import circuit

    prompt, target, distractor = PROMPTS[name]
    began = time.perf_counter(), time.process_time()
    made = circuit(prompt, target=target, distractor=distractor, into=file, **json.loads(given))
    found: dict[str, Any] = {
        "seconds": round(time.perf_counter() - began[0], 1),
        "seconds of a CPU": round(time.process_time() - began[1], 1),
        "peak GiB of the process": round(peak_mib() / 1024, 2),
        "tokens": len(made.graph.tokens),
        "kept": made.to_dict()["kept"],
        **{key: round(value, 3) for key, value in made.scores.items()},
    }
    if CHECKED[name]:
        found |= check(file, CHECKED[name])
        if "over" in json.loads(given):
            found["strongest between features, gates held"] = with_gates_held(file, CHECKED[name])
    print(json.dumps(found))


def check(file: str, count: int) -> dict[str, Any]:
    """What came of trying its strongest edges, and the strongest between two features (or neurons)."""
    from interp.circuits.graph import FEATURE, TOKEN
    from interp.circuits.prune import strong_edges
    from interp.commands.circuits import check_circuit
    from interp.workbench.circuits import read_circuit

    graph = read_circuit(file).graph
    ids, kind_N = graph.ids, graph.nodes.kind_N
    ends = [(t, s) for t, s, _ in strong_edges(graph, len(ids) ** 2) if kind_N[s] != TOKEN]
    inner = [(t, s) for t, s in ends if kind_N[t] == kind_N[s] == FEATURE]
    some = [*ends[:count], *inner[:count]]
    rows = check_circuit(file, edges=[f"{ids[s]}->{ids[t]}" for t, s in some]).rows
    return {"strongest": verdicts(rows[:count]), "strongest between features": verdicts(rows[count:])}


def with_gates_held(file: str, count: int) -> dict[str, Any]:
    """The strongest edges between two neurons once more, measured as the graph has them: by what the target reads, its gate held."""
    from dataclasses import asdict, replace

    from interp.circuits.graph import FEATURE
    from interp.circuits.intervene import check_edges
    from interp.circuits.neurons import Neurons
    from interp.circuits.prune import strong_edges
    from interp.workbench.circuits import read_circuit
    from interp.workbench.replacing import open_asked

    class GateHeld(Neurons):
        measures = property(lambda self: self.reads)

        def measured_rows(self, layer: Any, entries_N: Any) -> Any:
            return layer.read_rows(entries_N)

    graph = read_circuit(file).graph
    kind_N = graph.nodes.kind_N
    ends = [(t, s) for t, s, _ in strong_edges(graph, len(kind_N) ** 2) if kind_N[t] == kind_N[s] == FEATURE]
    made = open_asked(graph.about["asked"]).replacement
    held = replace(made, parts=tuple(GateHeld(each.mlp, each.per_position, each.gate) for each in made.parts))
    checks = check_edges(held, held.read(torch.tensor(graph.tokens)), graph, ends[:count])
    found = verdicts([asdict(each) for each in checks])
    del found["live_verdict"]  # which needs all paths of the whole graph
    return found


def verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many of them came to what."""
    found: dict[str, Any] = {
        "tried": len(rows),
        "predicted sign": sum(row["edge"] * row["measured"] > 0 for row in rows),
        "size within a factor of two": sum(0.5 <= row["measured"] / row["edge"] <= 2 for row in rows),
    }
    for key in ("verdict", "live_verdict"):
        said = [row[key] for row in rows]
        found[key] = {each: said.count(each) for each in ("confirmed", "refuted", "undecided")}
    return found


def main() -> None:
    """Every prompt each way, then the comparisons."""
    from interp.commands.circuits import compare_circuits

    parser = argparse.ArgumentParser()
    parser.add_argument("--cross-layer", default="", help="folder of a cross-layer transcoder")
    cross = parser.parse_args().cross_layer
    ways = WAYS | ({CROSS_LAYER: {"transcoders": cross}} if cross else {})
    both = tuple(way for way in PARAPHRASED if way in ways)
    made = {"capital": tuple(ways), "paraphrase": both}
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        files = {(name, way): f"{folder}/{name} {way}.json" for name, some in made.items() for way in some}
        for (name, way), file in files.items():
            command = [sys.executable, __file__, name, way, file, json.dumps(ways[way])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found.setdefault(name, {})[way] = json.loads(done.stdout.splitlines()[-1])
        pairs = {
            f"{name}: transcoders and {way}": ((name, "transcoders"), (name, way))
            for name, some in made.items()
            for way in some[1:]
        }
        if cross:
            pairs |= {
                f"{name}: {CROSS_LAYER} and neurons, gate held": ((name, CROSS_LAYER), (name, "neurons, gate held"))
                for name in made
            }
        pairs |= {f"capital and paraphrase: {way}": (("capital", way), ("paraphrase", way)) for way in both}
        for said, (one, other) in pairs.items():
            agreed = compare_circuits(files[one], files[other]).to_dict()
            found.setdefault("agreement", {})[said] = {
                key: {what: round(value, 3) for what, value in agreed[key].items()} for key in ("overlap", "ranks")
            }
    report("circuits_neurons", found)


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) == 5 else main()
