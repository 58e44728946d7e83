"""Where features fire in the index: `token:`, `context:`, `at:`, `topic:`, `with:`.

Axes    F feature, N position, V vocabulary, D document.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from interp.index import FeatureIndex
from interp.predicates.claim import check_claim
from interp.predicates.regex import check, matching
from interp.predicates.written import around_matches
from interp.search.answer import Answer, Collection, asked_feature
from interp.search.clean import below_only, counts_clean, left_out
from interp.search.query import Term
from interp.statistics import wilson
from interp.types import unknown


def find_token(term: Term, collection: Collection) -> Answer:
    """Precision, recall and F1 of "the token matches" for "the feature fires", over the positions that count; it fires
    where it is above its clean level, if it has one (`token@all:`: wherever it is active)."""
    index = collection.index
    clean, matching_V = counts_clean(term, index), matching(term, index.vocabulary)
    total = int(index.token_counts[matching_V].sum())
    both_F = index.fires_on(matching_V, clean=clean)
    answer = _predicate(index, both_F, total, "matching tokens", partial=index.partial, clean=clean)
    if clean:
        answer.note = below_only(term, answer.passed, index.fires_on(matching_V) > 0)
    if not total:
        answer.note = "no indexed token matches" + ("" if matching_V.any() else ", and none of the model's does")
    return answer


def _predicate(
    index: FeatureIndex, both_F: np.ndarray, total: int, what: str, *, partial: bool = False, clean: bool = False
) -> Answer:
    """The figures of a predicate that holds at `total` positions, at `both_F` of which each feature fires; with `clean`,
    above its clean level."""
    fires_F = np.maximum(index.clean_fires if clean else index.features["fires"].to_numpy(), 1)
    precision, recall = both_F / fires_F, both_F / max(total, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    least = "at least " if partial else ""

    def why(f: int) -> str:
        figures = f"precision {precision[f]:.2f}, recall {recall[f]:.2f} over {total:,} {what}, F1 {f1[f]:.2f}"
        return least + figures + (left_out(index, f) if clean else "")

    return Answer(both_F > 0, f1, why, partial)


def find_context(term: Term, collection: Collection) -> Answer:
    """The same of "the text around matches"; from examples only, the share of the strongest around which it does."""
    index = collection.index
    near_N, matches = around_matches(term, index.written)
    mask_N = near_N & index.kept
    if not index.partial:
        total = int(np.count_nonzero(mask_N))
        answer = _predicate(index, index.fires_at(mask_N), total, f"tokens around {matches:,} matches")
    else:
        answer = _of_examples(index, mask_N, "the text around it matches")
    answer.partial |= bool(index.unread)
    said = ["no indexed text matches"] if not matches else []
    answer.note = ". ".join([*said, index.unread] if index.unread else said)
    return answer


def find_at(term: Term, collection: Collection) -> Answer:
    """The same of a claim about the position (see `predicates.claim`); every firing counts, as for `context:`.

    Raises InterpError for a claim that names what does not exist.
    """
    index, text = collection.index, collection.index.passages
    if collection.meanings is not None:
        text = text.read_by(collection.meanings)
    assert term.inner is not None
    claim = check_claim(term.inner)
    mask_N = claim.holds(text.around(np.arange(len(text.token_N)))) & text.kept_N
    if index.partial:
        answer = _of_examples(index, mask_N, "this holds")
    else:
        total = int(np.count_nonzero(mask_N))
        answer = _predicate(index, index.fires_at(mask_N), total, "tokens where it holds")
    answer.partial |= bool(index.unread)
    said = [claim.sentence] if mask_N.any() else [f"{claim.sentence}: at no indexed token"]
    answer.note = ". ".join([*said, index.unread] if index.unread else said)
    return answer


def _of_examples(index: FeatureIndex, mask_N: np.ndarray, what: str) -> Answer:
    """What can be said of marked positions when only examples are kept."""
    feature, position = index.strongest
    shown = np.bincount(feature, minlength=index.d_sae)
    hits = np.bincount(feature, weights=mask_N[position], minlength=index.d_sae)
    share = hits / np.maximum(shown, 1)
    score = np.maximum(wilson(hits, shown)[1], 0)
    return Answer(hits > 0, score, lambda f: f"in {share[f]:.0%} of its {shown[f]} strongest examples {what}", True)


def find_topic(term: Term, collection: Collection) -> Answer:
    """Share of its activations in the documents with this value, over those documents' share of the text.

    Raises InterpError when no document has it.
    """
    index = collection.index
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

    return Answer(low > 1, low, why)


def find_with(term: Term, collection: Collection) -> Answer:
    """Jaccard index of where both fire; the lift is over what their densities make."""
    index = collection.index
    feature = asked_feature(term, index)
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

    return Answer((both_F >= 2) & (lift > 1), score, why, partial=index.partial)
