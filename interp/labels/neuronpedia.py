"""Neuronpedia's explanations: JSON lines of its bulk export, of one model and one source, several a feature perhaps.

    index                             the feature's number, as text
    description                       the name
    authorId                          who gave it (an id of theirs)
    explanationModelName, typeName    how it came about: the language model, and the way it was asked; null of a person's
    layer                             the source, which begins with the layer's number: 6-res-jb
    id, embedding, umap_…             theirs; not read, and not written

They have no place for notes, status, dates, tags, stars and predicates, and their upload gives every line the importer's
author. Source: the columns that neuronpedia's export-data.py writes (hijohnnylin/neuronpedia, 2026).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp import places
from interp.checkpoint.card import Card
from interp.labels.label import LONGEST_NAME, Label
from interp.types import InterpError

LEFT_OUT = "notes, status, dates, tags, stars and predicates"
"""What a label has and an explanation has not."""
_ASKED = re.compile(r"llm:(?P<model>.+?)(?: \((?P<type>[^()]*)\))?")
"""A method that a language model is part of: llm:MODEL, or llm:MODEL (TYPE)."""


@dataclass(frozen=True)
class Source:
    """What Neuronpedia calls a source: an SAE of a model."""

    model: str
    layer: int
    """Of the hook point; -1 where its name has none."""
    name: str

    @staticmethod
    def of(card: Card) -> "Source":
        """As this project's exports name the SAE of a card."""
        number = re.search(r"\.(\d+)\.", card.hook_name)
        return Source(card.model, int(number[1]) if number else -1, card.name.rpartition("/")[2])


def explanation(label: Label, source: Source) -> dict[str, Any]:
    """A label as Neuronpedia's bulk export has it, as far as it has it."""
    asked = _ASKED.fullmatch(label.method)
    of_person = label.method in ("", "person", "import")
    return {
        "modelId": source.model,
        "layer": f"{source.layer}-{source.name}",
        "index": str(label.feature),
        "authorId": label.author or None,
        "description": label.text,
        "typeName": asked["type"] if asked else None if of_person else label.method,
        "explanationModelName": asked["model"] if asked else None,
    }


def explanation_line(label: Label, source: Source) -> str:
    """`explanation` as a line of JSON."""
    return places.strict_json(explanation(label, source))


def is_explanation(row: Any) -> bool:
    """Whether a line is one of theirs and not one of our own labels."""
    return isinstance(row, Mapping) and {"modelId", "index", "description"} <= row.keys() and "text" not in row


def check_source(row: Any, first: tuple[str, str] | None, layer: int | None) -> tuple[str, str]:
    """The model and the source of a line.

    Raises InterpError for a line that is none of theirs, of another source than the first, or of another layer than this.
    """
    if not is_explanation(row):
        raise InterpError("not an explanation of Neuronpedia's, as the lines before it are.")
    source = str(row["modelId"]), str(row.get("layer"))
    if first not in (None, source):
        raise InterpError(
            f"an explanation of {'/'.join(source)}, where the first is of {'/'.join(first or ())}; give a file of one source."
        )
    named = re.match(r"\d+", source[1])
    if layer is not None and layer >= 0 and named and int(named[0]) != layer:
        raise InterpError(
            f"an explanation of {'/'.join(source)}, which is of layer {named[0]}, and this SAE reads layer {layer}: these "
            "are another SAE's features."
        )
    return source


def label_fields(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """An explanation by the fields of a label; None for one without a description. InterpError for one that is none."""
    text, index = row["description"] or "", str(row["index"])
    if not isinstance(text, str):
        raise InterpError(f"not an explanation (description is {str(text)[:60]!r}).")
    if not index.isascii() or not index.isdecimal() or len(index) > 18:
        raise InterpError(f"{index[:60]!r} is no feature's number.")
    if not text.strip():
        return None
    model, kind = (str(row.get(name) or "").strip() for name in ("explanationModelName", "typeName"))
    method = f"llm:{model}" + (f" ({kind})" if kind else "") if model else kind
    given = {"feature": int(index), "text": text, "author": str(row.get("authorId") or "")}
    return given | ({"method": method[:LONGEST_NAME]} if method else {})
