"""A module of somebody's own: any `torch.nn.Module`, read and edited at the outputs of its submodules, by their paths.

An item is what the module is given for it: a row of numbers, a picture as an array, a sequence of token ids. Its positions are
those that one place of the module has, the module's output or a submodule that is named, and each is a vector:

    (B, D)            one position, called `row`
    (B, T, D)         T of them, `p0` to `pT-1`; of items of T whole numbers they are called as the numbers are
    (B, C, H, W)      a grid, row by row, `y0x0` …, whose vectors are the C channels (so of one axis or three, too)

A hook point with as many positions gives (B, 1 + P, D), whatever its own axes are: before the item's own positions stands one
of zeros, which is nobody's and never counted, as the first of a text is. One with other positions gives its own tensor.

Axes    B item, P position of an item, D width at a hook point, C channel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from interp.models.families.family import Family, Frame
from interp.models.families.media import Media, Places
from interp.models.families.taps import IN, Tap, tap_input, tap_output
from interp.models.passes import Site
from interp.render.look import NO_PLACE

ONE_PLACE = "row"
"""What the position of an item is called that has one."""
NUMBERS = "numbers"
"""What such a model reads (`Media.kind`)."""
Call = Callable[[Any, Tensor], Any]
"""What runs a module on some items: from the module and the items, side by side, its output."""
FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.modules.pooling._MaxPoolNd,
         nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.GroupNorm)  # fmt: skip
"""Modules whose tensors of three axes are (B, C, T); those of others are (B, T, D)."""


@dataclass(eq=False)
class Layout:
    """Which axes of an activation are positions."""

    grid: tuple[int, ...]
    """Of an item's positions; () of one."""
    items: int = 0
    """Of the pass that runs."""

    @property
    def positions(self) -> int:
        """Positions of an item."""
        return prod(self.grid)

    def vectors(self, x: Tensor, first: bool = False) -> Float[Tensor, "B P D"] | None:
        """The activation as vectors at an item's positions; None where it has others."""
        axis = self._axis(x.shape, first) if x.is_floating_point() else None
        if axis is None:
            return None
        return x.movedim(axis, -1).reshape(len(x), self.positions, x.shape[axis])

    def back(self, x_BPD: Float[Tensor, "B P D"], like: Tensor, first: bool = False) -> Tensor:
        """The vectors in the axes, and in the order in memory, of the activation they were made of."""
        axis = self._axis(like.shape, first)
        assert axis is not None
        moved = like.movedim(axis, -1)
        return torch.empty_like(like).copy_(x_BPD.reshape(*moved.shape[:-1], -1).movedim(-1, axis))

    def spread(self, made: Tensor) -> Float[Tensor, "B T V"]:
        """A module's output at each position, the one of zeros before them: its own, or the whole where it has other positions."""
        own = self.vectors(made)
        if own is None:
            return made.reshape(len(made), 1, -1).expand(-1, 1 + self.positions, -1)
        return _led(own)

    def _axis(self, shape: Sequence[int], first: bool) -> int | None:
        """The axis of the vectors, where the others are an item's positions."""
        if len(shape) < 2 or shape[0] != self.items:
            return None
        fits = [at for at in (1, len(shape) - 1) if prod(shape[1:]) == self.positions * shape[at] > 0]
        if len(fits) == 2:
            return fits[0] if first or len(shape) > 3 else fits[1]
        return fits[0] if fits else None


def grid_of(shape: Sequence[int], first: bool = False) -> tuple[int, ...]:
    """The positions of an activation of that shape (see the head of the file)."""
    if len(shape) > 3:
        return tuple(shape[2:])
    return tuple(shape[2:] if first else shape[1:2]) if len(shape) == 3 else ()


def _led(x_BPD: Tensor) -> Tensor:
    return torch.cat([x_BPD.new_zeros(len(x_BPD), 1, x_BPD.shape[2]), x_BPD], 1)


class PlaceTap(Tap):
    """A hook point that gives vectors at an item's positions, where it has as many."""

    def __init__(self, layout: Layout, first: bool) -> None:
        super().__init__()
        self.layout, self.first = layout, first

    def passed(self, x: Tensor) -> Tensor:
        """What goes on in the place of `x`; the same object unless something is changed."""
        if not self.heard:
            return x
        own = self.layout.vectors(x, self.first)
        if own is None:
            made = self(x)
            assert isinstance(made, Tensor)
            return made
        led = _led(own)
        made = self(led)
        return x if made is led else self.layout.back(made[:, 1:], x, self.first)


def points(module: nn.Module, layout: Layout) -> dict[str, nn.Module]:
    """Hook points behind and before every submodule, by its path."""
    found: dict[str, nn.Module] = {}
    for path, part in list(module.named_modules()):
        if path and not isinstance(part, nn.ModuleList | nn.ModuleDict):
            first = isinstance(part, FIRST)
            for name, put in ((path, tap_output), (path + IN, tap_input)):
                found[name] = PlaceTap(layout, first)
                put(part, found[name])
    return found


def first_tensor(made: Any) -> Tensor | None:
    """The tensor that a module's output is, or has first; None where it has none. One number an item is a vector of it."""
    if isinstance(made, Tensor):
        return made[:, None] if made.ndim == 1 else made
    parts = made.values() if isinstance(made, Mapping) else made if isinstance(made, tuple | list) else ()
    return next((first_tensor(part) for part in parts if isinstance(part, Tensor)), None)


def own_family(layout: Layout, call: Call) -> Family:
    """The family of one module: what it gives are vectors, at the positions of `layout`."""

    def run(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
        assert site.given is not None, "items are read, not tokens"
        layout.items = len(site.given)
        made = first_tensor(call(module, as_given(site.given, module)))
        assert made is not None
        return layout.spread(made)

    return Family(
        name="module",
        about="positions are those of one of its places; features are ablated and edited, nothing is generated",
        opens=lambda config: nn.Module,
        frame=lambda tokenizer, config, embedded: Frame(0, 0),
        points=lambda module, config, frame: points(module, layout),
        call=run,
        context=lambda module, config: 2**31,
        generates=False,
        vocabulary=lambda module: False,
        caches=False,
        lists="The model's `hook_names()` lists all of them.",
    )


def as_given(items: Tensor, module: nn.Module) -> Tensor:
    """Items as the module takes them: numbers in its own type, whole ones as int64."""
    return items.to(next(module.parameters()).dtype) if items.is_floating_point() else items.long()


@dataclass(frozen=True, eq=False)
class Items(Media):
    """How a module of somebody's own reads items."""

    some: list[Places] = field(default_factory=list)
    """The first of them, to see what the module does with any."""

    def sample(self, rows: int) -> tuple[Int[Tensor, "B T"], Shaped[Tensor, "B ..."]]:
        """(numbers of places, what is given) of the first items."""
        chosen = [self.some[row % len(self.some)] for row in range(rows)]
        return torch.tensor(chosen), torch.stack([item.given for item in chosen])


def place_words(grid: Sequence[int]) -> list[str]:
    """What the positions of a grid are called, after the one that is nobody's."""
    if not grid:
        return [NO_PLACE, ONE_PLACE]
    if len(grid) == 1:
        return [NO_PLACE, *(f"p{at}" for at in range(grid[0]))]
    letters = "zyx"[-len(grid) :] if len(grid) <= 3 else "abcdefgh"
    places = torch.cartesian_prod(*(torch.arange(size) for size in grid)).tolist()
    return [NO_PLACE, *("".join(f"{a}{n}" for a, n in zip(letters, each, strict=True)) for each in places)]
