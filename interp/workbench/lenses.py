"""What features are disposed to say: lenses of the SAE's hook point fitted, judged on its features, and read."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp import places
from interp.lenses import (
    Context,
    FitConfig,
    Lens,
    cut_stretches,
    fit_jacobian,
    fit_tuned,
    judge,
    load_lenses,
    logit_lens,
    measure_changes,
    readout,
)
from interp.lenses.agreement import Readers
from interp.lenses.files import lens_folder, load_judgement, save_judgement
from interp.lenses.lens import top_tokens
from interp.lenses.measure import AFTER
from interp.lenses.said import SEEN
from interp.models import Model
from interp.progress import bar
from interp.sae.dictionary import one_hook
from interp.types import InterpError, check_feature
from interp.workbench.known import matched
from interp.workbench.opening import Opened

FITTED_ON = ("train", "heldout")
"""Splits whose text lenses are fitted on."""
JUDGED_ON = "labels"
"""The split in which features are edited."""
DIRECTIONS = 128
BEFORE = 24
"""Tokens of a context before the peak."""
AROUND = 16
"""Tokens on each side of a peak that a feature's list is to be told by."""
CONTEXTS = 4


def seen(wb: Opened) -> torch.Tensor:
    """By token of the model, whether it is asked for (see SEEN)."""
    counts = wb.index.token_counts
    counts_V = np.zeros(wb.model.unembedding()[0].shape[0], dtype=np.int64)
    counts_V[: min(len(counts), len(counts_V))] = counts[: len(counts_V)]
    return torch.from_numpy(counts_V >= SEEN)


def live(wb: Opened, count: int, seed: int) -> list[int]:
    """So many features that fire in the index, drawn at random; all, where there are no more."""
    alive = np.flatnonzero(wb.index.features["fires"].to_numpy() > 0)
    return [int(f) for f in np.random.default_rng(seed).permutation(alive)[:count]]


def home(wb: Opened) -> Path:
    """Where the lenses of this SAE's hook point are kept."""
    return lens_folder(wb.model.fingerprint(), one_hook(wb.sae, "a lens").name)


def fit_lenses(
    wb: Opened,
    *,
    jacobian: FitConfig | None = None,
    tuned: FitConfig | None = None,
    restart: bool = False,
) -> dict[str, Lens]:
    """The lenses `next`, `later` and `tuned` of the SAE's hook point, fitted on the index's text of the splits FITTED_ON.

    Kept under INTERP_HOME/cache for every SAE of the hook point; a fit that was ended goes on. Halves are compared on decoder
    rows. Raises InterpError where the model has no gradients or no order, and when the index has too little text.
    """
    hook = one_hook(wb.sae, "a lens").name
    documents = wb.index.documents
    chosen = np.flatnonzero(documents["split"].isin(FITTED_ON).to_numpy())
    tokens_SL = cut_stretches(
        wb.index.tokens, wb.index.document_at, wb.index.separator, documents=[int(d) for d in chosen]
    )
    rows = wb.sae.W_dec[live(wb, DIRECTIONS, seed=0)].cpu()
    readers = Readers(rows, readout(wb.model), seen(wb))
    text = f"the index of {wb.card.name} ({wb.index.meta['positions']:,} positions), splits {' and '.join(FITTED_ON)}"
    made = fit_tuned(wb.model, hook, tokens_SL, readers, home(wb), tuned, text=text, restart=restart)
    return made | fit_jacobian(wb.model, hook, tokens_SL, readers, home(wb), jacobian, text=text, restart=restart)


def lenses(wb: Opened) -> dict[str, Lens]:
    """All lenses there are for the SAE's hook point, by name: the logit lens, and those that were fitted."""
    hook = one_hook(wb.sae, "a lens").name
    return {"logit": logit_lens(wb.model, hook)} | load_lenses(home(wb), wb.model.fingerprint(), hook)


def says(wb: Opened, features: Sequence[int], count: int = 10) -> dict[str, list[list[str]]]:
    """By lens, each feature's first tokens, of those that are asked for (`seen`)."""
    rows_PD = wb.sae.W_dec[[check_feature(f, wb.sae.d_sae, wb.card.name) for f in features]].cpu()
    among_V, readout_OV = seen(wb), readout(wb.model)
    return {
        name: [wb.index.text(ids) for ids in top_tokens(lens, rows_PD, readout_OV, count, among_V)]
        for name, lens in lenses(wb).items()
    }


def judged(wb: Opened) -> dict[str, Any] | None:
    """What `judge_lenses` found on this SAE's features; None where it was not run."""
    return load_judgement(home(wb), wb.card.sae_sha256)


def lens_hashes(wb: Opened) -> dict[str, str]:
    """By lens that was fitted, the SHA-256 of the file that it is in."""
    return {name: str(lens.about["sha256"]) for name, lens in lenses(wb).items() if lens.about}


@dataclass(frozen=True, eq=False)
class _Scene:
    """What all features of one judgement share."""

    wb: Opened
    model: Model
    usable_N: np.ndarray
    """Positions with room for a context on both sides, in the documents that features are edited in."""
    asked_A: Tensor
    column_V: np.ndarray
    """Of each token, its place among those asked for; -1 of others."""
    kept: Path


