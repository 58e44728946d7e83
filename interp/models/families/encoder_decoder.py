"""Encoder–decoder models: T5, BART, Marian and their kin.

The encoder reads a text: `encoder_blocks.N.*` has a position for each of its tokens. The decoder reads

- in a plain run, the text itself, behind the token that its answers begin with, as in denoising: so `decoder_blocks.N.*` has a
  position for each token of the text too, and features of both sides are trained and indexed over one corpus;
- when a text is answered (`generate`), what was answered so far: a position for the token that answers begin with, and one for
  each token of the answer. Edits of the encoder change what is read, edits of the decoder what is written.

Where the family puts no token before a text (T5, Marian), the encoder is given the text without the first one of our frame; its hook
points begin with a row of zeros, so that positions are numbered alike everywhere.

Axes    B row, T position.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.families.family import Family, Frame, output
from interp.models.families.parts import name_layers, stack_path
from interp.models.families.taps import tap_modules
from interp.models.passes import Site
from interp.types import InterpError


def _opens(config: Any) -> type[Any]:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM


def _frame(tokenizer: Any, config: Any, embedded: int) -> Frame:
    begins = tokenizer("a").input_ids[:1]
    own = begins and begins[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id)
    last = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    # A T5's configuration says nothing of a token that texts begin with.
    named = (getattr(config, f"{name}_token_id", None) for name in ("decoder_start", "bos", "pad"))
    start = next((token for token in named if token is not None), None)
    if last is None or start is None or not 0 <= max(last, start) < embedded:
        raise InterpError(
            "the tokenizer has no eos token, or the configuration no decoder_start_token_id, that the model embeds, so no "
            "answer can begin or end."
        )
    return Frame(begins[0] if own else start, int(last), alone=True, start=int(start), lead=0 if own else 1)


def _points(module: nn.Module, config: Any, frame: Frame) -> dict[str, nn.Module]:
    points = tap_modules(module, lambda path: frame.lead if is_encoder(path) else 0)
    for part in ("encoder", "decoder"):
        lists = (f"{part}_layers", "num_decoder_layers" if part == "decoder" else "num_layers", "num_hidden_layers")
        counts = [count for name in lists if isinstance(count := getattr(config, name, None), int)]
        for count in counts:
            if path := stack_path(module, count, inside=part):
                points |= name_layers(points, path, count, f"{part}_blocks")
                break
    return points


def is_encoder(hook_name: str) -> bool:
    """Whether a hook point is of the encoder: its positions are those of what is read, not of the answer."""
    return hook_name.startswith("encoder_blocks.") or "encoder" in hook_name.split(".")


def answered(site: Site) -> int:
    """How many tokens of the site are an answer."""
    return int(site.generated_BT.sum(1).max()) if site.asked else 0


def call(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
    """The logits of the decoder; see the head of the file for what it reads."""
    read = site.tokens_BT.shape[1] - answered(site)
    mask_BT = site.real_BT[:, frame.lead : read]
    if not bool(mask_BT.all()):
        options = {**options, "attention_mask": mask_BT.long()}
    source_BT = site.tokens_BT[:, frame.lead : read]
    written_BT = decoder_site(site, frame).tokens_BT
    return output(module(input_ids=source_BT, decoder_input_ids=written_BT, use_cache=False, **options))


def decoder_site(site: Site, frame: Frame) -> Site:
    """The positions of the decoder."""
    start_B1 = torch.full_like(site.tokens_BT[:, :1], frame.start or 0)
    if not site.asked:
        return replace(site, tokens_BT=torch.cat([start_B1, site.tokens_BT[:, 1:]], 1))
    read = site.tokens_BT.shape[1] - answered(site)
    tokens_BT = torch.cat([start_B1, site.tokens_BT[:, read:]], 1)
    position_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).expand_as(tokens_BT)
    one_B = torch.ones_like(site.prompt_B)
    return replace(
        site,
        tokens_BT=tokens_BT,
        real_BT=torch.ones_like(tokens_BT, dtype=torch.bool),
        position_BT=position_BT,
        prompt_B=one_B,
    )


def site_at(site: Site, frame: Frame, hook_name: str) -> Site:
    """The positions that a hook point of either side sees."""
    if not is_encoder(hook_name):
        return decoder_site(site, frame)
    read = site.tokens_BT.shape[1] - answered(site)
    return replace(
        site,
        tokens_BT=site.tokens_BT[:, :read],
        real_BT=site.real_BT[:, :read],
        position_BT=site.position_BT[:, :read],
    )


ENCODER_DECODER = Family(
    name="encoder–decoder",
    about="positions of the encoder are the tokens read, of the decoder those written; both can be steered while it answers",
    opens=_opens,
    frame=_frame,
    points=_points,
    call=call,
    site_at=site_at,
    generates=True,
    caches=False,
)
