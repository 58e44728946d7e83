"""Answer a query from the index, the labels and, for some keys, the model.

One scored key shows its own measure (F1, cosine, logit, activation). Several are joined by reciprocal-rank fusion
(Cormack, Clarke and Büttcher 2009, constant 60): a feature gains 1 / (60 + rank) for each scored key it passes.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import overload

import numpy as np
import pandas as pd
from jaxtyping import Int

from interp.render import csv_cell, table_html, title_html
from interp.render.words import counted
from interp.search.answer import Answer, Collection
from interp.search.keys import HANDLERS
from interp.search.keys.tested import effects
from interp.search.query import And, Node, Not, Query, Term, parse

FUSION = 60


@dataclass(frozen=True)
class Hit:
    """A feature that a query found."""

    feature: int
    label: str
    score: float
    scores: dict[str, float]
    """Each key's own measure, for the keys that have one and that the feature passes."""
    why: dict[str, str]
    """For each key that it passes, or is asked not to pass and does not, the evidence in words."""
    density: float
    max: float
    automatic: bool
    """Whether the label is the automatic, untested description."""
    partial: bool
    """Whether the answer came from what a small index keeps."""


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """Hits in order; a sequence that shows itself as a table."""

    query: str
    hits: tuple[Hit, ...]
    total: int
    """How many features passed, of which `hits` are the first."""
    partial: bool = False
    """Whether it was answered from what a small index keeps; then no hits do not mean that there are none."""
    notes: tuple[str, ...] = ()
    """What the answer does not say by itself: that no indexed token matches, that sets of texts are too small."""

    @overload
    def __getitem__(self, at: int) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, at: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[at]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_pandas(self) -> pd.DataFrame:
        """A row a hit, with the fields of `Hit` as columns."""
        columns = list(Hit.__dataclass_fields__)
        return pd.DataFrame([asdict(hit) for hit in self.hits], columns=columns)

    def to_csv(self) -> str:
        """A line a hit, with a column for each key's score and its reason; no cell is a formula to a spreadsheet."""
        keys = list(dict.fromkeys(key for hit in self.hits for key in hit.why))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        plain = ("feature", "label", "score", "density", "max", "automatic", "partial")
        named = (csv_cell(name) for key in keys for name in (f"{key} score", f"{key} why"))
        writer.writerow([*plain, *named])
        for hit in self.hits:
            more = (value for key in keys for value in (hit.scores.get(key, ""), hit.why.get(key, "")))
            writer.writerow([csv_cell(value) for value in (*(getattr(hit, name) for name in plain), *more)])
        return out.getvalue()

    def _repr_html_(self) -> str:
        rows = [(hit.feature, hit.label, hit.score, "; ".join(hit.why.values())) for hit in self.hits]
        title = "; ".join([f"{self.query}: {counted(self.total, 'feature')}", *self.notes])
        return title_html(title) + table_html(["feature", "label", "score", "why"], rows)


def search(query: str | Query, collection: Collection, *, limit: int = 20) -> Hits:
    """The features that meet the query, best first; ties in order of their number.

    Raises InterpError for a query that cannot be read and for values that do not exist.
    """
    asked, answers, score, ids = _found(query, collection)
    names = _names(ids[:limit], collection)
    keys = _called(list(dict.fromkeys(_wanted(asked.root))))
    refused = list(dict.fromkeys(_wanted(asked.root, under_not=True)))
    density, largest = (collection.index.features[name].to_numpy() for name in ("density", "max"))
    partial = any(answer.partial for answer in answers.values())
    notes = tuple(f"{term}: {answer.note}" for term, answer in answers.items() if answer.note)

    def hit(f: int) -> Hit:
        mine = {name: answers[term] for name, term in keys.items() if answers[term].passed[f]}
        failed = {f"not {term}": answers[term] for term in refused if not answers[term].passed[f]}
        return Hit(
            feature=f,
            label=names[f][0],
            score=float(score[f]),
            scores={name: float(answer.score[f]) for name, answer in mine.items() if answer.score is not None},
            why={name: answer.why(f) for name, answer in (mine | failed).items()},
            density=float(density[f]),
            max=float(largest[f]),
            automatic=names[f][1],
            partial=partial,
        )

    written = str(asked) if isinstance(query, Query) else query
    return Hits(written, tuple(hit(int(f)) for f in ids[:limit]), len(ids), partial, notes)


