"""Features and neurons found and shown: searches, searches that are kept, the page of a feature or a neuron."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from interp import places
from interp.index import FeatureIndex
from interp.index.unembedding import asked_rows, token_rows
from interp.labels import LabelBook
from interp.search import Collection, Hits, SavedSearch, saved
from interp.search import matching as matching_features
from interp.search import search as find
from interp.types import InterpError
from interp.views import FeaturePage, NeuronPage, feature_page
from interp.workbench.evidencing import evidence
from interp.workbench.indexing import neuron_index, neurons
from interp.workbench.looking import looks as find_looks
from interp.workbench.mapping import inside_outline
from interp.workbench.opening import Opened
from interp.workbench.reading import largest, spectrum, untangled

KEPT_ANSWERS = 64
SHOWN = 10
"""Examples that a notebook shows."""


def search(wb: Opened, query: str = "", *, limit: int = 20) -> Hits:
    """Features that meet the query (keys: `interp.search.KEYS`), best first.

    Raises InterpError when the query cannot be read, or a key needs what is not there.
    """
    return find(query, _collection(wb), limit=limit)


def matching(wb: Opened, query: str = "") -> np.ndarray:
    """The numbers of all features that meet the query, best first. Raises InterpError as `search` does."""
    return matching_features(query, _collection(wb))


def search_neurons(wb: Opened, layer: int, query: str = "", *, limit: int = 20) -> Hits:
    """Rows of a layer's neurons that meet the query: the keys that need no label and run no model."""
    index = neuron_index(wb, layer)
    collection = Collection(
        index,
        LabelBook("", index.d_sae, url="sqlite://"),
        directions=lambda: neurons(wb, layer).W_dec,
        unembedding=partial(unembedding_rows, wb, index),
        meanings=_meanings(wb),
    )
    return find(query, collection, limit=limit)


def _collection(wb: Opened) -> Collection:
    return Collection(
        wb.index,
        wb.labels,
        directions=lambda: wb.sae.W_dec.cpu(),
        unembedding=partial(unembedding_rows, wb, wb.index),
        said=wb.said,
        activations=_kept(wb, "activations", partial(spectrum, wb)),
        largest=_kept(wb, "largest", partial(largest, wb)),
        meanings=_meanings(wb),
        inside=partial(inside_outline, wb),
        evidence=partial(evidence, wb),
    )


def _meanings(wb: Opened) -> Callable[[list[str]], torch.Tensor] | None:
    return wb.meanings if wb.index.meanings is not None else None


def _kept(wb: Opened, what: str, make: Callable[..., Any]) -> Callable[..., Any]:
    """The function, answering from memory what it was asked lately."""

    def answered(*asked: Any) -> Any:
        key = what, *(tuple(a) if isinstance(a, list) else a for a in asked)
        answer = wb._answers.get(key)
        if answer is None:
            answer = make(*asked)  # outside the lock, for it runs the model: two may ask the same at once
            with wb._lock:
                while len(wb._answers) >= KEPT_ANSWERS:
                    wb._answers.pop(next(iter(wb._answers)))
                wb._answers[key] = answer
        return answer

    return answered


def unembedding_rows(wb: Opened, index: FeatureIndex, tokens: list[int]) -> torch.Tensor:
    """What the tokens' logits read from the residual stream, shape (tokens, d): of a full index from its own file, else
    from the model's weights, which are opened for it once and kept under INTERP_HOME/cache."""
    if index.unembedding is not None:
        return asked_rows(index.unembedding.T, tokens)
    path = places.cache() / "unembeddings" / f"{wb.card.model_sha256}.safetensors"
    return token_rows(path, tokens, lambda: wb.model)


def save_search(wb: Opened, name: str, query: str | Hits, *, limit: int = 20) -> SavedSearch:
    """Keep a search with its answer, by name under INTERP_HOME or at a path; the search comes back.

    A query is run first; the answer of `search` or `rerun_search` is kept as it is.
    """
    hits = query if isinstance(query, Hits) else search(wb, query, limit=limit)
    kept = SavedSearch.of(name, hits, limit, wb.index.meta)
    kept.write(saved.locate(name, wb.card.sae_sha256))
    return kept


def rerun_search(wb: Opened, name: str) -> tuple[SavedSearch, Hits]:
    """A saved search and its answer now; `SavedSearch.changes` tells what came and went.

    Raises InterpError when there is no such search, or it was asked of another SAE.
    """
    kept = saved.find(name, wb.card.sae_sha256)
    if kept.sae_sha256 != wb.card.sae_sha256:
        raise InterpError(f"the search {name} was asked of another SAE ({kept.sae_sha256[:12]}…).")
    return kept, search(wb, kept.query, limit=kept.limit)


def saved_searches(wb: Opened) -> list[str]:
    """Names of the searches kept for this SAE."""
    return saved.names(wb.card.sae_sha256)


def feature(wb: Opened, feature: int, *, looks: bool = True) -> FeaturePage:
    """The feature's page; InterpError when there is no such feature.

    Its first examples of pictures or sound are read from where they lie, unless `looks` is off.
    """
    page = feature_page(wb.index, feature, wb.labels.get(int(feature)))
    if looks:
        page = replace(page, _looks=find_looks(wb, page.feature, page.examples, limit=SHOWN))
    try:
        return replace(page, evidence=evidence(wb)[page.feature])
    except InterpError as error:  # none was made, or it is of other weights: the page says so, and the rest stands
        return replace(page, evidence_lacks=str(error))


def neuron(wb: Opened, layer: int, neuron: int) -> NeuronPage:
    """A raw neuron, by its layer's index, beside the features nearest to what it writes.

    Raises InterpError when there is no such neuron, or the layer's index is not built (`build_neuron_index`).
    """
    index = neuron_index(wb, layer)
    count = index.d_sae // 2
    if not 0 <= neuron < count:
        raise InterpError(f"no neuron {neuron} in layer {layer}; its neurons are 0 to {count - 1}.")
    signs = [feature_page(index, 2 * neuron + sign, None) for sign in (0, 1)]
    near = wb.index.features_near(layer, neuron)
    return NeuronPage(
        layer=layer,
        neuron=neuron,
        positive=signs[0],
        negative=signs[1],
        features=[(feature(wb, int(f)), float(c)) for f, c in zip(near["feature"], near["cosine"], strict=True)],
        untangled=untangled(wb, index, [e for page in signs for e in page.examples]),
    )
