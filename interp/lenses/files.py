"""Lenses on disk: a folder a kind of fit, whole or not at all, and what an unfinished fit has summed so far.

<folder>/jacobian/lens.safetensors    matrices `next` and `later`, float32
<folder>/tuned/lens.safetensors       matrix `tuned` and its `bias`
<folder>/<kind>/lens.json             recipe (model, hook point, text, seed), positions, agreement of halves at each doubling, SHA-256 of
                                      the file beside it
<folder>/<kind>.state.safetensors     of a fit that is unfinished, or whose text was not enough: its sums

`lens_folder` says where: under INTERP_HOME/cache, by the model's weights and the hook point.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp import places
from interp.lenses.lens import Lens
from interp.types import InterpError

KINDS: dict[str, tuple[str, ...]] = {"jacobian": ("next", "later"), "tuned": ("tuned",)}
"""By fit, the lenses that come of it."""
TENSORS, ABOUT = "lens.safetensors", "lens.json"
FORMAT = 1
HOW_MUCH = ("rounds", "enough")
"""What of a recipe says only how long to go on: sums made with another are as good."""
SAID = "text"
"""What of a recipe is only the text's name: an index that grew elsewhere has the same tokens, by their hash, to fit on."""


def lens_folder(model_sha256: str, hook_name: str) -> Path:
    """Where the lenses of a hook point are kept on this machine."""
    return places.cache() / "lenses" / model_sha256 / hook_name


@contextmanager
def lock(folder: Path, kind: str) -> Iterator[None]:
    """Hold the folder while a lens is fitted there; InterpError when another process does."""
    with places.only_one(folder, f"the fit of the {kind} lens"):
        yield


def save_lenses(folder: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write what came of a fit, in the place of what was there."""
    place = folder / kind
    if place.exists():
        places.drop_folder(place)
    with places.whole_folder(place) as partial:
        save_file({name: x.float().cpu().contiguous() for name, x in tensors.items()}, partial / TENSORS)
        sha256 = places.sha256_file(partial / TENSORS)
        places.write_json(partial / ABOUT, {"format": FORMAT, "sha256": sha256, **about})


def load_kept(folder: Path, kind: str, recipe: Mapping[str, Any], hook_name: str) -> dict[str, Lens] | None:
    """The lenses of a fit of this recipe; None where there is none, or of another."""
    if not (folder / kind / ABOUT).exists():
        return None
    about, tensors = _read(folder / kind)
    if _unnamed(about["recipe"]) != _unnamed(json.loads(json.dumps(recipe))):
        return None
    return {name: Lens(name, hook_name, tensors[name], about) for name in KINDS[kind]}


def load_lenses(folder: Path, model_sha256: str, hook_name: str) -> dict[str, Lens]:
    """All lenses that were fitted there, by name; none, where none was.

    Raises InterpError when a file is not as it was written, or was made for another model or hook point.
    """
    found: dict[str, Lens] = {}
    for kind, names in KINDS.items():
        if not (folder / kind / ABOUT).exists():
            continue
        about, tensors = _read(folder / kind)
        made_for = about["recipe"].get("model_sha256"), about["recipe"].get("hook_name")
        if made_for != (model_sha256, hook_name):
            raise InterpError(
                f"the lens in {folder / kind} was fitted for {made_for[1]} of a model with weights {str(made_for[0])[:14]}…, not "
                f"for {hook_name} of {model_sha256[:14]}…; fit one for this model."
            )
        found |= {name: Lens(name, hook_name, tensors[name], about) for name in names}
    return found


def _read(place: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about = places.read_json(place / ABOUT)
    wrong = places.unlike(about, {"format": int, "sha256": str, "recipe": dict, "positions": int, "agreement": list})
    if wrong:
        raise InterpError(f"{place / ABOUT} does not describe a lens: {wrong}; delete {place} and fit it again.")
    path = place / TENSORS
    try:
        same = places.sha256_file(path) == about["sha256"]
        tensors = load_file(path) if same else {}
    except (OSError, SafetensorError):
        same, tensors = False, {}
    if not same or any(name not in tensors for name in KINDS[place.name]):
        raise InterpError(
            f"{path} is not the file that was written with its description; delete {place} and fit it again."
        )
    return about, tensors


# ---- unfinished fits ----


def state_path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.state.safetensors"


def save_state(
    folder: Path,
    kind: str,
    recipe: Mapping[str, Any],
    sums: Mapping[str, Tensor],
    done: int,
    agreements: list[dict[str, Any]],
) -> None:
    """Write what was summed in the first `done` passes."""
    meta = {"recipe": json.dumps(recipe), "done": str(done), "agreements": json.dumps(agreements)}
    with places.whole_file(state_path(folder, kind)) as partial:
        save_file({name: x.cpu().contiguous() for name, x in sums.items()}, partial, metadata=meta)


def load_state(
    folder: Path, kind: str, recipe: Mapping[str, Any], sums: Mapping[str, Tensor]
) -> tuple[int, list[dict[str, Any]]]:
    """(passes done, agreements so far) of an unfinished fit of this recipe, whose sums are put into `sums`; else (0, [])."""
    path = state_path(folder, kind)
    with suppress(OSError, SafetensorError, KeyError, ValueError), safe_open(path, "pt") as file:
        meta = file.metadata()
        if _which(json.loads(meta["recipe"])) != _which(json.loads(json.dumps(recipe))):
            return 0, []
        kept = {name: file.get_tensor(name) for name in sums}
        done, agreements = int(meta["done"]), json.loads(meta["agreements"])
        if any(kept[name].shape != x.shape for name, x in sums.items()):
            return 0, []
        for name, x in sums.items():
            x.copy_(kept[name])
        return done, agreements
    return 0, []


def _which(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in _unnamed(recipe).items() if key not in HOW_MUCH}


def _unnamed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != SAID}


# ---- judgements ----


def judgement_path(folder: Path, sae_sha256: str) -> Path:
    """Where what was found of the lenses on an SAE's features is kept."""
    return folder / "judged" / f"{sae_sha256}.json"


def save_judgement(folder: Path, sae_sha256: str, judgement: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Keep a judgement, with what it was made from."""
    places.write_json(judgement_path(folder, sae_sha256), {"format": FORMAT, **about, **judgement})


def load_judgement(folder: Path, sae_sha256: str) -> dict[str, Any] | None:
    """What `save_judgement` wrote; None where nothing was judged. Raises InterpError when the file cannot be read."""
    path = judgement_path(folder, sae_sha256)
    if not path.exists():
        return None
    judged = places.read_json(path)
    wrong = places.unlike(judged, {"format": int, "features": int, "figures": dict, "winners": dict})
    if wrong:
        raise InterpError(f"{path} is no judgement of lenses: {wrong}; delete it and judge again.")
    return dict(judged)
