"""The map of the open SAE's features: where each stands, and what it may be coloured by.

Axes    F feature, G group of texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from interp import places
from interp.checkpoint import Card
from interp.index.layout import Layout, inside, lay_out, load_layout, roughly, save_layout
from interp.types import InterpError
from interp.workbench.evidencing import evidence
from interp.workbench.opening import Opened

FILE = "map.safetensors"
LAY = "`interp map SAE` lays them out so that near ones are near"
MIXED = "mixed"
OTHER = "other"
SHARE, LIFT = 0.4, 2.5
"""A feature is of a group of texts when so many of its examples are, and so many times more than of all tokens."""
MOST_GROUPS = 8
GROUPS = {
    "code": "code",
    "docs": "manuals",
    "gcide foldoc jargon": "dictionaries",
    "metamath abstracts questions": "mathematics, science",
    "wiki-fr wiki-es": "French, Spanish",
    "novels essays fortunes anarchism": "fiction, essays",
    "wiki-en news": "encyclopedia, news",
    "chat mail reviews": "chat, mail, reviews",
}
"""How the packaged texts are grouped on the map: their names, or the beginnings of them; any other source is a group of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMap:
    """A row a feature."""

    xy_F2: np.ndarray
    """Shares of the picture, 0 to 1; nan for features that never fire."""
    how: str
    """How they were laid out, in a sentence."""
    rough: bool
    """Whether only principal components are shown."""
    names: Sequence[str]
    topics: Sequence[str]
    """Groups of texts, the last of them MIXED."""
    topic_F: np.ndarray
    status_F: Sequence[str]
    """Of the label that holds; empty where there is none."""
    density_F: np.ndarray
    effect_F: np.ndarray | None
    """KL in nats when it is ablated; nan where it was not measured, None where nothing was."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """What `interp map` made."""

    features: int
    where: str
    """The file."""


def map_path(wb: Opened) -> Path:
    """Where the layout of these weights is kept on this machine."""
    return places.cache() / "maps" / f"{wb.card.sae_sha256}.safetensors"


def make_map(wb: Opened, *, beside: bool = False, restart: bool = False, seed: int = 0) -> Mapped:
    """Lay the features out, or take the layout that is there; with `beside` also as a file of the SAE's folder, whose hash its
    card then has.

    Raises InterpError when the SAE has no index, and when another process is at it.
    """
    path = map_path(wb)
    if beside:
        places.check_writable(wb.folder)
    fires_F = wb.index.features["fires"].to_numpy() > 0
    with places.only_one(path.with_suffix(""), "laying out the map"):
        made = None if restart else kept_layout(wb)
        made = made or lay_out(wb.sae.W_dec, fires_F, seed=seed)
        save_layout(path, made, wb.card.sae_sha256)
        if beside:
            path = wb.folder / FILE
            save_layout(path, made, wb.card.sae_sha256)
            card = Card.read(wb.folder)
            if card.files:
                hashed = card.files | {FILE: places.sha256_file(path)}
                replace(card, files=dict(sorted(hashed.items()))).write(wb.folder)
    return Mapped(features=int(np.isfinite(made.xy_F2[:, 0]).sum()), where=str(path))


def kept_layout(wb: Opened) -> Layout | None:
    """The layout that was made on this machine, else the one that came with the SAE; None where there is none.

    Raises InterpError when the file is damaged or of other weights.
    """
    for path in (map_path(wb), wb.folder / FILE):
        if path.exists():
            return load_layout(path, wb.card.sae_sha256, wb.sae.d_sae)
    return None


def layout(wb: Opened) -> Layout:
    """Where the features stand: as they were laid out, else by principal components; InterpError without an index."""
    known = kept_layout(wb)
    if known is not None:
        return known
    if "roughly" not in wb._answers:
        wb._answers["roughly"] = roughly(wb.sae.W_dec, wb.index.features["fires"].to_numpy() > 0)
    rough: Layout = wb._answers["roughly"]
    return rough


def feature_map(wb: Opened) -> FeatureMap:
    """The map with all that it may be coloured by; InterpError without an index."""
    placed = layout(wb)
    rough = placed.about.get("how") != "t-SNE"
    labels = wb.labels.all()
    named = [labels[f].text if f in labels else text for f, text in enumerate(wb.index.descriptions)]
    topics, topic_F = text_groups(wb)
    return FeatureMap(
        xy_F2=placed.xy_F2,
        how=f"The first two principal components of the decoder; {LAY}."
        if rough
        else "Decoder directions by t-SNE: near features are near, far ones need not be far.",
        rough=rough,
        names=named,
        topics=topics,
        topic_F=topic_F,
        status_F=standing(wb),
        density_F=wb.index.features["density"].to_numpy(),
        effect_F=effects(wb),
    )


def standing(wb: Opened) -> list[str]:
    """Of every feature, what became of its label: the verdict on text that it was not made from, where that label was tried;
    else its status; empty where there is no label."""
    labels = wb.labels.all()
    said = [labels[f].status if f in labels else "" for f in range(wb.sae.d_sae)]
    try:
        verdict_F, claim_F = (evidence(wb).column(f"label_{name}") for name in ("verdict", "claim"))
    except InterpError:  # nothing was tried
        return said
    for f, label in labels.items():
        if claim_F[f] and label.predicate == f"at:({claim_F[f]})":
            said[f] = str(verdict_F[f])
    return said


def effects(wb: Opened) -> np.ndarray | None:
    """KL of each feature when it is ablated, nan where it was not measured; None where nothing was."""
    try:
        return evidence(wb).column("effect_kl").astype(np.float64)
    except InterpError:  # nothing was measured: the map is not coloured by it
        return None


def text_groups(wb: Opened) -> tuple[list[str], np.ndarray]:
    """(groups, the last of them MIXED; the group of each feature), by the documents that its examples stand in."""
    index = wb.index
    names = [_group(source) for source in index.documents["source"]]
    groups = sorted(set(names))
    group_D = np.array([groups.index(name) for name in names])
    base_G = np.bincount(group_D[index.document_at[index.kept]], minlength=len(groups)) / max(index.kept.sum(), 1)
    count_FG = np.zeros((index.d_sae, len(groups)))
    feature_E, position_E = index.strongest
    np.add.at(count_FG, (feature_E, group_D[index.document_at[position_E]]), 1)
    share_FG = count_FG / np.maximum(count_FG.sum(axis=1, keepdims=True), 1)
    own_FG = np.where((share_FG >= SHARE) & (share_FG >= LIFT * base_G), share_FG, 0.0)
    best_F = np.where(own_FG.max(axis=1) > 0, own_FG.argmax(axis=1), -1)
    sizes = np.bincount(best_F[best_F >= 0], minlength=len(groups))
    shown = [int(g) for g in np.argsort(-sizes, kind="stable") if sizes[g]]
    kept, rest = (shown, []) if len(shown) <= MOST_GROUPS else (shown[: MOST_GROUPS - 1], shown[MOST_GROUPS - 1 :])
    titles = [groups[g] for g in kept] + ([OTHER] if rest else []) + [MIXED]
    place = {g: i for i, g in enumerate(kept)} | dict.fromkeys(rest, len(kept)) | {-1: len(titles) - 1}
    return titles, np.array([place[int(g)] for g in best_F])


def _group(source: str) -> str:
    for beginnings, title in GROUPS.items():
        if any(source == name or source.startswith(f"{name}-") for name in beginnings.split()):
            return title
    return source


def inside_outline(wb: Opened, outline: np.ndarray) -> np.ndarray:
    """Which features stand inside a closed outline of (P, 2) places on the map, shape (F,)."""
    return inside(layout(wb).xy_F2, outline)
