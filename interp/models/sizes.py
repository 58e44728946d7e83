"""What a model would take, from its configuration alone: its weights are not loaded, and need not be there.

1.  `model_size` makes the model on PyTorch's meta device, where tensors have a shape and no memory, and counts.
2.  `small_copy` makes it with a few of its layers, of random weights: what one layer takes of time and memory is told from copies
    of different depth that run on this machine.
"""

import copy
import re
from dataclasses import dataclass
from typing import Any

import torch

from interp.device import resolve_device, resolve_dtype
from interp.models.families import Frame, family_of
from interp.models.model import Model
from interp.models.number_type import opening
from interp.models.open import ATTENTIONS, hooked, open_config
from interp.types import InterpError

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""Of a layer, in a hook point's name."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """A model's weights, counted."""

    model: str
    architecture: str
    layers: int
    parameters: int
    dtype: str
    weights: int
    """Bytes of the weights in that number type, tied ones once."""
    n_ctx: int
    """Positions that it reads at most."""
    vocabulary: int = 0
    """Tokens that it knows."""


def model_size(name: str, *, dtype: str | None = None, device: str = "auto") -> ModelSize:
    """The size of a model (see `open_model`), of which only the configuration is read.

    Raises InterpError where there is no such model, and where its layers do not stand one after another in one network.
    """
    config = open_config(name)
    layers = _layers(name, config)
    kind = resolve_dtype(dtype, resolve_device(device))
    with torch.device("meta"):
        made, _ = _made(config, kind)
    held = [*{id(each): each for each in (*made.parameters(), *made.buffers())}.values()]
    return ModelSize(
        model=name,
        architecture=type(made).__name__,
        layers=layers,
        parameters=sum(each.numel() for each in made.parameters()),
        dtype=str(kind).removeprefix("torch."),
        weights=sum(each.nbytes for each in held),
        n_ctx=int(getattr(config, "max_position_embeddings", 0) or 0),
        vocabulary=int(getattr(config, "vocab_size", 0) or 0),
    )


def small_copy(name: str, layers: int, *, dtype: str | None = None, device: str = "auto") -> Model:
    """A model with the first so many layers of the named one, of random weights, and without a tokenizer.

    Raises InterpError as `model_size` does, and where it cannot be made with fewer layers.
    """
    config = open_config(name)
    whole = _layers(name, config)
    target = resolve_device(device)
    kind = resolve_dtype(dtype, target)
    fewer = _with_layers(config, layers, whole)
    try:
        made, attention = _made(fewer, kind)
    except (ValueError, IndexError, TypeError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InterpError(f"{name} cannot be made with {layers} layers, so nothing was measured: {first}") from error
    return hooked(
        made.to(target).eval(),
        _placeholder(),
        family_of(config),
        name="small-copy",
        source=name,
        frame=Frame(0, 0),
        attention=attention,
    )


def layer_of(hook_name: str, size: ModelSize) -> int:
    """How many of the layers run before the hook point has fired; all of them where its name has no layer's number.

    Raises InterpError for a layer that the model has not.
    """
    found = _NUMBER.search(hook_name)
    number = int(found[0]) if found else size.layers - 1
    if number >= size.layers:
        raise InterpError(
            f"{size.model} has {size.layers} layers, 0 to {size.layers - 1}; {hook_name} is of none of them."
        )
    return number + 1


def at_layer(hook_name: str, number: int) -> str:
    """The hook point of the same name in another layer."""
    return _NUMBER.sub(str(number), hook_name, count=1)


def _layers(name: str, config: Any) -> int:
    layers = getattr(config, "num_hidden_layers", None)
    if getattr(config, "is_encoder_decoder", False) or family_of(config).media or not isinstance(layers, int):
        raise InterpError(
            f"{name} is a {config.model_type}; plans are made for models of text whose layers stand one after another "
            "(decoders and encoders)."
        )
    return layers


def _with_layers(config: Any, layers: int, whole: int) -> Any:
    fewer = copy.deepcopy(config)
    fewer.num_hidden_layers = layers
    for name, value in vars(fewer).items():
        if isinstance(value, list) and len(value) == whole:  # what each layer is, of models whose layers differ
            setattr(fewer, name, value[:layers])
    return fewer


def _placeholder() -> Any:
    """A tokenizer of one word: hook points are not found without any, and a model's own may not be there."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    word = "a"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({word: 0}, unk_token=word)), eos_token=word, pad_token=word
    )


def _made(config: Any, kind: torch.dtype) -> tuple[Any, str]:
    """(the model, the attention it was made with): PyTorch's own, or eager where there is no other."""
    opens = family_of(config).opens(config)
    for attention in ATTENTIONS:
        try:
            with opening():
                return opens.from_config(config, dtype=kind, attn_implementation=attention), attention
        except (ValueError, ImportError) as error:
            if attention == ATTENTIONS[-1] or "attention implementation" not in str(error):
                raise
    raise AssertionError(ATTENTIONS)
