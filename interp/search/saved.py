"""A search as a file: what was asked, of which index, and what it found, so that it can be run again and compared."""

import datetime
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp import places
from interp.search.query import parse
from interp.search.run import Hits
from interp.types import InterpError, unknown


@dataclass(frozen=True, kw_only=True)
class SavedSearch:
    """One search and its answer at the time."""

    name: str
    query: str
    limit: int
    sae_sha256: str
    index: dict[str, Any]
    """The index it was asked of: keep, positions, and the SHA-256 of its activations."""
    created: str
    total: int
    found: list[dict[str, Any]]
    """Feature, score and label, best first."""

    @staticmethod
    def of(name: str, hits: Hits, limit: int, meta: dict[str, Any]) -> "SavedSearch":
        """A search of the index with this description (`FeatureIndex.meta`), and its answer."""
        files = meta["files"]
        return SavedSearch(
            name=name,
            query=hits.query,
            limit=limit,
            sae_sha256=meta["sae_sha256"],
            index={"keep": meta["keep"], "positions": meta["positions"], "activations": files["activations.parquet"]},
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            total=hits.total,
            found=[{"feature": hit.feature, "score": hit.score, "label": hit.label} for hit in hits],
        )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        places.write_json(path, asdict(self))

    @staticmethod
    def read(path: Path) -> "SavedSearch":
        """The search in a file; InterpError when it holds none."""
        held = places.read_json(path)
        why = places.unlike(held, _KINDS)
        if not why and (held["limit"] < 1 or set(held) != set(_KINDS)):
            why = "its limit or its fields are not a search's"
        for row in [] if why else held["found"]:
            why = why or places.unlike(row, {"feature": int})
        if why:
            raise InterpError(f"{path} is no saved search: {why}.")
        saved = SavedSearch(**held)
        parse(saved.query)
        return saved

    def changes(self, hits: Hits) -> dict[str, list[int]]:
        """Features that came and went since, among those that were kept."""
        before, now = [row["feature"] for row in self.found], [hit.feature for hit in hits]
        return {"came": [f for f in now if f not in before], "went": [f for f in before if f not in now]}


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "query", "sae_sha256", "created"), str),
    **dict.fromkeys(("limit", "total"), int),
    "index": dict,
    "found": list,
}


def locate(name: str, sae_sha256: str) -> Path:
    """The file of a search: as given when it is a path, else under INTERP_HOME's data by the SAE's hash.

    Raises InterpError for a name that cannot be a file's.
    """
    if name.endswith(".json") or "/" in name:
        return Path(name).expanduser()
    if not re.fullmatch(r"[\w .-]{1,80}", name):
        raise InterpError(f"{name!r} cannot name a search; use letters, digits, spaces, dots and hyphens.")
    return folder(sae_sha256) / f"{name}.json"


def folder(sae_sha256: str) -> Path:
    """Where the searches of an SAE lie that were saved by name."""
    return places.data() / "searches" / (sae_sha256 or "unsaved")


def names(sae_sha256: str) -> list[str]:
    """The searches that were saved by name."""
    return sorted(path.stem for path in folder(sae_sha256).glob("*.json"))


def find(name: str, sae_sha256: str) -> SavedSearch:
    """The search of that name or in that file; InterpError when there is none."""
    path = locate(name, sae_sha256)
    if not path.exists():
        raise unknown("saved search", name, names(sae_sha256), try_="A path to its file also works.")
    return SavedSearch.read(path)
