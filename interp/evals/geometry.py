"""How the decoder's directions lie: how near each is to its nearest other, beside what chance gives, and to its encoder column.

    nearest      for each feature the largest cosine of its decoder row with another's; its median and mean over features
    chance       the same of as many random directions drawn from a normal distribution with the second moments of the
                 decoder's unit rows, so that a decoder which keeps to a few dimensions has a high floor
    duplicates   share of the features whose nearest cosine is above 0.9
    alignment    mean cosine of a feature's encoder column and its decoder row

Of the weights alone: none of these has a sampling error over text. Features of norm 0 are left out.

Axes    F feature, O d_out, C feature of a chunk.
Source  Bricken et al. 2023, "Towards monosemanticity" (encoder and decoder, near duplicates); the floor is our own.
"""

import time

import torch
from jaxtyping import Float
from torch import Tensor

from interp.evals.figure import Better, Figure, Section
from interp.sae import SAE
from interp.types import InterpError

NEAR = 0.9
"""Cosine above which two features are near duplicates."""
CHUNK = 1024
"""Features compared with all others at a time."""


@torch.inference_mode()
def measure_geometry(sae: SAE, *, seed: int = 0) -> Section:
    """The section `geometry`; `seed` is of the random directions. Raises InterpError when fewer than two features have a direction."""
    began = time.perf_counter()
    norm_F = sae.W_dec.norm(dim=1)
    live_F = norm_F > 0
    if int(live_F.sum()) < 2:
        raise InterpError(f"{sae.name} has fewer than two features with a direction; there is nothing to compare.")
    unit_FO = sae.W_dec[live_F] / norm_F[live_F][:, None]
    own_F, chance_F = nearest_cosines(unit_FO), nearest_cosines(random_directions(unit_FO, seed))
    count = len(own_F)

    def figure(name: str, says: str, value: float | None, better: Better = "", note: str = "") -> Figure:
        return Figure(name=name, says=says, value=value, n=count, unit="features", better=better, note=note)

    chance = "of random directions of the same spectrum"
    figures = (
        figure("nearest_median", "cosine with the nearest other decoder row, the median feature's", float(own_F.median())),
        figure("nearest_median_chance", f"the same {chance}", float(chance_F.median())),
        figure("nearest_mean", "cosine with the nearest other decoder row, in the mean", float(own_F.mean())),
        figure("nearest_mean_chance", f"the same {chance}", float(chance_F.mean())),
        figure("duplicates", f"share of the features with another within a cosine of {NEAR}", float((own_F > NEAR).float().mean()), "lower"),
        figure("duplicates_chance", f"the same {chance}", float((chance_F > NEAR).float().mean())),
        _alignment(sae, live_F),
    )  # fmt: skip
    of = {"features": sae.d_sae, "without a direction": sae.d_sae - count, "seed": seed}
    return Section(
        name="geometry", title="Decoder geometry", figures=figures, of=of, seconds=time.perf_counter() - began
    )


def nearest_cosines(unit_FO: Float[Tensor, "F O"]) -> Float[Tensor, " F"]:
    """Of each unit row, the largest cosine with another row."""
    parts = []
    for first in range(0, len(unit_FO), CHUNK):
        cosine_CF = unit_FO[first : first + CHUNK] @ unit_FO.T
        own_C = torch.arange(len(cosine_CF), device=cosine_CF.device)
        cosine_CF[own_C, own_C + first] = -2.0
        parts.append(cosine_CF.amax(1))
    return torch.cat(parts)


def random_directions(unit_FO: Float[Tensor, "F O"], seed: int) -> Float[Tensor, "F O"]:
    """As many unit rows from a normal distribution with the second moments of these."""
    moments_OO = (unit_FO.T @ unit_FO).cpu().double() / len(unit_FO)
    values_O, vectors_OO = torch.linalg.eigh(moments_OO)
    draw = torch.Generator().manual_seed(seed)
    z_FO = torch.randn(unit_FO.shape, generator=draw, dtype=torch.float64)
    rows_FO = (z_FO * values_O.clamp_min(0).sqrt()) @ vectors_OO.T
    return (rows_FO / rows_FO.norm(dim=1, keepdim=True).clamp_min(1e-300)).to(unit_FO)


def _alignment(sae: SAE, live_F: Tensor) -> Figure:
    says = "cosine of encoder column and decoder row, in the mean"
    if sae.d_in != sae.d_out or [str(h) for h in sae.reads] != [str(h) for h in sae.writes]:
        note = "it writes another hook point than it reads, so the two are of different spaces"
        return Figure(name="alignment", says=says, value=None, n=int(live_F.sum()), unit="features", note=note)
    cosine_F = torch.nn.functional.cosine_similarity(sae.W_enc.T[live_F], sae.W_dec[live_F], dim=1)
    return Figure(name="alignment", says=says, value=float(cosine_F.mean()), n=len(cosine_F), unit="features")
