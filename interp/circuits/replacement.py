"""A model whose MLPs are read as sums of parts: which of them are active at each position of a prompt, and what they leave over.

    MLP output  =  Σ over active features  activation · decoder row  +  b_dec  (+ W_skip · what is read)  +  error

so that nothing is approximated: what the features do not explain stands there as the error, and is a node of its own. Positions
that do not count (the first, separators, sinks: `mask`) have no features; there the error is all. But what a layer puts out at a first
position that holds the token which opens every text is the same for all prompts: it is a constant of the model, and no error.

What stands for an MLP is a transcoder (here), or the MLP's own neurons (`neurons`); either makes a `Layer` of a prompt, which is all that
graphs are made of.

Axes    B row, T token, D width of the residual stream, F feature (or neuron), E entry (an active feature at its position), N some entries,
        W width where activations are measured.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.frozen import Clean, Cut, HeldNorm, Pulls, clean_pass, held_norms, held_pass
from interp.circuits.graph import FEATURES
from interp.circuits.layer import Kept, Layer
from interp.mask import Mask, own_tokens
from interp.models import Model
from interp.sae import SAE
from interp.sae.bundle import Bundle
from interp.types import Hook, InterpError

LAYER = re.compile(r"blocks\.(\d+)\.")
READS = ("mlp.hook_in", "ln2.hook_out", "hook_mlp_in", "ln2.hook_normalized", "hook_resid_mid")
"""What stands before an MLP: what it reads itself, or what its norm does."""
WRITES = ("hook_mlp_out", "mlp.hook_out")


@runtime_checkable
class Part(Protocol):
    """What stands for one layer's MLP."""

    @property
    def over(self) -> str:
        """`graph.FEATURES`, `NEURONS` or `RESIDUAL`."""

    @property
    def reads(self) -> str:
        """The hook point of what the MLP reads."""

    @property
    def writes(self) -> str:
        """The hook point of what it puts out."""

    @property
    def measures(self) -> str:
        """The hook point at which an activation is looked at in a pass where something was moved."""

    @property
    def hooks(self) -> Sequence[str]:
        """All hook points that `read` needs."""

    @property
    def W_dec(self) -> Float[Tensor, "F D"]:
        """What a unit of each feature writes."""

    @property
    def W_skip(self) -> Float[Tensor, "D D"] | None:
        """What goes on linearly beside the features, (out, in)."""

    def read(self, number: int, clean: Clean, counted_LT: Bool[Tensor, "L T"]) -> Layer:
        """Which features are active where in a prompt, and the error; at positions that do not count the error is all of the output."""

    def activation(self, seen_W: Float[Tensor, " W"], feature: int) -> Float[Tensor, ""]:
        """A feature's activation, from what passed `measures` at a position."""

    def measured_rows(self, layer: Layer, entries_N: Int[Tensor, " N"]) -> Float[Tensor, "N W"]:
        """By what a change at `measures` is multiplied to give the entry's own."""

    def levels(self, feature_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Below which activation a feature is off."""

    def anew(
        self, read: "Read", number: int, seen: Mapping[int, Float[Tensor, "B T D"]], kept: Mapping[int, Sequence[Kept]]
    ) -> Float[Tensor, "B T D"]:
        """What the features write into a layer, as the graph has them, and its error, when it and lower ones read what is `seen`; by layer."""


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
    """A decoder with something in the place of every MLP; made by `make_replacement` or `neurons.replace_by_neurons`."""

    model: Model
    parts: tuple[Part, ...]
    """In the order of the layers."""
    cutoffs: Mapping[str, float] = field(default_factory=dict)
    """Norms above which a position is a sink, by hook point; none: all positions but the first and separators count."""

    @cached_property
    def norms(self) -> tuple[HeldNorm, ...]:
        """What is held of the model's norms."""
        return held_norms(self.model)

    @property
    def over(self) -> str:
        """`graph.FEATURES`, `NEURONS` or `RESIDUAL`."""
        return self.parts[0].over

    @property
    def about(self) -> dict[str, Any]:
        """What a graph says of how it was made."""
        return {"over": self.over}

    @property
    def transcoders(self) -> tuple[SAE, ...]:
        """In the order of the layers; of neurons there are none."""
        return tuple(part.sae for part in self.parts if isinstance(part, Transcoded))

    @property
    def reads(self) -> list[str]:
        """What each layer's MLP reads."""
        return [part.reads for part in self.parts]

    @property
    def writes(self) -> list[str]:
        """What each layer's MLP puts out."""
        return [part.writes for part in self.parts]

    @property
    def measures(self) -> list[str]:
        """Where activations of each layer are looked at."""
        return [part.measures for part in self.parts]

    def cuts(self, read: "Read") -> list[Cut]:
        """Where a held pass is cut: every MLP's output, but for what a skip connection makes of its input."""
        cuts = []
        for number, part in enumerate(self.parts):
            skip = part.W_skip
            by_position = None if skip is None else read.counted_LT[number][:, None, None] * skip
            cuts.append(Cut(part.writes, part.reads, by_position))
        return cuts

    def linear(self, read: Read) -> Pulls:
        """What edges are read off: the held pass of a prompt."""
        return held_pass(self.model, self.norms, read.clean, self.cuts(read), self.reads)

    def read(self, tokens_T: Int[Tensor, " T"]) -> Read:
        """A prompt's own pass, and what is active in it; the tokens with what the family puts before them.

        Raises InterpError for a prompt of fewer than two tokens.
        """
        if len(tokens_T) < 2:
            raise InterpError("a prompt needs a token beside the one that opens it, for nothing is attributed to that.")
        hooks = [name for part in self.parts for name in part.hooks]
        clean = clean_pass(self.model, self.norms, tokens_T, hooks)
        own = own_tokens(tokens_T[None], self.model.separator)[0]
        counted = []
        for part in self.parts:
            seen = {name: clean.activations[name][0].float() for name in (part.reads, part.writes)}
            cut = {name: self.cutoffs[name] for name in seen if name in self.cutoffs}
            counted.append(Mask(cut).counted(seen, own))
        counted_LT = torch.stack(counted)
        layers = tuple(part.read(number, clean, counted_LT) for number, part in enumerate(self.parts))
        if int(tokens_T[0]) == self.model.separator:
            for layer in layers:
                layer.error_TD[0] = 0
        return Read(clean, counted_LT, layers)


# ---- by transcoders ----


@dataclass(frozen=True, eq=False)
class Transcoded:
    """A transcoder in the place of an MLP."""

    sae: SAE

    @property
    def over(self) -> str:
        return FEATURES

    @property
    def reads(self) -> str:
        return self.sae.hook_name

    @property
    def writes(self) -> str:
        return self.sae.hook_name_out

    @property
    def measures(self) -> str:
        """What it reads: a change is a feature's pre-activation's."""
        return self.sae.hook_name

    @property
    def hooks(self) -> Sequence[str]:
        return self.reads, self.writes

    @property
    def W_dec(self) -> Float[Tensor, "F D"]:
        return self.sae.W_dec.detach()

    @property
    def W_skip(self) -> Float[Tensor, "D D"] | None:
        return self.sae.W_skip

    def read(self, number: int, clean: Clean, counted_LT: Bool[Tensor, "L T"]) -> Layer:
        x_TD, y_TD = (clean.activations[name][0].float() for name in (self.reads, self.writes))
        return read_layer(number, self.sae, x_TD, y_TD, counted_LT[number])

    def activation(self, seen_W: Float[Tensor, " W"], feature: int) -> Float[Tensor, ""]:
        return self.sae.encode_feature(seen_W, feature)

    def measured_rows(self, layer: Layer, entries_N: Int[Tensor, " N"]) -> Float[Tensor, "N W"]:
        return layer.read_rows(entries_N)

    def levels(self, feature_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        threshold = self.sae.threshold
        return torch.zeros(len(feature_N)) if threshold is None else threshold[feature_N]

    def anew(
        self, read: Read, number: int, seen: Mapping[int, Float[Tensor, "B T D"]], kept: Mapping[int, Sequence[Kept]]
    ) -> Float[Tensor, "B T D"]:
        x_BTD, clean_TD = seen[number], read.clean.activations[self.reads][0]
        said = self.sae.reconstruct(x_BTD.reshape(-1, x_BTD.shape[-1])).view(x_BTD.shape)
        said += read.layers[number].error_TD
        for one in kept.get(number, ()):
            fires, fired = (self.activation(x[one.at], one.feature) for x in (x_BTD[one.row], clean_TD))
            said[one.row, one.at] -= (fires - fired) * self.sae.W_dec[one.feature]
        return said


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
    return Layer(
        number=number,
        position_E=position,
        feature_E=feature,
        value_E=value,
        reads=((transcoder.W_enc.detach().T, torch.ones_like(value)),),
        constant_E=transcoder.b_enc.detach()[feature],
        W_dec=transcoder.W_dec.detach(),
        error_TD=y_TD - said_TD,
        out_TD=y_TD,
    )


def make_replacement(
    model: Model, transcoders: Bundle[SAE] | Sequence[SAE], cutoffs: Mapping[str, float] | None = None
) -> Replacement:
    """A replacement of every layer's MLP by a transcoder.

    Raises InterpError when the model is not in float32 or no decoder, when a layer has no transcoder, when one is no transcoder of an MLP,
    and when its widths are not the model's.
    """
    check_model(model)
    by_layer: dict[int, SAE] = {}
    for one in transcoders:
        pair = Hook(one.hook_name, one.d_in), Hook(one.hook_name_out, one.d_out)
        by_layer[mlp_layer(model, one.name, *pair)] = one
    layers = layers_of(model)
    missing = sorted(set(layers) - by_layer.keys())
    if missing:
        raise InterpError(
            f"there is no transcoder for {_layers(missing)} of {model.name}, which has {len(layers)}; a graph needs one for every "
            "layer (recipes/smollm2_transcoders.py trains them together)."
        )
    return Replacement(model, tuple(Transcoded(by_layer[number]) for number in layers), dict(cutoffs or {}))


def check_model(model: Model) -> None:
    """Raises InterpError for a model that is not in float32, or no decoder."""
    if model.dtype != torch.float32:
        raise InterpError(
            f"{model.name} computes in {model.dtype_name}, whose rounding is as large as the effects that are attributed; open it "
            'with dtype="float32".'
        )
    model.check_causal("an attribution graph")


def layers_of(model: Model) -> list[int]:
    """The layers that a replacement has something for."""
    return sorted({int(found[1]) for name in model.hook_names() if (found := LAYER.match(name))})


def mlp_layer(model: Model, name: str, reads: Hook, writes: Hook) -> int:
    """The layer whose MLP a transcoder stands for; InterpError when it reads or writes anything else, or has other widths than the model."""
    found, written = LAYER.match(reads.name), LAYER.match(writes.name)
    inside = (reads.name.split(".", 2)[-1], writes.name.split(".", 2)[-1])
    if not found or not written or found[1] != written[1] or inside[0] not in READS or inside[1] not in WRITES:
        raise InterpError(
            f"{name} reads {reads.name or 'nothing named'} and writes {writes.name or 'nothing named'}; a graph is made of "
            "transcoders that read what an MLP reads (blocks.3.mlp.hook_in) and write its output (blocks.3.hook_mlp_out)."
        )
    for hook in (reads, writes):
        model.check_hook(hook.name)
        if model.width(hook.name) != hook.width:
            raise InterpError(
                f"{name} is {hook.width} wide at {hook.name} and {model.name} {model.width(hook.name)}: it was made for another model."
            )
    return int(found[1])


def _layers(missing: Sequence[int]) -> str:
    named = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
    return f"layer {named}" if len(missing) == 1 else f"{len(missing)} layers ({named})"
