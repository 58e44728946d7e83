"""A model whose MLPs are read through transcoders: which features fire at each position of a prompt, and what they leave over.

    MLP output  =  Σ over active features  activation · decoder row  +  b_dec  (+ W_skip · what is read)  +  error

so that nothing is approximated: what the transcoder does not explain stands there as the error, and is a node of its own. Positions
that do not count (the first, separators, sinks: `mask`) have no features; there the error is all. But what a layer puts out at a first
position that holds the token which opens every text is the same for all prompts: it is a constant of the model, and no error.

Axes    T token, D width of the residual stream, A active feature at a position, E entry (an active feature at its position).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.frozen import Clean, Cut, HeldNorm, clean_pass, held_norms
from interp.mask import Mask, own_tokens
from interp.models import Model
from interp.sae import SAE
from interp.sae.bundle import Bundle
from interp.types import InterpError

LAYER = re.compile(r"blocks\.(\d+)\.")
READS = ("mlp.hook_in", "ln2.hook_out", "hook_mlp_in", "ln2.hook_normalized")
WRITES = ("hook_mlp_out", "mlp.hook_out")


@dataclass(frozen=True)
class Layer:
    """One layer's transcoder at a prompt: E active entries in order of their positions, and what it leaves over."""

    number: int
    transcoder: SAE
    position_E: Int[Tensor, " E"]
    feature_E: Int[Tensor, " E"]
    value_E: Float[Tensor, " E"]
    error_TD: Float[Tensor, "T D"]
    """0 at a first position that is the same in every prompt."""
    out_TD: Float[Tensor, "T D"]

    @property
    def written_ED(self) -> Float[Tensor, "E D"]:
        """What each entry adds to the residual stream."""
        return self.value_E[:, None] * self.transcoder.W_dec[self.feature_E].detach()

    @property
    def read_ED(self) -> Float[Tensor, "E D"]:
        """Each entry's encoder row: its pre-activation is this times what the MLP reads, and its bias."""
        return self.transcoder.W_enc.detach().T[self.feature_E]


@dataclass(frozen=True)
class Read:
    """A prompt read through a replacement."""

    clean: Clean
    counted_LT: Bool[Tensor, "L T"]
    layers: tuple[Layer, ...]

    @property
    def entries(self) -> int:
        """Active features, each at its position, of all layers."""
        return sum(len(layer.feature_E) for layer in self.layers)


@dataclass(frozen=True)
class Replacement:
    """A decoder with a transcoder for every layer; made by `make_replacement`."""

    model: Model
    transcoders: tuple[SAE, ...]
    """In the order of the layers."""
    cutoffs: Mapping[str, float] = field(default_factory=dict)
    """Norms above which a position is a sink, by hook point; none: all positions but the first and separators count."""

    @cached_property
    def norms(self) -> tuple[HeldNorm, ...]:
        """What is held of the model's norms."""
        return held_norms(self.model)

    @property
    def reads(self) -> list[str]:
        """What each layer's transcoder reads."""
        return [one.hook_name for one in self.transcoders]

    @property
    def writes(self) -> list[str]:
        """What each layer's transcoder stands for."""
        return [one.hook_name_out for one in self.transcoders]

    def cuts(self, read: "Read") -> list[Cut]:
        """Where a held pass is cut: every MLP's output, but for what a skip connection makes of its input."""
        cuts = []
        for number, one in enumerate(self.transcoders):
            skip = one.W_skip
            by_position = None if skip is None else read.counted_LT[number][:, None, None] * skip
            cuts.append(Cut(one.hook_name_out, one.hook_name, by_position))
        return cuts

    def read(self, tokens_T: Int[Tensor, " T"]) -> Read:
        """A prompt's own pass, and which features fire in it; the tokens with what the family puts before them.

        Raises InterpError for a prompt of fewer than two tokens.
        """
        if len(tokens_T) < 2:
            raise InterpError("a prompt needs a token beside the one that opens it, for nothing is attributed to that.")
        clean = clean_pass(self.model, self.norms, tokens_T, [*self.reads, *self.writes])
        own = own_tokens(tokens_T[None], self.model.separator)[0]
        counted, layers = [], []
        for number, one in enumerate(self.transcoders):
            x_TD, y_TD = (clean.activations[name][0].float() for name in (one.hook_name, one.hook_name_out))
            seen = {one.hook_name: x_TD, one.hook_name_out: y_TD}
            cut = {name: self.cutoffs[name] for name in seen if name in self.cutoffs}
            counted_T = Mask(cut).counted(seen, own)
            layer = read_layer(number, one, x_TD, y_TD, counted_T)
            if int(tokens_T[0]) == self.model.separator:
                layer.error_TD[0] = 0
            layers.append(layer)
            counted.append(counted_T)
        return Read(clean, torch.stack(counted), tuple(layers))


