"""What a family of models is: which configurations belong to it, how a text is framed for it, where its hook points are,
and what is called to run it.

Axes    B row, T position, V vocabulary, D width of what comes out where there is no vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from interp.models.families.media import Media
from interp.models.passes import Site
from interp.types import InterpError


@dataclass(frozen=True)
class Frame:
    """The tokens that a family puts around a text."""

    first: int
    """Before every text."""
    separator: int
    """After every text, or between packed ones; never counted."""
    alone: bool = False
    """Each text is read by itself, closed by the separator and filled up with more of them on the right, which are not
    attended to; else texts are packed one after the other and padded on the left."""
    start: int | None = None
    """Of an encoder–decoder, the token that its answers begin with."""
    lead: int = 0
    """1 where the encoder is given a text without the first token of the frame, which is the decoder's alone."""

    @property
    def around(self) -> tuple[int, int] | None:
        """The tokens before and after a text that is read by itself; None where texts are packed."""
        return (self.first, self.separator) if self.alone else None


def plain_call(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
    """The logits of a module that takes token ids."""
    logits = module(site.tokens_BT, use_cache=False, **options).logits
    assert isinstance(logits, Tensor)
    return logits


def same_site(site: Site, frame: Frame, hook_name: str) -> Site:
    """Every hook point sees the positions that the model is given."""
    return site


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model; one in each file beside this one."""

    name: str
    about: str
    """What its positions are and what can be done with it, in a sentence."""
    opens: Callable[[Any], type[Any]]
    """From a configuration, the class of transformers that opens its models."""
    frame: Callable[[Any, Any, int], Frame]
    """From the tokenizer, the configuration and how many tokens are embedded; InterpError where texts cannot be framed."""
    points: Callable[[nn.Module, Any, Frame], dict[str, nn.Module]] | None = None
    """Hook points by name, from the module, its configuration and the frame; None: TransformerLens finds them."""
    call: Callable[[nn.Module, Site, Frame, Mapping[str, Any]], Tensor] = plain_call
    """What the model gives at each position of a site: logits, or its last vectors where it has no vocabulary."""
    site_at: Callable[[Site, Frame, str], Site] = same_site
    """The positions that a hook point sees."""
    context: Callable[[nn.Module, Any], int] | None = None
    """How many positions it reads at most, where the configuration's number is not it."""
    generates: bool | None = None
    """Whether it continues texts; None: if it is found to be causal."""
    vocabulary: Callable[[nn.Module], bool] = lambda module: True
    """Whether what it gives are logits of its vocabulary."""
    media: Callable[[nn.Module, Any, Path | None, str], Media] | None = None
    """Of what is no text: how a model (with its configuration, folder and name) reads it."""
    caches: bool = True
    """Whether keys and values may be kept between tokens, if that is found to work."""
    lists: str = "`interp hooks {name}` lists all of them."
    """Where a model's hook points can be seen, in a sentence."""


def causal_separator(tokenizer: Any, config: Any, embedded: int) -> Frame:
    """Of a decoder: `<|endoftext|>` where it exists, else bos, else eos; one that has an embedding."""
    separator = _embedded(tokenizer, embedded, ("<|endoftext|>", tokenizer.bos_token, tokenizer.eos_token))
    return Frame(separator, separator)


def enclosing(tokenizer: Any, config: Any, embedded: int) -> Frame:
    """Of an encoder: `[CLS]` (else bos) before each text and `[SEP]` (else eos) after it."""
    first = _embedded(tokenizer, embedded, (tokenizer.cls_token, tokenizer.bos_token, tokenizer.sep_token))
    last = _embedded(tokenizer, embedded, (tokenizer.sep_token, tokenizer.eos_token, tokenizer.bos_token))
    return Frame(first, last, alone=True)


def _embedded(tokenizer: Any, embedded: int, tokens: tuple[str | None, ...]) -> int:
    known = tokenizer.get_vocab()
    for token in tokens:
        if token is not None and known.get(token, embedded) < embedded:
            return int(known[token])
    raise InterpError(
        "the tokenizer has no separator, bos or eos token that the model embeds, so texts cannot be told apart."
    )


def saved_weights(module: Any) -> dict[str, Tensor]:
    """The module's tensors by name, but for those that no file holds (`unsaved`), which differ at every opening."""
    unsaved = set(getattr(module, "unsaved", ()))
    return {name: tensor for name, tensor in module.state_dict().items() if name not in unsaved}


def output(made: Any) -> Tensor:
    """The logits of what a module of transformers gave, or its last vectors."""
    logits = getattr(made, "logits", None)
    last = made.last_hidden_state if logits is None else logits
    assert isinstance(last, Tensor)
    return last


def context(config: Any) -> int:
    """Tokens that the model reads at most, by whichever name its configuration has; 2,048 where it names no bound."""
    names = (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "context_length",
    )
    return next((value for name in names if isinstance(value := getattr(config, name, None), int) and value > 1), 2048)
