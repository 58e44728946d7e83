"""Nulls: what a figure comes to where nothing was found, which null is fair for it, and how far it tells the two apart.

A *null* is a dictionary that is like a trained one in everything but what is in question. It is measured by the same functions as
a trained one. Four kinds:

    frozen decoder       the recipe with random decoder rows that never move (TrainConfig(frozen=("W_dec",))), encoder and threshold
                         trained as ever: as sparse, as wide, as long in training, and no direction of it was learnt
    random-weight model  the recipe on a copy of the model whose weights were shuffled: everything was learnt, and nothing
                         that the model knows could be
    shuffled codes       the trained SAE, each feature's codes moved round the rows (`ShuffledCodes`): density, strengths, rows and
                         geometry as they are, and no code belongs to its position any more
    shuffled rows        the trained SAE, its decoder rows exchanged among features (`with_shuffled_rows`): the same codes and
                         the same set of directions, and no row belongs to its code

`FAIR` says which is fair for what, and why. A null that leaves a figure as it is by construction tells nothing about it.

Discrimination of a figure from a kind of null, with n₁ trained SAEs and n₀ nulls that differ in their seeds alone:

    z = (mean trained - mean null) / s,    s² = ((n₁-1) s₁² + (n₀-1) s₀²) / (n₁ + n₀ - 2)

so z counts reseed noise and does not grow with the number of seeds. It is turned round where lower is better, so that a positive z
always says that training is better; where neither is better it keeps its sign, and only its size is looked at. A figure
*separates* when z is at least SEPARATES. p is Student's t of z √(n₁n₀/(n₁+n₀)) with n₁ + n₀ - 2 degrees, one-sided where there is a better side,
and q Benjamini and Hochberg's over all that were compared. With fewer than two seeds on either side there is no z.

Source  arXiv:2602.14111 (frozen decoders match trained SAEs on many figures); Heap et al. 2025, arXiv:2501.17727 (random-weight models);
        arXiv:2605.18229 (reseed noise and discrimination of benchmarks).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.evals.figure import Figure, Section
from interp.sae import SAE, kernels
from interp.sae.kernels import Active
from interp.statistics import benjamini_hochberg
from interp.types import InterpError

Null = Literal["frozen decoder", "random-weight model", "shuffled codes", "shuffled rows"]
FROZEN: Null = "frozen decoder"
RANDOM_MODEL: Null = "random-weight model"
CODES: Null = "shuffled codes"
ROWS: Null = "shuffled rows"
SEPARATES = 3.0
"""The least z, in standard deviations between seeds, of a figure that tells a trained SAE from a null."""
LEAST_SEEDS = 2
"""On each side, or there is no spread to measure by."""


@dataclass(frozen=True, kw_only=True)
class Fair:
    """Which nulls are fair for the figures whose `section.figure` a pattern matches, and why not the others."""

    pattern: str
    nulls: tuple[Null, ...]
    why: str


FAIR = (
    Fair(
        pattern="*.l0*",
        nulls=(),
        why="L0 is what the recipe asks for: every null is trained to it, and shuffling leaves it as it is",
    ),
    Fair(
        pattern="*.dead*",
        nulls=(FROZEN, RANDOM_MODEL),
        why="shuffled codes and rows fire exactly as often as the trained SAE does",
    ),
    Fair(
        pattern="*.density*",
        nulls=(FROZEN, RANDOM_MODEL),
        why="shuffled codes and rows fire exactly as often as the trained SAE does",
    ),
    Fair(
        pattern="geometry.*",
        nulls=(FROZEN, RANDOM_MODEL),
        why="shuffled codes and rows have the very same set of decoder rows",
    ),
    Fair(
        pattern="probing.*",
        nulls=(FROZEN, RANDOM_MODEL, CODES),
        why="probes read codes alone, which do not change when rows are exchanged; shuffled codes give what a probe makes of labels by "
        "chance",
    ),
    Fair(
        pattern="*.ce*",
        nulls=(FROZEN, CODES, ROWS),
        why="a random-weight model's loss is near that of guessing, so nats of it are no measure for another model's",
    ),
    Fair(
        pattern="*.delta_ce*",
        nulls=(FROZEN, CODES, ROWS),
        why="a random-weight model's loss is near that of guessing, so nats of it are no measure for another model's",
    ),
    Fair(
        pattern="*.recovered*",
        nulls=(FROZEN, CODES, ROWS),
        why="ablating a random-weight model hardly changes its loss, so no share of the change can be told",
    ),
    Fair(
        pattern="*.kl*",
        nulls=(FROZEN, CODES, ROWS),
        why="a random-weight model's predictions are near uniform, so nats of difference are no measure for another model's",
    ),
    Fair(
        pattern="stability.*",
        nulls=(FROZEN, RANDOM_MODEL),
        why="rows that are exchanged are matched as before; frozen decoders say what seeds share without learning",
    ),
    Fair(
        pattern="planted.*",
        nulls=(FROZEN,),
        why="there is no model in a planted world; of exchanged rows the directions are found all the same",
    ),
    Fair(
        pattern="*",
        nulls=(FROZEN, RANDOM_MODEL, CODES, ROWS),
        why="what depends on which code stands where, and on which row it writes",
    ),
)
"""The first that matches counts."""


def fair_for(section: str, figure: str) -> Fair:
    """Which nulls are fair for a figure, and why."""
    return next(one for one in FAIR if fnmatchcase(f"{section}.{figure}", one.pattern))


# ---- shuffled dictionaries ----


class ShuffledCodes(SAE):
    """An SAE whose codes belong to other rows: each feature's are moved round the rows that are encoded together.

    How far a feature's codes go is drawn from the seed, differs between features and is at least one row, so that of B rows each
    feature fires on as many as before, as strongly, and independently of the others. A single row stays as it is: encode whole texts at once.
    """

    def __init__(self, sae: SAE, seed: int = 0) -> None:
        """Shares the weights of `sae`."""
        super().__init__(**_weights(sae), **_traits(sae))
        self.share_F = torch.rand(sae.d_sae, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        """Of the way round the rows."""

    def active(self, x_BD: Float[Tensor, "B D"], *, bfloat16: bool | None = None) -> Active:
        """The active entries of the rows, each feature's moved round."""
        own = super().active(x_BD, bfloat16=bfloat16)
        rows = len(x_BD)
        if rows < 2:
            return own
        far_F = 1 + (self.share_F * (rows - 1)).long().clamp_max(rows - 2)
        flat = (own.rows + far_F.to(own.features.device)[own.features]) % rows * self.d_sae + own.features
        order = flat.argsort()
        return kernels.from_flat(flat[order], own.values[order], rows, self.d_sae)

    def encode(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B F"]:
        """Feature activations, dense; all rows are encoded together."""
        return self.active(x.reshape(-1, self.d_in)).dense().reshape(*x.shape[:-1], self.d_sae)

    def encode_feature(self, x: Float[Tensor, "*B D"], feature: int) -> Float[Tensor, "*B"]:
        """One feature's activation."""
        return self.encode(x)[..., feature]


def with_shuffled_rows(sae: SAE, seed: int = 0) -> SAE:
    """The SAE with its decoder rows exchanged among the features."""
    order = torch.randperm(sae.d_sae, generator=torch.Generator().manual_seed(seed)).to(sae.device)
    return SAE(**_weights(sae) | {"W_dec": sae.W_dec[order]}, **_traits(sae))


def _weights(sae: SAE) -> dict[str, Any]:
    return {name: getattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "W_skip")}


