"""What the reader of a page of the documentation has in their folder: small things of every kind that its commands speak of."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interp.checkpoint import load
from interp.checkpoint.files import pin, present
from interp.checkpoint.formats import FORMATS, Foreign
from interp.commands import evidence as card_parts
from interp.commands import training
from interp.index import FeatureIndex
from interp.labels import LabelBook
from interp.models import Model
from interp.sae import SAE
from tests import families
from tests.conftest import HOOK, SENTENCES
from tests.test_transfer import permuted, unrelated, write
from tests.transcoders import save_random_cross_layer, save_transcoders


@dataclass(frozen=True)
class Own:
    """What the things are made of."""

    sealed: Path
    """A checkpoint of the tiny model with its index, sealed."""
    model: Model
    text: Path
    """What it was indexed on."""

    @property
    def fires(self) -> int:
        """The feature that fires at the most positions."""
        return int(FeatureIndex.open(self.sealed / "index").features["fires"].argmax())

    @property
    def pin(self) -> str:
        """Of the checkpoint's files."""
        return pin(present(self.sealed)[0])


def make(name: str, own: Own) -> None:
    """What is called so, in this folder. Raises KeyError for what nobody makes."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    MADE[name](path, own)


# ---- models ----


def tiny(path: Path, own: Own) -> None:
    path.symlink_to(own.model.source)


def transcoders(path: Path, own: Own) -> None:
    """One for every layer, as checkpoints with cards."""
    save_transcoders(own.model, path)


def cross_layer(path: Path, own: Own) -> None:
    """A cross-layer transcoder with its card."""
    save_random_cross_layer(own.model, path)


# ---- SAEs ----


def copied(path: Path, own: Own) -> None:
    shutil.copytree(own.sealed, path)


def another(path: Path, own: Own, seed: int = 0, named: bool = False, text: bool = False) -> None:
    """The same features in another order, each a little off; `named`: those that fire most have a name."""
    sae, went = permuted(load(own.sealed), seed=seed)
    write(sae, path, own.sealed, own.text if text else None)
    if named:
        LabelBook.of(path).set(int(went[own.fires]), "the old name", author="me")


def sparsifys(path: Path, own: Own) -> None:
    """The same weights by the one rule that sparsify knows, as it writes them."""
    kept = {name: tensor for name, tensor in load(own.sealed).state_dict().items() if name != "threshold"}
    path.mkdir()
    FORMATS["sparsify"].write(Foreign(sae=SAE(**kept, k=4, reads=HOOK), model="tiny-llama"), path)


def of_sound(path: Path, own: Own) -> None:
    training.train("tiny-whisper", [HOOK], path, corpus="clips", tokens=4_096, d_sae=32, k=4)


def evidence(path: Path, own: Own) -> None:
    card_parts.evidence(str(path.parent), beside=True)


def nulls(path: Path, own: Own) -> None:
    """Two trained SAEs, two of other seeds and two that found nothing."""
    for seed in (0, 1):
        write(permuted(load(own.sealed), seed=seed)[0], path / "trained" / f"seed-{seed}", own.sealed)
        write(permuted(load(own.sealed), seed=2 + seed)[0], path / "seeds" / f"seed-{seed}", own.sealed)
        write(unrelated(load(own.sealed), seed), path / "frozen" / f"seed-{seed}", own.sealed)


# ---- texts, pictures and sound ----


def rows(path: Path, own: Own) -> None:
    """A few hundred rows with the fields that the documentation speaks of."""
    languages, labels = ("en", "fr"), ("good", "bad", "spam")
    made = [
        {"text": f"{SENTENCES[n % 4]} {path.stem} {n}.", "language": languages[n % 2], "label": labels[n % 3]}
        for n in range(400)
    ]
    if path.suffix == ".jsonl":
        lines = [json.dumps(row | ({"answer": row["text"]} if path.stem == "rows" else {})) for row in made]
        path.write_text("\n".join(lines), encoding="utf-8")
        return
    field = "review" if path.stem == "rows" else "text"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field, "label"])
        writer.writerows([row["text"], row["label"]] for row in made)


def write_long(path: Path) -> None:
    """Documents of some hundred tokens, as JSON lines."""
    order = [" ".join(SENTENCES[(n + k * (n % 3)) % 4] for k in range(6)) for n in range(400)]
    path.write_text(
        "\n".join(json.dumps({"text": f"{text} Part {n}."}) for n, text in enumerate(order)), encoding="utf-8"
    )


def picture(path: Path, own: Own) -> None:
    families.pictures(Path("made"), 1)
    shutil.copy(Path("made", "blue", "0.png"), path.with_suffix(".png"))
    from PIL import Image

    Image.open(path.with_suffix(".png")).save(path)


def clip(path: Path, own: Own) -> None:
    shutil.copy(next(families.clips(Path("said"), 1).iterdir()), path)


# ---- labels ----


def names(path: Path, own: Own) -> None:
    path.write_text(f"feature,label\n{own.fires},capitals\n", encoding="utf-8")


def explanations(path: Path, own: Own) -> None:
    """As Neuronpedia's bulk export has them."""
    line = {"modelId": "tiny-llama", "layer": "1-mine", "index": str(own.fires), "description": "capital cities"}
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(line | {"authorId": "a", "typeName": None, "explanationModelName": None}) + "\n")


def book(path: Path, own: Own) -> None:
    """Somebody else's labels of `saes/tiny`."""
    LabelBook.of(own.sealed, url=f"sqlite:///{path}").set(own.fires, "their name", author="them")


MADE: dict[str, Callable[[Path, Own], None]] = {
    "tiny-llama": tiny,
    "tiny-dinov2": lambda path, own: families.save_media("dinov2", path),
    "tiny-whisper": lambda path, own: families.save_media("whisper", path),
    "saes/smollm2-135m-instruct/transcoders": transcoders,
    "clt": cross_layer,
    "saes/tiny": copied,
    "saes/tiny/evidence.parquet": evidence,
    "saes/mine": copied,
    "saes/theirs": copied,
    "saes/new": copied,
    "saes/old": partial(another, named=True, text=True),
    "saes/before": partial(another, named=True, text=True),
    "saes/a": partial(another, seed=1),
    "saes/b": partial(another, seed=2),
    "saes/c": partial(another, seed=3),
    "theirs/layers.1": sparsifys,
    "saes/hears": of_sound,
    "nulls": nulls,
    **dict.fromkeys(("wiki-en.jsonl", "wiki-fr.jsonl", "wiki-es.jsonl", "mytexts.jsonl", "rows.jsonl"), rows),
    **dict.fromkeys(("rows.csv", "reviews.csv"), rows),
    "pictures": lambda path, own: families.pictures(path),
    "clips": lambda path, own: families.clips(path),
    "cat.jpg": picture,
    "speech.wav": clip,
    "names.csv": names,
    "batch-0.jsonl.gz": explanations,
    "theirs.sqlite": book,
    "theirs/data/labels.sqlite": book,
}
"""By name."""
