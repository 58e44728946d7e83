"""What a feature does to the next token in texts where it fires: ablated, and held; forward passes only.

Axes    C context, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.render import table_html, title_html, visible
from interp.steering.edits import Ablate, Clamp, FeatureEdit, hooked, number
from interp.steering.intervals import bootstrap
from interp.steering.run import Stage
from interp.types import FeatureRef, InterpError

BATCH = 16
SHOWN = 10
Figure = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Of one change over all contexts; figures are (mean, low, high) with 95 % intervals over contexts."""

    edit: str
    kl: Figure
    """KL(edited ‖ unedited) of the next token, nats."""
    loss: Figure
    """Change of the loss at the token that follows in the text, nats; above 0 the edit makes it less likely."""
    top_changes: Figure
    """Share of contexts whose likeliest token is another one."""
    raised: list[tuple[str, float]]
    """Tokens with the largest mean change of log-probability."""
    lowered: list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Effects of a feature on the next token."""

    feature: int
    contexts: int
    activation: Figure
    """At the contexts' last position."""
    ablated: Effect
    clamped: Effect
    rows: list[dict[str, Any]]
    """A row a context: index position, activation, and KL and change of loss under both edits."""

    def _repr_html_(self) -> str:
        parts = [title_html(f"feature {self.feature}: effects on the next token in {self.contexts} contexts")]
        for effect in (self.ablated, self.clamped):
            kl, loss, top = effect.kl, effect.loss, effect.top_changes
            parts.append(
                title_html(
                    f"{effect.edit}: KL {kl[0]:.3g} ({kl[1]:.3g} to {kl[2]:.3g}), loss {loss[0]:+.3g} "
                    f"({loss[1]:+.3g} to {loss[2]:+.3g}), another likeliest token in {top[0]:.0%}"
                )
            )
            rows = [
                (visible(a), x, visible(b), y) for (a, x), (b, y) in zip(effect.raised, effect.lowered, strict=True)
            ]
            parts.append(table_html(["raises", "", "lowers", ""], rows))
        return "".join(parts)


@torch.inference_mode()
def effects(
    stage: Stage,
    feature: int | FeatureRef,
    contexts: Sequence[Sequence[int]],
    following: Sequence[int],
    positions: Sequence[int],
    strength: float,
) -> Effects:
    """Ablation's and clamping's effects on the token after each context (token ids with their prefix).

    The edits act at every position of a context that counts. `following` is the token that came next in the text,
    -1 where none did. Raises InterpError when there is no context.
    """
    if not contexts:
        raise InterpError(f"feature {feature} fires nowhere in the index, so there is no context to try it in.")
    edits: list[FeatureEdit] = [Ablate(feature=feature), Clamp(feature=feature, strength=strength)]
    compiled = [stage.compile([[edit]]) for edit in edits]
    home = hooked(feature, stage.saes)
    assert home is not None
    sums: list[Tensor | None] = [None, None]
    per: list[dict[str, Any]] = []
    # Contexts of like length together, so that little is padding.
    order = sorted(range(len(contexts)), key=lambda c: len(contexts[c]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        tokens_BT, real_BT = stage.model.padded([contexts[c] for c in chosen])
        run = stage.model.run(tokens_BT, [home.hook_name], logits=True, real_BT=real_BT, last=1)
        base = _last(run.logits)
        now = home.sae.encode_feature(run.activations[home.hook_name][:, -1].float(), number(feature))
        found = [{"position": int(positions[c]), "activation": float(a)} for c, a in zip(chosen, now, strict=True)]
        for at, edit in enumerate(compiled):
            after = _last(stage.model.run(tokens_BT, edits=edit, logits=True, real_BT=real_BT, last=1).logits)
            _add(found, ("ablated", "clamped")[at], base, after, [following[c] for c in chosen])
            change = (after - base).sum(0)
            total = sums[at]
            sums[at] = change if total is None else total + change
        per += found
    per.sort(key=lambda found: -found["activation"])
    texts = list(stage.vocabulary())
    words = [f"ablated to 0 (feature {feature})", f"held at {strength:.3g} (feature {feature})"]
    ablated, clamped = (
        _effect(words[at], name, per, sums[at], len(contexts), texts) for at, name in enumerate(("ablated", "clamped"))
    )
    return Effects(
        feature=number(feature),
        contexts=len(contexts),
        activation=bootstrap(np.array([found["activation"] for found in per])),
        ablated=ablated,
        clamped=clamped,
        rows=per,
    )


def _last(logits: Tensor | None) -> Float[Tensor, "C V"]:
    assert logits is not None
    return logits[:, -1].float().log_softmax(-1)


def _add(found: list[dict[str, Any]], name: str, base: Tensor, after: Tensor, following: Sequence[int]) -> None:
    """Put what one edit did into the contexts' rows."""
    kl = (after.exp() * (after - base)).sum(-1).tolist()
    changed = (after.argmax(-1) != base.argmax(-1)).tolist()
    for at, (row, token) in enumerate(zip(found, following, strict=True)):
        loss = float(base[at, token] - after[at, token]) if token >= 0 else float("nan")
        row |= {f"{name}_kl": kl[at], f"{name}_loss": loss, f"{name}_top_changes": bool(changed[at])}


def _effect(
    words: str, name: str, per: list[dict[str, Any]], total: Tensor | None, contexts: int, texts: list[str]
) -> Effect:
    assert total is not None
    mean = total.cpu() / contexts
    top, bottom = mean.topk(SHOWN), (-mean).topk(SHOWN)

    def figure(key: str) -> Figure:
        return bootstrap(np.array([float(row[f"{name}_{key}"]) for row in per]))

    def pairs(tokens: Tensor) -> list[tuple[str, float]]:
        return [(texts[token] if token < len(texts) else f"<{token}>", float(mean[token])) for token in tokens.tolist()]

    return Effect(
        edit=words,
        kl=figure("kl"),
        loss=figure("loss"),
        top_changes=figure("top_changes"),
        raised=pairs(top.indices),
        lowered=pairs(bottom.indices),
    )
