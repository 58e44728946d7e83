"""What other tools and browsers read: one file a format, one line here."""

from collections.abc import Callable, Iterable
from pathlib import Path

from interp import places
from interp.exports import neuronpedia, pages, tables
from interp.exports.contents import Contents
from interp.renamed import renamed
from interp.types import check_feature, unknown

EXPORTS: dict[str, Callable[[Contents, list[int], Path], list[str]]] = {
    "neuronpedia": neuronpedia.write,
    "html": pages.write,
    "csv": tables.write_csv,
    "parquet": tables.write_parquet,
    "labels": tables.write_labels,
}
"""Each writes into an existing empty folder, and gives back what its format does not hold, a phrase each."""


def export(contents: Contents, form: str, into: str | Path, features: Iterable[int] | None = None) -> list[str]:
    """Write features (all that fire, without) in one of EXPORTS into a folder that appears whole or not at all.

    What the format does not hold, or holds otherwise, comes back. Raises InterpError for an unknown format or feature.
    """
    if form not in EXPORTS:
        raise unknown("export format", form, EXPORTS)
    fires = contents.index.features["fires"].to_numpy()
    chosen = fires.nonzero()[0].tolist() if features is None else list(dict.fromkeys(features))
    checked = [check_feature(int(feature), contents.index.d_sae, contents.card.name) for feature in chosen]
    with places.whole_folder(Path(into)) as partial:
        left = EXPORTS[form](contents, checked, partial)
    unread = contents.index.unread if form != "labels" else ""
    return [*left, unread] if unread else left


__all__ = ["EXPORTS", "Contents", "export"]

__getattr__ = renamed("interp.exports", {"Subject": "Contents"})