def matching(query: str | Query, collection: Collection) -> Int[np.ndarray, " H"]:
    """The numbers of all features that meet the query, as `search` orders them. Raises InterpError as it does."""
    return _found(query, collection)[3]


def _found(query: str | Query, collection: Collection) -> tuple[Query, dict[Term, Answer], np.ndarray, np.ndarray]:
    """(the query, each condition's answer, every feature's score, those that meet it, best first)."""
    asked = parse(query) if isinstance(query, str) else query
    answers = {term: HANDLERS[term.key](term, collection) for term in dict.fromkeys(asked.terms)}
    passed = _passed(asked.root, answers, collection.index.d_sae)
    scored = [answers[term] for term in dict.fromkeys(_wanted(asked.root)) if answers[term].score is not None]
    score = _join(scored, passed)
    ids = _order(np.flatnonzero(passed), asked.sort, score, collection)
    return asked, answers, score, ids


def _passed(node: Node, answers: dict[Term, Answer], d_sae: int) -> np.ndarray:
    if isinstance(node, Term):
        return answers[node].passed
    if isinstance(node, Not):
        return ~_passed(node.item, answers, d_sae)
    out = np.full(d_sae, isinstance(node, And))
    for item in node.items:
        other = _passed(item, answers, d_sae)
        out = out & other if isinstance(node, And) else out | other
    return out


def _wanted(node: Node, *, under_not: bool = False, negated: bool = False) -> list[Term]:
    """The conditions that must hold, or with `under_not` those that must not: under an odd number of `not`."""
    if isinstance(node, Term):
        return [node] if negated == under_not else []
    if isinstance(node, Not):
        return _wanted(node.item, under_not=under_not, negated=not negated)
    return [term for item in node.items for term in _wanted(item, under_not=under_not, negated=negated)]


def _called(terms: list[Term]) -> dict[str, Term]:
    """Each condition by its key, or as it is written where a key comes twice."""
    keys = [term.key for term in terms]
    return {(term.key if keys.count(term.key) == 1 else str(term)): term for term in terms}


def _join(answers: list[Answer], passed: np.ndarray) -> np.ndarray:
    if len(answers) == 1:
        assert answers[0].score is not None
        return np.where(answers[0].passed, answers[0].score, 0.0)
    joined = np.zeros(len(passed))
    for answer in answers:
        assert answer.score is not None
        ids = np.flatnonzero(passed & answer.passed)
        order = ids[np.argsort(-answer.score[ids], kind="stable")]
        joined[order] += 1 / (FUSION + 1 + np.arange(len(order)))
    return joined


def _order(ids: np.ndarray, sort: str, score: np.ndarray, collection: Collection) -> np.ndarray:
    features = collection.index.features
    if sort == "score":
        return ids[np.argsort(-score[ids], kind="stable")]
    if sort in ("density", "max"):
        return ids[np.argsort(-features[sort].to_numpy()[ids], kind="stable")]
    if sort == "effect":
        return ids[np.argsort(-effects(collection)[ids], kind="stable")]
    if sort == "label":
        labels = collection.labels.all()

        def key(f: int) -> tuple[bool, str, int]:
            return f not in labels, labels[f].text.lower() if f in labels else "", f

        return np.array(sorted(ids.tolist(), key=key), dtype=ids.dtype)
    return ids


def _names(ids: np.ndarray, collection: Collection) -> dict[int, tuple[str, bool]]:
    labels = collection.labels.all()
    return {
        int(f): (labels[int(f)].text, False) if int(f) in labels else (collection.index.describe(int(f)), True)
        for f in ids
    }
