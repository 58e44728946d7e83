"""Answer a query from the index and the labels.

Each key marks the features that pass and gives them a score of its own kind (F1, logit, cosine, activation). One key's
score is shown as it is; several are joined by reciprocal-rank fusion (Cormack, Clarke and Büttcher 2009, constant 60).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from interp.index import FeatureIndex
from interp.labels import STATUSES, LabelBook
from interp.render import table_html, title_html
from interp.search.query import Query, Term, parse, span, yes
from interp.types import InterpError, check_feature, unknown

FUSION = 60


@dataclass(frozen=True)
class Hit:
    """A feature that a query found."""

    feature: int
    label: str
    score: float
    why: dict[str, str]
    """For each key, the evidence in words."""
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

    def __getitem__(self, at: Any) -> Any:
        return self.hits[at]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_pandas(self) -> pd.DataFrame:
        columns = list(Hit.__dataclass_fields__)
        return pd.DataFrame([asdict(hit) for hit in self.hits], columns=columns)

    def _repr_html_(self) -> str:
        rows = [(hit.feature, hit.label, hit.score, "; ".join(hit.why.values())) for hit in self.hits]
        return title_html(f"{self.query}: {self.total} features") + table_html(
            ["feature", "label", "score", "why"], rows
        )


@dataclass(frozen=True)
class Sources:
    """What a search may look at."""

    index: FeatureIndex
    labels: LabelBook
    fires: Callable[[str], np.ndarray] | None = None
    """Largest activation of every feature on a text; runs the model."""


@dataclass
class _Found:
    """One key's answer: which pass, and their scores (nan where the key only filters)."""

    passed: np.ndarray
    score: np.ndarray | None = None
    why: Callable[[int], str] = field(default=lambda feature: "")
    partial: bool = False


def search(query: str | Query, sources: Sources, *, limit: int = 20) -> Hits:
    """The features that meet the query, best first; ties in order of their number.

    Raises InterpError for a query that cannot be read and for values that do not exist.
    """
    asked = parse(query) if isinstance(query, str) else query
    features = sources.index.features
    found = [(term, HANDLERS[term.key](term, sources)) for term in asked.terms]
    passed = np.ones(len(features), dtype=bool)
    for _, answer in found:
        passed &= answer.passed
    scored = [answer.score for _, answer in found if answer.score is not None]
    score = _join(scored, passed)
    ids = np.flatnonzero(passed)
    ids = _order(ids, asked.sort, score, sources)
    names = _names(ids[:limit], sources)
    hits = tuple(
        Hit(
            feature=int(f),
            label=names[int(f)][0],
            score=float(score[f]),
            why={term.key: answer.why(int(f)) for term, answer in found},
            density=float(features["density"].iat[f]),
            max=float(features["max"].iat[f]),
            automatic=names[int(f)][1],
            partial=any(answer.partial for _, answer in found),
        )
        for f in ids[:limit]
    )
    return Hits(
        query if isinstance(query, str) else " ".join(f"{t.key}:{t.value}" for t in asked.terms), hits, len(ids)
    )


def _join(scores: list[np.ndarray], passed: np.ndarray) -> np.ndarray:
    if not scores:
        return np.zeros(len(passed))
    if len(scores) == 1:
        return scores[0]
    joined = np.zeros(len(passed))
    ids = np.flatnonzero(passed)
    for score in scores:
        order = ids[np.argsort(-score[ids], kind="stable")]
        joined[order] += 1 / (FUSION + 1 + np.arange(len(order)))
    return joined


def _order(ids: np.ndarray, sort: str, score: np.ndarray, sources: Sources) -> np.ndarray:
    features = sources.index.features
    if sort == "score":
        return ids[np.argsort(-score[ids], kind="stable")]
    if sort in ("density", "max"):
        return ids[np.argsort(-features[sort].to_numpy()[ids], kind="stable")]
    if sort == "label":
        labels = sources.labels.all()
        return np.array(
            sorted(
                ids, key=lambda f: (int(f) not in labels, labels[int(f)].text.lower() if int(f) in labels else "", f)
            ),
            dtype=ids.dtype,
        )
    return ids


def _names(ids: np.ndarray, sources: Sources) -> dict[int, tuple[str, bool]]:
    labels = sources.labels.all()
    return {
        int(f): (labels[int(f)].text, False) if int(f) in labels else (sources.index.describe(int(f)), True)
        for f in ids
    }


# ---- keys ----


def _text(term: Term, sources: Sources) -> _Found:
    """Every word must be in the label, the note, or (without a label) the automatic description."""
    words = term.value.lower().split()
    labels = sources.labels.all()
    index = sources.index
    score = np.zeros(len(index.features))
    for f in range(len(score)):
        label = labels.get(f)
        text = f"{label.text} {label.note}".lower() if label else index.descriptions[f].lower()
        if all(word in text for word in words):
            score[f] = 1.0 if label else 0.5
    return _Found(score > 0, score, lambda f: "label" if score[f] == 1.0 else "automatic description, untested")


def _token(term: Term, sources: Sources) -> _Found:
    """Precision, recall and F1 of "the token matches" for "the feature fires", over the positions of the index.

    A small index keeps a feature's strongest tokens only, so what other tokens would add is missing: partial.
    """
    index = sources.index
    matching = _matching_tokens(term, index.vocabulary)
    features = index.features
    both = _strongest_tokens(index, matching) if index.partial else _all_tokens(index, matching)
    fires = np.maximum(features["fires"].to_numpy(), 1)
    total = max(int(index.token_counts[matching].sum()), 1)
    precision, recall = both / fires, both / total
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)

    def why(f: int) -> str:
        return f"precision {precision[f]:.2f}, recall {recall[f]:.2f} over {total:,} matching tokens"

    return _Found(both > 0, f1, why, partial=index.partial)


