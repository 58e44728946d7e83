"""Path patching: what a part does to another by the direct way between them, everything else held as it was.

1.  The base and the source run; what every head and every MLP puts out is kept.
2.  The base runs with every head and MLP held at its own output, but for the sender, which is held at the source's. Nothing but
    the residual stream carries the change; what the receivers are about to read is kept, and the logits.
3.  The base runs once more, with only the receivers' inputs put in, and everything after them free. Where the receiver is the
    logits, step 2 has the answer: the sender's direct effect.

Parts are written as `7.3` (a head: layer, head), `mlp 7`, `embed`; receivers as `7.3.q`, `7.3.k`, `7.3.v` (what a head makes its
queries, keys or values of; a head of keys and values where several heads share one), `mlp 7`, `logits`.

Axes    B prompt, T position, R row (sender), C column (receivers).
Source  Wang et al. 2022, "Interpretability in the Wild" (who let MLPs run freely in step 2: here they are held);
        Goldowsky-Dill et al. 2023, "Localizing Model Behavior with Path Patching".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.circuits.metric import Metric, check_pair
from interp.circuits.patching import PatchEffects, measure
from interp.circuits.points import (
    EMBED,
    MLP,
    Z,
    attention_heads,
    check_fires,
    count_layers,
    each_layer,
    put_in,
    replace_all,
)
from interp.models import Edit, Model
from interp.types import InterpError

LOGITS = "logits"
_HEAD = re.compile(r"(\d+)\.(\d+)(?:\.([qkv]))?")
_MLP = re.compile(r"mlp (\d+)")


@dataclass(frozen=True)
class Part:
    """A sender or a receiver: a hook point, or one head's slice of it."""

    hook_name: str
    """Empty of the logits."""
    head: int | None = None
    heads: int = 1
    """How many heads share the hook point."""


def all_parts(model: Model) -> list[str]:
    """Every sender there is: the embedding, then each layer's heads and its MLP. Raises InterpError without heads."""
    heads, layers = attention_heads(model).count, range(count_layers(model))
    return [EMBED_PART, *(part for n in layers for part in (*(f"{n}.{head}" for head in range(heads)), f"mlp {n}"))]


EMBED_PART = "embed"


def patch_paths(
    model: Model,
    base_BT: Int[Tensor, "B T"],
    source_BT: Int[Tensor, "Q S"],
    metric: Metric,
    senders: Sequence[str | Sequence[str]],
    receivers: Sequence[str | Sequence[str]] = (LOGITS,),
) -> PatchEffects:
    """The effect of each sender (a row; a list of parts is sent together) by way of each receiver alone (a column).

    A receiver that stands before its sender gets nothing, so the effect is 0. Raises InterpError for texts of two lengths,
    parts that do not exist, and families without hook points for heads or MLPs.
    """
    check_pair(model, base_BT, source_BT)
    outputs = [*each_layer(model, Z), *each_layer(model, MLP)]
    sent = [[read_sender(model, part) for part in _several(each)] for each in senders]
    received = [[read_receiver(model, part) for part in _several(each)] for each in receivers]
    if not sent or not received or not all(sent) or not all(received):
        raise InterpError("name at least one sender and one receiver, such as '7.3' and 'logits'.")
    for many in received:
        if len(many) > 1 and any(not part.hook_name for part in many):
            raise InterpError("the logits are a receiver by themselves: they are reached by every way at once.")
    if any(part.hook_name == EMBED for parts in sent for part in parts):
        check_fires(model, EMBED)
        outputs.append(EMBED)
    base_B, base = measure(model, base_BT, metric, outputs)
    source_B, source = measure(model, source_BT, metric, outputs)
    reads = list(dict.fromkeys(part.hook_name for parts in received for part in parts if part.hook_name))
    effects = []
    for parts in sent:
        direct_B, arriving = measure(model, base_BT, metric, reads, _held(parts, base, source))
        row = []
        for many in received:
            if many[0].hook_name:
                edits = [_receive(part, arriving[part.hook_name]) for part in many]
                value_B, _ = measure(model, base_BT, metric, (), edits)
            else:
                value_B = direct_B
            row.append(value_B - base_B)
        effects.append(torch.stack(row))
    return PatchEffects(
        says="path patching, all other heads and MLPs held",
        rows=tuple(" + ".join(_several(each)) for each in senders),
        columns=tuple(" + ".join(_several(each)) for each in receivers),
        effect_RCB=torch.stack(effects).numpy(),
        base_B=base_B.numpy(),
        source_B=source_B.numpy(),
    )


def _several(parts: str | Sequence[str]) -> list[str]:
    return [parts] if isinstance(parts, str) else list(parts)


def read_sender(model: Model, text: str) -> Part:
    """The part that puts out; InterpError for one that does not exist."""
    if text == EMBED_PART:
        return Part(EMBED)
    if (mlp := _MLP.fullmatch(text)) and int(mlp[1]) < count_layers(model):
        return Part(f"blocks.{mlp[1]}.{MLP}")
    heads = attention_heads(model).count
    if (head := _HEAD.fullmatch(text)) and not head[3] and int(head[1]) < count_layers(model) and int(head[2]) < heads:
        return Part(f"blocks.{head[1]}.{Z}", int(head[2]), heads)
    raise InterpError(
        f"no sender {text!r} in {model.name}: write a head as '3.1' (layers 0 to {count_layers(model) - 1}, heads 0 to "
        f"{heads - 1}), an MLP as 'mlp 3', the embedding as '{EMBED_PART}'."
    )


def read_receiver(model: Model, text: str) -> Part:
    """The part that reads; InterpError for one that does not exist."""
    if text == LOGITS:
        return Part("")
    heads, layers = attention_heads(model), count_layers(model)
    if (mlp := _MLP.fullmatch(text)) and int(mlp[1]) < layers:
        return _known(model, Part(f"blocks.{mlp[1]}.mlp.hook_in"))
    if (head := _HEAD.fullmatch(text)) and head[3] and int(head[1]) < layers:
        count = heads.count if head[3] == "q" else heads.key_count
        if int(head[2]) < count:
            return _known(model, Part(f"blocks.{head[1]}.attn.hook_{head[3]}", int(head[2]), count))
    raise InterpError(
        f"no receiver {text!r} in {model.name}: write a head's queries as '3.1.q' (layers 0 to {layers - 1}, heads 0 to "
        f"{heads.count - 1}), its keys or values as '3.1.k' or '3.1.v' (heads 0 to {heads.key_count - 1}), an MLP as "
        f"'mlp 3', the end as '{LOGITS}'."
    )


def _known(model: Model, part: Part) -> Part:
    check_fires(model, part.hook_name)
    return part


def _held(parts: Sequence[Part], base: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> list[Edit]:
    """Every output as in the base, the senders' as in the source."""
    edits = []
    for name, value in base.items():
        mixed = value
        for part in parts:
            if part.hook_name == name:
                mixed = put_in(name, source[name], _slice(part, value)).apply(mixed, None)  # type: ignore[arg-type]
        edits.append(replace_all(name, mixed))
    return edits


def _receive(part: Part, value: Tensor) -> Edit:
    """What reached a receiver put in; other heads at the same hook point keep what they have."""
    return put_in(part.hook_name, value, _slice(part, value))


def _slice(part: Part, value: Tensor) -> Tensor:
    where = torch.zeros(*value.shape[:2], part.heads, dtype=torch.bool, device=value.device)
    where[..., 0 if part.head is None else part.head] = True
    return where
