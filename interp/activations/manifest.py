"""What a harvest says of itself: the activations' recipe, and the shards that hold them.

A store is a folder, or a URL with the same files: `manifest.json`, `tokens.parquet` and `documents.parquet` (the text, see corpus), and
`shard-00000.safetensors` and so on, each with one (N, D) tensor a hook point (or in 8 bits, see `eight_bit`) and the norms of its rows.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp import places
from interp.activations.eight_bit import STORED
from interp.corpus import Corpus, TokenBlocks
from interp.models import Model
from interp.types import InterpError

FORMAT = 1
SHARD_POSITIONS = 65_536
NORM = "norm/"
"""How the name of a hook point's norms begins."""
TEXT = ("tokens.parquet", "documents.parquet")
"""The files of the text; a manifest has their SHA-256 under `text` (older ones do not)."""
SHARD_NAME = re.compile(r"shard-\d{5,9}\.safetensors")
_SHARD: dict[str, Any] = {"file": str, "first": int, "positions": int}
_RECIPE: dict[str, Any] = {
    **dict.fromkeys(("model", "source", "model_sha256", "dtype", "attention", "tokens_sha256"), str),
    **dict.fromkeys(("positions", "block", "separator"), int),
    "hooks": list,
    "corpus": dict,
}


def recipe_of(
    model: Model, corpus: Corpus, hooks: list[str], blocks: TokenBlocks, split: str | None, stored: str = ""
) -> dict[str, Any]:
    """What activations are of, and how they are `stored`, for the card of what is trained on them."""
    return {
        "format": FORMAT,
        "model": model.name,
        "source": model.source,
        "model_sha256": model.fingerprint(),
        "dtype": model.dtype_name,
        "attention": model.attention,
        "hooks": hooks,
        "corpus": {"name": corpus.name, "licence": corpus.licence, "version": corpus.version, "split": split}
        | ({"reading": blocks.reading} if blocks.reading else {}),
        "positions": blocks.positions,
        "block": blocks.block,
        "separator": blocks.separator,
        "tokens_sha256": blocks.sha256(),
    } | ({"stored": stored} if stored else {})


def own_manifest(folder: Path, url: str = "") -> dict[str, Any]:
    """A harvest's manifest, whatever became of it; InterpError when it is another program's, which nothing replaces.

    Of a copy of what is at a URL, the sentence names that.
    """
    manifest = places.read_json(folder / "manifest.json")
    if not isinstance(manifest, dict) or not {"asked", "recipe", "shards"} <= manifest.keys():
        raise InterpError(
            f"{url or folder}/manifest.json is another program's, not a harvest's; choose another folder."
        )
    return manifest


def read_manifest(folder: Path, url: str = "") -> dict[str, Any]:
    """What the store says of itself, each part of the kind that `harvest` writes; InterpError names one that is not."""
    path, manifest = f"{url or folder}/manifest.json", own_manifest(folder, url)
    recipe, shards = manifest["recipe"], manifest["shards"]
    wrong = places.unlike(manifest, {"asked": dict, "shards": list} | ({} if recipe is None else {"recipe": dict}))
    wrong = wrong or places.unlike(manifest.get("text", dict.fromkeys(TEXT, "")), dict.fromkeys(TEXT, str))
    wrong = wrong or (places.unlike(recipe, _RECIPE) if recipe is not None else "")
    positions = 0
    for shard in [] if wrong else shards:
        wrong = wrong or _wrong_shard(path, shard, positions)
        positions += 0 if wrong else shard["positions"]
    if not wrong and recipe is not None:
        hooks, block = recipe["hooks"], recipe["block"]
        if not max(positions, 1) <= recipe["positions"] < 2**40:
            wrong = f"positions is {recipe['positions']}, and its shards hold {positions}"
        elif recipe.get("stored", "") not in STORED:
            wrong = f"stored is {recipe['stored']!r}"
        elif not (block > 1 and hooks and all(isinstance(hook, str) for hook in hooks)):
            wrong = f"hooks is {str(hooks)[:60]} and block {block}"
    if wrong:
        raise InterpError(f"{path} is not as `interp harvest` wrote it: {wrong}; harvest again with --restart.")
    return manifest


def _wrong_shard(path: str, shard: Any, first: int) -> str:
    """What is wrong with a shard that should begin at position `first`; InterpError for a file outside the folder."""
    name = shard.get("file") if isinstance(shard, dict) else None
    if isinstance(name, str) and (Path(name).name != name or name == ".." or "\\" in name):
        raise InterpError(f"{path} names the shard {name!r}, which is no file of that folder.")
    if wrong := places.unlike(shard, _SHARD):
        return wrong
    fits = SHARD_NAME.fullmatch(shard["file"]) and shard["first"] == first and 0 < shard["positions"] < 2**40
    fits = fits and all(isinstance(shard.get(name, ""), str) for name in ("sha256", "norms_sha256"))
    return "" if fits else f"a shard is {str(shard)[:80]}"


def refuse_change(folder: Path | str, kept: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises InterpError, naming the first field that differs, when a folder holds another harvest than is asked."""
    for key, value in asked.items():
        if kept.get(key) != value:
            raise InterpError(
                f"{folder} holds a harvest with {key} = {kept.get(key)!r}, and {value!r} was asked; "
                "choose another folder, or restart (--restart) to replace it."
            )


def norms_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a shard's norms alone, (N,) float32 by `norm/` and hook point, one after the other by name.

    The manifest has it of each shard (older ones do not), so that norms can be fetched and compared without the rest.
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        if key.startswith(NORM):
            digest.update(tensors[key].contiguous().numpy().tobytes())
    return digest.hexdigest()


_known_shards: dict[tuple[str, int, int], str] = {}
"""SHA-256 by path, time and size of the files this process has hashed: each once, however many epochs read it."""


def known_sha256(path: Path) -> str:
    """The file's SHA-256, reckoned once in this process as long as the file does not change."""
    key = _key(path)
    if key not in _known_shards:
        _known_shards[key] = places.sha256_file(path)
    return _known_shards[key]


def note_sha256(path: Path, digest: str) -> None:
    """Take down a file's SHA-256, which was reckoned while it had another name."""
    _known_shards[_key(path)] = digest


def _key(path: Path) -> tuple[str, int, int]:
    about = path.stat()
    return str(path), about.st_mtime_ns, about.st_size
