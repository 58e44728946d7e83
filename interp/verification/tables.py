"""What the tables of an index say of one another, and its tokens against the documents' hashes; no model is needed.

Axes    F feature, N position, M stored activation.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from interp.checkpoint import Card
from interp.index import FeatureIndex
from interp.models import Model
from interp.sae import SAE
from interp.verification.probe import TEXTS
from interp.verification.verdict import Check, differs, holds, unchecked


def check_belongs(index: FeatureIndex, card: Card, sae: SAE, model: Model | None) -> Check:
    """Whether the index says that it is of this SAE, model, hook point, cut-off and separator."""
    wanted = {
        "sae_sha256": card.sae_sha256,
        "model_sha256": card.model_sha256,
        "hook_name": card.hook_name,
        "norm_cutoff": card.norm_cutoff,
        "separator": card.separator,
        "d_sae": sae.d_sae,
    }
    named = str(index.meta.get("model_sha256"))
    if model is not None and {named, card.model_sha256} <= {
        model.fingerprint_like(x) for x in (named, card.model_sha256)
    }:
        del wanted["model_sha256"]  # one model, which older versions named otherwise
    for key, value in wanted.items():
        if index.meta.get(key) != value:
            return differs("index", f"it was made for {key} = {index.meta.get(key)!r}, and the card says {value!r}")
    return holds("index", "made for the model, weights, hook point and cut-off that the card names")


def check_counts(index: FeatureIndex) -> list[Check]:
    """Statistics of features, rows and positions against one another: the first few that contradict, or one that holds."""
    wrong = list(_contradictions(index))
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return [differs("index counts", "; ".join(wrong[:3]) + more)]
    total = int(index.features["fires"].sum())
    return [holds("index counts", f"{total:,} activations in the histograms, as many as fires and as at all positions")]


def _contradictions(index: FeatureIndex) -> Iterator[str]:
    """A phrase for each thing that the tables say otherwise of themselves; nothing for an index as it was built."""
    features, kept, (token_N, hidden_N) = index.features, index.kept, index.stored_tokens
    count = len(token_N)
    fires_F = features["fires"].to_numpy().astype(np.int64)
    if len(features) != index.d_sae or not np.array_equal(features["feature"], np.arange(index.d_sae)):
        yield f"features.parquet has not a row for each of {index.d_sae:,} features"
        return
    if count != int(index.meta["positions"]) or int(kept.sum()) != int(index.meta.get("kept_positions", kept.sum())):
        yield "tokens.parquet has not as many positions, or as many that count, as index.json says"
    active_N = np.diff(index.offsets)
    if active_N[~kept].any() or int(active_N.sum()) != int(fires_F.sum()):
        yield "features fire at other positions or another number of times than tokens.parquet counts"
    real = (token_N != index.separator) | hidden_N
    real[:: index.block] = False
    if (kept & ~real).any():
        yield "separators or first positions are counted"
    counted_V = np.bincount(index.tokens[kept], minlength=len(index.vocabulary))
    if not index.missing.any() and not np.array_equal(counted_V, index.token_counts):
        yield "token_counts.parquet counts tokens otherwise than tokens.parquet has them"
    yield from _of_features(features, fires_F, int(kept.sum()), index)
    yield from _of_rows(index, fires_F)


def _of_features(features: Any, fires_F: np.ndarray, kept: int, index: FeatureIndex) -> Iterator[str]:
    def named(what: str, bad: Any) -> Iterator[str]:
        bad_F = np.asarray(bad)
        if bad_F.any():
            some = ", ".join(str(f) for f in np.flatnonzero(bad_F)[:4])
            yield f"{what} of {int(bad_F.sum()):,} features, such as {some}, is not what their counts give"

    histogram_F = np.array([int(np.sum(row)) for row in features["histogram"]])
    yield from named("histogram", histogram_F != fires_F)
    yield from named("density", ~np.isclose(features["density"], fires_F / max(kept, 1), rtol=1e-9, atol=0))
    mean = features["total"].to_numpy() / np.maximum(fires_F, 1)
    yield from named("mean", ~np.isclose(features["mean"], mean, rtol=1e-5, atol=1e-9))
    stored = "near" if index.partial else "fires"
    yield from named("number of stored rows", features["stored"].to_numpy() != features[stored].to_numpy())
    top = np.array([int(np.sum(row)) for row in features["top_token_counts"]])
    yield from named("tokens", top > fires_F)
    yield from named(
        "documents", (features["documents"].to_numpy() > fires_F) | ((fires_F > 0) != (features["documents"] > 0))
    )
    seen_V = index.token_counts
    rare = [
        any(t >= len(seen_V) or n > seen_V[t] for t, n in zip(tokens.tolist(), counts.tolist(), strict=True))
        for tokens, counts in zip(features["top_tokens"], features["top_token_counts"], strict=True)
    ]
    yield from named("strongest tokens", np.array(rare, dtype=bool))
    last = np.array([row[-1] if len(row) else 0 for row in features["quantiles"]])
    yield from named("quantiles", last > features["max"].to_numpy() * (1 + 1e-6))


def _of_rows(index: FeatureIndex, fires_F: np.ndarray) -> Iterator[str]:
    """Stored activations and examples: as many a feature as it says, in order, where positions count, none over its max."""
    table = pq.read_table(index.path("activations.parquet"))
    feature_M, position_M, value_M = (table[name].to_numpy() for name in ("feature", "position", "value"))
    key_M = (feature_M.astype(np.int64) << 32) | position_M
    if len(key_M) and (np.diff(key_M) <= 0).any():
        yield "activations.parquet is not in order of features and positions, or has a row twice"
    if len(position_M) and (int(position_M.max()) >= len(index.kept) or not index.kept[position_M].all()):
        yield "activations are stored where no position counts"
        return
    if len(feature_M) and int(feature_M.max()) >= index.d_sae:
        yield "activations are stored of features that there are not"
        return
    stored_F = np.bincount(feature_M, minlength=index.d_sae)
    if not np.array_equal(stored_F, index.features["stored"]):
        yield f"features {np.flatnonzero(stored_F != index.features['stored'])[:4].tolist()} have other numbers of stored rows"
    at_N = np.bincount(position_M, minlength=len(index.kept))
    if (at_N > np.diff(index.offsets)).any():
        yield "more activations are stored at some positions than tokens.parquet counts there"
    half_F = index.features["max"].to_numpy().astype(np.float16)
    value_M = value_M.astype(np.float32)
    over = value_M > half_F[feature_M]
    if over.any() or (value_M <= 0).any():
        yield f"stored values are not above 0 or exceed the largest of their features, {np.unique(feature_M[over])[:4].tolist()}"
    examples = index.sql("FROM {examples}")
    wanted = (examples["feature"].to_numpy().astype(np.int64) << 32) | examples["position"].to_numpy()
    place = np.minimum(np.searchsorted(key_M, wanted), max(len(key_M) - 1, 0))
    if len(wanted) and (
        not len(key_M) or (key_M[place] != wanted).any() or (value_M[place] != examples["value"]).any()
    ):
        yield "examples.parquet has rows that activations.parquet has not"
    first = examples[(examples["band"] == 0) & (examples["rank"] == 1)]
    if len(first) != int((fires_F > 0).sum()) or (first["value"].to_numpy() != half_F[first["feature"]]).any():
        yield "the strongest examples are not the largest activations of their features"
    if not index.partial:
        yield from _of_whole(index)


def _of_whole(index: FeatureIndex) -> Iterator[str]:
    """Of an index that keeps all: the same rows in both orders, and tokens counted from them."""
    one, two = (
        index.sql(f"SELECT count(*) n, sum(hash(feature, position, value)) h FROM {{{name}}}").iloc[0].tolist()
        for name in ("activations", "positions")
    )
    if one != two:
        yield "positions.parquet has other rows than activations.parquet"
    counted = (
        "SELECT feature, token, count(*) AS n FROM {activations} JOIN {tokens} USING (position) GROUP BY feature, token"
    )
    apart = index.sql(
        f"SELECT count(*) AS n FROM ({counted}) a FULL JOIN {{pairs}} b USING (feature, token) "
        'WHERE a.n IS DISTINCT FROM b."count"'
    )
    if int(apart["n"][0]):
        yield f"pairs.parquet counts {int(apart['n'][0]):,} pairs of feature and token otherwise than the rows do"


def check_tokens(index: FeatureIndex, model: Model | None) -> Check:
    """Every document's tokens, spelt out, against the SHA-256 of its text; each text's last document may be cut off.

    Conversations are left out, for their tokens are a template's, and documents whose tokens are neither in the index nor
    on this machine.
    """
    what = "tokens of the index"
    if model is not None and model.media is not None:
        return unchecked(what, f"they name places of {model.media.kind}, and say nothing of what is there")
    spelt = index.vocabulary_bytes
    if model is None or not all(
        b"".join(spelt[t] for t in model.tokenize(text) if t < len(spelt)) == text.encode() for text in TEXTS
    ):
        return unchecked(
            what, "this tokenizer does not give a text back byte for byte, so documents' hashes say nothing"
        )
    tokens, owner, separator = index.tokens, index.document_at, index.separator
    starts = np.flatnonzero(np.diff(owner.astype(np.int64), prepend=-1))
    stops = np.append(starts[1:], len(owner))
    ends = set(np.cumsum([text["positions"] for text in index.meta["texts"]]).tolist())
    hashes, titles = index.documents["sha256"].to_list(), index.documents["title"].to_list()
    chat_D, missing_N = index.documents["chat"].to_numpy(), index.missing
    bad, whole = [], 0
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        ids = tokens[start:stop].tolist()
        inside = [t for t in ids if t != separator]
        # What looks like a separator inside may be the text's own; at a block's first position it is the block's.
        own = [p for p in range(start, stop) if tokens[p] == separator and p % index.block]
        if (
            stop in ends
            or chat_D[owner[start]]
            or missing_N[start:stop].any()
            or any(start < p < stop - 1 for p in own)
            or max(inside, default=0) >= len(spelt)
        ):
            continue
        whole += 1
        if hashlib.sha256(b"".join(spelt[t] for t in inside)).hexdigest() != hashes[int(owner[start])]:
            bad.append(int(owner[start]))
    if not whole and missing_N.any():
        return unchecked(what, index.unread)
    if bad:
        names = ", ".join(f"{d} ({titles[d]})" for d in bad[:3])
        return differs(
            what, f"those of {len(bad):,} of {whole:,} documents do not spell the text that was hashed: {names}"
        )
    return holds(what, f"those of {whole:,} of {len(starts):,} documents spell the texts whose hashes it has")
