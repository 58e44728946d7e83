"""Attribution graphs of SmolLM2-135M-Instruct: minutes, memory, and how far what they predict happens.

    python benchmarks/circuits.py    # some five minutes on two cores; results/circuits.json

Two prompts, of 20 and 73 tokens; 7,500 features each. For each of SOURCES features, drawn among the 400 of most influence, what its ablation does to
every active feature and logit downstream is predicted by the graph, and measured with patterns and norms held and every feature encoded anew
(`held`), and in the model itself (`live`): correlations over all pairs, by how many layers apart they are.
"""

import random
import resource
import time

import torch
from common import report

from interp.circuits.attribute import attribute
from interp.circuits.correlation import correlate_by_distance
from interp.circuits.graph import FEATURE
from interp.circuits.intervene import WAYS
from interp.circuits.prune import influence, score
from interp.processors import threads
from interp.workbench.replacing import open_circuits

SHORT = "When Mary and John went to the old store in the little village, John gave a drink to"
LONG = (
    "The old library stood at the corner of the square, and every Saturday the children came to hear the stories that Mrs. Palmer read to "
    "them from a large blue book. She had been a teacher in another town, far away in the north, and she knew the names of all the rivers, the "
    "mountains and the capitals of every country. One day a boy asked her what the capital of France is, and she said that it is"
)
TOKENS = (20, 73)
SOURCES = 24
DISTANCES = (1, 2, 4, 8, 16, 30)
TRANSCODERS = "saes/smollm2-135m-instruct/transcoders"


def main() -> None:
    """Both prompts, one after the other."""
    torch.set_num_threads(threads())
    opened = open_circuits(TRANSCODERS)
    found: dict[str, object] = {"threads": torch.get_num_threads()}
    for text, count in zip((SHORT, LONG), TOKENS, strict=True):
        tokens = torch.tensor(opened.model.prompt(text))[:count]
        began = time.perf_counter()
        read = opened.replacement.read(tokens)
        graph = attribute(opened.replacement, tokens, read=read)
        seconds = time.perf_counter() - began
        scores = score(graph)
        inner = [n for n in range(len(graph.nodes)) if graph.nodes.kind_N[n] == FEATURE]
        total = influence(graph.edges_NN, graph.weights())
        top = sorted(inner, key=lambda n: -float(total[n]))[:400]
        sources = random.Random(0).sample(top, SOURCES)
        found[f"{len(tokens)} tokens"] = {
            "seconds": round(seconds, 1),
            "active features": read.entries,
            "features attributed": len(inner),
            "influence left out": round(graph.left_out, 4),
            "replacement": round(scores.replacement, 3),
            "completeness": round(scores.completeness, 3),
            "peak GiB of the process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "correlation by layers apart": {
                way: correlate_by_distance(opened.replacement, read, graph, sources, way, DISTANCES)
                for way in ("held", WAYS[1])
            },
        }
    report("circuits", found)


if __name__ == "__main__":
    main()