def _all_tokens(index: FeatureIndex, matching: np.ndarray) -> np.ndarray:
    """How often each feature fires on matching tokens, over the whole index."""
    query = "SELECT feature, count(*) AS n FROM {activations} SEMI JOIN (FROM {tokens} WHERE token IN (SELECT unnest(?))) USING (position) GROUP BY feature"
    found = index.sql(query, [np.flatnonzero(matching).tolist()])
    both = np.zeros(index.d_sae)
    both[found["feature"].to_numpy()] = found["n"].to_numpy()
    return both


def _strongest_tokens(index: FeatureIndex, matching: np.ndarray) -> np.ndarray:
    """The same over each feature's strongest tokens: a lower bound."""
    features = index.features
    rows = np.repeat(np.arange(len(features)), features["top_tokens"].map(len))
    tokens = np.concatenate(features["top_tokens"].to_numpy()).astype(np.int64)
    counts = np.concatenate(features["top_token_counts"].to_numpy()).astype(np.float64)
    hit = matching[tokens]
    return np.bincount(rows[hit], weights=counts[hit], minlength=len(features))


def _matching_tokens(term: Term, vocabulary: list[str]) -> np.ndarray:
    """Which token ids match, by RE2 (DuckDB's): no backtracking, so no query can hang."""
    if not term.regex:
        return np.array([term.value in text for text in vocabulary])
    table = pd.DataFrame({"text": vocabulary})
    with duckdb.connect() as db:
        db.register("vocabulary", table)
        try:
            column = db.execute("SELECT regexp_matches(text, ?) FROM vocabulary", [term.value]).fetchnumpy()
        except duckdb.Error as error:
            raise InterpError(
                f"token:/{term.value}/ is no regular expression RE2 takes ({str(error).splitlines()[0]}); lookaround and backreferences do not exist there."
            ) from None
    return next(iter(column.values())).astype(bool)


def _fires(term: Term, sources: Sources) -> _Found:
    if sources.fires is None:
        raise InterpError("fires: runs the model, which this search has not been given; use Workbench.search.")
    largest = sources.fires(term.value)
    return _Found(largest > 0, largest, lambda f: f"activation {largest[f]:.2f} on the text")


def _effect(column: str) -> Callable[[Term, Sources], _Found]:
    def handler(term: Term, sources: Sources) -> _Found:
        index = sources.index
        wanted = _token_id(term, index)
        score = np.zeros(len(index.features))
        pairs = zip(index.features[column], index.features[f"{column}_logits"], strict=True)
        for f, (tokens, logits) in enumerate(pairs):
            for token, logit in zip(tokens, logits, strict=True):
                if int(token) in wanted:
                    score[f] = max(score[f], abs(float(logit)))
        verb = "raises" if column == "promoted" else "lowers"
        return _Found(score > 0, score, lambda f: f"{verb} the logit by {score[f]:.3f} a unit", partial=True)

    return handler


def _token_id(term: Term, index: FeatureIndex) -> set[int]:
    """The token written exactly so; else those that differ by spaces around them."""
    exact = {i for i, text in enumerate(index.vocabulary) if text == term.value}
    loose = exact or {i for i, text in enumerate(index.vocabulary) if text.strip() == term.value.strip()}
    if not loose:
        raise unknown(
            "token",
            term.value,
            (text for text in index.vocabulary if text.strip()),
            try_="It must be one token of the model.",
        )
    return loose


def _like(term: Term, sources: Sources) -> _Found:
    index = sources.index
    if not term.value.isdigit():
        raise InterpError(f"like:{term.value} must name a feature by its number.")
    row = index.row(check_feature(int(term.value), index.d_sae, "this SAE"))
    score = np.zeros(len(index.features))
    score[np.asarray(row["nearest"], dtype=np.int64)] = np.asarray(row["nearest_cosine"], dtype=np.float64)
    return _Found(score != 0, score, lambda f: f"cosine {score[f]:.2f} with {term.value}")


def _range(column: str) -> Callable[[Term, Sources], _Found]:
    def handler(term: Term, sources: Sources) -> _Found:
        low, high = span(term)
        values = sources.index.features[column].to_numpy()
        return _Found((values >= low) & (values <= high), None, lambda f: f"{column} {values[f]:.3g}")

    return handler


def _label_is(attribute: str) -> Callable[[Term, Sources], _Found]:
    def handler(term: Term, sources: Sources) -> _Found:
        if attribute == "status" and term.value not in STATUSES:
            raise unknown("label status", term.value, STATUSES)
        passed = np.zeros(len(sources.index.features), dtype=bool)
        for f, label in sources.labels.all().items():
            passed[f] = getattr(label, attribute).lower() == term.value.lower()
        return _Found(passed, None, lambda f: f"{attribute} {term.value}")

    return handler


def _dead(term: Term, sources: Sources) -> _Found:
    dead = sources.index.features["fires"].to_numpy() == 0
    return _Found(dead if yes(term) else ~dead, None, lambda f: "never fires" if dead[f] else "fires")


def _labelled(term: Term, sources: Sources) -> _Found:
    has = np.zeros(len(sources.index.features), dtype=bool)
    has[list(sources.labels.all())] = True
    return _Found(has if yes(term) else ~has, None, lambda f: "has a label" if has[f] else "has no label")


HANDLERS: dict[str, Callable[[Term, Sources], _Found]] = {
    "text": _text,
    "token": _token,
    "fires": _fires,
    "promotes": _effect("promoted"),
    "suppresses": _effect("suppressed"),
    "like": _like,
    "density": _range("density"),
    "max": _range("max"),
    "status": _label_is("status"),
    "author": _label_is("author"),
    "dead": _dead,
    "labelled": _labelled,
}
