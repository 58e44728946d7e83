"""The self-test: plant known features in synthetic rows, train, and see how many come back.

Axes    N row, D d_in, P planted feature, F d_sae.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from interp.device import check_memory
from interp.recipe.rules import PAIRED, bytes_of, kind_of, make_rule
from interp.render.words import counted
from interp.sae import SAE, Options
from interp.sae.metrics import reconstruction
from interp.training import TrainConfig, train
from interp.types import InterpError

AT_ONCE = 100_000
"""Rows that are drawn at a time."""
HELD_OUT_ROWS = 20_000


@dataclass(frozen=True)
class _World:
    """Planted directions, and rows that are sums of `active` of them."""

    truth_PD: Float[Tensor, "P D"]
    offset_D: Float[Tensor, " D"]
    active: int
    draw: torch.Generator

    @staticmethod
    def of(features: int, d_in: int, active: int, seed: int) -> "_World":
        draw = torch.Generator().manual_seed(seed)
        truth_PD = normalize(torch.randn(features, d_in, generator=draw), dim=1)
        return _World(truth_PD, torch.randn(d_in, generator=draw), active, draw)

    def sample(self, count: int) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N P"]]:
        """(rows, the strength of each planted feature in them)."""
        features, d_in = self.truth_PD.shape
        odds_P = torch.logspace(0, -1, features)
        chosen = torch.multinomial(odds_P.expand(count, -1), self.active, generator=self.draw)
        strength = 1 + torch.rand(count, self.active, generator=self.draw)
        code_NP = torch.zeros(count, features).scatter_(1, chosen, strength)
        noise = torch.randn(count, d_in, generator=self.draw)
        return code_NP @ self.truth_PD * 5 + self.offset_D + 0.05 * noise, code_NP


def selftest(
    architecture: str = "batchtopk",
    *,
    d_in: int = 64,
    features: int = 128,
    active: int = 4,
    rows: int = 500_000,
    config: TrainConfig | None = None,
    seed: int = 0,
    batch: int = 1024,
    **options: Unpack[Options],
) -> dict[str, str | int | float]:
    """How many planted features a recipe recovers, on this machine.

    Rows are sums of `active` of `features` random unit directions (the frequent ones ten times as frequent as the
    rare), with strengths from 1 to 2, a constant offset and a little noise. A feature is recovered when a decoder row has
    cosine over 0.9 with it. Beside it stand what random decoder rows reach, and detection: the F1 of each recovered
    feature's latent as a detector of when it is on, on 20,000 rows that were not trained on.

    Raises InterpError when more features are to be active than are planted, when the architecture reads several hook
    points or does not take an option, and when the memory is too small.
    """
    if active > features:
        raise InterpError(f"{active} features are to be active and only {features} are planted; plant more.")
    kind = kind_of(architecture)
    if kind in PAIRED:
        raise InterpError(f"selftest plants features for SAEs; {kind} reads several hook points.")
    config = replace(config or TrainConfig(), tokens=rows)
    sized: Options = {"d_sae": 2 * features, **options}
    rule = make_rule(architecture, config, {"d_in": d_in}, sized)
    at_once = min(AT_ONCE, rows)
    check_memory(
        bytes_of(rule) + 4 * (rows * d_in + features * (3 * at_once + d_in)),
        f"{counted(rows, 'row')} of {counted(features, 'feature')}",
    )
    world = _World.of(features, d_in, active, seed)
    held_out, code = world.sample(HELD_OUT_ROWS)
    x = torch.cat([world.sample(min(at_once, rows - start))[0] for start in range(0, rows, at_once)])
    sae = train(_Planted(x.split(batch), features), rule, config, held_out=held_out).cpu()
    random_FD = normalize(torch.randn(sae.d_sae, d_in, generator=world.draw), dim=1)
    return {
        "architecture": kind,
        "planted": features,
        "d_sae": sae.d_sae,
        **_recovery(sae, world.truth_PD, random_FD, held_out, code > 0),
        "true_l0": active,
        "rows": rows,
        "seed": seed,
    }


class _Planted(tuple[Tensor, ...]):
    """Batches that hold so many features: an SAE with more can't use them all, and need not be warned of it."""

    findable: int

    def __new__(cls, batches: Iterable[Tensor], findable: int) -> "_Planted":
        made = super().__new__(cls, batches)
        made.findable = findable
        return made


def _recovery(
    sae: SAE,
    truth_PD: Float[Tensor, "P D"],
    random_FD: Float[Tensor, "F D"],
    rows_ND: Float[Tensor, "N D"],
    on_NP: Bool[Tensor, "N P"],
) -> dict[str, int | float]:
    """How near decoder rows, and random ones beside them, come to the planted directions; how well the nearest latents
    tell when a feature is on."""
    cosine_P, nearest_P = (normalize(sae.W_dec, dim=1) @ truth_PD.T).max(0)
    by_chance_P = (random_FD @ truth_PD.T).max(0).values
    fires_NP = sae.encode(rows_ND)[:, nearest_P] > 0
    f1_P = 2 * (on_NP & fires_NP).sum(0) / (on_NP.sum(0) + fires_NP.sum(0)).clamp_min(1)
    sums = reconstruction(sae, rows_ND)
    return {
        "recovered": int((cosine_P > 0.9).sum()),
        "recovered_by_random_rows": int((by_chance_P > 0.9).sum()),
        "mean_cosine": float(cosine_P.mean()),
        "mean_cosine_of_random_rows": float(by_chance_P.mean()),
        "mean_f1": float(f1_P.mean()),
        "fvu": sums.fvu,
        "l0": sums.l0,
        "dead": sums.dead,
    }
