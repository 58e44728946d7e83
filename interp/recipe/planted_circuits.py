"""Attribution graphs where the circuit is known: are its hops among the strongest edges, and are strong edges true?

1.  A planted model (`planted_models`) is written, and opened as any folder is.
2.  Transcoders of its MLPs are trained on its prompts; beside them stand the planted neurons themselves as a dictionary, and two nulls:
    the trained ones with their decoder rows dealt anew among the features that fire, and random rows. A cross-layer transcoder is
    trained on the same.
3.  A feature is named by when it fires on other prompts, never by what it writes: it is a country's if nearly all of its firing is at that
    country's cities (in MLP 0) or where that country's capital is asked for (in MLP 1).
4.  For each question the graph is made, and its strongest edges are compared with the circuit: city → country → capital → answer.
    Each of them is tried in the model, too: its source is taken out, with every MLP's output held, patterns and norms free.

Axes    N prompt, T token, D width, F d_sae, R row.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.circuits.attribute import Target, attribute
from interp.circuits.crossed import replace_by_cross_layer
from interp.circuits.frozen import EMBEDDING
from interp.circuits.graph import FEATURE, LOGIT, TOKEN, Graph
from interp.circuits.intervene import written_by
from interp.circuits.prune import influence, prune, scaled
from interp.circuits.replacement import Read, Replacement, make_replacement
from interp.models import Edit, Model, open_model
from interp.models.passes import Site
from interp.recipe.planted_dictionaries import LAYERS, crossed, hooks_of, planted, random, shuffled, tokens_of, trained
from interp.recipe.planted_models import CITIES, COUNTRIES, SYMBOLS, Induction, Question, TwoHops
from interp.sae import SAE
from interp.statistics import wilson

TEXTS, ROWS = 2_048, 120_000
NAMING = 480
"""Prompts on which features are named."""
PURE = 0.9
"""A feature is a country's if so much of its activation, summed over prompts, is at that country."""
STRONGEST, SMALLEST = 10, 0.1
"""Strong edges: so many at most, by the influence on the answer that passes through them (`prune`), and none that has less than so much
of the largest's. Sizes of edges are in units of their targets, which training leaves free, and cannot be compared."""
LEAST = 0.25
"""An edge is true in the model if taking its source out does at least so much of what the edge says, in its direction. (It does less
where the source fills much of a norm, for then all else grows when it goes.)"""
HALF = 0.5


@dataclass(frozen=True)
class Row:
    """A share, of which dictionary."""

    circuit: str
    dictionary: str
    measure: str
    hits: int
    of: int

    def told(self) -> dict[str, str | int | float]:
        """With its share and 95 % interval (Wilson's)."""
        share, low, high = wilson(self.hits, self.of)
        named = {"circuit": self.circuit, "dictionary": self.dictionary, "measure": self.measure}
        return {**named, "hits": self.hits, "of": self.of, "share": share, "low": low, "high": high}


