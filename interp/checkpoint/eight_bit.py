"""The transcoders of all layers in one file of 8-bit rows, and the ordinary folders that come of it.

A row w of an encoder or decoder matrix is kept as integers q from -127 to 127 and one number s, w ≈ s q with s = max |w| / 127, so that
a weight is off by at most s / 2. Biases and thresholds stay float32. `layers.json` has each transcoder's card; `features.parquet`, where it
is, what each feature fires on and promotes.
Opened, each becomes a folder of SAELens' format in the cache, named by the SHA-256 of `layers.json`; sae-lens opens these as any other.

Axes    F feature, D d_in, O d_out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.checkpoint.bundle import open_bundle
from interp.checkpoint.card import Card
from interp.checkpoint.folder import load, save
from interp.sae import SAE
from interp.sae.bundle import Bundle
from interp.types import InterpError

FILE, CARDS, FEATURES = "transcoders.safetensors", "layers.json", "features.parquet"
MATRICES = ("W_enc", "W_dec")
CUTOFF_OUT = "norm_cutoff_out"
"""Of a transcoder's recipe: the norm of what it writes above which a position is a sink, and was not trained on."""
LIMIT = 512 * 2**20
"""Bytes of a file that is opened at most."""
SAID = 0.05
"""Share of a feature's activation on a token from which on that is said."""
DOUBT = {"undecided": "undecided", "too few": "too rare to be tried"}
"""What is said of a label that was not confirmed, by how it came out; of one that was refuted it is not said."""
WAIT = 300.0
"""Seconds that a second process waits for the first to have expanded the file."""


