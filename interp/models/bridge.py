"""TransformerLens' TransformerBridge as a table of hook points: the one place that imports TransformerLens.

The bridge computes attention step by step, so that scores and patterns have hook points; that costs a fifth
of the time. Here each layer keeps its native attention, with the bridge's hook points at its entry and exit,
and the bridge's own is put back only for a run that asks for a hook point inside. In the same way it makes every norm twice, once
for the hook points inside: here that is left out of a run that has nothing there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.models.families import Frame
from interp.models.families.experts import tap_experts
from interp.models.families.family import context, saved_weights
from interp.models.model import Model
from interp.types import InterpError

_OUTSIDE_ATTENTION = (".attn.hook_in", ".attn.hook_out", ".attn.hook_hidden_states")
_PROJECTIONS = (
    ".attn.q.",
    ".attn.k.",
    ".attn.v.",
    ".attn.o.",
    ".attn.hook_q",
    ".attn.hook_k",
    ".attn.hook_v",
    ".attn.hook_z",
)


_Swap = tuple[nn.Module, str, nn.Module, nn.Module]
"""(layer, attribute, native attention, the bridge's)."""


class _NativeAttention(nn.Module):
    """The model's own attention between the bridge's two outer hook points."""

    def __init__(self, bridged: Any) -> None:
        super().__init__()
        # In a tuple, so that the parameters are not registered a second time under another name.
        self.held = (bridged,)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        bridged = self.held[0]
        out = bridged.original_component(bridged.hook_in(hidden_states), *args, **kwargs)
        if isinstance(out, tuple):
            return (bridged.hook_out(out[0]), *out[1:])
        return bridged.hook_out(out)


class _NativeNorm:
    """A norm of the bridge's that gives what the model's own gives, as the model's own alone where nothing is asked inside it."""

    def __init__(self, bridged: Any) -> None:
        self.bridged, self.whole = bridged, bridged.forward

    def __call__(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        bridged = self.bridged
        if any(_hooked(point) for point in (bridged.hook_scale, bridged.hook_normalized)):
            out: torch.Tensor = self.whole(hidden_states, **kwargs)
            return out
        x = bridged.hook_in(hidden_states)
        return bridged.hook_out(bridged.original_component(x).to(x.dtype))


def bridge_model(
    hf_model: Any,
    tokenizer: Any,
    *,
    name: str,
    source: str,
    frame: Frame,
    attention: str,
    ends: frozenset[int] = frozenset(),
    folder: Path | None = None,
) -> Model:
    """A Model over a Hugging Face model; InterpError when TransformerBridge does not know its architecture."""
    named_weights = saved_weights(hf_model)
    bridge = _boot(hf_model, tokenizer, name)
    module = bridge.original_model.eval()
    module.requires_grad_(False)
    _contiguous_unembedding(module)
    _native_norms(module)
    swaps = _swaps(bridge, module) if attention == "sdpa" else []
    return Model(
        name=name,
        source=source,
        module=module,
        tokenizer=tokenizer,
        hook_points=dict(bridge.hook_dict) | tap_experts(module),
        frame=frame,
        n_ctx=context(hf_model.config),
        attention="sdpa" if swaps else "eager",
        attention_for=_chooser(module, swaps),
        ends=ends,
        folder=folder,
        named_weights=named_weights,
    )


def _boot(hf_model: Any, tokenizer: Any, name: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    if not getattr(hf_model.config, "architectures", None):
        hf_model.config.architectures = [type(hf_model).__name__]
    try:
        return TransformerBridge.boot_transformers(
            name, hf_model=hf_model, tokenizer=tokenizer, device=str(hf_model.device), dtype=hf_model.dtype
        )
    except (ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        kind = hf_model.config.architectures[0]
        first = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        raise InterpError(
            f"{name} is a {kind}, for which TransformerLens finds no hook points ({first}); other models of the kinds "
            "that it lists as supported can be opened."
        ) from error


def _chooser(module: nn.Module, swaps: Sequence[_Swap]) -> Callable[[Sequence[str]], AbstractContextManager[None]]:
    """Puts the native attention in place, and for a run that asks for a hook point inside it the bridge's own."""

    def native() -> None:
        for layer, slot, own, _ in swaps:
            layer._modules[slot] = own
        _set_attention(module, "sdpa" if swaps else "eager")

    @contextmanager
    def attention_for(hooks: Sequence[str]) -> Iterator[None]:
        inner = [hook for hook in hooks if ".attn." in hook or hook.endswith(("hook_attn_in", "_input"))]
        if not swaps or all(_outer(hook) for hook in inner):
            yield
            return
        for layer, slot, _, bridged in swaps:
            layer._modules[slot] = bridged
        _set_attention(module, "eager")
        try:
            yield
        finally:
            native()

    native()
    return attention_for


def _contiguous_unembedding(module: Any) -> None:
    """Hand the unembedding whole tensors: on a slice (the last position only) a bfloat16 product takes 500 times as long."""
    head = getattr(module, "get_output_embeddings", lambda: None)()
    if head is not None:
        head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]) if given else None)


def _native_norms(module: nn.Module) -> None:
    from transformer_lens.model_bridge.generalized_components import RMSNormalizationBridge

    for norm in module.modules():
        if type(norm) is RMSNormalizationBridge and norm.use_native_layernorm_autograd:
            vars(norm)["forward"] = _NativeNorm(norm)  # as an attribute it would go on to the norm that is wrapped


def _hooked(point: nn.Module) -> bool:
    return bool(point._forward_pre_hooks or point._forward_hooks or point._backward_hooks or point._backward_pre_hooks)


def _outer(hook: str) -> bool:
    return hook.endswith(_OUTSIDE_ATTENTION[:2]) or any(part in hook for part in _PROJECTIONS)


def _swaps(bridge: Any, module: nn.Module) -> list[_Swap]:
    """One for each attention the bridge computes by itself.

    Only for the family whose native attention is known to take the same arguments (the rotary decoders);
    the rest keeps the bridge's.
    """
    from transformer_lens.model_bridge.generalized_components import PositionEmbeddingsAttentionBridge

    swaps: list[_Swap] = []
    for parent in module.modules():
        for slot, child in parent.named_children():
            if type(child) is PositionEmbeddingsAttentionBridge and slot == "self_attn":
                swaps.append((parent, slot, _NativeAttention(child), child))
    return swaps


def _set_attention(module: Any, kind: str) -> None:
    for owner in {id(m.config): m.config for m in module.modules() if hasattr(m, "config")}.values():
        if hasattr(owner, "_attn_implementation"):
            owner._attn_implementation = kind
