"""Pictures decoded as people see them: turned as their EXIF says, 16 bits scaled, what is transparent on white.

A picture is decoded only after its size was read from its head: a few bytes can claim a picture that fills the memory.
"""

from pathlib import Path
from typing import Any

import numpy as np

from interp.types import InterpError

PIXELS = 64_000_000
"""The largest picture that is decoded; about 200 MB."""
WHITE = (255, 255, 255, 255)


def read_picture(path: Path, reader: str = "pictures are read", *, least: int | None = None) -> Any:
    """The picture in a file, as Pillow's image in RGB. With `least`, a JPEG may be decoded at a fraction of its size, but no
    side under so many pixels. Of an animation the first picture.

    `reader` says in errors who reads. Raises InterpError when there is no file, none that can be read, or a larger one than
    PIXELS.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if width * height > PIXELS:
                raise InterpError(
                    f"{path} is a picture of {width:,} × {height:,} pixels, and {PIXELS // 1_000_000} million are read at "
                    "most; make it smaller."
                )
            if least is not None:
                opened.draft("RGB", (least, least))
            return _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise InterpError(f"there is no file {path}; {reader}, each named by its file.") from None
    except (
        OSError,
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InterpError(f"{path} cannot be read as a picture ({type(error).__name__}); leave it out.") from error


def _rgb(picture: Any) -> Any:
    """Three channels of 8 bits."""
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        grey = np.asarray(picture).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its numbers have no white")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, WHITE), seen).convert("RGB")
    return picture.convert("RGB")
