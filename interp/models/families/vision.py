"""Models of pictures: ViT, DINOv2, the picture side of CLIP and SigLIP.

A picture is resized, cropped and normalised as the model's own processor says. Its positions are CLS and registers, where the
model has any, which are masked, then patches in rows from the top left: `r3c12` is the patch in row 3 and column 12, counted
from 0. Nothing is generated: features are ablated, and CLS and patches looked at.

Axes    B picture, T position.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.models.families.family import Family, Frame
from interp.models.families.media import Media, Places, processor
from interp.models.families.parts import name_layers, stack_path
from interp.models.families.picture import read_picture
from interp.models.families.taps import tap_modules
from interp.models.passes import Site
from interp.render.look import NO_PLACE

KINDS = frozenset(
    (
        "vit",
        "deit",
        "vit_msn",
        "beit",
        "data2vec-vision",
        "dinov2",
        "dinov2_with_registers",
        "ijepa",
        "clip",
        "clip_vision_model",
        "siglip",
        "siglip_vision_model",
    )
)
"""Configurations' `model_type`s whose positions are known to be these."""
DRAFT = 1024
"""Pixels that the shorter side of a JPEG keeps when it is decoded to be looked at."""
CLS_FREE = frozenset(("siglip", "siglip_vision_model", "ijepa"))


def _opens(config: Any) -> type[Any]:
    import transformers

    by_kind = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
    found = getattr(transformers, by_kind.get(config.model_type, "AutoModel"))
    assert isinstance(found, type)
    return found


def _points(module: nn.Module, config: Any, frame: Frame) -> dict[str, nn.Module]:
    points = tap_modules(module)
    path = stack_path(module, config.num_hidden_layers)
    return points | (name_layers(points, path, config.num_hidden_layers, "blocks") if path else {})


def _call(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
    assert site.given is not None, "pictures are read, not tokens"
    dtype = next(module.parameters()).dtype
    made = module(pixel_values=site.given.to(dtype), **options).last_hidden_state
    assert isinstance(made, Tensor)
    return made


def media(module: nn.Module, config: Any, folder: Path | None, name: str) -> Media:
    """How the model reads pictures; InterpError when its files do not say how they are prepared."""
    from PIL import Image
    from transformers import AutoImageProcessor

    prepare = processor(AutoImageProcessor, folder, name)
    blank = prepare(images=Image.new("RGB", (64, 64)), return_tensors="pt")["pixel_values"][0]
    rows, columns = (int(size) // int(config.patch_size) for size in blank.shape[-2:])
    special = int(config.model_type not in CLS_FREE) + int(getattr(config, "num_register_tokens", 0) or 0)
    places = [0] * special + list(range(1, rows * columns + 1))

    def read(path: Path) -> Places:
        pixels = prepare(images=read_picture(path, f"{name} reads pictures"), return_tensors="pt")["pixel_values"][0]
        return Places(places, torch.as_tensor(pixels))

    words = [NO_PLACE, *(f"r{row}c{column}" for row in range(rows) for column in range(columns))]
    return Media("pictures", words, places, read, tuple(blank.shape))


def view(folder: Path | None, name: str) -> Callable[[Path], Any]:
    """What gives a file's picture as the model sees it, resized and cropped but not normalised, as Pillow's image in RGB.

    Raises InterpError when the model's files do not say how its pictures are prepared; what comes back, as `read_picture`.
    """
    from PIL import Image
    from transformers import AutoImageProcessor

    prepare = processor(AutoImageProcessor, folder, name)

    def seen(path: Path) -> Any:
        given = prepare(
            images=read_picture(path, least=DRAFT), do_rescale=False, do_normalize=False, return_tensors="np"
        )
        pixels_HWC = np.moveaxis(np.asarray(given["pixel_values"][0], dtype=np.float32), 0, -1)
        return Image.fromarray(pixels_HWC.round().clip(0, 255).astype(np.uint8))

    return seen


VISION = Family(
    name="vision",
    about="positions are patches of a picture; features are ablated and CLS and patches looked at, nothing is generated",
    opens=_opens,
    frame=lambda tokenizer, config, embedded: Frame(0, 0),
    points=_points,
    call=_call,
    context=lambda module, config: 2**20,
    generates=False,
    vocabulary=lambda module: False,
    caches=False,
    media=media,
)