@torch.no_grad()
def read_layer(
    number: int, transcoder: SAE, x_TD: Float[Tensor, "T D"], y_TD: Float[Tensor, "T D"], counted_T: Bool[Tensor, " T"]
) -> Layer:
    """Which features fire where, and the error; at positions that do not count the error is all of the output."""
    active = transcoder.active(x_TD)
    kept = counted_T[active.rows]
    position, feature, value = active.rows[kept], active.features[kept], active.values[kept]
    said_TD = torch.zeros_like(y_TD).index_add_(0, position, value[:, None] * transcoder.W_dec[feature])
    rest_TD = transcoder.b_dec.expand_as(y_TD)
    if transcoder.W_skip is not None:
        rest_TD = rest_TD + x_TD @ transcoder.W_skip.T
    said_TD += torch.where(counted_T[:, None], rest_TD, 0.0)
    return Layer(number, transcoder, position, feature, value, y_TD - said_TD, y_TD)


def make_replacement(
    model: Model, transcoders: Bundle[SAE] | Sequence[SAE], cutoffs: Mapping[str, float] | None = None
) -> Replacement:
    """A replacement of every layer's MLP.

    Raises InterpError when the model is not in float32 or no decoder, when a layer has no transcoder, when one is no transcoder of an MLP,
    and when its widths are not the model's.
    """
    if model.dtype != torch.float32:
        raise InterpError(
            f"{model.name} computes in {model.dtype_name}, whose rounding is as large as the effects that are attributed; open it "
            'with dtype="float32".'
        )
    model.check_causal("an attribution graph")
    by_layer: dict[int, SAE] = {}
    for one in transcoders:
        by_layer[_layer_of(model, one)] = one
    layers = {int(found[1]) for name in model.hook_names() if (found := LAYER.match(name))}
    missing = sorted(layers - by_layer.keys())
    if missing:
        raise InterpError(
            f"there is no transcoder for {_layers(missing)} of {model.name}, which has {len(layers)}; a graph needs one for every "
            "layer (recipes/smollm2_transcoders.py trains them together)."
        )
    return Replacement(model, tuple(by_layer[number] for number in sorted(layers)), dict(cutoffs or {}))


def _layer_of(model: Model, one: SAE) -> int:
    found, written = LAYER.match(one.hook_name), LAYER.match(one.hook_name_out)
    inside = (one.hook_name.split(".", 2)[-1], one.hook_name_out.split(".", 2)[-1])
    if not found or not written or found[1] != written[1] or inside[0] not in READS or inside[1] not in WRITES:
        raise InterpError(
            f"{one.name} reads {one.hook_name or 'nothing named'} and writes {one.hook_name_out or 'nothing named'}; a graph is made of "
            "transcoders that read what an MLP reads (blocks.3.mlp.hook_in) and write its output (blocks.3.hook_mlp_out)."
        )
    for hook, width in ((one.hook_name, one.d_in), (one.hook_name_out, one.d_out)):
        model.check_hook(hook)
        if model.width(hook) != width:
            raise InterpError(
                f"{one.name} is {width} wide at {hook} and {model.name} {model.width(hook)}: it was made for another model."
            )
    return int(found[1])


def _layers(missing: Sequence[int]) -> str:
    named = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
    return f"layer {named}" if len(missing) == 1 else f"{len(missing)} layers ({named})"