def judge_lenses(wb: Opened, *, features: int = 100, seed: int = 0, model: Model | None = None) -> dict[str, Any]:
    """The lenses compared on features drawn at random (see `lenses.judge`), kept beside them; the figures come back.

    Features are edited in CONTEXTS places each, in documents of the split JUDGED_ON, one at a time; what was measured is kept
    until all are, so that a run that was ended goes on. `model` is the one to measure with, where it is not to be the open one (in
    float32, say). Raises InterpError when too few features fire in that split.
    """
    scene = _scene(wb, model or wb.model)
    chosen: list[tuple[int, list[int]]] = []
    for feature in live(wb, wb.sae.d_sae, seed):
        where = _peaks(scene, feature, CONTEXTS)
        if len(where) == CONTEXTS:
            chosen.append((feature, where))
        if len(chosen) == features:
            break
    if len(chosen) < 2:
        raise InterpError(
            f"{len(chosen)} features of {wb.card.name} fire at {CONTEXTS} places of the split {JUDGED_ON} with {AFTER} tokens after "
            "them; index more text."
        )
    with bar("what features do", len(chosen), "features") as advance:
        changes = []
        for feature, where in chosen:
            changes.append(_measured(scene, feature, where))
            advance(1)
    around = [_around(scene, feature) for feature, _ in chosen]
    others = [np.concatenate([_around(scene, other) for other in matched(wb, feature)]) for feature, _ in chosen]
    rows_FD = wb.sae.W_dec[[feature for feature, _ in chosen]].cpu()
    judgement = judge(lenses(wb), rows_FD, readout(wb.model)[:, scene.asked_A], torch.stack(changes), around, others)
    about = {
        "sae": wb.card.name,
        "sae_sha256": wb.card.sae_sha256,
        "model_sha256": wb.model.fingerprint(),
        "dtype": scene.model.dtype_name,
        "split": JUDGED_ON,
        "contexts": CONTEXTS,
        "seed": seed,
        "asked": features,
        "lenses": lens_hashes(wb),
        "chosen": [feature for feature, _ in chosen],
    }
    save_judgement(home(wb), wb.card.sae_sha256, judgement.to_json(), about)
    places.drop_folder(scene.kept)
    found = judged(wb)
    assert found is not None
    return found


def _scene(wb: Opened, model: Model) -> _Scene:
    index = wb.index
    split = index.documents["split"].to_numpy()
    place_N = np.arange(len(index.tokens)) % index.block
    room_N = (place_N > BEFORE) & (place_N + AFTER < index.block)
    inside = np.zeros(len(index.tokens), dtype=bool)
    inside[BEFORE : len(inside) - AFTER] = (
        index.document_at[: len(inside) - AFTER - BEFORE] == index.document_at[BEFORE + AFTER :]
    )
    asked_V = seen(wb)
    asked_A = asked_V.nonzero()[:, 0]
    column_V = np.full(max(len(asked_V), len(index.vocabulary)), -1)
    column_V[asked_A.numpy()] = np.arange(len(asked_A))
    usable_N = index.kept & ~index.missing & room_N & inside & (split == JUDGED_ON)[index.document_at]
    same = f"{index.meta.get('sha256')} {model.dtype_name}".encode()
    digest = hashlib.sha256(asked_A.numpy().tobytes() + same).hexdigest()[:16]
    return _Scene(wb, model, usable_N, asked_A, column_V, home(wb) / "measuring" / f"{wb.card.sae_sha256}-{digest}")


def _peaks(scene: _Scene, feature: int, count: int) -> list[int]:
    """Positions where the feature fires that can be edited: one of each stretch of its activations from strong to weak."""
    position, value = scene.wb.index.fired(feature)
    usable = scene.usable_N[position]
    ranked = position[usable][np.argsort(-value[usable].astype(np.float32), kind="stable")]
    if len(ranked) < count:
        return []
    return [int(ranked[int((i + 0.5) * len(ranked) / count)]) for i in range(count)]


def _measured(scene: _Scene, feature: int, where: Sequence[int]) -> Tensor:
    """What the feature does at these places; from the file, where it was measured before."""
    path = scene.kept / f"{feature}.safetensors"
    try:
        return load_file(path)["changes"]
    except (OSError, SafetensorError, KeyError):
        pass
    index = scene.wb.index
    contexts = [
        Context(tokens=(index.separator, *(int(t) for t in index.tokens[p - BEFORE : p + AFTER + 1]))) for p in where
    ]
    largest = float(index.row(feature)["max"])
    changes = measure_changes(scene.model, scene.wb.sae, feature, contexts, largest, scene.asked_A)
    with places.whole_file(path) as partial:
        save_file({"changes": changes.contiguous()}, partial)
    return changes


def _around(scene: _Scene, feature: int) -> np.ndarray:
    """The asked tokens (by their place among these) around the feature's strongest examples, peaks left out."""
    index = scene.wb.index
    features, positions = index.strongest
    first, last = np.searchsorted(features, [feature, feature + 1])
    tokens = []
    for peak in positions[first:last].tolist():
        if not index.missing[peak]:
            low, high = index.stretch(peak, AROUND)
            tokens += [index.tokens[low:peak], index.tokens[peak + 1 : high]]
    column = scene.column_V[np.concatenate(tokens).astype(np.int64)] if tokens else np.zeros(0, dtype=np.int64)
    return column[column >= 0]
