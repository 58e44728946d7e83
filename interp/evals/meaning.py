"""How many features mean something that can be said: each feature's class, by rules that no person and no language model applies.

A feature is measured on held-out documents; its predicate and clean level (`predicates.level`) were mined on others. What is
measured of it:

    explained    share of its activation (weighted) that lies above its clean level where its predicate holds
    wins, p      whether its strong contexts mean the same (`evals.contexts`): those above its level, or the upper half of
                 its firings where it has none
    bands        both, down the fifths of its firings, from strong to weak

Classes, the first that fits. A predicate *holds* when the held-out text does not refute it (Wilson's interval of its precision
reaches HOLDS), and it explains at least EXPLAINED of the firing; it *decides* when the feature fires at half of its places or
more (DECIDES).

    piece        a predicate of tokens decides, and its tokens are mostly parts of longer words
    token        one of tokens does: a few words, or this word beside that one, or whatever follows a word
    class        one of a class of tokens does, or of a list that is longer than a few
    next-token   what follows the token explains it
    context      the contexts mean the same although the tokens differ, or although the same token elsewhere is silent: the
                 firing's is the nearer context in WINS of the pairs, with a q-value of at most Q; or the document's topic,
                 language or source, or words that stand near, explain it
    piece, token, class    again, of predicates that hold and do not decide
    unexplained  the rest, and what fires too seldom to be told

What it cannot see: a meaning that neither the tokens around nor their sentence vector show (a role in a sentence, the
second of two names); a list of rare words each of which stands in one or two documents; code, of which the sentence encoder
knows little. A feature of a topic in few documents has no pairs, and is unexplained.

Shares are over features that fire at least RARE times, with Wilson's interval: features are what another training would draw
anew; which documents were held out moves them less (`seed` draws the pairs).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.evals.contexts import LEAST_DOCUMENTS, LEAST_PAIRS, Nearness, Pairs, Pool, nearness, pairs
from interp.predicates import Clean, Predicate, Text
from interp.predicates.windows import Windows, windows
from interp.progress import bar
from interp.statistics import benjamini_hochberg, wilson
from interp.types import InterpError

if TYPE_CHECKING:
    import pandas as pd

CLASSES = ("piece", "token", "class", "context", "next-token", "unexplained")
MEANING = ("class", "context", "next-token")
"""Classes that say more than which token stands there."""
HOLDS = 0.9
EXPLAINED = 0.1
"""Of its activation, at least a tenth: a reader who is shown a feature's strongest examples sees little more, and a predicate of
fewer leaves open what the feature is."""
DECIDES = 0.5
WINS, Q = 0.65, 0.05
"""Share of pairs won, of which a half is chance (two of three is what a short stretch of text shows of most meanings); and the
false discovery rate over all features at which it is believed."""
RARE = 20
"""Firings in the whole index below which a feature is too rare to be told anything of (as for a clean level)."""
BANDS = 5
BAND_PAIRS = 12


@dataclass(frozen=True, eq=False)
class Firings:
    """Where one feature fires in the held-out documents, strongest first, and its predicate."""

    position_M: np.ndarray
    value_M: np.ndarray
    clean: Clean | None

    @property
    def strong(self) -> np.ndarray:
        """Positions above the clean level, or the upper half of all."""
        if self.clean is None:
            return self.position_M[: (len(self.position_M) + 1) // 2]
        return self.position_M[self.value_M > self.clean.level]


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What was measured; `table` has a row a feature."""

    features: int
    """That fire at least RARE times: the shares are of these."""
    rare: int
    """That fire less often, and are left out."""
    heldout_positions: int
    documents: int
    windows: int
    seed: int
    shares: dict[str, tuple[float, float, float]]
    """By class: share of the features, with its 95 % interval (Wilson)."""
    weighted: dict[str, float]
    """By class: share of all firings, which common features dominate."""
    by_meaning: tuple[float, float, float]
    """Share of *class*, *context* and *next-token* together."""
    explained: float
    """Mean over the features of the share of their activation that a predicate explains (0 where there is none)."""
    clean: tuple[float, float, float]
    """Share of the features that have a clean level which the held-out text does not refute."""
    steady: tuple[float, ...]
    """Mean over features with a predicate of the share of firings at which it holds, band by band from strong to weak."""
    table: "pd.DataFrame" = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the table, for JSON; with the thresholds."""
        said = {name: value for name, value in vars(self).items() if name != "table"}
        return said | {
            "holds": HOLDS,
            "explained_least": EXPLAINED,
            "decides": DECIDES,
            "wins": WINS,
            "q": Q,
            "rare_below": RARE,
        }


def measure_meaning(
    text: Text,
    fired: Callable[[int], tuple[np.ndarray, np.ndarray]],
    cleans: Sequence[Clean | None],
    fires_F: np.ndarray,
    texts: Sequence[str],
    encode: Callable[[list[str]], torch.Tensor],
    *,
    seed: int = 0,
) -> Meaning:
    """The class of every feature, and the shares of the classes.

    `fired` gives all positions (ascending) and values of a feature, `cleans` and `fires_F` have a row a feature, `texts` the
    text of each token, `encode` unit vectors of passages. Raises InterpError when no held-out position counts.
    """
    held = np.flatnonzero(text.kept_N & text.heldout_D[text.document_N])
    if not len(held):
        raise InterpError(
            "no position of the index's held-out documents counts; meaning is measured on them: index more text."
        )
    seen = windows(text, held, texts, encode)
    pool = Pool(text, held)
    rows = []
    with bar("meaning", len(cleans), "features") as step:
        for feature, clean in enumerate(cleans):
            draw = np.random.default_rng([seed, feature])
            rows.append(
                {"feature": feature, "fires": int(fires_F[feature])}
                | _measured(fired(feature), clean, pool, seen, draw)
            )
            step(1)
    _classify(rows, cleans)
    return _report(rows, cleans, text, held, len(seen.middle_W), seed)


def _measured(
    fired: tuple[np.ndarray, np.ndarray], clean: Clean | None, pool: Pool, seen: Windows, draw: np.random.Generator
) -> dict[str, Any]:
    """What is measured of one feature."""
    text, (every_P, value_P) = pool.text, fired
    here = np.flatnonzero(text.heldout_D[text.document_N[every_P]])
    order = here[np.lexsort((every_P[here], -value_P[here].astype(np.float64)))]
    firings = Firings(every_P[order].astype(np.int64), value_P[order].astype(np.float64), clean)
    compared = pairs(firings.strong, every_P, pool, draw)
    near = _nearness(compared, text, seen, draw)
    reference = seen.vector_WE[seen.at(compared.firing_K)] if len(compared) >= LEAST_PAIRS else None
    return {
        "heldout": len(here),
        "explained": _explained(firings, text),
        "inside": _inside(firings.strong, text),
        "pairs": len(compared),
        "same_token": float(compared.same_token_K.mean()) if len(compared) else 0.0,
        "wins": near.wins,
        "nearer": near.difference,
        "p": near.p,
        "holds_bands": _holds_bands(firings, text),
        "wins_bands": _wins_bands(firings, every_P, reference, compared, pool, seen, draw),
    }


def _nearness(compared: Pairs, text: Text, seen: Windows, draw: np.random.Generator) -> Nearness:
    document_K = text.document_N[compared.firing_K]
    if len(compared) < LEAST_PAIRS or len(np.unique(document_K)) < LEAST_DOCUMENTS:
        return Nearness(np.nan, np.nan, np.nan)
    firing, control = (seen.vector_WE[seen.at(p)] for p in (compared.firing_K, compared.control_K))
    return nearness(firing, control, document_K, draw)


def _explained(firings: Firings, text: Text) -> float:
    """Share of the held-out activation above the level where the predicate holds; 0 without a predicate."""
    total = float(firings.value_M.sum())
    if firings.clean is None or not total:
        return 0.0
    above = firings.value_M > firings.clean.level
    holds = firings.clean.predicate.holds(text.around(firings.position_M[above]))
    return float(firings.value_M[above][holds].sum()) / total


def _inside(position_P: np.ndarray, text: Text) -> float:
    """Share of the strong firings at parts of longer words."""
    return float(text.around(position_P).inside_word.mean()) if len(position_P) else 0.0


def _bands(count: int) -> list[slice]:
    """Fifths of so many firings, from strong to weak."""
    edges = [round(count * band / BANDS) for band in range(BANDS + 1)]
    return [slice(low, high) for low, high in pairwise(edges)]


def _holds_bands(firings: Firings, text: Text) -> list[float]:
    """Share of the firings at which the predicate holds, band by band; nan where a band is empty."""
    if firings.clean is None:
        return [np.nan] * BANDS
    holds = firings.clean.predicate.holds(text.around(firings.position_M))
    return [float(holds[band].mean()) if len(holds[band]) else np.nan for band in _bands(len(holds))]


def _wins_bands(
    firings: Firings, every_P: np.ndarray, reference: np.ndarray | None, strong: Pairs, pool: Pool, seen: Windows,
    draw: np.random.Generator,
) -> list[float]:  # fmt: skip
    """Share of pairs whose firing is the nearer to the strong firings' contexts, band by band; documents of those are left out
    of the comparison with themselves."""
    if reference is None:
        return [np.nan] * BANDS
    document_K, out = pool.text.document_N[strong.firing_K], []
    for band in _bands(len(firings.position_M)):
        some = pairs(firings.position_M[band], every_P, pool, draw, BAND_PAIRS)
        if len(some) < LEAST_PAIRS // 2:
            out.append(np.nan)
            continue
        other = pool.text.document_N[some.firing_K][:, None] != document_K
        weight = other / np.maximum(other.sum(1, keepdims=True), 1)
        one, two = (seen.vector_WE[seen.at(p)] @ reference.T for p in (some.firing_K, some.control_K))
        out.append(float((((one - two) * weight).sum(1) > 0).mean()))
    return out


# ---- classes ----


def _classify(rows: list[dict[str, Any]], cleans: Sequence[Clean | None]) -> None:
    """Add q-values and classes to the rows."""
    told = np.array([row["fires"] >= RARE and np.isfinite(row["p"]) for row in rows])
    q = np.ones(len(rows))
    if told.any():
        q[told] = benjamini_hochberg(np.array([row["p"] for row in rows])[told])
    for row, clean, own in zip(rows, cleans, q, strict=True):
        row["q"] = float(own)
        row["class"] = class_of(row, clean)


def class_of(row: Mapping[str, Any], clean: Clean | None) -> str:
    """The class of a feature by the rules above, of its measures (`fires`, `explained`, `inside`, `wins`, `q`)."""
    if row["fires"] < RARE:
        return "unexplained"
    holds = holding(row, clean)
    kind = _kind(clean.predicate, row["inside"]) if clean and holds else ""
    decides = clean is not None and clean.recall >= DECIDES
    same = row["wins"] >= WINS and row["q"] <= Q
    if kind in ("piece", "token", "class") and decides:
        return kind
    if kind == "next-token":
        return kind
    if same or kind == "context":
        return "context"
    return kind or "unexplained"


def holding(row: Mapping[str, Any], clean: Clean | None) -> bool:
    """Whether the predicate explains enough, and the held-out text does not refute it."""
    return clean is not None and row["explained"] >= EXPLAINED and clean.interval[1] >= HOLDS


def _kind(predicate: Predicate, inside: float) -> str:
    """What class a predicate speaks of; `inside` is the share of the strong firings at parts of longer words."""
    if predicate.kind in ("language", "source", "topic", "near"):
        return "context"
    if predicate.kind == "next":
        return "next-token"
    if predicate.kind == "piece" or (predicate.kind in ("token", "words", "ngram") and inside >= 0.5):
        return "piece"
    return "class" if predicate.kind in ("class", "words") else "token"


def _report(
    rows: list[dict[str, Any]], cleans: Sequence[Clean | None], text: Text, held: np.ndarray, count: int, seed: int
) -> Meaning:
    import pandas as pd

    table = pd.DataFrame(rows)
    table["predicate"] = [clean.predicate.to_json() if clean else "" for clean in cleans]
    table["clean"] = [holding(row, clean) for row, clean in zip(rows, cleans, strict=True)]
    told = table[table["fires"] >= RARE]
    total = max(int(told["fires"].sum()), 1)

    def share(mask: Any) -> tuple[float, float, float]:
        return wilson(int(mask.sum()), len(told))

    bands = np.array([row for row in told["holds_bands"] if np.isfinite(row).all()])
    return Meaning(
        features=len(told),
        rare=len(table) - len(told),
        heldout_positions=len(held),
        documents=len(np.unique(text.document_N[held])),
        windows=count,
        seed=seed,
        shares={name: share(told["class"] == name) for name in CLASSES},
        weighted={name: int(told["fires"][told["class"] == name].sum()) / total for name in CLASSES},
        by_meaning=share(told["class"].isin(MEANING)),
        explained=float(told["explained"].mean()) if len(told) else 0.0,
        clean=share(told["clean"]),
        steady=tuple(bands.mean(0).tolist()) if len(bands) else (),
        table=table,
    )
