"""Presets: named sets of edits as files that can be passed on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import places
from interp.steering.edits import FeatureEdit, from_dict, to_dict
from interp.types import InterpError, unknown

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Edits under a name, with the SAE they were written for."""

    name: str
    note: str
    sae: str
    sae_sha256: str
    model_sha256: str
    edits: list[FeatureEdit]

    def to_dict(self) -> dict[str, Any]:
        """As its file holds it."""
        rest = {key: value for key, value in vars(self).items() if key != "edits"}
        return {"format": FORMAT, **rest, "edits": [to_dict(edit) for edit in self.edits]}

    def write(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        places.write_json(path, self.to_dict())


def folder(sae_sha256: str) -> Path:
    """Where the presets of an SAE are kept."""
    return places.data() / "presets" / sae_sha256


def save(preset: Preset) -> Path:
    """Write the preset among those of its SAE; the file comes back. A preset of that name is replaced.

    Raises InterpError when the name cannot be a file's, or there is no edit.
    """
    if not re.fullmatch(r"[\w][\w .-]{0,63}", preset.name):
        raise InterpError(f"{preset.name!r} cannot name a preset; use letters, digits, spaces, dots and hyphens.")
    if not preset.edits:
        raise InterpError(f"the preset {preset.name!r} has no edit; give at least one.")
    path = folder(preset.sae_sha256) / f"{preset.name}.json"
    preset.write(path)
    return path


def names(sae_sha256: str) -> list[str]:
    """Names of the presets kept for an SAE."""
    return sorted(path.stem for path in folder(sae_sha256).glob("*.json"))


def read(given: str | Path | Mapping[str, Any], sae_sha256: str) -> Preset:
    """The preset of that name, in that file, or with that content; InterpError when it is none or for other weights."""
    content = given if isinstance(given, Mapping) else _content(given, sae_sha256)
    if (
        not isinstance(content, Mapping)
        or content.get("format") != FORMAT
        or not isinstance(content.get("edits"), list)
    ):
        raise InterpError(f"this is no preset of format {FORMAT}; `interp steer --save-preset NAME` writes one.")
    if content.get("sae_sha256") != sae_sha256:
        raise InterpError(
            f"the preset {content.get('name')!r} is for {content.get('sae')} with weights "
            f"{str(content.get('sae_sha256'))[:12]}…, and this SAE has {sae_sha256[:12]}…; open the SAE it was made for."
        )
    fields = {key: str(content.get(key, "")) for key in ("name", "note", "sae", "sae_sha256", "model_sha256")}
    return Preset(**fields, edits=[from_dict(edit) for edit in content["edits"]])


def _content(name_or_path: str | Path, sae_sha256: str) -> Any:
    path = Path(name_or_path).expanduser()
    if path.suffix == ".json" and path.exists():
        return places.read_json(path)
    stored = folder(sae_sha256) / f"{name_or_path}.json"
    if not stored.exists():
        raise unknown("preset", name_or_path, names(sae_sha256), try_="The path of a preset's file works as well.")
    return places.read_json(stored)
