"""What the features of all layers' dictionaries fire on: names, tried on documents that they were not made from.

1. One pass of the model over blocks of a text feeds all layers; the firings of each are a file.
2. Layer by layer names are proposed and tried (`labels.automatic`). What is said of a feature is its label, with how it came out; and
   where its activation falls, token by token, which is all that is said where no label holds.

All of it lies in a folder that is named by what it follows from, so that a run that was killed goes on where it was.

Axes    L layer, P position, M firing, F feature, D width, V vocabulary.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import places
from interp.labels.automatic import Run, Tested, tried
from interp.labels.propose.proposing import Proposer
from interp.mask import Mask
from interp.models import Model
from interp.predicates import Clean, Text, explain
from interp.progress import bar
from interp.sae.kernels import Active

AT_ONCE = 16
"""Blocks of a pass."""
SHOWN = 4
"""Tokens of which is said that a feature fires on them, or makes them likelier."""
FIRING = np.dtype([("position", "<i4"), ("feature", "<i4"), ("value", "<f2")])
COUNTED = "counted.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One layer's dictionary."""

    reads: str
    """A hook point."""
    mask: Mask
    active: Callable[[Tensor], Active]
    """Which features are active in rows (B, D) of it."""
    written_FD: Float[Tensor, "F D"]
    """What each feature adds to the residual stream, in all."""

    @property
    def d_sae(self) -> int:
        return len(self.written_FD)


@dataclass(frozen=True, eq=False)
class Firings:
    """Of one layer, feature by feature."""

    rows: np.ndarray
    """Of FIRING, by feature and then by position."""
    d_sae: int
    counted: int
    """Positions that the layer read."""

    @cached_property
    def first_F(self) -> np.ndarray:
        """Where each feature's rows begin, and where the last one's end."""
        return np.searchsorted(self.rows["feature"], np.arange(self.d_sae + 1))

    @property
    def fires_F(self) -> Int[np.ndarray, " F"]:
        return np.diff(self.first_F)

    def of(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """(positions, ascending; values)."""
        own = self.rows[self.first_F[feature] : self.first_F[feature + 1]]
        return own["position"].astype(np.int64), own["value"].astype(np.float32)


def describe_layers(
    model: Model,
    layers: Sequence[Layer],
    text: Text,
    blocks: Int[np.ndarray, " N"],
    encode: Callable[[list[str]], Tensor],
    root: Path,
    *,
    follows_from: Mapping[str, Any],
    features: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Layer by layer a row for each feature (`checkpoint.eight_bit.write_features` keeps them), from these blocks of the text.

    `encode` gives unit vectors of texts; `follows_from` names the weights and the text; of a layer only these `features` are named (and the
    others that are tried beside them, where they are few), or all that fire. Raises InterpError as `labels.automatic.tried`.
    """
    asked = {**follows_from, "blocks": blocks.tolist()}
    folder = root / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    if not (folder / COUNTED).exists():
        with places.whole_folder(folder) as unfinished:
            _collect(model, layers, text, blocks, unfinished)
    counted = places.read_json(folder / COUNTED)
    chosen = np.zeros(len(text.token_N), dtype=bool)
    for block in blocks:
        chosen[block * text.block : (block + 1) * text.block] = True
    read = replace(text, kept_N=text.kept_N & chosen)
    W_VD, gain_D = model.unembedding()
    for number, layer in enumerate(layers):
        firings = _read(folder / f"{number}.bin", layer.d_sae, counted[number])
        proposer = Proposer(read, firings.of, partial(_explained, firings, read), encode)
        wanted = np.flatnonzero(firings.fires_F) if features is None else features.get(number, ())
        some = [int(feature) for feature in wanted if firings.fires_F[feature]]
        run = Run(folder / f"names-{number}")
        tested = tried(run, proposer, some, firings.fires_F, lambda feature: []) if some else {}
        promoted_FK = (layer.written_FD @ (W_VD * gain_D).T).topk(min(SHOWN, len(W_VD))).indices
        yield [
            {
                "density": float(firings.fires_F[feature] / max(firings.counted, 1)),
                **_falls_on(*firings.of(feature), read),
                "promotes": [model.decode([int(token)]) for token in promoted_FK[feature]],
                **_label(tested.get(feature)),
            }
            for feature in range(layer.d_sae)
        ]


@torch.inference_mode()
def _collect(model: Model, layers: Sequence[Layer], text: Text, blocks: np.ndarray, into: Path) -> None:
    """Every layer's firings, in files of FIRING, and how many positions each layer read."""
    hooks = list(dict.fromkeys(hook for layer in layers for hook in (layer.reads, *layer.mask.cutoffs)))
    whole = len(text.token_N) // text.block * text.block
    token_NT, kept_NT = (x[:whole].reshape(-1, text.block) for x in (text.token_N, text.kept_N))
    counted = [0] * len(layers)
    files: list[IO[bytes]] = [(into / f"{number}.bin").open("wb") for number in range(len(layers))]
    try:
        with bar("reading", len(blocks), "blocks") as advance:
            for first in range(0, len(blocks), AT_ONCE):
                some = blocks[first : first + AT_ONCE]
                run = model.run(torch.from_numpy(token_NT[some].astype(np.int64)), hooks)
                at_NT = torch.from_numpy((some[:, None] * text.block + np.arange(text.block)).astype(np.int32))
                real_NT = torch.from_numpy(kept_NT[some])
                for number, (layer, file) in enumerate(zip(layers, files, strict=True)):
                    seen = {hook: run.activations[hook] for hook in layer.mask.cutoffs}
                    counted_NT = layer.mask.counted(seen, real_NT)
                    active = layer.active(run.activations[layer.reads][counted_NT].float())
                    rows = np.empty(len(active.rows), FIRING)
                    rows["position"] = at_NT[counted_NT][active.rows].numpy()
                    rows["feature"], rows["value"] = active.features.numpy(), active.values.numpy()
                    rows.tofile(file)
                    counted[number] += int(counted_NT.sum())
                advance(len(some))
    finally:
        for file in files:
            file.close()
    places.write_json(into / COUNTED, counted)


def _read(path: Path, d_sae: int, counted: int) -> Firings:
    rows = np.fromfile(path, FIRING)
    return Firings(rows[np.lexsort((rows["position"], rows["feature"]))], d_sae, counted)


def _explained(firings: Firings, text: Text, feature: int) -> Clean | None:
    return explain(*firings.of(feature), text)


def _falls_on(position_M: np.ndarray, value_M: np.ndarray, text: Text) -> dict[str, list[Any]]:
    """The tokens with the most of a feature's activation, and the share that each has."""
    token, which = np.unique(text.token_N[position_M], return_inverse=True)
    mass = np.bincount(which, value_M, minlength=len(token))
    most = np.argsort(-mass, kind="stable")[:SHOWN]
    return {
        "fires_on": [text.vocabulary.texts[int(token[at])] for at in most],
        "shares": [round(float(mass[at] / mass.sum()), 4) for at in most],
    }


def _label(tested: Tested | None) -> dict[str, Any]:
    """A label and how it came out; of a feature that no claim explains, empty."""
    if tested is None:
        return {"label": "", "claim": "", "level": None, "verdict": "", "f1": None, "low": None, "high": None}
    one = tested.proposal
    f1, low, high = (round(float(x), 4) for x in tested.figures["f1"])
    return {
        "label": one.name,
        "claim": one.claim,
        "level": round(one.level, 4),
        "verdict": tested.verdict,
        "f1": f1,
        "low": low,
        "high": high,
    }
