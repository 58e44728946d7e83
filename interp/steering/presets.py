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
        rest = {key: value for key, value in vars(self).items() if key != "edits"}
        return {"format": FORMAT, **rest, "edits": [to_dict(edit) for edit in self.edits]}

    def write(self, path: Path) -> None:
        places.write_json(path, self.to_dict())


def folder(sae_sha256: str) -> Path:
    """Where the presets of an SAE are kept."""
    return places.data() / "presets" / sae_sha256


def save(preset: Preset) -> Path:
    """Write the preset among those of its SAE; the file comes back. A preset of that name is replaced."""
    if not re.fullmatch(r"[\w][\w .-]{0,63}", preset.name):
        raise InterpError(f"{preset.name!r} cannot name a preset; use letters, digits, spaces, dots and hyphens.")
    if not preset.edits:
        raise InterpError(f"the preset {preset.name!r} has no edit; give at least one.")
    path = folder(preset.sae_sha256) / f"{preset.name}.json"
    preset.write(path)
    return path


def names(sae_sha256: str) -> list[str]:
    return sorted(path.stem for path in folder(sae_sha256).glob("*.json"))


def read(name_or_path: str | Path, sae_sha256: str) -> Preset:
    """The preset of that name, or in that file; InterpError when there is none or it is for other weights."""
    path = Path(name_or_path).expanduser()
    if path.suffix != ".json" or not path.exists():
        stored = folder(sae_sha256) / f"{name_or_path}.json"
        if not stored.exists():
            raise unknown("preset", name_or_path, names(sae_sha256), try_="The path of a preset's file works as well.")
        path = stored
    given = places.read_json(path)
    if not isinstance(given, Mapping) or given.get("format") != FORMAT or "edits" not in given:
        raise InterpError(f"{path} is no preset of format {FORMAT}.")
    if given.get("sae_sha256") != sae_sha256:
        raise InterpError(
            f"the preset {given.get('name')!r} is for {given.get('sae')} with weights "
            f"{str(given.get('sae_sha256'))[:12]}…, and this SAE has {sae_sha256[:12]}…; open the SAE it was made for."
        )
    fields = {key: str(given.get(key, "")) for key in ("name", "note", "sae", "sae_sha256", "model_sha256")}
    return Preset(**fields, edits=[from_dict(edit) for edit in given["edits"]])
