"""What examples of pictures and sound look like: crops, whole pictures and stretches of clips, read from where they lie.

1. An index of pictures or clips knows each by its file and the SHA-256 of its bytes; only a file with that hash is shown, so that
   an index from elsewhere can't name a file of this machine whose content its maker didn't know.
2. A picture is seen as the model's own processor resizes and crops it, so that patches lie where the model has them. That needs the
   model's files, not its weights. Where the picture is not here, the small copy is shown that a shared index has of it, if it has
   one (`index.pictures`): that needs no model.
3. Values at CLS, registers and silence are nobody's patch or frame, and are drawn nowhere.

Axes    T position of an item.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.corpus.blocks import FILE
from interp.index import Example, FeatureIndex
from interp.index.pictures import open_copy
from interp.models.families.audio import RATE, hear
from interp.models.families.media import grid, seconds_of
from interp.models.open import open_view
from interp.render.look import Look, Picture, Sound, Unseen
from interp.types import InterpError
from interp.workbench.opening import Opened

SURROUNDINGS = 2
"""Patches shown on each side of the peak's."""
EITHER_SIDE = 0.35
"""Seconds shown on each side of the peak's frame."""
COLUMNS = 160
"""Parts of a waveform that is drawn."""
QUIET = 0.01
"""Of the largest sample there can be: less is drawn as the silence it is."""
PLAYED = 12.0
"""Seconds of the longest stretch that can be played: 380 KB."""
BYTES = 256 << 20
"""The largest file that is read to be shown."""
LOOKS = 60
"""Examples of one feature that are shown so."""
SIDE = 224
"""Pixels of the longer side of a whole picture."""
QUALITY = 72
"""Of JPEGs: a whole picture takes about 8 KB, a crop 2."""
KEPT = 512
"""Pictures that are kept as they were decoded last: 10 MB."""


def looks(wb: Opened, feature: int, examples: Sequence[Example], *, limit: int = LOOKS) -> dict[int, Look | Unseen]:
    """What the examples of a feature look like, by position; nothing for an index of text. Of the first `limit` examples."""
    return looks_at(wb, feature, [example.position for example in examples[:limit]])


def looks_at(wb: Opened, feature: int, positions: Sequence[int]) -> dict[int, Look | Unseen]:
    """The same at any positions."""
    kind = wb.index.kind
    if kind in ("text", "numbers") or not len(positions):
        return {}
    fired = wb.index.fired(feature)
    return {position: _look(wb, kind, position, fired) for position in positions}


def _look(wb: Opened, kind: str, position: int, fired: tuple[np.ndarray, np.ndarray]) -> Look | Unseen:
    index = wb.index
    row = int(index.document_at[position])
    try:
        if kind == "pictures":
            value_T, peak = _values(index, position, fired)
            return Look(of=_picture(wb, row, peak), values=value_T.tolist(), peak=peak)
        path, _ = _file(index, row, str(index.documents["title"].iat[row]), kind)
        value_T, peak = _values(index, position, fired)
        begins = seconds_of(index.vocabulary)
        sound, frames = stretch(path, begins, peak)
        return Look(of=sound, values=value_T[frames.start : frames.stop].tolist(), peak=peak - frames.start)
    except InterpError as error:
        return Unseen(f"{str(error)[:1].upper()}{str(error)[1:]}")


def _picture(wb: Opened, row: int, peak: int) -> Picture:
    """A document's picture from where it lies, else from its copy in the index; InterpError when there is neither."""
    index = wb.index
    rows, columns = grid(index.vocabulary)
    try:
        path, stamp = _file(index, row, str(index.documents["title"].iat[row]), "pictures")
        return picture(wb.card.model, path, stamp, rows, columns, peak)
    except InterpError:
        if row not in index.pictures:
            raise
    return replace(cut_out(open_copy(index.pictures[row]), rows, columns, peak), copy=True)


def _file(index: FeatureIndex, row: int, title: str, kind: str) -> tuple[Path, tuple[int, int]]:
    """(the file of a document, when it was changed and its size); InterpError when it is not here as it was indexed."""
    what = "picture" if kind == "pictures" else "clip"
    if FILE not in index.documents.columns:
        raise InterpError(f"the {what} {title} is not in this index, which does not say where it lies.")
    path = Path(str(index.documents[FILE].iat[row]))
    gone = InterpError(f"the {what} {title} is not on this machine any more where it was when it was indexed.")
    try:
        if not path.is_file():
            raise gone
        found = path.stat()
    except (OSError, ValueError):
        raise gone from None
    stamp = (found.st_mtime_ns, found.st_size)
    if found.st_size > BYTES or _sha256(path, stamp) != str(index.documents["sha256"].iat[row]):
        raise InterpError(f"the {what} {title} is another file than the one that was indexed.")
    return path, stamp


