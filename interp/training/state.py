"""What a training run must remember, and how it is written so that a killed run goes on bit for bit.

Axes    B batch row, D d_in, O d_out, F d_sae.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp.sae.architecture import Architecture, Params, unit_rows
from interp.sae.shards import ONE, Shards
from interp.types import InterpError

FILE = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SEED_OFFSET = 0x1D1C_7104A2
COUNTS = ("step", "tokens", "loss", "lr", "threads", "made_on", "ranks")
OWN = ("scale_in", "scale_out", "idle_F", "hint")
SHARED = ("b_dec", "W_skip")
"""Parameters that are no feature's: every rank holds them alike."""
NEWER: dict[str, Any] = {"temporal": 0.0, "high": 0.2, "pairs": None, "thresholds": "one", "frozen": [], "stored": ""}
"""Fields that recipes of before lack, with what they were then."""
UNKNOWN = ("batches.items_sha256",)
"""Fields that recipes of before lack, where what they were then is not known."""
DRAWN = 1024
"""First rows that are drawn at a time where only some are kept."""
FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which PyTorch has Adam's step as one kernel."""


@dataclass
class State:
    """Parameters in scaled units, with the optimiser's moments."""

    p: Params
    scale_in: Float[Tensor, " D"]
    """Raw inputs times this are the scaled ones: their mean squared distance from the mean is D. Of a cross-layer transcoder one a layer."""
    scale_out: Float[Tensor, " O"]
    idle_F: Tensor
    """Tokens since each feature was last active."""
    hint: Tensor
    """What the architecture gave back as `hint` after the last step, shape (); of a cross-layer transcoder one a layer, (L,)."""
    step: int
    tokens: int
    optimiser: torch.optim.Adam
    loss: float = 0.0
    lr: float = 0.0
    """Loss and rate of the last step, which a run's last event repeats."""
    threads: int = field(default_factory=torch.get_num_threads)
    """On which it was computed: sums are done in another order on more or fewer."""
    made_on: str = "cpu"
    """The kind of device it was computed on."""
    ranks: str = "1 x 1"
    """How many ranks shared rows, and features; each has its features' part of this state."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and batches are moved to."""
        return self.p["b_dec"].device

    def save(self, folder: Path, recipe: dict[str, Any], shards: Shards = ONE) -> None:
        """Write the state, recipe and step inside it, whole or not at all; several ranks write one file together."""
        tensors = {name: getattr(self, name) for name in OWN} | {f"p.{k}": v for k, v in self.p.items()}
        for name, parameter in self.p.items():
            for moment, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{moment}.{name}"] = value
        meta = {name: json.dumps(getattr(self, name)) for name in COUNTS} | {"recipe": json.dumps(recipe)}
        shards.save(folder / FILE, tensors, {name: 0 for name in tensors if _is_of_features(name)}, meta)


def _is_of_features(name: str) -> bool:
    """Whether the rows of a tensor of the file are features."""
    kind, _, parameter = name.rpartition(".")
    return name == "idle_F" if not kind else parameter not in SHARED and kind != "adam.step"


def adam(p: Params, architecture: Architecture) -> torch.optim.Adam:
    """Adam over the parameters; each group's `rate` is the multiple of the learning rate that it takes."""
    thresholds = [value for name, value in p.items() if name == "threshold"]
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in p.items() if name != "threshold"], "rate": 1.0},
        {"params": thresholds, "rate": architecture.traits.threshold_rate},
    ]
    fused = p["b_dec"].device.type in FUSED
    return torch.optim.Adam(groups[: 2 if thresholds else 1], betas=(0.9, 0.999), eps=1e-8, fused=fused)


def initial(
    x_BD: Float[Tensor, "B D"],
    y_BO: Float[Tensor, "B O"],
    architecture: Architecture,
    seed: int,
    shards: Shards = ONE,
) -> State:
    """Parameters from the first rows, which all ranks hold alike: b_dec the targets' mean, encoder rows random directions,
    the rest the architecture's choice."""
    scale_in, scale_out = (_scale(rows, architecture.traits.widths) for rows in (x_BD, y_BO))
    W = first_rows(architecture.d_sae, architecture.d_in, seed, shards.held(architecture.d_sae)).to(x_BD.device)
    p = {"W_enc": W, "b_enc": W.new_zeros(len(W)), "b_dec": y_BO.mean(0) * scale_out}
    some = x_BD[:4096] * scale_in
    made = architecture.initial(p, some - p["b_dec"] if architecture.traits.centred else some, shards)
    p = _ordered({name: value.clone() for name, value in made.items()})
    return State(
        p=p,
        scale_in=scale_in,
        scale_out=scale_out,
        idle_F=torch.zeros(len(W), dtype=torch.int64, device=W.device),
        hint=W.new_zeros(()),
        step=0,
        tokens=0,
        optimiser=adam(p, architecture),
        made_on=W.device.type,
        ranks=f"{shards.data} x {shards.features}",
    )


