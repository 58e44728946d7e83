"""All of an index made anew (`interp verify --full`), and compared table by table."""

import tempfile

import numpy as np
import pyarrow.parquet as pq
import torch

from interp import places
from interp.activations import Stream
from interp.checkpoint import Card
from interp.corpus import TokenBlocks
from interp.index import FeatureIndex, build_index
from interp.index.build import IndexConfig
from interp.index.format import STATISTICS
from interp.models import Model
from interp.sae import SAE
from interp.verification.verdict import Check, differs, holds, unchecked

MEANINGS = "meanings.safetensors"
WITHIN = {"fires": 0.1, "total": 0.1, "max": 0.3, "documents": 0.1}
"""Relative differences that another dtype or processor makes in statistics of features that fire 50 times and more."""
OFTEN = 50
SAME = 0.9
"""Share of rows with the very value that was stored: more, and this is the dtype and processor that made the index."""
ROWS = 0.03
"""Share of rows that another dtype lets come or go."""


def check_whole(index: FeatureIndex, card: Card, sae: SAE, model: Model) -> list[Check]:
    """The index built from its own tokens, in a temporary folder, against the one that is there."""
    what = "numbers of the index: all"
    if index.missing.any():
        return [unchecked(what, index.unread)]
    places.cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.cache()) as made:
        build_index(
            sae,
            _text(index, card, model),
            model,
            made,
            IndexConfig(keep="examples" if index.partial else "all"),
            norm_cutoff=card.norm_cutoff,
            sae_sha256=card.sae_sha256,
            hook_name=card.hook_name,
        )
        again = FeatureIndex.open(made)
        files = sorted(set(index.meta["files"]) - {MEANINGS})
        other = [name for name in files if again.meta["files"].get(name) != index.meta["files"][name]]
        checks = [_meanings(index, again)] if MEANINGS in index.meta["files"] else []
        if not other:
            return [holds(what, f"built anew from its tokens: {len(files)} files are the same byte for byte"), *checks]
        apart = _apart(index, again)
        said = f"built anew from its tokens, {', '.join(other)} came out otherwise"
        if apart:
            return [differs(what, f"{said}: {apart}"), *checks]
        return [holds(what, f"{said}, by no more than another dtype, processor or an extended index makes"), *checks]


def _text(index: FeatureIndex, card: Card, model: Model) -> Stream:
    def blocks(column: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(column.astype(np.int64)).reshape(-1, index.block)

    text = TokenBlocks(
        tokens_NT=blocks(index.tokens),
        document_NT=blocks(index.document_at),
        documents=index.documents_table,
        separator=index.separator,
    )
    recipe = {
        "hooks": [card.hook_name],
        "corpus": index.meta["texts"][0]["corpus"],
        "tokens_sha256": text.sha256(),
        "model_sha256": card.model_sha256,
    }
    return Stream(model, text, recipe)


def _meanings(index: FeatureIndex, again: FeatureIndex) -> Check:
    what, one, two = "meanings of features", index.meanings, again.meanings
    if one is None or two is None:
        return unchecked(what, "there is no sentence encoder here to make them anew")
    cosine = (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1)).clamp_min(1e-9)
    wrong = int((cosine < 0.98).sum())
    return differs(what, f"those of {wrong:,} features come out otherwise") if wrong else holds(what, "they come out")


def _apart(index: FeatureIndex, again: FeatureIndex) -> str:
    """What differs by more than rounding does, named; empty when nothing does.

    Where nearly all rows have the very values that were stored, the numbers are those of this dtype and processor, and
    anything else that differs was edited (but in an extended index, whose older rows had been rounded).
    """
    (one, a), (two, b) = _rows(index), _rows(again)
    both, i, j = np.intersect1d(one, two, return_indices=True)
    if len(both) and float((a[i] == b[j]).mean()) > SAME and len(index.meta["texts"]) == 1:
        return _first_difference(index, again)
    features, made = index.features, again.features
    often = (features["fires"].to_numpy() >= OFTEN) | (made["fires"].to_numpy() >= OFTEN)
    for name, most in WITHIN.items():
        x, y = features[name].to_numpy().astype(float), made[name].to_numpy().astype(float)
        wrong = often & (np.abs(x - y) > most * np.maximum(np.abs(x), np.abs(y)) + 5 * (name in ("fires", "documents")))
        if wrong.any():
            feature = int(np.flatnonzero(wrong)[0])
            return (
                f"{name} of {int(wrong.sum()):,} features, such as {feature} ({x[feature]:.5g}, now {y[feature]:.5g})"
            )
    gone = len(one) + len(two) - 2 * len(both)
    if gone > ROWS * max(len(one), len(two)) * (
        10 if index.partial else 1
    ):  # examples of other positions keep other rows
        return f"{gone:,} rows of activations are in one of them only"
    off = np.abs(a[i].astype(float) - b[j]) > 0.5 * np.abs(b[j].astype(float))
    if off.any():
        feature = int(both[np.flatnonzero(off)[0]] >> 32)
        return f"{int(off.sum()):,} values are another, such as one of feature {feature}"
    return _lists_apart(index, again)


def _rows(index: FeatureIndex) -> tuple[np.ndarray, np.ndarray]:
    """(feature and position as one number, value) of every stored activation, in order."""
    table = index.sql("FROM {activations}")
    return (table["feature"].to_numpy().astype(np.int64) << 32) | table["position"].to_numpy(), table[
        "value"
    ].to_numpy()


def _first_difference(index: FeatureIndex, again: FeatureIndex) -> str:
    """The first column that is another, of those that do not follow from weights (which `columns` compares)."""
    for name in ("tokens", "counted", "token_counts", "examples", "activations", "positions", "pairs", "features"):
        file = f"{name}.parquet"
        if file not in index.meta["files"]:
            continue
        one, two = pq.read_table(index.path(file)), pq.read_table(again.path(file))
        kept = [*STATISTICS, "stored", "density", "mean"] if name == "features" else one.column_names
        kept = [column for column in kept if column in two.column_names]  # an older format has some of them elsewhere
        if len(one) != len(two):
            return f"{file} has {len(one):,} rows, and {len(two):,} come out"
        for column in kept:
            x, y = one[column].to_pylist(), two[column].to_pylist()
            if x != y:
                row = next(k for k, pair in enumerate(zip(x, y, strict=True)) if pair[0] != pair[1])
                return f"{column} in {file}, first in row {row:,} ({str(x[row])[:60]}, now {str(y[row])[:60]})"
    return ""


def _lists_apart(index: FeatureIndex, again: FeatureIndex) -> str:
    """Features whose lists of strongest tokens have less than half in common."""
    often = index.features["fires"].to_numpy() >= OFTEN
    pairs = zip(index.features["top_tokens"], again.features["top_tokens"], strict=True)
    few = np.array([len(set(a.tolist()) & set(b.tolist())) < max(len(a), len(b)) / 2 for a, b in pairs]) & often
    return f"strongest tokens of {int(few.sum()):,} features, such as {int(few.argmax())}" if few.any() else ""