def _traits(sae: SAE) -> dict[str, Any]:
    return {name: getattr(sae, name) for name in ("k", "centred", "tanh", "name", "reads", "writes")}


# ---- discrimination ----

Sections = Sequence[Section]
"""What was measured of one SAE."""


def discrimination(trained: Sequence[Sections], nulls: Mapping[Null, Sequence[Sections]]) -> Section:
    """How far every figure of every section tells trained SAEs from each kind of null.

    An entry of `trained`, and of each kind of null, is what was measured of one seed's SAE. `rows` has a line for each figure and
    fair null (`z` is None where it cannot be said, and `note` says why); the figures count those that separate from every
    fair null that they were compared with. Raises InterpError when there is nothing to compare.
    """
    of = {name: [_values(sections) for sections in seeds] for name, seeds in nulls.items()}
    own = [_values(sections) for sections in trained]
    said = {figure.key: figure for sections in trained for figure in _all(sections)}
    if not said or not nulls:
        raise InterpError("there is nothing to compare: give the sections of at least one trained SAE and of one null.")
    rows = [
        _compared(one, null, [values.get(key) for values in own], [values.get(key) for values in seeds])
        for key, one in said.items()
        for null, seeds in of.items()
        if null in fair_for(one.section, one.figure.name).nulls
    ]
    told = [row for row in rows if row["p"] is not None]
    for row, q in zip(told, benjamini_hochberg(np.array([row["p"] for row in told])) if told else (), strict=True):
        row["q"] = float(q)
    return Section(
        name="discrimination",
        title="What tells a trained SAE from one that found nothing",
        figures=_counts(rows, told),
        rows=tuple(rows),
        of={
            "seeds": len(trained),
            "null_seeds": {name: len(seeds) for name, seeds in nulls.items()},
            "separates": SEPARATES,
            "fair": [{"pattern": one.pattern, "nulls": list(one.nulls), "why": one.why} for one in FAIR],
        },
    )


