"""Decoder-only models: Llama, GPT-2, GPT-NeoX, Qwen, Mistral, Gemma, DeepSeek, OLMo, Phi, and state-space ones.

TransformerLens' bridge finds their hook points. What it does not know falls back to module paths (`any_module`).
"""

from typing import Any

from torch import nn

from interp.models.families.family import Family, Frame, causal_separator
from interp.models.families.parts import name_layers, stack_path
from interp.models.families.taps import IN, tap_modules


def _opens(config: Any) -> type[Any]:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


DECODER = Family(
    name="decoder-only",
    about="positions are tokens; it continues texts, and every feature can be steered",
    opens=_opens,
    frame=causal_separator,
)


def _points(module: nn.Module, config: Any, frame: Frame) -> dict[str, nn.Module]:
    points = tap_modules(module)
    count = getattr(config, "num_hidden_layers", 0)
    path = stack_path(module, count) if count else None
    named = name_layers(points, path, count, "blocks") if path else {}
    head = getattr(module, "get_output_embeddings", lambda: None)()
    at = next((path for path, part in module.named_modules() if part is head), None)
    if at in points:  # before whatever caps the logits
        named["unembed.hook_in"], named["unembed.hook_out"] = points[at + IN], points[at]
    return points | named


ANY_DECODER = Family(
    name="any decoder",
    about="positions are tokens; hook points are its modules, by path; it continues texts if it is causal",
    opens=_opens,
    frame=causal_separator,
    points=_points,
)
