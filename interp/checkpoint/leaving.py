"""What must hold of a checkpoint's files before they leave this machine, by `pack` or `push`."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from interp import places
from interp.checkpoint.card import card_sha256
from interp.checkpoint.files import INDEX, WEIGHTS, check_content, named_hashes
from interp.checkpoint.formats.saelens.tensors import check_weights
from interp.types import InterpError

AGAIN = "If the change is yours, `interp verify --write` seals the checkpoint again; else fetch it again."


def check_leaving(files: Mapping[str, Path], *, text: bool = True) -> dict[str, str]:
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
    if text:
        check_text(files)
    named = named_hashes(files)
    for name in named:
        if name not in files:
            raise InterpError(
                f"{name} is named, with its hash, by the checkpoint's card or index, and is not there. {AGAIN}"
            )
    return named


def check_text(files: Mapping[str, Path]) -> None:
    """Raises InterpError when the index holds text that its documents table says may not be passed on, or all activations
    on it, from which it could be read back."""
    tokens, documents = (files.get(f"index/{name}.parquet") for name in ("tokens", "documents"))
    if tokens is None or documents is None or INDEX not in files:
        return
    try:
        if "passes_on" not in pq.read_schema(documents).names:  # of before: its text was all passed on
            return
        passes_D = pq.read_table(documents, columns=["passes_on"])["passes_on"].to_numpy()
        if passes_D.all():
            return
        meta = places.read_json(files[INDEX])
        table = pq.read_table(tokens, columns=["token", "document"])
        own_N = pc.fill_null(pc.not_equal(table["token"], int(meta["separator"])), False).to_numpy()
        held = own_N & ~passes_D[table["document"].to_numpy()]
        whole = meta["keep"] == "all"
        copied = files.get("index/pictures.parquet")
        shown = copied is not None and not passes_D[pq.read_table(copied, columns=["document"])["document"]].all()
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        raise InterpError(f"the index beside {files[INDEX]} cannot be read; build it anew.") from None
    if held.any() or whole or shown:
        what = "all activations" if whole else "small copies" if shown else "the tokens"
        count = int((~passes_D).sum())
        raise InterpError(
            f"the index holds {what} of {count:,} documents whose text may not be passed on; `interp publish` leaves them "
            "out, and so does `interp index SAE --beside --keep examples`."
        )


def check_named(named: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raises InterpError for the first file that is not the one that card.json or index.json names."""
    for name, digest in named.items():
        if digests[name] != digest:
            by = "index/index.json" if name.startswith("index/") and name != "index/index.json" else "card.json"
            raise InterpError(
                f"{name} is not the file that {by} names (SHA-256 differs): it was changed or cut short. {AGAIN}"
            )
