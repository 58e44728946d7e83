"""Dictionaries of a planted model's MLPs: trained ones, the planted neurons themselves, and two nulls.

Axes    N prompt, T token, D width, F d_sae, R row.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from interp.models import Model
from interp.recipe.planted_models import Question, TwoHops
from interp.sae import SAE, make_architecture
from interp.sae.cross_layer import CrossLayerTranscoder
from interp.sae.cross_layer_rule import CrossLayer
from interp.training import TrainConfig, train
from interp.training.cross_layer import train_cross_layer

D_SAE, K = 64, 1
BATCH, CALIBRATION = 128, 4_096
RATE = 3e-3
"""Learning rate: at the default, for dictionaries of real models, an FVU of .03 is left, and of .005 at this."""
LAYERS = 2


def hooks_of(layer: int) -> tuple[str, str]:
    """What the MLP of a layer reads, and what it puts out."""
    return f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"


def tokens_of(model: Model, questions: Sequence[Question]) -> Int[Tensor, "N T"]:
    """Their prompts, which are all of one length."""
    return torch.tensor([model.prompt(each.text) for each in questions])


def trained(model: Model, questions: Sequence[Question], rows: int, seed: int) -> list[SAE]:
    """A transcoder for each MLP, trained on what it reads and writes at these prompts (not at the first position)."""
    every = [hook for layer in range(LAYERS) for hook in hooks_of(layer)]
    run = model.run(tokens_of(model, questions), every)
    made = []
    for layer in range(LAYERS):
        x_RD, y_RD = (run.activations[hook][:, 1:].flatten(0, 1).clone() for hook in hooks_of(layer))
        rule = make_architecture("transcoder", d_in=x_RD.shape[1], d_out=y_RD.shape[1], d_sae=D_SAE, k=K)
        config = TrainConfig(tokens=rows, lr=RATE, seed=seed)
        kept = (x_RD[:CALIBRATION], y_RD[:CALIBRATION])
        sae = train(_batches([x_RD[CALIBRATION:], y_RD[CALIBRATION:]], seed), rule, config, held_out=kept).cpu()
        sae.name = f"layer-{layer}"
        sae.set_hooks(*hooks_of(layer))
        made.append(sae)
    return made


def crossed(model: Model, questions: Sequence[Question], rows: int, seed: int) -> CrossLayerTranscoder:
    """A cross-layer transcoder of both MLPs, with a decoder for each layer it writes into, trained on the same."""
    pairs = [hooks_of(layer) for layer in range(LAYERS)]
    hooks = [hook for side in zip(*pairs, strict=True) for hook in side]
    run = model.run(tokens_of(model, questions), hooks)
    columns = [run.activations[hook][:, 1:].flatten(0, 1).clone() for hook in hooks]
    width, kept = columns[0].shape[1], tuple(x_RD[:CALIBRATION] for x_RD in columns)
    rule = CrossLayer(layers=LAYERS, d_in=width, d_out=width, d_sae=D_SAE, k=K, rank=LAYERS)
    batches = _batches([x_RD[CALIBRATION:] for x_RD in columns], seed)
    made = train_cross_layer(batches, rule, TrainConfig(tokens=rows, lr=RATE, seed=seed), held_out=kept).transcoder
    made.set_hooks(*zip(*pairs, strict=True))
    return made


def _batches(columns: Sequence[Float[Tensor, "R D"]], seed: int) -> Iterator[tuple[Tensor, ...]]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(columns[0]), generator=draw)
        for some in order[: len(order) // BATCH * BATCH].split(BATCH):
            yield tuple(x_RD[some] for x_RD in columns)


def planted(world: TwoHops) -> list[SAE]:
    """The planted neurons as a dictionary; what the others add is error."""
    return [
        _dictionary(layer, reads.T.contiguous(), bias, writes, torch.zeros(len(bias)), torch.zeros(writes.shape[1]))
        for layer, (reads, bias, writes) in enumerate(world.neurons)
    ]


def shuffled(transcoders: Sequence[SAE], alive: Sequence[Tensor], seed: int) -> list[SAE]:
    """These with the decoder rows of the features that fire dealt anew among them: each fires as before and writes another's."""
    draw, made = torch.Generator().manual_seed(seed + 79_000), []
    for layer, (one, fires_F) in enumerate(zip(transcoders, alive, strict=True)):
        W_dec, some = one.W_dec.detach().clone(), fires_F.nonzero()[:, 0]
        order = some[torch.randperm(len(some), generator=draw)]
        W_dec[order] = W_dec[order.roll(1)]
        assert one.threshold is not None
        made.append(
            _dictionary(layer, one.W_enc.detach(), one.b_enc.detach(), W_dec, one.threshold, one.b_dec.detach())
        )
    return made


def random(transcoders: Sequence[SAE], rows: Sequence[Tensor], seed: int) -> list[SAE]:
    """Random rows, each firing on as large a share of the rows that it reads as the trained features do on average."""
    draw, made = torch.Generator().manual_seed(seed + 80_000), []
    for layer, (one, x_RD) in enumerate(zip(transcoders, rows, strict=True)):
        W_enc = torch.randn(one.W_enc.shape, generator=draw) / one.d_in**0.5
        W_dec = normalize(torch.randn(one.W_dec.shape, generator=draw), dim=1)
        threshold = (x_RD @ W_enc).quantile(1 - K / one.d_sae, dim=0)
        zero = torch.zeros(one.d_sae)
        made.append(_dictionary(layer, W_enc, zero, W_dec, threshold, one.b_dec.detach()))
    return made


def _dictionary(layer: int, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, threshold: Tensor, b_dec: Tensor) -> SAE:
    reads, writes = hooks_of(layer)
    return SAE(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        threshold=threshold,
        centred=False,
        name=f"layer-{layer}",
        reads=reads,
        writes=writes,
    )
