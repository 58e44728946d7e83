"""Pictures and clips that somebody gives in the place of a sentence."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interp import places
from interp.commands.opening import open_sae
from interp.commands.options import Sae
from interp.render.words import size
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.checkpoint.archive import Readable
    from interp.views import FeaturePage, Spectrum

LARGEST_ITEM = 25 * 2**20
"""Bytes of a picture or clip that is uploaded."""
PART = 1 << 20


@dataclass(frozen=True)
class ItemKind:
    """What a model reads."""

    kind: str
    """`text`, `pictures`, `sound` or `numbers`."""
    one: str
    """One of it: `sentence`, `picture`, `clip` or `row`."""
    place: tuple[str, str]
    """One position of it, and several."""
    ends: tuple[str, ...]
    """Of the names of files that are taken; none of text."""

    @property
    def runs(self) -> bool:
        """Whether a face can run the model on one: a module of one's own is opened by no name."""
        return self.kind != "numbers"


def item_kind(sae: Sae) -> ItemKind:
    """What the model of an SAE reads, by the index or, where there is none, by the model.

    Raises InterpError when there is neither.
    """
    from interp.corpus.media import KINDS

    bench = open_sae(sae)
    index = bench.index_or_none()
    kind = index.kind if index is not None else bench.model.reads
    one, place = {
        "text": ("sentence", ("token", "tokens")),
        "pictures": ("picture", ("patch", "patches")),
        "sound": ("clip", ("frame", "frames")),
        "numbers": ("row", ("position", "positions")),
    }[kind]
    return ItemKind(kind, one, place, tuple(end.removeprefix(".") for end in KINDS.get(kind, ())))


def one_place(page: "FeaturePage") -> bool:
    """Whether an item has one position, so that where in it a feature fires says nothing."""
    from interp.models.families.own import ONE_PLACE

    return page.kind == "numbers" and {place for place, _ in page.top_tokens} == {ONE_PLACE}


def read_upload(sae: Sae, file: "Readable", bytes_: int, name: str) -> "Spectrum":
    """Which features fire on a picture or clip of so many bytes that somebody uploads; it is not kept, and `name` is only what errors
    call it.

    Raises InterpError when it is larger than LARGEST_ITEM, and when it cannot be read.
    """
    if bytes_ > LARGEST_ITEM:
        raise InterpError(f"{name} has {size(bytes_)}, and {size(LARGEST_ITEM)} can be uploaded; make it smaller.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        with path.open("wb") as into:
            left = LARGEST_ITEM
            while left > 0 and (part := file.read(min(PART, left))):
                into.write(part)
                left -= len(part)
        try:
            with places.reading_only(lambda path: path):
                return open_sae(sae).spectrum(str(path))
        except InterpError as error:
            raise InterpError(str(error).replace(str(path), name)) from None