def separating(found: Section) -> dict[str, bool]:
    """By `section.figure`, whether it separates from every null that it has a z against; figures without any are left out."""
    by_figure: dict[str, bool] = {}
    for row in found.rows:
        if row["z"] is not None:
            key = f"{row['section']}.{row['figure']}"
            by_figure[key] = by_figure.get(key, True) and bool(row["separates"])
    return by_figure


@dataclass(frozen=True)
class _Named:
    """A figure, and the section that it stands in."""

    section: str
    figure: Figure

    @property
    def key(self) -> str:
        return f"{self.section}.{self.figure.name}"


def _all(sections: Sections) -> Iterable[_Named]:
    return (_Named(section.name, figure) for section in sections for figure in section.figures)


def _values(sections: Sections) -> dict[str, float]:
    return {one.key: one.figure.value for one in _all(sections) if one.figure.value is not None}


def _compared(one: _Named, null: Null, own: Sequence[float | None], other: Sequence[float | None]) -> dict[str, Any]:
    """The line of a figure and a null."""
    x, y = ([value for value in side if value is not None] for side in (own, other))
    z, p, note = _z(x, y, one.figure.better)
    away = None if z is None else (z if one.figure.better else abs(z))
    return {
        "section": one.section,
        "figure": one.figure.name,
        "null": null,
        "better": one.figure.better,
        "trained": float(np.mean(x)) if x else None,
        "trained_sd": _spread(x),
        "trained_n": len(x),
        "null_mean": float(np.mean(y)) if y else None,
        "null_sd": _spread(y),
        "null_n": len(y),
        "z": z,
        "p": p,
        "q": None,
        "separates": away is not None and away >= SEPARATES,
        "note": note,
    }


def _z(x: Sequence[float], y: Sequence[float], better: str) -> tuple[float | None, float | None, str]:
    """(z, p, why there is none)."""
    from scipy.stats import t

    if len(x) < LEAST_SEEDS or len(y) < LEAST_SEEDS:
        return None, None, f"{len(x)} trained and {len(y)} null: z needs {LEAST_SEEDS} seeds of each"
    free, away = len(x) + len(y) - 2, float(np.mean(x) - np.mean(y))
    spread = math.sqrt(((len(x) - 1) * np.var(x, ddof=1) + (len(y) - 1) * np.var(y, ddof=1)) / free)
    # Equal values leave a spread of a last bit, which is none.
    if spread <= 1e-12 * max(abs(float(np.mean(x))), abs(float(np.mean(y))), 1e-300):
        return None, None, "no seed differs from another, so there is no noise to measure by"
    z = away / spread * (-1 if better == "lower" else 1)
    statistic = z * math.sqrt(len(x) * len(y) / (len(x) + len(y)))
    p = float(t.sf(statistic, free)) if better else 2 * float(t.sf(abs(statistic), free))
    return z, p, ""


def _spread(values: Sequence[float]) -> float | None:
    """Between seeds: the reseed noise."""
    return float(np.std(values, ddof=1)) if len(values) >= LEAST_SEEDS else None


def _counts(rows: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    figures = {(row["section"], row["figure"]): bool(row["better"]) for row in told}
    all_apart = {
        key: all(row["separates"] for row in told if (row["section"], row["figure"]) == key) for key in figures
    }
    directed = [key for key, way in figures.items() if way]
    why = "" if told else "no figure has two seeds on both sides"
    return (
        Figure(
            name="separate",
            says=f"figures with a better side that separate (z at least {SEPARATES:g}) from every null they were held against",
            value=sum(all_apart[key] for key in directed) if told else None,
            n=len(directed),
            unit="figures",
            better="higher",
            note=why,
        ),
        Figure(
            name="searched",
            says="comparisons of a figure with a null that have a z, over which q is taken",
            value=len(told),
            n=len(rows),
            unit="comparisons",
        ),
        Figure(
            name="called",
            says="comparisons with q at most 0.05",
            value=sum(row["q"] <= 0.05 for row in told) if told else None,
            n=len(told),
            unit="comparisons",
            note=why,
        ),
    )
