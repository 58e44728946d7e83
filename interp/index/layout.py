"""Features laid out in two dimensions, near ones near: a map to look at, from which nothing is computed.

The unit decoder rows of the features that fire are laid out by t-SNE on cosine distances, begun at their first two principal
components. Of more than LAID features so many are laid out, drawn at random, and each of the others stands at the mean of its
NEAREST nearest among them. Until that was done, `roughly` gives the principal components alone, at once.

Axes    F feature, D d_in, L feature that is laid out.
Units   Places are shares of the picture, 0 to 1 across and upwards; nan for features that never fire.
Source  van der Maaten and Hinton 2008, "Visualizing Data using t-SNE"; scikit-learn's Barnes-Hut version (2014).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.processors import threads
from interp.types import InterpError

FORMAT = 1
LAID = 20_000
NEAREST = 3
PERPLEXITY = 30
EDGE = 0.001
"""Share of features that may stand beyond either edge of the picture, where they are drawn on it."""
STEPS = 2**16 - 2
"""Places on an axis; the next whole number stands for a feature that is nowhere."""
AGAIN = "delete it, and let `interp map SAE` write it again"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where each feature stands."""

    xy_F2: np.ndarray
    about: Mapping[str, Any]
    """Of which weights, how it was made, and with which seed."""


def lay_out(rows_FD: Float[Tensor, "F D"], fires_F: Bool[np.ndarray, " F"], *, seed: int = 0) -> Layout:
    """Every feature that fires at its place; a minute for 9,000 features, five for LAID or more."""
    from sklearn.manifold import TSNE

    feature_L = np.flatnonzero(fires_F)
    unit_LD = torch.nn.functional.normalize(rows_FD[feature_L].float().cpu(), dim=1)
    if len(feature_L) < 5:
        return roughly(rows_FD, fires_F)
    drawn = torch.randperm(len(feature_L), generator=torch.Generator().manual_seed(seed))[:LAID].sort().values
    tsne = TSNE(
        init="pca",
        metric="cosine",
        perplexity=min(PERPLEXITY, (len(drawn) - 1) / 3),
        angle=0.6,
        random_state=seed,
        n_jobs=threads(),
    )
    xy = torch.from_numpy(np.asarray(tsne.fit_transform(unit_LD[drawn].numpy()), dtype=np.float32))
    xy_L2 = _others(unit_LD, drawn, xy) if len(drawn) < len(feature_L) else xy
    return Layout(xy_F2=_spread(xy_L2.numpy(), feature_L, len(rows_FD)), about={"how": "t-SNE", "seed": seed})


def roughly(rows_FD: Float[Tensor, "F D"], fires_F: Bool[np.ndarray, " F"]) -> Layout:
    """The first two principal components, which show far less of what is near what."""
    feature_L = np.flatnonzero(fires_F)
    unit_LD = torch.nn.functional.normalize(rows_FD[feature_L].float().cpu(), dim=1)
    centred_LD = unit_LD - unit_LD.mean(dim=0, keepdim=True)
    if min(centred_LD.shape) < 2:
        return Layout(xy_F2=np.full((len(rows_FD), 2), np.nan, dtype=np.float32), about={"how": "nothing fires"})
    _, vectors_DD = torch.linalg.eigh(centred_LD.T @ centred_LD)
    xy_L2 = centred_LD @ vectors_DD[:, -2:].flip(1)
    return Layout(xy_F2=_spread(xy_L2.numpy(), feature_L, len(rows_FD)), about={"how": "principal components"})


def _others(unit_LD: Tensor, drawn: Tensor, xy: Tensor) -> Tensor:
    """The places of all, those that were not drawn at the mean of their nearest that were."""
    out = torch.empty(len(unit_LD), 2)
    out[drawn] = xy
    rest = torch.ones(len(unit_LD), dtype=torch.bool)
    rest[drawn] = False
    for some in rest.nonzero().flatten().split(1024):
        near = (unit_LD[some] @ unit_LD[drawn].T).topk(NEAREST, dim=1).indices
        out[some] = xy[near].mean(dim=1)
    return out


def _spread(xy_L2: Float[np.ndarray, "L 2"], feature_L: np.ndarray, count: int) -> Float[np.ndarray, "F 2"]:
    """The places within 0 to 1, one scale on both axes, but for the few outermost, which are drawn in."""
    low, high = np.quantile(xy_L2, [EDGE, 1 - EDGE], axis=0)
    scale = max(float((high - low).max()), 1e-12)
    out = np.full((count, 2), np.nan, dtype=np.float32)
    out[feature_L] = np.clip((xy_L2 - (low + high) / 2) / scale + 0.5, 0.0, 1.0)
    return out


# ---- on disk ----


def save_layout(path: Path, layout: Layout, sae_sha256: str) -> None:
    """Write the file, whole or not at all: four bytes a feature."""
    known = np.isfinite(layout.xy_F2)
    whole = np.where(known, np.rint(np.nan_to_num(layout.xy_F2) * STEPS), STEPS + 1).astype(np.uint16)
    about = {"format": FORMAT, "sae_sha256": sae_sha256, **layout.about}
    with places.whole_file(path) as partial:
        save_file({"places": torch.from_numpy(whole)}, partial, metadata={"about": json.dumps(about, sort_keys=True)})


def load_layout(path: Path, sae_sha256: str, features: int) -> Layout:
    """The layout in a file; InterpError when it is damaged, of a later version, or of other weights."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            whole = file.get_tensor("places").numpy()
    except (OSError, SafetensorError, KeyError, ValueError):
        raise InterpError(f"{path} cannot be read: it was cut short or changed; {AGAIN}.") from None
    if not places.unlike(about, {"format": int, "sae_sha256": str}) and about["format"] > FORMAT:
        raise InterpError(f"{path} was written by a later version of interp; update it, or {AGAIN}.")
    if about.get("sae_sha256") != sae_sha256 or whole.shape != (features, 2) or whole.dtype != np.uint16:
        raise InterpError(f"{path} is no map of these {features:,} features; {AGAIN}.")
    xy = whole.astype(np.float32) / STEPS
    return Layout(xy_F2=np.where(whole > STEPS, np.float32(np.nan), xy), about=about)


def inside(xy_F2: Float[np.ndarray, "F 2"], outline: Float[np.ndarray, "P 2"]) -> Bool[np.ndarray, " F"]:
    """Which features stand inside a closed outline, by the parity of the edges that a ray to the right crosses."""
    x_F, y_F = np.nan_to_num(xy_F2, nan=-1.0).T
    found_F = np.zeros(len(xy_F2), dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses_F = ((y_F < y0) != (y_F < y1)) & (x_F < x0 + (y_F - y0) * (x1 - x0) / (y1 - y0))
        found_F ^= crosses_F
    return found_F & np.isfinite(xy_F2).all(axis=1)
