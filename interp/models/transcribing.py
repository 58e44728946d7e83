"""What a model of speech writes down of clips, also while its encoder is edited.

The model's own library decodes (greedy, without time stamps); hook points of the encoder fire once for each clip.

Whisper never ends before it has written something, so that it writes words of silence too. Whether it heard speech is said
by a token of its own, beside how likely its words are to it: `listen` gives both.

Axes    B clip, T frame, S step, V vocabulary.
Source  Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 4.5, for the limits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.families import given
from interp.models.passes import Edit, Passable, Run, Site, hooked
from interp.types import InterpError

NO_SPEECH, LOGPROB = 0.6, -1.0
"""A clip that is surer to hold no speech than the one, and whose words are less likely than the other, is taken for silent."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a model of speech makes of a clip."""

    text: str
    no_speech: float
    """Probability of the token for that, first of all; nan of a model without one."""
    logprob: float
    """Mean log-probability of the tokens of the text and of its end."""

    @property
    def speech(self) -> bool:
        """Are the words kept, as Whisper's own program decides it?"""
        return not (self.no_speech > NO_SPEECH and self.logprob < LOGPROB)


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
    def run(
        self, tokens_BT: Tensor, read: Sequence[str] = (), edits: Sequence[Edit] = (), /, *, given: Tensor | None = None
    ) -> Run: ...


def transcribe(
    model: Writing, clips: Sequence[Sequence[int]], edits: Sequence[Edit] = (), most: int = 200
) -> list[str]:
    """The words of each clip (see `Model.prompt`), at most so many tokens.

    Raises InterpError for a model that writes nothing down.
    """
    places_BT, media = _taken(model, clips, edits)
    site, _ = model.site(places_BT, None, None, media)
    with model.turns.turn(), torch.inference_mode(), hooked(model, {}, edits, site):
        written = model.module.generate(  # type: ignore[operator]
            media.to(model.device, model.dtype), max_new_tokens=most, do_sample=False, num_beams=1
        )
    return [str(model.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in written.tolist()]


def listen(model: Writing, clips: Sequence[Sequence[int]], edits: Sequence[Edit] = (), most: int = 200) -> list[Heard]:
    """The words of each clip as `transcribe` has them, and how sure the model is of them and of there being speech.

    Raises InterpError for a model that writes nothing down.
    """
    places_BT, media = _taken(model, clips, edits)
    encoded_BTD = model.run(places_BT, (), edits, given=media).logits
    assert encoded_BTD is not None
    return write_down(model, encoded_BTD, most)


def write_down(model: Writing, encoded_BTD: Float[Tensor, "B T D"], most: int = 200) -> list[Heard]:
    """What a model of speech makes of clips that its encoder has read (what `Model.run` gives for them)."""
    from transformers.modeling_outputs import BaseModelOutput

    config: Any = model.module.generation_config
    encoded = BaseModelOutput(last_hidden_state=encoded_BTD)
    first_B1 = torch.full((len(encoded_BTD), 1), config.decoder_start_token_id, device=model.device)
    with model.turns.turn(), torch.inference_mode():
        out = model.module.generate(  # type: ignore[operator]
            encoder_outputs=encoded, max_new_tokens=most, do_sample=False, num_beams=1, return_dict_in_generate=True,
            output_scores=True,
        )  # fmt: skip
        first_BV = model.module(encoder_outputs=encoded, decoder_input_ids=first_B1).logits[:, -1].float().softmax(-1)
    # The token for no speech stands before the one for no time stamps, in every vocabulary of Whisper's.
    no_times = getattr(config, "no_timestamps_token_id", None)
    no_speech_B = [math.nan] * len(first_BV) if no_times is None else first_BV[:, no_times - 1].tolist()
    scores_BSV = torch.stack(out.scores, 1)
    written_BS = out.sequences[:, -scores_BSV.shape[1] :]
    logprob_B = _likelihood(written_BS, scores_BSV, config.eos_token_id)
    texts = [str(model.tokenizer.decode(row, skip_special_tokens=True)).strip() for row in written_BS.tolist()]
    return [
        Heard(text=text, no_speech=no_speech, logprob=logprob)
        for text, no_speech, logprob in zip(texts, no_speech_B, logprob_B.tolist(), strict=True)
    ]


def _taken(model: Writing, clips: Sequence[Sequence[int]], edits: Sequence[Edit]) -> tuple[Tensor, Tensor]:
    """(numbers of places, what the model is given) of clips, once it is known that the model writes and has the hook points."""
    media = given(clips)
    if media is None or not hasattr(model.module, "proj_out") or model.tokenizer is None:
        raise InterpError(f"{model.name} writes down nothing that it hears; Whisper does.")
    for edit in edits:
        model.check_hook(edit.hook_name)
    return torch.tensor([list(clip) for clip in clips], device=model.device), media


def _likelihood(written_BS: Int[Tensor, "B S"], scores_BSV: Float[Tensor, "B S V"], end: int) -> Float[Tensor, " B"]:
    """The mean log-probability of what each row wrote, its first end counted and what fills it afterwards not."""
    logprob_BS = scores_BSV.float().log_softmax(-1).gather(-1, written_BS[..., None])[..., 0]
    ended_BS = (written_BS == end).long()
    counted_BS = ended_BS.cumsum(1) == ended_BS
    return torch.where(counted_BS, logprob_BS, 0).sum(1) / counted_BS.sum(1)
