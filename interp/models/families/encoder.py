"""Encoder-only models: BERT and its kin, ModernBERT, ALBERT, MiniLM and other sentence encoders.

Each text is read by itself: `[CLS]`, its tokens, `[SEP]`; what fills a block after that is not attended to. The three are
never counted. Some have a head that fills in masked tokens, whose logits are theirs; others give vectors only. None
continues a text: a feature is ablated, and what changes at the output is looked at.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from interp.models.families.family import Family, Frame, enclosing, output
from interp.models.families.parts import name_layers, name_shared_layers, stack_path
from interp.models.families.taps import tap_modules
from interp.models.passes import Site


def _opens(config: Any) -> type[Any]:
    from transformers import AutoModel, AutoModelForMaskedLM

    kinds = getattr(config, "architectures", None) or [""]
    return AutoModelForMaskedLM if kinds[0].endswith(("ForMaskedLM", "LMHeadModel", "ForPreTraining")) else AutoModel


def _points(module: nn.Module, config: Any, frame: Frame) -> dict[str, nn.Module]:
    points = tap_modules(module)
    count = config.num_hidden_layers
    if getattr(config, "num_hidden_groups", 0):
        return points | name_shared_layers(module, _shared_groups(module), count, "blocks")
    path = stack_path(module, count)
    return points | (name_layers(points, path, count, "blocks") if path else {})


def _shared_groups(module: nn.Module) -> list[nn.Module]:
    lists = (part for path, part in module.named_modules() if path.endswith("albert_layer_groups"))
    return list(next(lists, nn.ModuleList()))


def _call(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
    if not bool(site.real_BT.all()):
        options = {**options, "attention_mask": site.real_BT.long()}
    return output(module(site.tokens_BT, **options))


def _context(module: nn.Module, config: Any) -> int:
    """Some number their positions from the padding token's id on, and have as many fewer."""
    most = int(getattr(config, "max_position_embeddings", 0) or 512)
    for path, part in module.named_modules():
        if path.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return most - part.padding_idx - 1
    return most


ENCODER = Family(
    name="encoder-only",
    about="positions are tokens, each text by itself; features are ablated and the output looked at, nothing is generated",
    opens=_opens,
    frame=enclosing,
    points=_points,
    call=_call,
    context=_context,
    generates=False,
    vocabulary=lambda module: module.get_output_embeddings() is not None,  # type: ignore[operator]
    caches=False,
)
