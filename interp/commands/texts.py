"""What there is to begin with: models, their hook points, and texts."""

from dataclasses import dataclass
from typing import Annotated

from interp.commands.options import Model, Option

Corpus = Annotated[
    str,
    Option(
        "Corpus name, file, folder, hf:org/name, or several joined by +; FILE#FIELD names the field of the text.",
    ),
]


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that comes inside a package."""

    name: str
    about: str


@dataclass(frozen=True)
class EmbeddedCorpus:
    """A text that comes inside a package."""

    name: str
    about: str
    licence: str
    version: str


@dataclass(frozen=True)
class HookPoint:
    """A hook point and the shape of one position there."""

    hook: str
    shape: list[int]


@dataclass(frozen=True)
class Overlap:
    """How many held-out documents of a source are nearly in its training split too."""

    source: str
    documents: int
    near: int
    share: float
    short: int
    """Documents too short to tell."""


def models() -> list[EmbeddedModel]:
    """Models that come embedded; a local folder or a hub name works as well."""
    from interp.models import MODELS

    return [EmbeddedModel(name, about) for name, about in MODELS.items()]


def corpora() -> list[EmbeddedCorpus]:
    """Corpora that come embedded; files, folders and hf:org/name work as well.

    Files are .txt, .jsonl, .json, .csv, .tsv and .parquet, also as .gz or .zst. FILE#FIELD names the field that holds the
    text, FILE#FIELD@FIELD a second one that is kept as topic, FILE#FIELD=VALUE takes some rows; a .txt is parted at blank
    lines, FILE.txt#lines, #whole or #4000 (characters) otherwise.
    """
    from interp.corpus import CORPORA

    texts = [make() for make in CORPORA.values()]
    return [EmbeddedCorpus(text.name, text.about, text.licence, text.version) for text in texts]


def hooks(
    model: Model, *, match: Annotated[str, Option("Show only hook points whose name contains this.")] = ""
) -> list[HookPoint]:
    """Hook points of a model that fire on text, with the shape of one position.

    Raises InterpError when there is no such model.
    """
    from interp.models import open_model

    shapes = open_model(model).shapes()
    return [HookPoint(name, list(shape)) for name, shape in shapes.items() if match in name]


def overlap(
    corpus: Annotated[str, Option("Text, named as for harvest.")],
    *,
    min_chars: Annotated[int, Option("Leave shorter texts out.", low=0)] = 0,
) -> list[Overlap]:
    """How many held-out documents of a text are nearly in its training split too: half of their runs of 13 words or more.

    Raises InterpError when the text cannot be read.
    """
    from interp.corpus import near_duplicates, open_corpus

    text = open_corpus(corpus)
    text = text.filter(min_chars=min_chars) if min_chars else text
    by_source = near_duplicates(text.documents("heldout"), text.documents("train"))
    return [Overlap(source, one.documents, one.near, one.share, one.short) for source, one in sorted(by_source.items())]
