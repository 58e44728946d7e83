"""The keys of the query language: each marks the features that pass, with a score of its own kind and the reason.

A key is a function of a term and the sources, and a line in HANDLERS; its help is a line in `query.KEYS`.

Axes    F feature, N position, V vocabulary.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from interp.index import FeatureIndex, parse_neuron
from interp.labels import STATUSES, LabelBook
from interp.render.terminal import say
from interp.search import contrast as contrasts
from interp.search.query import Term, span, yes
from interp.search.texts import check, matching_contexts, matching_tokens
from interp.statistics import benjamini_hochberg, wilson
from interp.types import InterpError, check_feature, unknown

MEANS = 0.3
"""Cosine of meanings from which a text counts as found: unrelated descriptions lie below (docs/search.md)."""
SPREADS = 2.0
"""A token is promoted when its logit rises by this many standard deviations of the feature's effects."""
CHANCE = 4.0
"""Decoder rows are alike above this many standard deviations of random directions' cosine, 1 / sqrt(d)."""
AT_LEAST = 10
"""Nearest features that `like:` gives however far they are."""
SURE = 0.05
"""Largest q-value of what `contrast:` and `only:` call different."""
TOKENS_AT_ONCE = 2048
"""Tokens whose effects exist together: times 9,216 features, 75 MB."""


@dataclass(frozen=True)
class Sources:
    """What a search may look at; what is None, its keys say so."""

    index: FeatureIndex
    labels: LabelBook
    directions: Callable[[], torch.Tensor] | None = None
    """Decoder rows, shape (F, D)."""
    unembedding: Callable[[list[int]], torch.Tensor] | None = None
    """What the logits of these tokens read from the residual stream, less the mean over all tokens; shape (T, D)."""
    activations: Callable[[str], Any] | None = None
    """A text's activations (`views.Spectrum`); runs the model."""
    largest: Callable[[list[str], int], np.ndarray] | None = None
    """Each feature's largest activation on each text, of which so many tokens are read; runs the model."""
    meanings: Callable[[list[str]], torch.Tensor] | None = None
    """Unit sentence vectors of texts."""


@dataclass
class Found:
    """One key's answer: which features pass, and their scores (None where the key only filters)."""

    passed: np.ndarray
    score: np.ndarray | None
    why: Callable[[int], str]
    partial: bool = False
    note: str = ""
    """What the answer, such as one of no features, does not say by itself."""


Handler = Callable[[Term, Sources], Found]


# ---- words ----


def _text(term: Term, sources: Sources) -> Found:
    """Quoted: every word is in the label, the note, or (without a label) the automatic description. Bare: the cosine of
    its meaning with theirs. Either way the score is the cosine, where an encoder is at hand."""
    index, labels = sources.index, sources.labels.all()
    texts = [
        f"{labels[f].text} {labels[f].note}".strip() if f in labels else index.descriptions[f]
        for f in range(index.d_sae)
    ]
    words = [whole_word(word) for word in term.value.lower().split()]
    passed = np.array([all(word.search(text.lower()) for word in words) for text in texts], dtype=bool)
    named = np.zeros(index.d_sae, dtype=bool)
    named[list(labels)] = True
    cosine = _cosines(term.value, list(labels), texts, sources)
    if cosine is None:
        score, partial = np.where(passed, np.where(named, 1.0, 0.5), 0.0), not term.quoted
    else:
        score, partial = cosine, False
        passed = passed if term.quoted else cosine >= MEANS
    kind = {True: "label", False: "automatic description, untested"}

    def why(f: int) -> str:
        return f"{kind[bool(named[f])]}" + (f", meaning {score[f]:.2f}" if cosine is not None else ", by words only")

    return Found(passed, score, why, partial)


def whole_word(word: str) -> re.Pattern[str]:
    """Finds a word that begins and ends where words do; in scripts without spaces, anywhere."""
    begins, ends = (r"(?<!\w)" if word[0].isascii() else ""), (r"(?!\w)" if word[-1].isascii() else "")
    return re.compile((begins if word[0].isalnum() else "") + re.escape(word) + (ends if word[-1].isalnum() else ""))


