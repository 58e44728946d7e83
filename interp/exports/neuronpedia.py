"""SAEDashboard's `batch-N.json`, which Neuronpedia takes in; keys as sae-dashboard 0.8 writes them.

Held otherwise than by sae-dashboard, because the index counts otherwise:
    groups      the top examples, then fifths of the documents a feature fires in (by its largest value there), where
                theirs are intervals of activation; `bin_min` and `bin_max` are the fifth's edges
    logits      direct effects through the final norm's gain, less their mean over tokens
    counts      sinks and separators are not counted
Empty, because the index does not keep them: Pearson correlations of neurons and features, `vector`.
"""

from pathlib import Path
from typing import Any

import torch

from interp import places
from interp.exports.contents import Contents
from interp.index import Example
from interp.labels.neuronpedia import Source, explanation_line

BATCH = 128
ALIGNED = 3


def write(contents: Contents, features: list[int], folder: Path) -> list[str]:
    """batch-N.json (128 features each), run_settings.json, skipped_indexes.json, explanations.jsonl."""
    for number, start in enumerate(range(0, len(features), BATCH)):
        batch = _head(contents) | {"features": [_feature(contents, f) for f in features[start : start + BATCH]]}
        _write(folder / f"batch-{number}.json", batch)
    skipped = sorted(set(range(contents.index.d_sae)) - set(features))
    head = {key: value for key, value in _head(contents).items() if key != "sae_id_suffix"}
    _write(folder / "skipped_indexes.json", head | {"log_sparsity": None, "skipped_indexes": skipped})
    _write(folder / "run_settings.json", _settings(contents))
    source = Source.of(contents.card)
    lines = [explanation_line(contents.labels[f], source) for f in features if f in contents.labels]
    (folder / "explanations.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return [
        "correlated neurons and features (Pearson) and the vector: not in the index, left empty",
        "bands are fifths of documents, not intervals of activation (see interp/exports/neuronpedia.py)",
    ]


def _head(contents: Contents) -> dict[str, Any]:
    source = Source.of(contents.card)
    return {"model_id": source.model, "layer": source.layer, "sae_set": source.name, "sae_id_suffix": None}


def _feature(contents: Contents, feature: int) -> dict[str, Any]:
    row, meta = contents.index.row(feature), contents.index.meta
    promoted, suppressed = (contents.effects(row, column) for column in ("promoted", "suppressed"))
    return {
        "feature_index": feature,
        **_alignment(contents, feature),
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [],
        "correlated_features_l1": [],
        "correlated_features_pearson": [],
        "neg_str": [token for token, _ in suppressed],
        "neg_values": _rounded([value for _, value in suppressed]),
        "pos_str": [token for token, _ in promoted],
        "pos_values": _rounded([value for _, value in promoted]),
        "frac_nonzero": float(row["density"]),
        **_histogram(row),
        **_logits(row),
        "n_prompts_total": int(meta["positions"]) // contents.index.block,
        "n_tokens_in_prompt": contents.index.block,
        "dataset": _dataset(meta),
        "decoder_weights_dist": [],
        "activations": _activations(contents.index.examples(feature), [float(edge) for edge in row["band_edges"]]),
        "vector": [],
    }


def _alignment(contents: Contents, feature: int) -> dict[str, list[Any]]:
    """Coordinates of the largest decoder weights, those weights, and their shares of the row's L1 norm."""
    weights = contents.sae.W_dec[feature].float().cpu()
    top = torch.topk(weights, min(ALIGNED, len(weights)))
    return {
        "neuron_alignment_indices": top.indices.tolist(),
        "neuron_alignment_values": _rounded(top.values.tolist()),
        "neuron_alignment_l1": _rounded((top.values / weights.abs().sum().clamp_min(1e-12)).tolist()),
    }


def _histogram(row: dict[str, Any]) -> dict[str, list[Any]]:
    """Middles of equal bins from 0 to the largest activation, and their counts."""
    counts = [int(count) for count in row["histogram"]]
    width = float(row["max"]) / max(len(counts), 1)
    return {
        "freq_hist_data_bar_values": _rounded([(i + 0.5) * width for i in range(len(counts))]),
        "freq_hist_data_bar_heights": counts,
    }


def _logits(row: dict[str, Any]) -> dict[str, list[Any]]:
    """Middles of equal bins from the smallest to the largest effect on a token's logit, and their counts."""
    counts = [int(count) for count in row["logit_histogram"]]
    if not counts:
        return {"logits_hist_data_bar_values": [], "logits_hist_data_bar_heights": []}
    low, high = float(row["suppressed_logits"][0]), float(row["promoted_logits"][0])
    width = (high - low) / len(counts)
    return {
        "logits_hist_data_bar_values": _rounded([low + (i + 0.5) * width for i in range(len(counts))]),
        "logits_hist_data_bar_heights": counts,
    }


def _activations(examples: list[Example], edges: list[float]) -> list[dict[str, Any]]:
    rows = []
    for band in sorted({example.band for example in examples}):
        group = [example for example in examples if example.band == band]
        bounds = (-1, round(edges[0], 3), -1) if band == 0 else (round(edges[band], 3), round(edges[band - 1], 3), 0.2)
        for example in group:
            rows.append(
                {
                    **dict(zip(("bin_min", "bin_max", "bin_contains"), bounds, strict=True)),
                    "tokens": example.tokens,
                    "values": _rounded(example.values),
                    "qualifying_token_index": example.peak,
                }
            )
    return rows


def _settings(contents: Contents) -> dict[str, Any]:
    card = contents.card
    return {
        "sae_set": card.name,
        "sae_sha256": card.sae_sha256,
        "model_id": card.model,
        "model_sha256": card.model_sha256,
        "hook_name": card.hook_name,
        "prepend_bos": False,
        "separator": card.separator,
        "tokens_sha256": [text["tokens_sha256"] for text in contents.index.meta["texts"]],
        "huggingface_dataset_path": _dataset(contents.index.meta),
        "n_prompts_total": int(contents.index.meta["positions"]) // contents.index.block,
        "n_tokens_in_prompt": contents.index.block,
        "versions": card.versions,
    }


def _dataset(meta: dict[str, Any]) -> str:
    corpora = [text["corpus"] for text in meta["texts"]]
    return "; ".join(str(corpus.get("name")) for corpus in corpora)


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), 3) for value in values]


def _write(path: Path, value: Any) -> None:
    path.write_text(places.strict_json(value), encoding="utf-8")
