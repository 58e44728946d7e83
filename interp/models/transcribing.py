"""What a model of speech writes down of clips, also while its encoder is edited.

The model's own library decodes (greedy, without time stamps); hook points of the encoder fire once for each clip.

Axes    B clip, T frame.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from interp.models.families import given
from interp.models.passes import Edit, Passable, Site, hooked
from interp.types import InterpError


@runtime_checkable
class Writing(Passable, Protocol):
    """What transcribing needs of a `Model`."""

    module: nn.Module
    tokenizer: Any

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def site(
        self,
        tokens_BT: Tensor,
        real_BT: Tensor | None = None,
        prompt_B: Tensor | None = None,
        given: Tensor | None = None,
        /,
    ) -> tuple[Site, dict[str, Any]]: ...


def transcribe(
    model: Writing, clips: Sequence[Sequence[int]], edits: Sequence[Edit] = (), most: int = 200
) -> list[str]:
    """The words of each clip (see `Model.prompt`), at most so many tokens.

    Raises InterpError for a model that writes nothing down.
    """
    media = given(clips)
    if media is None or not hasattr(model.module, "proj_out") or model.tokenizer is None:
        raise InterpError(f"{model.name} writes down nothing that it hears; Whisper does.")
    for edit in edits:
        model.check_hook(edit.hook_name)
    places_BT = torch.tensor([list(clip) for clip in clips], device=model.device)
    site, _ = model.site(places_BT, None, None, media)
    with model.turns.turn(), torch.inference_mode(), hooked(model, {}, edits, site):
        written = model.module.generate(  # type: ignore[operator]
            media.to(model.device, model.dtype), max_new_tokens=most, do_sample=False, num_beams=1
        )
    return [str(model.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in written.tolist()]
