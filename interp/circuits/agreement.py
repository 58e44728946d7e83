"""How far two graphs say the same: of one prompt made in two ways, or of a prompt and its paraphrase.

What is compared is where the influence on the logits comes from: shares that add up to 1, over positions, layers, kinds of nodes, words of the prompt and
features. Two ways of sharing p and q overlap by Σ min(p, q): 1 where they are the same, 0 where they have nothing in common. Of positions, layers and
places it is also told whether the same ones come first (Spearman, over all that have any influence in either graph).

    positions   features and errors by where they stand; only where both graphs have the same tokens
    layers      features and errors
    places      features and errors by layer and position; only where both graphs have the same tokens
    words       tokens by their text, whatever their positions
    features    by layer and number, whatever their positions; only where both were made with the same transcoders, or of the same model's neurons

Axes    N node.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from interp.circuits.graph import ERROR, FEATURE, KINDS, TOKEN, Graph
from interp.circuits.page import shares

RANKED = ("positions", "layers", "places")
TOP = 8
"""Words and features that a record lists."""
Shares = Mapping[Any, float]


@dataclass(frozen=True)
class Overlap:
    """Shares of the influence in two graphs, by the same keys."""

    what: str
    one: Shares
    other: Shares

    @property
    def value(self) -> float:
        """Σ min: 1 where the shares are the same."""
        return sum(min(share, self.other.get(key, 0.0)) for key, share in self.one.items())

    @property
    def ranks(self) -> float:
        """Spearman's correlation of the shares, over all keys of either; nan for fewer than three, or where one's shares are all the same."""
        both = np.array([(one, other) for _, one, other in self.rows()])
        if len(both) < 3 or not np.ptp(both, axis=0).all():
            return float("nan")
        return float(spearmanr(both[:, 0], both[:, 1]).statistic)

    def rows(self, count: int | None = None) -> list[tuple[Any, float, float]]:
        """(key, share in the one, in the other): the largest sums first where so many are asked for, else all by their keys."""
        keys = sorted({*self.one, *self.other})
        if count is not None:
            keys = sorted(keys, key=lambda key: (-self.one.get(key, 0) - self.other.get(key, 0), key))[:count]
        return [(key, self.one.get(key, 0.0), self.other.get(key, 0.0)) for key in keys]


@dataclass(frozen=True)
class Agreement:
    """Two graphs side by side."""

    overlaps: tuple[Overlap, ...]
    left_out: tuple[str, ...]
    """What could not be compared, and why."""
    scores: Mapping[str, tuple[float, float]]
    """Scores that both graphs say."""

    def overlap(self, what: str) -> float:
        """How far they agree on positions, layers, kinds, words or features; nan where that was not compared."""
        return next((each.value for each in self.overlaps if each.what == what), float("nan"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "overlap": {each.what: each.value for each in self.overlaps},
            "ranks": {
                each.what: each.ranks for each in self.overlaps if each.what in RANKED and np.isfinite(each.ranks)
            },
            "left_out": list(self.left_out),
            "scores": {name: list(both) for name, both in self.scores.items()},
            "kinds": self._rows("kinds", None),
            "layers": self._rows("layers", None),
            "positions": self._rows("positions", None),
            "words": self._rows("words", TOP),
            "features": self._rows("features", TOP),
        }

    def _rows(self, what: str, count: int | None) -> list[list[Any]]:
        return [
            [key, one, other] for each in self.overlaps if each.what == what for key, one, other in each.rows(count)
        ]


def compare_graphs(one: Graph, other: Graph) -> Agreement:
    """How far two graphs agree on where the influence comes from (see the head of this file)."""
    both = (one, other)
    keys: dict[str, Callable[[Graph, int], tuple[bool, Any]]] = {
        "kinds": lambda g, n: (True, KINDS[int(g.nodes.kind_N[n])]),
        "positions": lambda g, n: (_inner(g, n), int(g.nodes.position_N[n])),
        "layers": lambda g, n: (_inner(g, n), g.layer_name(int(g.nodes.layer_N[n]))),
        "places": lambda g, n: (_inner(g, n), (g.layer_name(int(g.nodes.layer_N[n])), int(g.nodes.position_N[n]))),
        "words": lambda g, n: (int(g.nodes.kind_N[n]) == TOKEN, g.spelt()[int(g.nodes.position_N[n])]),
        "features": lambda g, n: (
            int(g.nodes.kind_N[n]) == FEATURE,
            f"L{g.layer_name(int(g.nodes.layer_N[n]))} {g.sign}{int(g.nodes.index_N[n])}",
        ),
    }
    left_out = []
    if one.tokens != other.tokens:
        del keys["positions"], keys["places"]
        left_out.append("positions: the two prompts have other tokens")
    if one.unit != other.unit:
        del keys["features"]
        left_out.append("features: one of the graphs is over neurons")
    elif _of(one) != _of(other):
        del keys["features"]
        left_out.append(
            "features: the two graphs were made with other transcoders or SAEs, or of other models' neurons"
        )
    overlaps = []
    for what, key in keys.items():
        first, second = (_shares(graph, key) for graph in both)
        if first and second:
            overlaps.append(Overlap(what, first, second))
        else:
            left_out.append(f"{what}: one of the graphs has none that has any influence")
    return Agreement(tuple(overlaps), tuple(left_out), _scores(one, other))


def _of(graph: Graph) -> list[Any]:
    """What numbers of features go by."""
    about = graph.about
    return [about.get("model_sha256")] if graph.unit == "neuron" else list(about.get("transcoders", ()))


def _inner(graph: Graph, node: int) -> bool:
    return int(graph.nodes.kind_N[node]) in (FEATURE, ERROR)


def _shares(graph: Graph, key: Callable[[Graph, int], tuple[bool, Any]]) -> dict[Any, float]:
    own_N = np.abs(shares(graph))
    total: dict[Any, float] = defaultdict(float)
    for node in np.flatnonzero(own_N > 0).tolist():
        counts, name = key(graph, node)
        if counts:
            total[name] += float(own_N[node])
    whole = sum(total.values())
    return {name: value / whole for name, value in total.items()}


def _scores(one: Graph, other: Graph) -> dict[str, tuple[float, float]]:
    said = [graph.about.get("scores", {}) for graph in (one, other)]
    if not all(isinstance(each, Mapping) for each in said):
        return {}
    both = [name for name in said[0] if name in said[1]]
    return {
        str(name): (float(said[0][name]), float(said[1][name]))
        for name in both
        if all(isinstance(each[name], int | float) for each in said)
    }