@lru_cache(maxsize=4096)
def _sha256(path: Path, stamp: tuple[int, int]) -> str:
    """Of the file's bytes; `stamp` changes with them."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _values(
    index: FeatureIndex, position: int, fired: tuple[np.ndarray, np.ndarray]
) -> tuple[Float[np.ndarray, " T"], int]:
    """(the feature's values by patch or frame, which of them `position` is) of the item that a position belongs to."""
    first = position // index.block * index.block
    own = slice(*np.searchsorted(fired[0], [first, first + index.block]))
    place_T = index.tokens[first : first + index.block]
    value_T = np.zeros(len(index.vocabulary) - 1)
    number = place_T[fired[0][own].astype(np.int64) - first].astype(np.int64)
    real = number > 0  # 0 stands for no part of the picture or clip
    value_T[number[real] - 1] = fired[1][own][real]
    peak = int(place_T[position - first]) - 1
    if peak < 0:
        raise InterpError("this position stands for no part of the picture or clip.")
    return value_T, peak


def medium(wb: Opened, path: Path) -> Picture | Sound | None:
    """A picture or clip as the open model takes it, whole; None of items of numbers. Raises InterpError when it cannot be read."""
    words = wb.model.vocabulary
    if wb.model.reads == "numbers":
        return None
    if wb.model.reads == "sound":
        return stretch(path, seconds_of(words), None)[0]
    found = path.stat()
    return picture(wb.card.model, path, (found.st_mtime_ns, found.st_size), *grid(words), None)


# ---- pictures ----


@lru_cache(maxsize=8)
def _view(model: str) -> Any:
    return open_view(model)


@lru_cache(maxsize=KEPT)
def _seen(model: str, path: Path, stamp: tuple[int, int]) -> bytes:
    """A picture as the model sees it, as a JPEG to cut from; the last ones are kept."""
    return jpeg(_view(model)(path), 90)


def picture(model: str, path: Path, stamp: tuple[int, int], rows: int, columns: int, peak: int | None) -> Picture:
    """A file's picture as the model of that name sees it, and a crop around a patch; `stamp` changes with the file.

    Raises InterpError when the picture cannot be read, or the model is not here.
    """
    from PIL import Image

    return cut_out(Image.open(io.BytesIO(_seen(model, path, stamp))), rows, columns, peak)


def cut_out(seen: Any, rows: int, columns: int, peak: int | None) -> Picture:
    """Pillow's image of so many rows and columns of patches, and a crop around one of them."""
    whole = seen.copy()
    whole.thumbnail((SIDE, SIDE))
    found = Picture(jpeg=jpeg(whole), width=whole.width, height=whole.height, rows=rows, columns=columns)
    if peak is None:
        return found
    row, column = divmod(peak, columns)
    (top, bottom), (left, right) = _around(row, rows), _around(column, columns)
    wide, high = seen.width / columns, seen.height / rows
    box = (round(left * wide), round(top * high), round(right * wide), round(bottom * high))
    return replace(found, crop=jpeg(seen.crop(box)), around=(top, left, bottom - top, right - left))


def _around(place: int, places: int) -> tuple[int, int]:
    """(first, last + 1) of the patches around one, as many at an edge as in the middle."""
    most = min(2 * SURROUNDINGS + 1, places)
    first = min(max(place - SURROUNDINGS, 0), places - most)
    return first, first + most


def jpeg(seen: Any, quality: int = QUALITY) -> bytes:
    """Pillow's image as a small JPEG without anything that its file said of it."""
    out = io.BytesIO()
    seen.save(out, "JPEG", quality=quality)
    return out.getvalue()


# ---- sound ----


def stretch(path: Path, begins: Sequence[float], peak: int | None) -> tuple[Sound, range]:
    """(a stretch of a clip around a frame, or all of it that has frames; the numbers of its frames).

    Raises InterpError when the clip cannot be read.
    """
    step = (begins[-1] - begins[0]) / max(len(begins) - 1, 1)
    low, high = 0, len(begins)
    if peak is not None:
        either = round(EITHER_SIDE / step) if step else len(begins)
        low, high = max(peak - either, 0), min(peak + either + 1, len(begins))
    first = begins[low]
    sound_N = hear(path, first, (high - low) * step)[: round((high - low) * step * RATE)]
    seconds = len(sound_N) / RATE
    kept = [at for at in range(low, high) if begins[at] < first + seconds]
    loudest = max(float(np.abs(sound_N).max()), QUIET)
    parts = np.array_split(sound_N, min(COLUMNS, len(sound_N)))
    of = Sound(
        wav=wav(sound_N) if seconds <= PLAYED else b"",
        first=first,
        seconds=seconds,
        outline=[(float(part.min()) / loudest, float(part.max()) / loudest) for part in parts],
        begins=[begins[at] for at in kept],
    )
    return of, range(kept[0], kept[-1] + 1)


def wav(sound_N: Float[np.ndarray, " N"]) -> bytes:
    """The samples as a WAV file of 16 bits at the models' rate."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, sound_N.clip(-1, 1), RATE, format="WAV", subtype="PCM_16")
    return out.getvalue()