def selftest_circuits(seed: int = 0, *, rows: int = ROWS, questions: int | None = None) -> list[dict[str, Any]]:
    """Whether attribution graphs show two circuits that are known; a row a measure and dictionary.

    `rows` is what each transcoder is trained on; `questions` of each circuit are asked, by default one of every city and symbol.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = [*_two_hops(Path(folder), seed, rows, questions or COUNTRIES * CITIES)]
        made += _one_place(Path(folder), seed, rows, questions or COUNTRIES * CITIES)
        made += _induction(Path(folder), seed, rows, questions or SYMBOLS)
    return [row.told() for row in made]


# ---- what features are called ----


@dataclass(frozen=True, eq=False)
class Naming:
    """Prompts on which features are named: rows (but the first position's) by layer, and the country of each, -1 of most."""

    rows: tuple[Float[Tensor, "R D"], ...]
    about: tuple[Int[Tensor, " R"], ...]

    @staticmethod
    def of(model: Model, questions: Sequence[Question]) -> "Naming":
        """MLP 0 has to do with a country at its city, MLP 1 at the last position."""
        tokens_NT = tokens_of(model, questions)
        run = model.run(tokens_NT, [hooks_of(layer)[0] for layer in range(LAYERS)])
        each, about = torch.arange(len(questions)), torch.tensor([one.about for one in questions])
        places = (torch.tensor([one.subject for one in questions]), torch.full_like(each, tokens_NT.shape[1] - 1))
        rows, said = [], []
        for layer in range(LAYERS):
            said_NT = torch.full_like(tokens_NT, -1)
            said_NT[each, places[layer]] = about
            rows.append(run.activations[hooks_of(layer)[0]][:, 1:].flatten(0, 1).clone())
            said.append(said_NT[:, 1:].flatten())
        return Naming(tuple(rows), tuple(said))

    def fires(self, one: SAE, layer: int) -> Float[Tensor, "F C"]:
        """How much each feature fires in all at each country; the last column has all other rows."""
        active = one.active(self.rows[layer])
        total = torch.zeros(one.d_sae, COUNTRIES + 1)
        at = self.about[layer][active.rows] % (COUNTRIES + 1)  # -1 becomes the last
        return total.index_put_((active.features, at), active.values, accumulate=True)

    def names(self, one: SAE, layer: int) -> Int[Tensor, " F"]:
        """The country of each feature, -1 of those that have none."""
        total_FC = self.fires(one, layer)
        best = total_FC[:, :-1].max(1)
        named = (best.values >= PURE * total_FC.sum(1)) & (best.values > 0)
        return torch.where(named, best.indices, -1)


# ---- two hops ----


def _two_hops(folder: Path, seed: int, rows: int, count: int) -> list[Row]:
    world, model, asked, naming = _world(folder, seed, count)
    questions = world.questions(TEXTS, seed + 3)
    learnt = trained(model, questions, rows, seed)
    alive = [naming.fires(one, layer).sum(1) > 0 for layer, one in enumerate(learnt)]
    dictionaries = {
        "planted": planted(world),
        "trained": learnt,
        "shuffled": shuffled(learnt, alive, seed),
        "random": random(learnt, naming.rows, seed),
    }
    made = [Row("two hops", "none", "the model answers", _right(model, asked, world.words), count)]
    for name, transcoders in dictionaries.items():
        names = [naming.names(one, layer) for layer, one in enumerate(transcoders)]
        made += _followed(make_replacement(model, transcoders), asked, names, world.words, name)
    return made + _cross_layer(world, model, asked, naming, rows, seed, "two hops")


def _one_place(folder: Path, seed: int, rows: int, count: int) -> list[Row]:
    """Both hops at the city itself: what a feature that writes into both MLPs' outputs can skip."""
    circuit = "two hops at one place"
    world, model, asked, naming = _world(folder, seed, count, one_place=True)
    made = [Row(circuit, "none", "the model answers", _right(model, asked, world.words), count)]
    learnt = trained(model, world.questions(TEXTS, seed + 3), rows, seed)
    for name, transcoders in {"planted": planted(world), "trained": learnt}.items():
        names = [naming.names(one, layer) for layer, one in enumerate(transcoders)]
        made += _followed(make_replacement(model, transcoders), asked, names, world.words, name, circuit)
    return made + _cross_layer(world, model, asked, naming, rows, seed, circuit)


def _world(
    folder: Path, seed: int, count: int, *, one_place: bool = False
) -> tuple[TwoHops, Model, list[Question], Naming]:
    """(the world, its model, what is asked, on what features are named)."""
    place = folder / ("one-place" if one_place else "two-hops")
    world = TwoHops.build(place, seed, one_place=one_place)
    model = open_model(str(place), dtype="float32", device="cpu")
    return world, model, world.questions(count, seed + 1), Naming.of(model, world.questions(NAMING, seed + 2))


def _cross_layer(
    world: TwoHops, model: Model, asked: Sequence[Question], naming: Naming, rows: int, seed: int, circuit: str
) -> list[Row]:
    """The same by one cross-layer transcoder."""
    made = crossed(model, world.questions(TEXTS, seed + 3), rows, seed)
    names = [naming.names(one, layer) for layer, one in enumerate(made.layers)]
    replacement = replace_by_cross_layer(model, made)
    return _followed(replacement, asked, names, world.words, "cross-layer", circuit)


def _right(model: Model, asked: Sequence[Question], words: Sequence[str]) -> int:
    logits = model.run(tokens_of(model, asked), logits=True, last=1).logits
    assert logits is not None
    answers = torch.tensor([words.index(each.answer) for each in asked])
    return int((logits[:, -1].argmax(-1).cpu() == answers).sum())


def _towards(token: int, vocabulary: int, says: str) -> Target:
    """One token's logit, less the mean of all."""
    towards = torch.full((1, vocabulary), -1 / vocabulary)
    towards[0, token] += 1
    return Target(towards, torch.ones(1), (token,), (says,))


def _followed(
    replacement: Replacement,
    asked: Sequence[Question],
    names: Sequence[Tensor],
    words: Sequence[str],
    dictionary: str,
    circuit: str = "two hops",
) -> list[Row]:
    """Of each question: are both hops there; of all strong edges: which does the circuit not have, which does the model not have."""
    found, skipped, strong, strange, wrong = 0, 0, 0, 0, 0
    for question in asked:
        tokens_T = tokens_of(replacement.model, [question])[0]
        read = replacement.read(tokens_T)
        target = _towards(words.index(question.answer), len(words), question.answer)
        graph = prune(attribute(replacement, tokens_T, target, read=read))
        edges = strong_edges(graph)
        found += has_path(graph, question, names, edges)
        skipped += skips(graph, question, names, edges)
        known = [is_known(graph, question, names, target, source) for target, source, _ in edges]
        true = is_true(replacement, read, graph, edges)
        strong, strange, wrong = strong + len(edges), strange + known.count(False), wrong + true.count(False)
    return [
        Row(circuit, dictionary, "both hops found", found, len(asked)),
        Row(circuit, dictionary, "the country speaks for the answer past its capital", skipped, len(asked)),
        Row(circuit, dictionary, "strong edges that were not planted", strange, strong),
        Row(circuit, dictionary, "strong edges that the model does not have", wrong, strong),
    ]


def strong_edges(graph: Graph) -> list[tuple[int, int, float]]:
    """(target, source, effect) of the edges that count as strong."""
    weight = graph.weights()
    flow_NN = scaled(graph.edges_NN) * (influence(graph.edges_NN, weight) + weight)[:, None]
    top = flow_NN.flatten().topk(STRONGEST)
    kept = top.indices[top.values >= SMALLEST * top.values[0]].tolist()
    wide = len(graph.nodes)
    return [(n // wide, n % wide, float(graph.edges_NN[n // wide, n % wide])) for n in kept]


def _steps(graph: Graph, question: Question, names: Sequence[Tensor]) -> tuple[set[int], set[int], set[int]]:
    """(nodes of the country at the subject, of its capital at the end, the logit)."""
    nodes, last = graph.nodes, len(graph.tokens) - 1
    found: list[set[int]] = []
    for layer, position in enumerate((question.subject, last)):
        here = (nodes.kind_N == FEATURE) & (nodes.layer_N == layer) & (nodes.position_N == position)
        found.append({int(n) for n in np.flatnonzero(here) if int(names[layer][nodes.index_N[n]]) == question.about})
    return found[0], found[1], {int(n) for n in np.flatnonzero(nodes.kind_N == LOGIT)}


def has_path(
    graph: Graph, question: Question, names: Sequence[Tensor], edges: Sequence[tuple[int, int, float]]
) -> bool:
    """Whether these edges have the city's token, a feature of its country, one of its capital and the answer in a row, each for the next."""
    country, capital, logit = _steps(graph, question, names)
    city = graph.at(TOKEN, -1, question.subject)
    speaks = {(target, source) for target, source, effect in edges if effect > 0}
    return any(
        (a, city) in speaks and (b, a) in speaks and (c, b) in speaks for a in country for b in capital for c in logit
    )


def skips(graph: Graph, question: Question, names: Sequence[Tensor], edges: Sequence[tuple[int, int, float]]) -> bool:
    """Whether one of these edges goes from a feature of the country straight to the answer: two hops drawn as one."""
    country, _, logit = _steps(graph, question, names)
    return any(effect > 0 and source in country and target in logit for target, source, effect in edges)


def is_known(graph: Graph, question: Question, names: Sequence[Tensor], target: int, source: int) -> bool:
    """Whether an edge was planted: a step of the path, the asking, or MLP 0 looking up a word at its place."""
    country, capital, logit = _steps(graph, question, names)
    nodes = graph.nodes
    at = int(nodes.position_N[source])
    if nodes.kind_N[source] == TOKEN:
        looked_up = at and nodes.kind_N[target] == FEATURE and nodes.position_N[target] == at
        return bool(looked_up and (nodes.layer_N[target] == 0 or target in capital))
    return (target in capital and source in country) or (target in logit and source in capital)


def is_true(replacement: Replacement, read: Read, graph: Graph, edges: Sequence[tuple[int, int, float]]) -> list[bool]:
    """Of each edge, whether its source taken out of the model does to its target about what the edge says.

    Every MLP's output is held but for the source's part, so that what is measured is direct; patterns and norms are free.
    """
    did: dict[int, Callable[[int], float]] = {}
    made = []
    for target, source, effect in edges:
        if source not in did:
            did[source] = _taken_out(replacement, read, graph, source)
        ratio = did[source](target) / effect
        made.append(ratio >= LEAST)
    return made


def _put(held: Tensor, out: Tensor, _: Site) -> Tensor:
    return held.expand_as(out)


def _taken_out(replacement: Replacement, read: Read, graph: Graph, source: int) -> Callable[[int], float]:
    nodes, clean = graph.nodes, read.clean
    at = int(nodes.position_N[source])
    held = {name: clean.activations[name].clone() for name in (EMBEDDING, *replacement.writes)}
    if nodes.kind_N[source] == TOKEN:
        held[EMBEDDING][0, at] = 0
    else:
        for into, vector_D in written_by(read, graph, source).vectors.items():
            held[replacement.writes[into]][0, at] -= vector_D
    edits = [Edit(name, partial(_put, put)) for name, put in held.items()]
    run = replacement.model.run(clean.tokens_T[None], replacement.reads, edits, logits=True, last=1)
    assert run.logits is not None
    change_V = clean.logits_V - run.logits[0, -1]

    def change(target: int) -> float:
        if nodes.kind_N[target] == LOGIT:
            return float(change_V[int(nodes.index_N[target])] - change_V.mean())
        number, place = int(nodes.layer_N[target]), int(nodes.position_N[target])
        name = replacement.reads[number]
        moved_D = clean.activations[name][0, place] - run.activations[name][0, place]
        own, entry = read.layers[number], [torch.tensor([place]), torch.tensor([int(nodes.index_N[target])])]
        return float(moved_D @ own.read_rows(own.find(*entry))[0])

    return change


# ---- induction ----


def _induction(folder: Path, seed: int, rows: int, count: int) -> list[Row]:
    """Attention alone carries it: the strongest edge of the answer's logit should come from the earlier token, and be true."""
    made = []
    for name, notes in (("trained", True), ("trained, without previous-token head", False)):
        world = Induction.build(folder / f"induction-{notes}", seed, notes=notes)
        model = open_model(str(folder / f"induction-{notes}"), dtype="float32", device="cpu")
        replacement = make_replacement(model, trained(model, world.questions(TEXTS, seed + 3), rows, seed))
        asked = world.questions(count, seed + 1)
        made.append(Row("induction", name, "the model answers", _right(model, asked, world.words), count))
        first = true = 0
        for question in asked:
            tokens_T = tokens_of(model, [question])[0]
            read = replacement.read(tokens_T)
            target = _towards(world.words.index(question.answer), len(world.words), question.answer)
            graph = attribute(replacement, tokens_T, target, read=read)
            into_N = graph.edges_NN[-1].abs()
            source = graph.at(TOKEN, -1, question.subject)
            if int(into_N.argmax()) == source and float(into_N[source]) > HALF * float(into_N.sum()):
                first += 1
                true += is_true(
                    replacement, read, graph, [(len(into_N) - 1, source, float(graph.edges_NN[-1, source]))]
                )[0]
        made.append(Row("induction", name, "half of the answer's logit is the earlier token's", first, count))
        made.append(Row("induction", name, "of these true in the model", true, first))
    return made
