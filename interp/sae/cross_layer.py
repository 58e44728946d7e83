"""A cross-layer transcoder: what a feature reads is at one layer, and it writes into that layer and every later one.

    ŷ_m  =  b_dec_m  +  Σ_{l ≤ m} Σ_r mix[l, r, m] · (z_l W_dec[l, r])         z_l: the active features of layer l

A decoder for each pair of layers would be L (L + 1) / 2 of them (465 for 30 layers). Here each layer has `rank` decoders, and `mix`
says how much of each is written where: with rank 1 a feature has one direction, and all features of a layer share one profile over the layers
above; with more, a feature's own direction can change from layer to layer, in as many ways. The reconstruction of all layers then
costs L · rank sparse decodes and one small product. Where `mix` is the identity it is a transcoder for each layer, and no more.

Axes    L source layer, M layer that is written (as many), R rank, B batch row, D width read, O width written, F feature of one layer,
        N entry.
Source  Ameisen et al. 2025, "Circuit Tracing: Revealing Computational Graphs in Language Models" (the architecture, there with a
        decoder a pair). Decoders tied by source layer are EleutherAI's and Tigges' too, without a profile. The selection is BatchTopK's,
        of each layer by itself.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.sae import dictionary, kernels
from interp.sae.kernels import Active
from interp.sae.sae import SAE
from interp.types import Hook, Hooks, InterpError, as_hooks, check_feature, unknown


class CrossLayerTranscoder(nn.Module):
    """Trained weights, ready to encode: exact float32, as an `SAE` encodes.

    Rows of all layers lie side by side, in the order of the layers, in what it takes (B, L · D) and what it gives back (B, L · O), as
    `join` and `split` of `sae/dictionary.py` lay them. Feature f of layer l has the number l · F + f.
    """

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "L D F"],
        b_enc: Float[Tensor, "L F"],
        threshold: Float[Tensor, "L F"],
        W_dec: Float[Tensor, "L R F O"],
        b_dec: Float[Tensor, "L O"],
        mix: Float[Tensor, "L R L"],
        name: str = "cross-layer transcoder",
        reads: Hooks = (),
        writes: Hooks = (),
    ) -> None:
        """Weights in any float type, kept as float32; hook points one a layer, or none.

        Raises InterpError when a layer would write into one before it, and when there are not as many hook points as layers.
        """
        super().__init__()
        if bool(mix[~forwards(len(mix), mix.device)[:, None].expand_as(mix)].any()):
            raise InterpError("mix has a layer write into one before it, which its features cannot have had a part in.")
        self.register_buffer("decoders", W_dec.float())
        self.register_buffer("b_dec", b_dec.float())
        self.register_buffer("mix", mix.float())
        self.decoders: Tensor
        self.b_dec: Tensor
        self.mix: Tensor
        self.name = name
        self.layers: tuple[SAE, ...] = tuple(
            SAE(W_enc=W, b_enc=b, threshold=cut, W_dec=out[0], b_dec=bias, centred=False)
            for W, b, cut, out, bias in zip(W_enc, b_enc, threshold, W_dec, b_dec, strict=True)
        )
        self._encoders = nn.ModuleList(self.layers)  # which move with the rest
        self._reads, self._writes = (Hook("", len(W_enc[0])),) * len(mix), (Hook("", b_dec.shape[1]),) * len(mix)
        self.set_hooks(reads, writes)

    def set_hooks(self, reads: Hooks, writes: Hooks) -> None:
        """Name the hook points that the layers read and write, one each, in their order; without any they stay as they are.

        Raises InterpError when there are more or fewer than layers.
        """
        for does, given in (("reads", as_hooks(reads)), ("writes", as_hooks(writes))):
            if given and len(given) != len(self.mix):
                raise InterpError(
                    f"{self.name} {does} a hook point at each of its {len(self.mix)} layers; {len(given)} were given."
                )
        read, written = as_hooks(reads) or self._reads, as_hooks(writes) or self._writes
        self._reads = dictionary.with_widths(read, [hook.width for hook in self._reads])
        self._writes = dictionary.with_widths(written, [hook.width for hook in self._writes])

    @property
    def reads(self) -> tuple[Hook, ...]:
        """The hook point that each layer reads."""
        return self._reads

    @property
    def writes(self) -> tuple[Hook, ...]:
        """The hook point that each layer writes."""
        return self._writes

    @property
    def hook_name(self) -> str:
        """What it reads as card.json spells it: `h1+h2`; empty while nobody has named it."""
        return "+".join(map(str, self.reads)) if self.reads[0].name else ""

    @property
    def hook_name_out(self) -> str:
        """What it writes, spelt so."""
        return "+".join(map(str, self.writes)) if self.writes[0].name else ""

    @property
    def n_layers(self) -> int:
        """L."""
        return len(self.mix)

    @property
    def rank(self) -> int:
        """Decoders a layer."""
        return int(self.mix.shape[1])

    @property
    def per_layer(self) -> int:
        """Features of one layer, F."""
        return int(self.decoders.shape[2])

    @property
    def d_in(self) -> int:
        """Columns of what it takes, L · D."""
        return sum(hook.width for hook in self.reads)

    @property
    def d_out(self) -> int:
        """Columns of what it gives back, L · O."""
        return sum(hook.width for hook in self.writes)

    @property
    def d_sae(self) -> int:
        """Features of all layers, L · F."""
        return self.n_layers * self.per_layer

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so every result."""
        return self.b_dec.device

    @cached_property
    def W_dec(self) -> Tensor:
        """(L · F, L · O): what a unit of each feature writes at all layers side by side.

        That is every decoder of every pair: 3 GB for 30 layers of 1,536 features and width 576. `direction` needs none of it.
        """
        whole = self.decoders.new_zeros(self.n_layers, self.per_layer, self.n_layers, self.decoders.shape[3])
        for source in range(self.n_layers):
            for layer in range(source, self.n_layers):
                whole[source, :, layer] = self.decoder(source, layer)
        return whole.reshape(self.d_sae, self.d_out)

    def decoder(self, source: int, layer: int) -> Float[Tensor, "F O"]:
        """What a unit of each feature of the layer `source` writes into `layer`; zeros into one before it."""
        return torch.einsum("r,rfo->fo", self.mix[source, :, layer], self.decoders[source])

    def direction(self, feature: int, hook: Hook | str | None = None) -> Float[Tensor, " O"]:
        """What a unit of the feature writes at a hook point.

        Raises InterpError when there is no such feature or hook point, and when none of several is named.
        """
        source, own = divmod(check_feature(feature, self.d_sae, self.name), self.per_layer)
        if hook is None:
            dictionary.one_written(self, "a direction without its hook point")
        names = [str(written) for written in self.writes]
        if hook is not None and str(hook) not in names:
            raise unknown(f"hook point that {self.name} writes", hook, names)
        layer = 0 if hook is None else names.index(str(hook))
        return self.mix[source, :, layer] @ self.decoders[source, :, own]

    def active_by_layer(self, x_BD: Float[Tensor, "B D"]) -> tuple[Active, ...]:
        """The active entries of each layer's features, exact as `SAE.active` gives them."""
        parts = x_BD.split([hook.width for hook in self.reads], dim=1)
        return tuple(one.active(part) for one, part in zip(self.layers, parts, strict=True))

    def active(self, x_BD: Float[Tensor, "B D"]) -> Active:
        """The active entries of each row, features of all layers ascending."""
        by_layer = self.active_by_layer(x_BD)
        flat = torch.cat([a.rows * self.d_sae + n * self.per_layer + a.features for n, a in enumerate(by_layer)])
        flat, order = torch.sort(flat)
        return kernels.from_flat(flat, torch.cat([a.values for a in by_layer])[order], len(x_BD), self.d_sae)

    def of_layer(self, active: Active, layer: int) -> Active:
        """Those of the active entries whose features are of one layer, numbered as there."""
        own = torch.div(active.features, self.per_layer, rounding_mode="floor") == layer
        flat = active.rows[own] * self.per_layer + active.features[own] - layer * self.per_layer
        return kernels.from_flat(flat, active.values[own], len(active.offsets) - 1, self.per_layer)

    def decode_layers(self, by_layer: Sequence[Active]) -> Float[Tensor, "L B O"]:
        """The reconstruction of every layer, from the active entries of each."""
        S_LRBO = written(by_layer, self.decoders)
        count, rows = self.n_layers * self.rank, S_LRBO.shape[2]
        out = self.mix.reshape(count, -1).T @ S_LRBO.reshape(count, -1)
        return out.reshape(self.n_layers, rows, -1) + self.b_dec[:, None]

    def decode_layer(self, active: Active, layer: int) -> Float[Tensor, "B O"]:
        """The reconstruction of one layer, from active entries of all; what those of later layers do is not asked."""
        out = self.b_dec[layer].repeat(len(active.offsets) - 1, 1)
        for source in range(layer + 1):
            part = self.of_layer(active, source)
            out += part.decode(part.values, self.decoder(source, layer))
        return out

    def decode_active(self, active: Active, x_BD: Tensor | None = None) -> Float[Tensor, "B O"]:
        """The reconstruction of all layers side by side; `x_BD` is not looked at."""
        out_LBO = self.decode_layers([self.of_layer(active, layer) for layer in range(self.n_layers)])
        return out_LBO.transpose(0, 1).reshape(out_LBO.shape[1], self.d_out)

    def reconstruct(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """What its active features come to at all layers, side by side."""
        out_LBO = self.decode_layers(self.active_by_layer(x_BD))
        return out_LBO.transpose(0, 1).reshape(len(x_BD), self.d_out)

    def forward(self, x_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B O"]:
        """As `reconstruct`."""
        return self.reconstruct(x_BD)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        self.__dict__.pop("W_dec", None)
        return super()._apply(fn, recurse)


def forwards(layers: int, device: torch.device | None = None) -> Tensor:
    """(L, M): True where a source layer may write, into itself and later ones."""
    return torch.ones(layers, layers, dtype=torch.bool, device=device).triu()


def written(by_layer: Sequence[Active], W_dec: Float[Tensor, "L R F O"]) -> Float[Tensor, "L R B O"]:
    """What each layer's active entries come to along each of its decoders."""
    rows = len(by_layer[0].offsets) - 1
    out = W_dec.new_empty(*W_dec.shape[:2], rows, W_dec.shape[3])
    for active, W_RFO, into in zip(by_layer, W_dec, out, strict=True):
        for W_FO, part in zip(W_RFO, into, strict=True):
            part.copy_(active.decode(active.values, W_FO))
    return out
