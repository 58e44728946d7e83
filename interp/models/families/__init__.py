"""Families of models, one file each, and the choice among them by a model's configuration.

`family.py` has what a family is; `taps.py` and `parts.py` make hook points for any module and give a layer's places the names
that TransformerLens' have.
"""

from typing import Any

from interp.models.families.audio import AUDIO, WAVES
from interp.models.families.decoder import ANY_DECODER, DECODER
from interp.models.families.encoder import ENCODER
from interp.models.families.encoder_decoder import ENCODER_DECODER
from interp.models.families.family import Family, Frame
from interp.models.families.media import Media, Places, given
from interp.models.families.vision import KINDS, VISION

FAMILIES: dict[str, Family] = {
    family.name: family for family in (DECODER, ENCODER, ENCODER_DECODER, VISION, AUDIO, ANY_DECODER)
}


def family_of(config: Any) -> Family:
    """The family that a configuration's architecture belongs to; decoder-only where nothing says otherwise."""
    from transformers.models.auto import modeling_auto as auto

    if config.model_type in KINDS:
        return VISION
    if config.model_type == "whisper" or config.model_type in WAVES:
        return AUDIO
    if (
        getattr(config, "is_encoder_decoder", False)
        and config.model_type in auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    ):
        return ENCODER_DECODER
    if config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        return ENCODER
    return DECODER


__all__ = [
    "ANY_DECODER",
    "DECODER",
    "ENCODER",
    "ENCODER_DECODER",
    "FAMILIES",
    "Family",
    "Frame",
    "Media",
    "Places",
    "family_of",
    "given",
]
