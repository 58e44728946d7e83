"""Planted worlds of SAELens, and what a recipe finds in one: its own way of training, on a small dictionary and rows whose truth is known.

A world (`sae_lens.synthetic`) adds up sparse features with a hierarchy, Zipf frequencies and correlations; which are on is known. World 1 is
the recipe of SAELens' own benchmark made small, 2 (no hierarchy, more correlation) and 3 (twice the features, more superposition) differ in
seed and structure, and 4, 5 and 6 are 1, 2 and 3 from other seeds. benchmarks/recovery.py compares libraries in them.

Axes    N row, P planted feature, D width.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import places
from interp.evals.figure import Section
from interp.evals.measures import Measure
from interp.evals.planted import Truth, measure_planted
from interp.recipe.rules import PAIRED
from interp.sae import Architecture, make_architecture
from interp.sae.options import options_of
from interp.training import TrainConfig, train
from interp.types import InterpError

if TYPE_CHECKING:
    from sae_lens.synthetic import SyntheticModel, SyntheticModelConfig

VERSION = 1
"""Of the measurement: a new one makes kept sections anew."""
WORLD, D_SAE, K, PREFIXES = 1, 128, 4, (8, 32, 128)
"""Features on average active, and widths; a world has more features than the dictionary, as models have."""
ROWS, BATCH = 10_000_000, 1_024
"""With a tenth of these rows half of the latents are dead and F1 is a third: the length decides more than the architecture."""
POOL, HELD_OUT, CALIBRATION = 1_000_000, 40_000, 65_536
POOL_SEED, HELD_OUT_SEED = 1, 2
SAMPLED_AT_ONCE = 10_000
SHARED = "feature_ranks"
"""A setting that says over how many processes a training is shared out, and not what comes of it: a world's is never shared."""
OWN = ("lr", "tokens", "save_every", "dead_after", "aux_k", "device", "bfloat16", SHARED)
"""Settings of a training that follow from its length, its widths or the machine: in the world they have their defaults."""
SIZES = ("name", "d_in", "d_out", "d_sae", "k", "l0", "prefixes", "widths")


@dataclass(frozen=True, eq=False)
class World:
    """A planted world, and rows of it."""

    number: int
    made: "SyntheticModel"

    @property
    def parent_P(self) -> np.ndarray:
        """Number of each feature's parent; -1 for those that have none."""
        parents = np.full(self.made.cfg.num_features, -1)
        waiting = list(self.made.hierarchy.roots) if self.made.hierarchy else []
        while waiting:
            node = waiting.pop()
            for child in node.children:
                if node.feature_index is not None and child.feature_index is not None:
                    parents[child.feature_index] = node.feature_index
                waiting.append(child)
        return parents

    def sample(self, count: int, seed: int) -> tuple[Float[Tensor, "N D"], Bool[Tensor, "N P"]]:
        """(rows, which features are on in them), the same for the same seed."""
        rows, on = [], []
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for start in range(0, count, SAMPLED_AT_ONCE):
                code = self.made.activation_generator.sample(min(SAMPLED_AT_ONCE, count - start))
                rows.append(self.made.feature_dict(code))
                on.append(code > 0)
        return torch.cat(rows), torch.cat(on)

    def truth(self) -> Truth:
        """Its directions, and rows that nothing is trained on."""
        rows_ND, on_NP = self.sample(HELD_OUT, HELD_OUT_SEED)
        return Truth(self.made.feature_dict.feature_vectors.detach(), self.parent_P, rows_ND, on_NP)


def open_world(number: int = WORLD) -> World:
    """The world of that number; raises InterpError when sae-lens is not installed."""
    try:
        from sae_lens.synthetic import SyntheticModel
    except ImportError:
        raise InterpError(
            "planted worlds are sae-lens' (`sae_lens.synthetic`), which is not installed: pip install sae-lens."
        ) from None
    # It draws a bar of its own on stderr, whoever listens.
    with torch.random.fork_rng(), contextlib.redirect_stderr(io.StringIO()):
        return World(number, SyntheticModel(world_config(number)))


def world_config(number: int) -> "SyntheticModelConfig":
    """World 1 is SAELens' benchmark with 512 features of its 16,384; 2 and 3 have other seeds and structure.

    4, 5 and 6 are 1, 2 and 3 from other seeds.
    """
    from sae_lens.synthetic import (
        FoldedNormalMagnitudeConfig,
        HierarchyConfig,
        LinearMagnitudeConfig,
        LowRankCorrelationConfig,
        OrthogonalizationConfig,
        SyntheticModelConfig,
        ZipfianFiringProbabilityConfig,
    )

    number, other = (number - 3, 10_000) if number > 3 else (number, 0)
    forest: dict[str, Any] = {"branching_factor": 4, "max_depth": 3, "mutually_exclusive_min_depth": 0}
    forest |= {"compensate_probabilities": True, "scale_children_by_parent": True}
    size, seed, correlation = (512, 96), 42, LowRankCorrelationConfig(rank=10, correlation_scale=0.1)
    hierarchy: HierarchyConfig | None = HierarchyConfig(total_root_nodes=16, mutually_exclusive_portion=1.0, **forest)
    if number == 2:
        seed, hierarchy, correlation = 1042, None, LowRankCorrelationConfig(rank=10, correlation_scale=0.2)
    elif number == 3:
        size, seed = (1024, 128), 2042
        hierarchy = HierarchyConfig(total_root_nodes=32, mutually_exclusive_portion=0.5, **forest)
    return SyntheticModelConfig(
        num_features=size[0],
        hidden_dim=size[1],
        firing_probability=ZipfianFiringProbabilityConfig(exponent=0.5, max_prob=0.3, min_prob=3e-3),
        hierarchy=hierarchy,
        orthogonalization=OrthogonalizationConfig(num_steps=100, lr=3e-4),
        correlation=correlation,
        mean_firing_magnitudes=LinearMagnitudeConfig(start=5.0, end=4.0),
        std_firing_magnitudes=FoldedNormalMagnitudeConfig(mean=0.5, std=0.5),
        bias=0.5,
        seed=seed + other,
    )


