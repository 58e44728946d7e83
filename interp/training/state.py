"""What a training run must remember, and how it is written so that a killed run goes on bit for bit.

Axes    D d_in, F d_sae.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.types import InterpError

NAMES = ("W_enc", "W_dec", "b_enc", "b_dec")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class State:
    """Parameters in scaled units (the mean squared distance from the mean is d_in), with the optimiser's moments."""

    W_enc: Float[Tensor, "F D"]
    W_dec: Float[Tensor, "F D"]
    b_enc: Float[Tensor, " F"]
    b_dec: Float[Tensor, " D"]
    scale: Float[Tensor, ""]
    """Raw activations times this are the scaled ones."""
    idle_F: Tensor
    """Tokens since each feature was last active."""
    hint: Float[Tensor, ""]
    step: int
    optimiser: torch.optim.Adam

    @property
    def parameters(self) -> list[Tensor]:
        return [getattr(self, name) for name in NAMES]

    def save(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Write state.safetensors, recipe and step inside it, whole or not at all."""
        tensors = {name: getattr(self, name) for name in (*NAMES, "scale", "idle_F", "hint")}
        for name, parameter in zip(NAMES, self.parameters, strict=True):
            for moment, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{moment}.{name}"] = value
        meta = {"step": str(self.step), "recipe": json.dumps(recipe)}
        with places.whole_file(folder / "state.safetensors") as partial:
            try:
                save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial, metadata=meta)
            except SafetensorError as error:
                raise places.disk_error(folder, OSError(28, str(error))) from error


def adam(parameters: list[Tensor], lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)


def initial(x_BD: Float[Tensor, "B D"], d_sae: int, lr: float, seed: int) -> State:
    """Parameters from the first rows: b_dec their mean, decoder rows random directions, encoder its transpose."""
    mean = x_BD.mean(0)
    scale = (x_BD.shape[1] / (x_BD - mean).square().sum(1).mean().clamp_min(1e-12)).sqrt()
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(d_sae, x_BD.shape[1], generator=draw).to(x_BD.device)
    W = W / W.norm(dim=1, keepdim=True)
    values = [W.clone(), W, W.new_zeros(d_sae), (mean * scale).clone()]
    return State(
        **dict(zip(NAMES, values, strict=True)),
        scale=scale,
        idle_F=torch.zeros(d_sae, dtype=torch.int64, device=W.device),
        hint=W.new_zeros(()),
        step=0,
        optimiser=adam(values, lr),
    )


def load(folder: Path, recipe: dict[str, Any], lr: float, device: torch.device) -> State | None:
    """The state in the folder, or None when there is none.

    Raises InterpError, naming the field, when it was made by another recipe.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    try:
        # Cloned: a tensor of the file may lie unaligned, where matrix products differ in their last bits.
        with safe_open(path, framework="pt", device=str(device)) as file:
            meta, tensors = file.metadata(), {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InterpError(f"{path} cannot be read ({error}); --restart begins anew.") from None
    kept = json.loads(meta["recipe"])
    for key in sorted(kept.keys() | recipe.keys()):
        if kept.get(key) != recipe.get(key):
            raise InterpError(
                f"{folder} holds a run with {key} = {kept.get(key)!r}, and {recipe.get(key)!r} was asked; "
                "choose another folder, or --restart to begin anew."
            )
    values = [tensors[name] for name in NAMES]
    optimiser = adam(values, lr)
    for name, parameter in zip(NAMES, values, strict=True):
        optimiser.state[parameter] = {moment: tensors[f"adam.{moment}.{name}"] for moment in MOMENTS}
    return State(
        **dict(zip(NAMES, values, strict=True)),
        scale=tensors["scale"],
        idle_F=tensors["idle_F"],
        hint=tensors["hint"],
        step=int(meta["step"]),
        optimiser=optimiser,
    )