def first_rows(d_sae: int, d_in: int, seed: int, held: slice | None = None) -> Float[Tensor, "F D"]:
    """The random rows of norm 1 that an SAE of that seed begins with; or those of them that are `held`, without all of them
    ever being there."""
    # Away from the seeds that people give synthetic data: directions planted with seed 0 and an SAE begun with seed 0
    # would be the same numbers, and every planted feature would be "recovered" untrained.
    draw = torch.Generator().manual_seed(seed + SEED_OFFSET)
    if held in (None, slice(0, d_sae)):
        return unit_rows(torch.randn(d_sae, d_in, generator=draw))
    # PyTorch draws sixteen numbers at a time, so parts of a multiple of that are drawn as the whole is.
    edges = [*range(0, max(d_sae - DRAWN, 1), DRAWN), d_sae]
    kept = []
    for begin, end in pairwise(edges):
        W = torch.randn(end - begin, d_in, generator=draw)
        kept.append(W[max(held.start - begin, 0) : max(held.stop - begin, 0)])
    return unit_rows(torch.cat(kept))


def initial_decoder(recipe: Mapping[str, Any]) -> Float[Tensor, "F D"]:
    """The decoder, rows of norm 1, that the SAE of a card's `recipe` began with; nothing is trained.

    Every architecture that reads and writes one hook point begins both matrices with the same random rows (`initial`).
    Raises InterpError for a recipe that does not say architecture, widths and seed, as other libraries' do not, and for
    transcoders and crosscoders, whose decoders begin at 0 or with the activations' scale in them.
    """
    made, how = recipe.get("architecture"), recipe.get("training")
    of = made if isinstance(made, Mapping) else {}
    sizes = [of.get("d_sae"), of.get("d_in"), how.get("seed") if isinstance(how, Mapping) else None]
    if of.get("name") in ("transcoder", "crosscoder"):
        raise InterpError(f"the decoder that a {of['name']} begins with does not follow from its seed; give an SAE.")
    if not all(isinstance(size, int) for size in sizes):
        raise InterpError(
            "this card does not say with which seed and widths the SAE was trained, so its first decoder cannot be made "
            "again; give SAEs that `interp train` made."
        )
    return first_rows(*sizes)  # type: ignore[arg-type]


def _ordered(p: Params) -> Params:
    """The parameters in one order, begun or resumed: Adam goes through them so."""
    first = ("W_enc", "W_dec", "b_enc", "b_dec")
    return {name: p[name] for name in (*first, *sorted(p.keys() - set(first)))}


def _scale(rows: Tensor, widths: tuple[int, ...]) -> Tensor:
    """For each column the factor that gives its hook point's rows a mean squared distance of their width."""
    parts = []
    for part in rows.split(list(widths) or [rows.shape[1]], dim=1):
        spread = part.var(0, unbiased=False).sum().clamp_min(1e-12)
        parts.append((part.shape[1] / spread).sqrt().expand(part.shape[1]))
    return torch.cat(parts).contiguous()


def recipe(folder: Path) -> dict[str, Any]:
    """The recipe of the state in the folder; empty when there is none that can be read (`load` says why)."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            return dict(json.loads(file.metadata()["recipe"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return {}


def load(
    folder: Path, recipe: dict[str, Any], architecture: Architecture, device: torch.device, shards: Shards = ONE
) -> State | None:
    """The state in the folder, on the device and with the ranks' parts whichever it was made on, or None when there is none.

    Raises InterpError, naming the field, when it was made by another recipe.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        # Cloned: a tensor of the file may lie unaligned, where matrix products differ in their last bits.
        with safe_open(path, framework="pt") as file:
            meta = file.metadata()
            loaded = {key: _read(file, key, shards).clone().to(device) for key in file.keys()}  # noqa: SIM118
        kept = json.loads(meta["recipe"])
        # What older states lack.
        newer = {"loss": "0.0", "lr": "0.0", "threads": str(torch.get_num_threads()), "made_on": '"cpu"'}
        newer |= {"ranks": '"1 x 1"'}
        counts = {name: json.loads((newer | meta)[name]) for name in COUNTS}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InterpError(f"{path} cannot be read ({error}); --restart begins anew.") from None
    kept, asked = NEWER | _flat(kept), NEWER | _flat(json.loads(json.dumps(recipe)))
    kept = {key: asked[key] for key in UNKNOWN if key in asked} | kept
    for key in sorted(kept.keys() | asked.keys()):
        if kept.get(key) != asked.get(key):
            raise InterpError(
                f"{folder} holds a run with {key} = {kept.get(key)!r}, and {asked.get(key)!r} was asked; "
                "choose another folder, or --restart to begin anew."
            )
    p = _ordered({key[2:]: value for key, value in loaded.items() if key.startswith("p.")})
    optimiser = adam(p, architecture)
    for name, parameter in p.items():
        if name in recipe.get("frozen", ()):
            continue  # no step was taken along it
        optimiser.state[parameter] = {moment: loaded[f"adam.{moment}.{name}"] for moment in MOMENTS}
    own: Any = {name: loaded[name] for name in OWN}
    return State(p=p, optimiser=optimiser, **counts, **own)


def _read(file: Any, name: str, shards: Shards) -> Tensor:
    """A tensor of the file, or this rank's rows of it."""
    if shards.features == 1 or not _is_of_features(name):
        whole: Tensor = file.get_tensor(name)
        return whole
    rows = file.get_slice(name)
    held: Tensor = rows[shards.held(rows.get_shape()[0])]
    return held


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a recipe and of what lies in it, by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
