"""What a feature really does to the logits: held, and ablated, at one position of texts; read there and over what follows.

An edit moves x at the peak along the feature's decoder row: by (held − now) for a clamp, by −now for an ablation. What the
dictionary fails to explain stays. The change of a logit is taken less the mean over the tokens that are asked for, and an
ablation's with its sign turned, so that both say what the feature raises.

Axes    C context, L token, T position read, A asked token, K edit, S span, H half of the contexts, D width, F feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models import Edit, Model
from interp.sae import SAE
from interp.sae.dictionary import one_hook
from interp.types import InterpError, check_feature

EDITS = ("ablated", "clamped")
SPANS = ("next", "later")
AFTER = 16
"""Positions after the edited one over which `later` is a mean."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A text in which a feature fires, with what follows."""

    tokens: tuple[int, ...]
    """Token ids with their prefix; the feature fires AFTER positions before the last."""


@torch.inference_mode()
def measure_changes(
    model: Model, sae: SAE, feature: int, contexts: Sequence[Context], held: float, asked_A: Int[Tensor, " A"]
) -> Float[Tensor, "K S H A"]:
    """Mean change of the asked tokens' logits, of each edit and span, over the even and over the odd contexts.

    `held` is the activation that a clamp holds. Raises InterpError for fewer than two contexts, for contexts of several
    lengths, and for a dictionary that does not write what it reads.
    """
    hook = one_hook(sae, "measuring what a feature does").name
    check_feature(feature, sae.d_sae, sae.name)
    lengths = {len(context.tokens) for context in contexts}
    if len(contexts) < 2 or len(lengths) != 1 or min(lengths) < AFTER + 2:
        raise InterpError(
            f"{len(contexts)} contexts of {sorted(lengths)} tokens: what feature {feature} does is measured in at least two of one "
            f"length, of {AFTER + 2} tokens or more."
        )
    tokens_CL = torch.tensor([context.tokens for context in contexts])
    rows_3L, count = tokens_CL.repeat(1 + len(EDITS), 1), len(contexts)
    row_D = sae.W_dec[feature]

    def move(x_BLD: Tensor, site: object) -> Tensor:
        at_CD = x_BLD[:count, -1 - AFTER].float()
        now_C = sae.encode(at_CD)[:, feature].to(x_BLD.device)
        amount_B = torch.cat([torch.zeros_like(now_C), -now_C, held - now_C])
        moved_BLD = x_BLD.clone()
        moved_BLD[:, -1 - AFTER] += (amount_B[:, None] * row_D.to(x_BLD.device)).to(x_BLD.dtype)
        return moved_BLD

    run = model.run(rows_3L, edits=[Edit(hook, move)], logits=True, last=AFTER + 1)
    assert run.logits is not None
    base_CTA, *edited = run.logits[..., asked_A.to(run.logits.device)].float().split(count)
    return torch.stack([_by_span(sign * (each - base_CTA)) for sign, each in zip((-1, 1), edited, strict=True)]).cpu()


def _by_span(change_CTA: Float[Tensor, "C T A"]) -> Float[Tensor, "S H A"]:
    change_CTA = change_CTA - change_CTA.mean(-1, keepdim=True)
    spans_SCA = torch.stack([change_CTA[:, 0], change_CTA[:, 1:].mean(1)])
    return torch.stack([spans_SCA[:, 0::2].mean(1), spans_SCA[:, 1::2].mean(1)], 1)
