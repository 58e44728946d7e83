"""What weights say: `promotes:`, `suppresses:`, `later:` (read by a lens that was judged, where one was), `like:`, `neuron:`.

Axes    F feature, T token asked for, D width of the residual stream, O of the final one, V vocabulary.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.index import FeatureIndex, parse_neuron
from interp.lenses.lens import NEXT
from interp.lenses.said import UNJUDGED
from interp.predicates.regex import matching
from interp.search.answer import Answer, Collection, Handler, asked_feature
from interp.search.query import Term
from interp.types import InterpError, unknown

SPREADS = 2.0
"""A token is promoted when its logit rises by this many standard deviations of the feature's effects."""
CHANCE = 4.0
"""Decoder rows are alike above this many standard deviations of random directions' cosine, 1 / sqrt(d)."""
AT_LEAST = 10
"""Nearest features that `like:` gives however far they are."""
TOKENS_AT_ONCE = 2048
"""Tokens whose effects exist together: times 9,216 features, 75 MB."""


def find_effects(sign: float, verb: str, span: str = NEXT) -> Handler:
    """What each decoder row does to the logits of the asked tokens; the best of several tokens counts. The row is read by the
    lens that was judged best for the span, where lenses were; else, at the same position, by the unembedding alone.

    Searching raises InterpError for what is no token, and where no weights, or no lens of the span, are at hand.
    """

    def handler(term: Term, collection: Collection) -> Answer:
        index = collection.index
        ids = _token_ids(term, index)
        if collection.unembedding is None or collection.directions is None:
            raise InterpError(
                f"{term.key}: reads the model's weights, which this search has not; use Workbench.search."
            )
        directions_FD, spread, how = _read(term, collection, span)
        rows_TD = collection.unembedding(ids.tolist())
        if rows_TD.shape[1] != directions_FD.shape[1]:
            raise InterpError(
                f"{term.key}: the unembedding reads width {rows_TD.shape[1]} and this SAE writes width "
                f"{directions_FD.shape[1]}, so what its features promote cannot be told from weights."
            )
        score, token = _largest_effects(sign * directions_FD, rows_TD)
        spread = np.maximum(spread, 1e-12)
        where = "" if span == NEXT else " later"

        def why(f: int) -> str:
            text = index.vocabulary[int(ids[token[f]])]
            return f"{verb} the logit of {text!r}{where} by {score[f]:.3f} a unit, {score[f] / spread[f]:.1f} sd of its effects"

        return Answer(score >= SPREADS * spread, score, why, note=how)

    return handler


def _read(term: Term, collection: Collection, span: str) -> tuple[Float[Tensor, "F O"], np.ndarray, str]:
    """(decoder rows at the final residual, the spread of each one's effects, by which lens and how right it is)."""
    assert collection.directions is not None
    said = collection.said
    if said is None:
        if span != NEXT:
            raise InterpError(
                f"{term.key}: needs a lens that was judged on this SAE's features, and none was (at character {term.at}); "
                "`interp lenses SAE` fits and judges them."
            )
        return collection.directions(), collection.index.features["logit_std"].to_numpy(), UNJUDGED
    return said.lens(span).map(collection.directions()), said.spread(span).numpy(), said.sentence(span)


def _largest_effects(
    directions_FD: Float[Tensor, "F D"], rows_TD: Float[Tensor, "T D"]
) -> tuple[np.ndarray, np.ndarray]:
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
        ids = np.flatnonzero(matching(term, index.vocabulary))
    else:
        exact = [i for i, text in enumerate(index.vocabulary) if text == term.value]
        loose = exact or [i for i, text in enumerate(index.vocabulary) if text.strip() == term.value.strip()]
        ids = np.array(loose, dtype=np.int64)
    if not len(ids):
        words = (text for text in index.vocabulary if text.strip())
        raise unknown("token", term.value, words, try_=f"It must be one token of the model (at character {term.at}).")
    return ids


def find_like(term: Term, collection: Collection) -> Answer:
    """Cosine of decoder rows with a feature's own; without the rows, of those that the index keeps as nearest."""
    index = collection.index
    feature = asked_feature(term, index)
    if collection.directions is None:
        row = index.row(feature)
        score = np.zeros(index.d_sae)
        score[np.asarray(row["nearest"], dtype=np.int64)] = np.asarray(row["nearest_cosine"], dtype=np.float64)
        return Answer(score != 0, score, lambda f: f"cosine {score[f]:.2f} with {feature}", partial=True)
    rows_FD = collection.directions()
    score = torch.nn.functional.cosine_similarity(rows_FD, rows_FD[feature : feature + 1]).numpy().astype(np.float64)
    others = score.copy()
    others[feature] = -2
    passed = others > CHANCE / rows_FD.shape[1] ** 0.5
    passed[np.argsort(-others, kind="stable")[: min(AT_LEAST, len(others) - 1)]] = True
    return Answer(passed, score, lambda f: f"cosine {score[f]:.2f} with {feature}")


def find_neuron(term: Term, collection: Collection) -> Answer:
    """The features kept as nearest to an MLP neuron's output weights; negative cosines are not looked for.

    Raises InterpError for a neuron that the index does not know.
    """
    asked = parse_neuron(term.value)
    if asked is None:
        raise InterpError(f"neuron:{term.value} must be LAYER.NUMBER, such as neuron:15.3 (at character {term.at}).")
    table, near = collection.index.neurons, collection.index.features_near(*asked)
    if near.empty:
        layers, widths = table["layer"].nunique(), int(table["neuron"].max()) + 1 if len(table) else 0
        raise InterpError(
            f"no neuron {term.value} in this index, which knows layers 0 to {layers - 1}, neurons 0 to {widths - 1}."
            if widths
            else "this index knows no neurons: its model's MLP weights could not be told."
        )
    score = np.zeros(collection.index.d_sae)
    score[near["feature"].to_numpy()] = near["cosine"].to_numpy()
    return Answer(score > 0, score, lambda f: f"cosine {score[f]:.2f} with what neuron {term.value} writes")