def _cosines(asked: str, labelled: list[int], texts: list[str], sources: Sources) -> np.ndarray | None:
    """Cosine of the meaning of `asked` with each feature's text; None when no encoder is at hand."""
    vectors = sources.index.meanings
    if vectors is None or sources.meanings is None:
        return None
    asked_E = sources.meanings([asked])[0]
    cosine_F = (vectors @ asked_E).numpy().astype(np.float64)
    if labelled:
        cosine_F[labelled] = (sources.meanings([texts[f] for f in labelled]) @ asked_E).numpy()
    cosine_F[sources.index.features["fires"].to_numpy() == 0] *= 0
    return cosine_F


# ---- where it fires ----


def _token(term: Term, sources: Sources) -> Found:
    """Precision, recall and F1 of "the token matches" for "the feature fires", over the positions that count."""
    index = sources.index
    matching_V = matching_tokens(term, index.vocabulary)
    total = int(index.token_counts[matching_V].sum())
    found = _predicate(index, index.fires_on(matching_V), total, "matching tokens", partial=index.partial)
    if not total:
        found.note = "no indexed token matches" + ("" if matching_V.any() else ", and none of the model's does")
    return found


def _predicate(index: FeatureIndex, both_F: np.ndarray, total: int, what: str, *, partial: bool = False) -> Found:
    """The figures of a predicate that holds at `total` positions, at `both_F` of which each feature fires."""
    fires_F = np.maximum(index.features["fires"].to_numpy(), 1)
    precision, recall = both_F / fires_F, both_F / max(total, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    least = "at least " if partial else ""

    def why(f: int) -> str:
        figures = f"precision {precision[f]:.2f}, recall {recall[f]:.2f} over {total:,} {what}, F1 {f1[f]:.2f}"
        return least + figures

    return Found(both_F > 0, f1, why, partial)


def _context(term: Term, sources: Sources) -> Found:
    """The same of "the text around matches"; from examples only, the share of the strongest around which it does."""
    index = sources.index
    mask_N, matches = matching_contexts(term, index)
    if not index.partial:
        total = int(np.count_nonzero(mask_N))
        found = _predicate(index, index.fires_at(mask_N), total, f"tokens around {matches:,} matches")
    else:
        found = _of_examples(index, mask_N, "the text around it matches")
    if not matches:
        found.note = "no indexed text matches"
    return found


def _of_examples(index: FeatureIndex, mask_N: np.ndarray, what: str) -> Found:
    """What can be said of marked positions when only examples are kept."""
    feature, position = index.strongest
    shown = np.bincount(feature, minlength=index.d_sae)
    hits = np.bincount(feature, weights=mask_N[position], minlength=index.d_sae)
    share = hits / np.maximum(shown, 1)
    score = np.maximum(wilson(hits, shown)[1], 0)
    return Found(hits > 0, score, lambda f: f"in {share[f]:.0%} of its {shown[f]} strongest examples {what}", True)


def _topic(term: Term, sources: Sources) -> Found:
    """Share of its activations in the documents with this value, over those documents' share of the text."""
    index = sources.index
    column, equals, value = term.value.partition("=")
    if not equals or column not in ("topic", "source", "title", "split"):
        column, value = "topic", term.value
    held = index.documents[column].astype(str)
    if term.regex:
        marked_D = np.asarray(pc.match_substring_regex(pa.array(held, pa.large_string()), check(term)))
    else:
        marked_D = (held.str.lower() == value.lower()).to_numpy()
    if not marked_D.any():
        known = held[held != ""].unique()
        raise unknown(f"{column} among the index's documents", value, known, try_=f"(At character {term.at}.)")
    mask_N = marked_D[index.document_at] & index.kept
    if index.partial:
        return _of_examples(index, mask_N, f"are in documents of {column} {value}")
    both_F, fires_F = index.fires_at(mask_N), index.features["fires"].to_numpy()
    base = np.count_nonzero(mask_N) / max(int(np.count_nonzero(index.kept)), 1)
    low = np.maximum(wilson(both_F, fires_F)[1], 0) / base
    share = both_F / np.maximum(fires_F, 1)

    def why(f: int) -> str:
        return f"{share[f]:.0%} of its activations in {marked_D.sum():,} documents with {base:.1%} of the text"

    return Found(low > 1, low, why)


# ---- a text of one's own ----


def _fires(term: Term, sources: Sources) -> Found:
    """Activation on the text: the largest, the mean over counted tokens, or that at one token."""
    found = _run(term, sources)
    option = term.option or "max"
    peak = np.zeros(sources.index.d_sae)
    if option in ("max", "mean"):
        if option == "max":
            np.maximum.at(peak, found.features, found.values)
        else:
            np.add.at(peak, found.features, found.values / max(sum(found.counted), 1))
        return Found(peak > 0, peak, lambda f: f"{option} activation {peak[f]:.2f} on the text")
    if not option.removeprefix("-").isdecimal():
        raise unknown("fires@", option, ["max", "mean", "a token's number"], try_=f"(At character {term.at}.)")
    token = int(option) + (len(found.tokens) if int(option) < 0 else 0)
    if not 0 <= token < len(found.tokens):
        raise InterpError(f"fires@{option}: the text has tokens 0 to {len(found.tokens) - 1}, the first a separator.")
    at = found.rows == token
    peak[found.features[at]] = found.values[at]
    return Found(peak > 0, peak, lambda f: f"activation {peak[f]:.2f} at {found.tokens[token]!r}")


def _run(term: Term, sources: Sources) -> Any:
    if sources.activations is None:
        raise InterpError(f"{term.key}: runs the model, which this search has not been given; use Workbench.search.")
    return sources.activations(term.value)


def _only(term: Term, sources: Sources) -> Found:
    """Features active on more of the text's tokens than their density explains: a binomial tail, Benjamini–Hochberg over
    all features. Tokens of a text are not independent, so the p-values order features; they are no proof."""
    from scipy import stats

    found = _run(term, sources)
    index = sources.index
    tokens = int(sum(found.counted))
    active_F = np.bincount(found.features, minlength=index.d_sae)
    fires_F, kept = index.features["fires"].to_numpy(), max(int(np.count_nonzero(index.kept)), 1)
    density_F = (fires_F + 0.5) / (kept + 1)
    p_F = np.where(active_F > 0, stats.binom.sf(active_F - 1, tokens, density_F), 1.0)
    q_F = benjamini_hochberg(p_F)

    def why(f: int) -> str:
        return f"active on {active_F[f]} of {tokens} tokens, {tokens * density_F[f]:.2g} by its density, q {q_F[f]:.1e}"

    return Found((active_F > 0) & (q_F <= SURE), -np.log10(np.maximum(p_F, 1e-300)), why)


def _contrast(term: Term, sources: Sources) -> Found:
    """AUROC of each feature's largest activation between two sets of texts, either way round."""
    if sources.largest is None:
        raise InterpError("contrast: runs the model, which this search has not been given; use Workbench.search.")
    first, second = contrasts.sets(term)
    note = contrasts.warning((len(first), len(second)), sources.index.d_sae, SURE)
    if note:
        say(f"{term}: {note}")
    both = sources.largest([*first, *second], contrasts.TOKENS)
    found = contrasts.contrast(both[: len(first)], both[len(first) :])
    score = np.maximum(found.auroc_F, 1 - found.auroc_F)

    def why(f: int) -> str:
        side = "first" if found.auroc_F[f] >= 0.5 else "second"
        return (
            f"larger on the {side} set: AUROC {score[f]:.2f}, effect {_effect_size(abs(found.effect_F[f]))}, "
            f"p {found.p_F[f]:.1e}, q {found.q_F[f]:.1e} ({found.sizes[0]} and {found.sizes[1]} texts)"
        )

    return Found(found.q_F <= SURE, score, why, note=note)


def _effect_size(size: float) -> str:
    return f"{size:.2f} sd" if size < float("inf") else "without measure (neither set varies)"


# ---- weights ----


def _effect(sign: float, verb: str) -> Handler:
    """What each decoder row does to the logits of the asked tokens, from the weights; the best of several tokens counts."""

    def handler(term: Term, sources: Sources) -> Found:
        index = sources.index
        ids = _token_ids(term, index)
        if sources.unembedding is None or sources.directions is None:
            raise InterpError(
                f"{term.key}: reads the model's weights, which this search has not; use Workbench.search."
            )
        rows_TD, directions_FD = sources.unembedding(ids.tolist()), sources.directions()
        if rows_TD.shape[1] != directions_FD.shape[1]:
            raise InterpError(
                f"{term.key}: the unembedding reads width {rows_TD.shape[1]} and this SAE writes width "
                f"{directions_FD.shape[1]}, so what its features promote cannot be told from weights."
            )
        score, token = _largest_effects(sign * directions_FD, rows_TD)
        spread = np.maximum(index.features["logit_std"].to_numpy(), 1e-12)

        def why(f: int) -> str:
            text = index.vocabulary[int(ids[token[f]])]
            return (
                f"{verb} the logit of {text!r} by {score[f]:.3f} a unit, {score[f] / spread[f]:.1f} sd of its effects"
            )

        return Found(score >= SPREADS * spread, score, why)

    return handler


def _largest_effects(directions_FD: torch.Tensor, rows_TD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(largest effect of each feature, the token it is on); some tokens at a time, for a regex may match them all."""
    score = torch.full((len(directions_FD),), -torch.inf)
    token = torch.zeros(len(directions_FD), dtype=torch.int64)
    for start in range(0, len(rows_TD), TOKENS_AT_ONCE):
        best = (directions_FD @ rows_TD[start : start + TOKENS_AT_ONCE].T).max(1)
        better = best.values > score
        score, token = torch.where(better, best.values, score), torch.where(better, best.indices + start, token)
    return score.numpy().astype(np.float64), token.numpy()


def _token_ids(term: Term, index: FeatureIndex) -> np.ndarray:
    """The token written exactly so, else those that differ by spaces around them; or all that match a regex."""
    if term.regex:
        ids = np.flatnonzero(matching_tokens(term, index.vocabulary))
    else:
        exact = [i for i, text in enumerate(index.vocabulary) if text == term.value]
        loose = exact or [i for i, text in enumerate(index.vocabulary) if text.strip() == term.value.strip()]
        ids = np.array(loose, dtype=np.int64)
    if not len(ids):
        words = (text for text in index.vocabulary if text.strip())
        raise unknown("token", term.value, words, try_=f"It must be one token of the model (at character {term.at}).")
    return ids


def _like(term: Term, sources: Sources) -> Found:
    index = sources.index
    feature = _feature(term, index)
    if sources.directions is None:
        row = index.row(feature)
        score = np.zeros(index.d_sae)
        score[np.asarray(row["nearest"], dtype=np.int64)] = np.asarray(row["nearest_cosine"], dtype=np.float64)
        return Found(score != 0, score, lambda f: f"cosine {score[f]:.2f} with {feature}", partial=True)
    rows_FD = sources.directions()
    score = torch.nn.functional.cosine_similarity(rows_FD, rows_FD[feature : feature + 1]).numpy().astype(np.float64)
    others = score.copy()
    others[feature] = -2
    passed = others > CHANCE / rows_FD.shape[1] ** 0.5
    passed[np.argsort(-others, kind="stable")[: min(AT_LEAST, len(others) - 1)]] = True
    return Found(passed, score, lambda f: f"cosine {score[f]:.2f} with {feature}")


def _feature(term: Term, index: FeatureIndex) -> int:
    if not term.value.isdecimal():
        raise InterpError(f"{term.key}:{term.value} must name a feature by its number (at character {term.at}).")
    return check_feature(int(term.value), index.d_sae, "this SAE")


def _with(term: Term, sources: Sources) -> Found:
    """Jaccard index of where both fire; the lift is over what their densities make."""
    index = sources.index
    feature = _feature(term, index)
    fires_F, kept = index.features["fires"].to_numpy().astype(np.float64), max(int(np.count_nonzero(index.kept)), 1)
    if index.partial:
        row = index.row(feature)
        both_F = np.zeros(index.d_sae)
        of = max(int(row["coactive_of"]), 1)
        both_F[row["coactive"]] = row["coactive_count"] / of * row["fires"]
    else:
        mask_N = np.zeros(len(index.tokens), dtype=bool)
        mask_N[index.fired(feature)[0]] = True
        both_F = index.fires_at(mask_N)
        both_F[feature] = 0
    score = both_F / np.maximum(fires_F + fires_F[feature] - both_F, 1)
    lift = both_F * kept / np.maximum(fires_F * fires_F[feature], 1)

    def why(f: int) -> str:
        return f"fires on {both_F[f]:,.0f} of {feature}'s {fires_F[feature]:,.0f} tokens, {lift[f]:.3g} times chance"

    return Found((both_F >= 2) & (lift > 1), score, why, partial=index.partial)


def _neuron(term: Term, sources: Sources) -> Found:
    """The features kept as nearest to an MLP neuron's output weights; negative cosines are not looked for."""
    asked = parse_neuron(term.value)
    if asked is None:
        raise InterpError(f"neuron:{term.value} must be LAYER.NUMBER, such as neuron:15.3 (at character {term.at}).")
    table, near = sources.index.neurons, sources.index.features_near(*asked)
    if near.empty:
        layers, widths = table["layer"].nunique(), int(table["neuron"].max()) + 1 if len(table) else 0
        raise InterpError(
            f"no neuron {term.value} in this index, which knows layers 0 to {layers - 1}, neurons 0 to {widths - 1}."
            if widths
            else "this index knows no neurons: its model's MLP weights could not be told."
        )
    score = np.zeros(sources.index.d_sae)
    score[near["feature"].to_numpy()] = near["cosine"].to_numpy()
    return Found(score > 0, score, lambda f: f"cosine {score[f]:.2f} with what neuron {term.value} writes")


# ---- statistics and labels ----


def _range(column: str) -> Handler:
    def handler(term: Term, sources: Sources) -> Found:
        low, high = span(term)
        values = sources.index.features[column].to_numpy()
        return Found((values >= low) & (values <= high), None, lambda f: f"{column} {values[f]:.3g}")

    return handler


def _label_is(attribute: str) -> Handler:
    def handler(term: Term, sources: Sources) -> Found:
        if attribute == "status" and term.value not in STATUSES:
            raise unknown("label status", term.value, STATUSES, try_=f"(At character {term.at}.)")
        passed, labels = np.zeros(sources.index.d_sae, dtype=bool), sources.labels.all()
        for f, label in labels.items():
            passed[f] = getattr(label, attribute).lower() == term.value.lower()
        return Found(
            passed, None, lambda f: f"{attribute} {getattr(labels[f], attribute)}" if f in labels else "no label"
        )

    return handler


def _dead(term: Term, sources: Sources) -> Found:
    dead = sources.index.features["fires"].to_numpy() == 0
    return Found(dead if yes(term) else ~dead, None, lambda f: "never fires" if dead[f] else "fires")


def _labelled(term: Term, sources: Sources) -> Found:
    has = np.zeros(sources.index.d_sae, dtype=bool)
    has[list(sources.labels.all())] = True
    return Found(has if yes(term) else ~has, None, lambda f: "has a label" if has[f] else "has no label")


HANDLERS: dict[str, Handler] = {
    "text": _text,
    "token": _token,
    "context": _context,
    "fires": _fires,
    "only": _only,
    "promotes": _effect(1.0, "raises"),
    "suppresses": _effect(-1.0, "lowers"),
    "like": _like,
    "with": _with,
    "neuron": _neuron,
    "contrast": _contrast,
    "topic": _topic,
    "density": _range("density"),
    "max": _range("max"),
    "status": _label_is("status"),
    "author": _label_is("author"),
    "dead": _dead,
    "labelled": _labelled,
}
