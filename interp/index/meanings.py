"""Sentence vectors of features in a byte a number: each row in 255 steps of its own size.

Axes    F feature, E width of a sentence vector.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int8
from torch import Tensor

STEPS = 127


def stored(vectors_FE: Float[Tensor, "F E"]) -> dict[str, Int8[Tensor, "F E"] | Float[Tensor, " F"]]:
    """Whole numbers from -127 to 127, and the size of each row's step."""
    step_F = vectors_FE.abs().amax(dim=1) / STEPS
    whole_FE = (vectors_FE / step_F.clamp_min(1e-12)[:, None]).round().to(torch.int8)
    return {"meanings": whole_FE, "step": step_F}


def restore(tensors: Mapping[str, Tensor]) -> Float[Tensor, "F E"]:
    """The vectors of `stored`; those of before, in float16 and without steps, as they are."""
    vectors_FE = tensors["meanings"].float()
    return vectors_FE * tensors["step"][:, None].float() if "step" in tensors else vectors_FE
