"""What a feature is compared with: features that fire about as often, noise of its norm, and its own opposite."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from interp.steering.binding import BoundEdit
from interp.steering.edits import Direction, Named
from interp.types import InterpError

MATCHED, NOISES = 19, 5


def matched_features(density: np.ndarray, feature: int, count: int = MATCHED, seed: int = 0) -> tuple[int, ...]:
    """Features drawn from the four times `count` whose density is nearest, in logarithms; dead ones never.

    Raises InterpError when fewer than `count` others are alive.
    """
    known = np.flatnonzero(density > 0)
    known = known[known != feature]
    if len(known) < count:
        raise InterpError(f"{len(known)} other live features are fewer than the {count} controls; use a wider SAE.")
    distance = np.abs(np.log(density[known]) - math.log(max(float(density[feature]), 1e-12)))
    near = known[np.argsort(distance, kind="stable")[: 4 * count]]
    draw = np.random.default_rng([seed, feature])
    return tuple(int(f) for f in draw.choice(near, count, replace=False))


def draw_controls(bound: BoundEdit, matched: Sequence[int], noises: int, seed: int) -> list[Named]:
    """Matched features, then noise, each to be written along in place of what the edit writes."""
    named = bound.edit.feature
    siblings = [f if isinstance(named, (int, Direction)) else replace(named, feature=f) for f in matched]
    return [*siblings, *draw_noise(noises, bound, seed)]


def draw_noise(count: int, bound: BoundEdit, seed: int) -> list[Direction]:
    """Random directions of the norm of what the edit writes."""
    draw = torch.Generator().manual_seed(seed * 1_000_003 + 7)
    like = bound.vector
    vectors = torch.randn(count, len(like), generator=draw)
    vectors = vectors * (like.float().cpu().norm() / vectors.norm(dim=1, keepdim=True))
    return [_direction(f"noise {n}", vector, bound) for n, vector in enumerate(vectors)]


def opposite(bound: BoundEdit) -> Direction:
    """What the edit writes, the sign changed."""
    return _direction("opposite", -bound.vector.float(), bound)


def _direction(name: str, vector: torch.Tensor, bound: BoundEdit) -> Direction:
    hook_name, cutoff = "+".join(bound.hook_names), bound.sinks.norm_cutoff
    return Direction(name=name, hook_name=hook_name, vector=tuple(vector.tolist()), norm_cutoff=cutoff)
