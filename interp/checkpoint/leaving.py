"""What must hold of a checkpoint's files before they leave this machine, by `pack` or `push`."""

from collections.abc import Mapping
from pathlib import Path

from interp import places
from interp.checkpoint.card import card_sha256
from interp.checkpoint.files import WEIGHTS, check_content, named_hashes
from interp.checkpoint.formats.saelens.tensors import check_weights
from interp.types import InterpError

AGAIN = "If the change is yours, `interp verify --write` seals the checkpoint again; else fetch it again."


def check_leaving(files: Mapping[str, Path]) -> dict[str, str]:
    """The hashes that the files name for one another (`named_hashes`), to be compared with what is sent.

    Raises InterpError when a file is not what its name says, the weights are not whole and finite, the card was edited
    after it was written, or a file that it names is not there.
    """
    for name, path in files.items():
        check_content(name, path)
    check_weights(files["cfg.json"], files[WEIGHTS])
    if "card.json" in files:
        raw = places.read_json(files["card.json"])
        if not isinstance(raw, dict):
            raise InterpError(f"{files['card.json']} is no card: it holds no JSON object.")
        if raw.get("card_sha256") and raw["card_sha256"] != card_sha256(raw):
            raise InterpError(f"{files['card.json']} was edited after it was written: its own hash differs. {AGAIN}")
    named = named_hashes(files)
    for name in named:
        if name not in files:
            raise InterpError(
                f"{name} is named, with its hash, by the checkpoint's card or index, and is not there. {AGAIN}"
            )
    return named


def check_named(named: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raises InterpError for the first file that is not the one that card.json or index.json names."""
    for name, digest in named.items():
        if digests[name] != digest:
            by = "index/index.json" if name.startswith("index/") and name != "index/index.json" else "card.json"
            raise InterpError(
                f"{name} is not the file that {by} names (SHA-256 differs): it was changed or cut short. {AGAIN}"
            )
