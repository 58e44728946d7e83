"""The map of features: laid out once, and what a page draws of it."""

import json
from typing import TYPE_CHECKING, Annotated

from interp.commands.opening import open_sae
from interp.commands.options import Option, Restart, Sae, Seed

if TYPE_CHECKING:
    from interp.workbench.mapping import FeatureMap, Mapped


def map_features(
    sae: Sae,
    *,
    beside: Annotated[bool, Option("Write the map into the SAE's folder, to be shared with it.")] = False,
    restart: Restart = False,
    seed: Seed = 0,
) -> "Mapped":
    """Lay the features out in two dimensions, near ones near, for the map that the dashboard begins with.

    Takes a minute for 9,000 features, once; the dashboard shows principal components until then. Raises InterpError when the
    SAE has no index.
    """
    return open_sae(sae).make_map(beside=beside, restart=restart, seed=seed)


def feature_map(sae: Sae) -> "FeatureMap":
    """Where each feature stands, and what the map may be coloured by. Raises InterpError when the SAE has no index."""
    return open_sae(sae).feature_map()


def map_laid(sae: Sae) -> bool:
    """Whether the features were laid out; else the map shows principal components. Raises InterpError for a damaged file."""
    from interp.workbench.mapping import kept_layout

    return kept_layout(open_sae(sae)) is not None


def map_version(sae: Sae) -> str:
    """A text that changes when the map is laid out anew, and when labels or evidence change."""
    from interp.commands.evidence import evidence_time
    from interp.workbench.mapping import FILE, map_path

    bench = open_sae(sae)
    times = [str(path.stat().st_mtime_ns) for path in (map_path(bench), bench.folder / FILE) if path.exists()]
    return " ".join([*times, str(evidence_time(sae)), bench.labels.version])


def drawn_map(sae: Sae) -> str:
    """The map as JSON for a page to draw: features that fire, each with its place in thousandths, name, topic, status, density
    and effect; the words of topics and statuses once.

    Raises InterpError when the SAE has no index.
    """
    import numpy as np

    found = feature_map(sae)
    feature = np.flatnonzero(np.isfinite(found.xy_F2[:, 0]))
    statuses = sorted(set(found.status_F), key=lambda name: (name == "", name))
    effect = None
    if found.effect_F is not None:
        effect = [None if np.isnan(kl) else float(f"{kl:.3g}") for kl in found.effect_F[feature]]
    drawn = {
        "how": found.how,
        "feature": feature.tolist(),
        "x": np.rint(found.xy_F2[feature, 0] * 10_000).astype(int).tolist(),
        "y": np.rint(found.xy_F2[feature, 1] * 10_000).astype(int).tolist(),
        "name": [found.names[f][:120] for f in feature.tolist()],
        "topics": list(found.topics),
        "topic": found.topic_F[feature].tolist(),
        "statuses": [name or "no label" for name in statuses],
        "status": [statuses.index(found.status_F[f]) for f in feature.tolist()],
        "density": [float(f"{d:.3g}") for d in found.density_F[feature]],
        "effect": effect,
    }
    return json.dumps(drawn, ensure_ascii=False)
