"""A finished graph made anew in the model that it is of, whole, so that something of it can be tried."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from interp.circuits.attribute import attribute
from interp.circuits.graph import Graph
from interp.circuits.replacement import Read
from interp.types import InterpError, unknown
from interp.workbench.circuits import ask
from interp.workbench.replacing import Opened, open_asked


@dataclass(frozen=True, eq=False)
class Retraced:
    """A graph as it was drawn, and the whole one."""

    drawn: Graph
    whole: Graph
    opened: Opened
    read: Read

    def in_whole(self, node: int) -> int:
        """The number in the whole graph of a node that was drawn."""
        n = self.drawn.nodes
        return self.whole.at(int(n.kind_N[node]), int(n.layer_N[node]), int(n.position_N[node]), int(n.index_N[node]))


def retrace(drawn: Graph, file: str, device: str = "auto") -> Retraced:
    """The graph of a file made anew. Raises InterpError for one that does not say how it was made, or of other tokens."""
    asked = drawn.about.get("asked")
    if not isinstance(asked, Mapping) or not asked.get("prompt"):
        raise InterpError(
            f"{file} does not say of which prompt and model it was made, so nothing of it can be tried here."
        )
    opened = open_asked(asked, device)
    tokens = torch.tensor(opened.model.prompt(str(asked["prompt"])))
    if tuple(tokens.tolist()) != drawn.tokens:
        raise InterpError(f"{file} has other tokens than {opened.model.name} reads in its prompt; make the graph anew.")
    read = opened.replacement.read(tokens)
    target, _ = ask(opened.model, read, str(asked.get("target", "")), str(asked.get("distractor", "")))
    whole = attribute(opened.replacement, tokens, target, max_nodes=int(asked["nodes"]), read=read)
    return Retraced(drawn, whole, opened, read)


def named_edge(graph: Graph, text: str) -> tuple[int, int]:
    """(target, source) of SOURCE->TARGET, ids of the file; InterpError for an edge that it does not have."""
    source, arrow, target = text.partition("->")
    if not arrow:
        raise InterpError(f"an edge is SOURCE->TARGET, by ids of the file, and not {text!r}.")
    at = named_node(graph, target), named_node(graph, source)
    if not float(graph.edges_NN[at]):
        raise InterpError(f"the graph has no edge {text}; it was pruned, or there is none.")
    return at


def named_node(graph: Graph, text: str) -> int:
    """The number of a node by its id; InterpError for one that the graph does not have."""
    ids = {each: number for number, each in enumerate(graph.ids)}
    if text.strip() not in ids:
        raise unknown("node of this graph", text.strip(), ids, try_="Nodes are named by the ids of the file.")
    return ids[text.strip()]