# ---- a recipe in a world ----


def measure_recipe(
    recipe: Mapping[str, Any],
    *,
    seed: int = 0,
    frozen: tuple[str, ...] = (),
    number: int = WORLD,
    rows: int = ROWS,
) -> Section:
    """What the recipe of a card (`Card.recipe`) finds in a planted world; measured once for a recipe and seed, then kept.

    A small dictionary is trained as the recipe says, but for what follows from width and length (OWN and SIZES): a minute or two on one core, and a
    gigabyte. `frozen` gives the null (`evals.nulls`). Raises InterpError for a recipe that is not known or reads pairs of rows, and without sae-lens.
    """
    world = open_world(number)
    rule, config = small_recipe(recipe, world.made.cfg.hidden_dim, seed, frozen, rows)
    of = {
        "world": number,
        "recipe": {"architecture": type(rule).__name__, **asdict(rule), **asdict(config)},  # type: ignore[call-overload]
        "trained_on": rows,
        "version": VERSION,
    }
    of = json.loads(json.dumps(of))
    del of["recipe"][SHARED]  # what was kept before there was such a setting stays true
    file = (
        places.cache() / "planted" / f"{hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:24]}.json"
    )
    if file.exists():
        return Section.from_dict(places.read_json(file))
    pool_ND, _ = world.sample(min(POOL, rows), POOL_SEED)
    sae = train(batches(pool_ND, seed), rule, config, held_out=pool_ND[:CALIBRATION]).cpu()
    section = measure_planted(sae, world.truth(), of=of, seed=seed)
    places.write_json(file, section.to_dict())
    return section


def small_recipe(
    recipe: Mapping[str, Any], d_in: int, seed: int, frozen: tuple[str, ...], rows: int
) -> tuple[Architecture, TrainConfig]:
    """A card's recipe for the world's widths: architecture and settings as they are, sizes and what follows from them not.

    Raises InterpError for a recipe that does not name an architecture, or needs pairs of rows.
    """
    made, told = (recipe.get(key) for key in ("architecture", "training"))
    made, told = (dict(each) if isinstance(each, Mapping) else {} for each in (made, told))
    name = made.get("name")
    if not isinstance(name, str):
        raise InterpError(
            "this card does not say by which recipe the SAE was trained, so nothing can be planted for it; give one that "
            "`interp train` made."
        )
    if name in PAIRED or made.get("temporal"):
        what = f"a {name}" if name in PAIRED else "temporal contrast"
        raise InterpError(
            f"{what} is trained on pairs of rows, and planted rows have no partners; leave this measure out."
        )
    known = {one.name for one in options_of(name)}
    if made.get("coefficient") == made.get("d_in"):  # the quadratic form's own choice, which follows the width
        made.pop("coefficient", None)
    options = {key: value for key, value in made.items() if key in known and key not in SIZES}
    sizes: dict[str, Any] = {"d_in": d_in, "d_sae": D_SAE, "k": K, "l0": float(K), "prefixes": PREFIXES}
    rule = make_architecture(name, **options, **{key: value for key, value in sizes.items() if key in known})
    kept = {one.name for one in fields(TrainConfig)} - set(OWN) - {"seed", "frozen"}
    config = TrainConfig(
        **{key: value for key, value in told.items() if key in kept},
        tokens=rows,
        seed=seed,
        frozen=frozen or tuple(told.get("frozen", ())),
    )
    return rule, config


def batches(samples_ND: Float[Tensor, "N D"], seed: int) -> Iterator[Float[Tensor, "B D"]]:
    """Batches without end, shuffled anew in each pass; the seed alone sets the order."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(samples_ND), generator=draw)
        for some in order[: len(order) // BATCH * BATCH].split(BATCH):
            yield samples_ND[some]


PLANTED = Measure(
    name="planted",
    title="The recipe in a world whose features are known",
    version=VERSION,
    make=lambda setting: measure_recipe(setting.recipe, seed=_seed(setting.recipe), rows=ROWS),
    text=False,
    default=False,  # a dictionary is trained, minutes; it is kept
)
"""How well the SAE's own recipe does there, as a measure of a report; a frozen decoder is the null."""


def _seed(recipe: Mapping[str, Any]) -> int:
    told = recipe.get("training")
    return int(told.get("seed", 0)) if isinstance(told, Mapping) else 0