def to_rows(w_FD: Float[Tensor, "F D"]) -> tuple[Int8[Tensor, "F D"], Float[Tensor, " F"]]:
    """(integers, scales) of a matrix by rows."""
    scale = (w_FD.abs().amax(1) / 127).clamp_min(1e-12)
    return (w_FD / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def pack_layers(folders: Mapping[str, Path], into: str | Path) -> Path:
    """Write the transcoders in these folders, by name, as one file with their cards; the folder comes back.

    Raises InterpError when one has a skip connection or no threshold, for which this form has no place.
    """
    tensors: dict[str, Tensor] = {}
    cards: dict[str, Any] = {}
    for name, folder in folders.items():
        one = load(folder)
        if one.W_skip is not None or one.threshold is None:
            raise InterpError(f"{name} has a skip connection or no threshold; 8-bit rows have no place for it.")
        for key, w_FD in (("W_enc", one.W_enc.T), ("W_dec", one.W_dec)):
            tensors[f"{name}.{key}.rows"], tensors[f"{name}.{key}.scales"] = to_rows(w_FD.contiguous())
        tensors |= {f"{name}.{key}": getattr(one, key).contiguous() for key in ("b_enc", "b_dec", "threshold")}
        cards[name] = asdict(Card.read(folder))
    with places.whole_folder(Path(into)) as partial:
        save_file(tensors, partial / FILE)
        (partial / FILE).chmod(0o644)  # safetensors writes for the owner only
        places.write_json(partial / CARDS, {"sha256": places.sha256_file(partial / FILE), "layers": cards})
    return Path(into)


def open_layers(folder: str | Path, device: str = "cpu") -> tuple[Bundle[SAE], dict[str, float], str]:
    """(transcoders, norms above which a position is a sink by hook point, hash of the model's weights) of a folder.

    The folder holds either 8-bit rows, which are expanded into the cache once, or ordinary checkpoints. Raises InterpError when it
    holds neither, when the file is not the one that its cards were written for, and as `open_bundle` does.
    """
    path = Path(folder).expanduser()
    places_of = expanded(path) if (path / FILE).exists() else path
    bundle = open_bundle(places_of, device)
    cards = [Card.read(card.parent) for card in sorted(Path(places_of).rglob("card.json"))]
    cutoffs = {name: value for card in cards for name, value in cutoffs_of(card).items()}
    return bundle, cutoffs, cards[0].model_sha256 if cards else ""


def cutoffs_of(card: Card) -> dict[str, float]:
    """Norms above which a position is a sink, at what a transcoder reads and, where its card tells, at what it writes."""
    out = {card.hook_name_out: float(card.recipe[CUTOFF_OUT])} if CUTOFF_OUT in card.recipe else {}
    return {hook: cutoff for hook, cutoff in card.mask.cutoffs.items() if cutoff > 0} | out


class Described(NamedTuple):
    """What a feature fires on, in words."""

    text: str
    label: str = ""
    """A label that held on documents it was not made from, which others may share."""


def expanded(folder: Path) -> Path:
    """Where the ordinary folders of an 8-bit file lie; made if they are not there.

    Raises InterpError for a file that is damaged, or is not the one that its cards were written for.
    """
    try:
        told = json.loads((folder / CARDS).read_text(encoding="utf-8"))
        digest, layers = str(told["sha256"]), dict(told["layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InterpError(f"{folder / CARDS} cannot be read ({error}); copy the whole folder again.") from error
    into = places.cache() / "transcoders" / places.sha256_file(folder / CARDS)  # which has the file's own hash
    if into.exists():
        return into
    if (folder / FILE).stat().st_size > LIMIT:
        raise InterpError(f"{folder / FILE} is larger than {LIMIT >> 20} MiB, and is not opened.")
    if places.sha256_file(folder / FILE) != digest:
        raise InterpError(f"{folder / FILE} is not the file that {CARDS} was written for; copy the whole folder again.")
    with places.only_one(into.parent, "the expansion", wait=WAIT):
        if not into.exists():  # else another process has just made it
            try:
                with places.whole_folder(into) as partial, safe_open(folder / FILE, "pt") as file:
                    for name, card in layers.items():
                        _write(name, card, file, partial / places_name(name))
            except (SafetensorError, KeyError, TypeError) as error:
                raise InterpError(
                    f"{folder / FILE} does not hold what {CARDS} says ({error}); copy the folder again."
                ) from error
    return into


def write_features(folder: Path, layers: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """What is known of each feature, by layer (`recipe.naming.describe_layers` makes it): density, the tokens that it fires on most with
    their shares, those it promotes, its label and how that came out."""
    rows = [
        {"layer": layer, "feature": feature} | dict(told)
        for layer, part in enumerate(layers)
        for feature, told in enumerate(part)
    ]
    with places.whole_file(folder / FEATURES) as partial:
        pq.write_table(pa.Table.from_pylist(rows), partial, compression="zstd")


def read_features(folder: Path) -> dict[tuple[int, int], Described]:
    """By (layer, feature) what it fires on; {} where nothing is told."""
    path = folder / FEATURES
    if not path.exists():
        return {}
    rows = pq.read_table(path).to_pylist()
    told = {(int(row["layer"]), int(row["feature"])): _described(row) for row in rows if row["fires_on"]}
    return {feature: one for feature, one in told.items() if one.text}


def _described(row: Mapping[str, Any]) -> Described:
    """Its label, if that was confirmed or could not be judged; else the tokens that more of its activation falls on than falls by the way."""
    if "label" not in row:  # of before labels were tried
        fires = ", ".join(f"‘{token}’" for token in row["fires_on"])
        text = f"on {fires}" + ("" if row["share"] > 0.9 else " and others")
        return Described(text, text)
    label, verdict = row["label"], row["verdict"]
    if label and verdict == "confirmed":
        return Described(f"{label} (F1 {row['f1']:.2f})", label)
    if label and verdict in DOUBT:
        return Described(f"{label} ({DOUBT[verdict]})")
    parts = [
        f"‘{token}’ {share:.0%}" for token, share in zip(row["fires_on"], row["shares"], strict=True) if share >= SAID
    ]
    return Described(f"on {', '.join(parts)}" if parts else "on many tokens")


def places_name(name: str) -> str:
    """A transcoder's name as that of its folder; InterpError for one that is none."""
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise InterpError(f"{name!r} is no name of a transcoder.")
    return name


def _write(name: str, told: Mapping[str, Any], file: Any, into: Path) -> None:
    card = Card(**told)
    w = {
        key: file.get_tensor(f"{name}.{key}.rows").float() * file.get_tensor(f"{name}.{key}.scales")[:, None]
        for key in MATRICES
    }
    rest = {key: file.get_tensor(f"{name}.{key}") for key in ("b_enc", "b_dec", "threshold")}
    one = SAE(
        W_enc=w["W_enc"].T.contiguous(),
        W_dec=w["W_dec"],
        **rest,
        centred=False,
        name=name,
        reads=card.reads,
        writes=card.writes,
    )
    recipe = dict(card.recipe) | {"weights": "8-bit rows with scales, expanded"}
    save(one, into, replace(card, recipe=recipe, files={}, card_sha256=""))
