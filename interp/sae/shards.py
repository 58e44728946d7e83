"""What a process holds of a batch's rows and of an SAE's features, and how it hears of what others hold.

Axes    B batch row (here), F feature (here), N entry (here), O d_out.

Here stands the one process that holds all of both: its sums over others are the thing itself, and cost nothing.
training/grid.py has the same for several ranks; it and parallel.py, which begins them, alone know them. Architectures and
the trainer call these at the few places where a row needs every feature, or a feature every row.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.sae import kernels
from interp.sae.kernels import Active


class Shards:
    """All rows and all features are here. Ranks form a grid: `data` of them share a batch's rows, `features` the features."""

    data = 1
    features = 1
    leads = True
    """Whether this process is the one that speaks, and writes what all have in common."""

    @property
    def several(self) -> bool:
        """Whether there are other ranks."""
        return self.data * self.features > 1

    def alike(self) -> "Shards":
        """The same for rows that every data rank holds whole, as held-out ones."""
        return self

    def own(self, batch: Any) -> Any:
        """This process's rows of a batch."""
        return batch

    def rows(self, count: int) -> int:
        """Rows of the whole batch, of which `count` are here."""
        return count

    def held(self, d_sae: int) -> slice:
        """Which of the SAE's features are here."""
        return slice(0, d_sae)

    def sum_rows(self, x: Tensor) -> Tensor:
        """The sum over what data ranks have; x is used up."""
        return x

    def mean_rows(self, x: Tensor) -> Tensor:
        """The mean over what data ranks have, whose rows are as many; x is used up."""
        return x

    def mean_each(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        """`mean_rows` of each, in as few exchanges as can be."""
        return grads

    def over_rows(self, norms: list[Tensor], sums: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """(norms, sums) over the whole batch in one exchange, from the norms and sums of the rows here."""
        return norms, sums

    def over_features(self, *sums: Tensor) -> list[Tensor]:
        """`sum_features` of whole numbers, in one exchange."""
        return list(sums)

    def sum_features(self, x: Tensor) -> Tensor:
        """The sum over what feature ranks have; x is used up."""
        return x

    def norm_features(self, x: Tensor) -> float:
        """The norm of a tensor that feature ranks share."""
        return float(x.norm())

    def gather_rows(self, x: Tensor) -> Tensor:
        """What data ranks have, one below the other."""
        return x

    def pick_rows(self, x_BO: Tensor, rows: Tensor) -> Tensor:
        """Rows of the whole batch by their numbers."""
        return x_BO[rows]

    def gather_features(self, x: Tensor) -> Tensor:
        """What feature ranks have, one below the other."""
        return x

    def mean_features(self, x_F: Tensor) -> Tensor:
        """The mean of numbers of features, over all that there are on feature ranks: one at least."""
        return x_F.mean()

    def before(self, n: int) -> int:
        """The sum over feature ranks before this one."""
        return 0

    def add(self, x: float) -> float:
        """The sum of a number over feature ranks."""
        return x

    def count(self, n: int) -> int:
        """The sum over all ranks."""
        return n

    def least(self, x: Tensor, known: bool = True) -> Tensor:
        """The least over all ranks of a number that each may know; 0 where nobody does."""
        return x if known else torch.zeros_like(x)

    def largest(
        self, values_N: Tensor, count: int, flat_N: Int[Tensor, " N"], batch: int, width: int
    ) -> Bool[Tensor, " N"]:
        """Which entries are among the `count` largest of all ranks'; among equals the first of the whole batch are taken.

        Values are positive; `flat_N` are their places among this process's `batch` rows of `width` features.
        """
        return kernels.largest(values_N, count)

    def around(self, values_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The values, in float64, of number `count` and `count` + 1 among all ranks', the largest being number 1."""
        last, first = values_N.topk(count + 1).values[-2:].double()
        return last, first

    def keep_topk(self, active: Active, k: int) -> Active:
        """Of entries that hold the k largest of each row here, those among the k largest of its row in all features."""
        return active

    def keep_largest(self, pre_BF: Tensor, k: int) -> Tensor:
        """In place: all but each row's k largest, over all features, become 0."""
        return kernels.keep_largest(pre_BF, k)

    def save(
        self, path: Path, tensors: dict[str, Tensor], axes: dict[str, int], metadata: dict[str, str] | None = None
    ) -> None:
        """Write a safetensors file, whole or not at all; `axes` says of each tensor that feature ranks share along which
        axis they do."""
        with places.whole_file(path) as partial:
            save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, partial, metadata=metadata)

    def check_same(self, given: Any, what: str, *wishes: bool) -> list[bool]:
        """Whether any rank has each of the wishes. Raises InterpError when ranks hold something else where they must hold the
        same."""
        return list(wishes)

    def agree(self, wish: bool) -> bool:
        """Whether any rank wishes it."""
        return wish

    def wait(self) -> None:
        """Until all ranks are here."""


ONE = Shards()
