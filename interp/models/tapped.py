"""A Model whose hook points are taps on its own modules: families that TransformerLens has no names for, and any other."""

from pathlib import Path
from typing import Any

from interp.models.families import Family, Frame
from interp.models.families.family import context, saved_weights
from interp.models.model import Model


def tapped_model(
    hf_model: Any,
    tokenizer: Any,
    family: Family,
    *,
    name: str,
    source: str,
    frame: Frame,
    attention: str,
    ends: frozenset[int] = frozenset(),
    folder: Path | None = None,
) -> Model:
    """A Model over a Hugging Face model, by a family that makes hook points itself."""
    assert family.points is not None
    config, named_weights = hf_model.config, saved_weights(hf_model)
    hf_model.eval().requires_grad_(False)
    return Model(
        name=name,
        source=source,
        module=hf_model,
        tokenizer=tokenizer,
        hook_points=family.points(hf_model, config, frame),
        frame=frame,
        n_ctx=family.context(hf_model, config) if family.context else context(config),
        attention=attention,
        ends=ends,
        folder=folder,
        named_weights=named_weights,
        family=family,
        media=family.media(hf_model, config, folder, name) if family.media else None,
    )
