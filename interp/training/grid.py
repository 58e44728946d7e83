"""One SAE trained on several ranks: the batch's rows shared among some of them, the features among others.

Ranks form a grid of data × features; rank d · features + f reads the d-th part of every batch's rows and holds the f-th
part of the features: rows of W_enc and W_dec, biases, thresholds, Adam's moments, counters of dead features. What is no
feature's (b_dec, W_skip, scales) every rank holds alike.
    a batch        Every rank draws the same batches and takes its rows, so a run is the same on any number of ranks, and
                   goes on on another. Ranks that draw different ones are refused (a hash of each batch goes round).
    x̂              The sum over feature ranks of what their features write: one all-reduce of (rows, d_out).
    TopK           Each rank's k largest of a row are gathered from the feature ranks, and the k largest of these taken.
    BatchTopK      The k·B-th largest value of all ranks is found by its bits: a histogram of the upper half of the bits is
                   summed over ranks, then one of the lower half within the bin that holds it. Exact, whatever B.
    gradients      Mean over data ranks; Adam moves each rank's own features.
    files          Each rank writes its part at its place in one safetensors file (checkpoint/by_offset.py), and reads its
                   rows from it: the state is the one that a single process writes.
Only sums are added in another order than in one process. A rank that is lost shows as an error of the next exchange on every
other.
"""

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from interp import places
from interp.checkpoint import by_offset
from interp.sae.kernels import BITS, Active
from interp.sae.shards import Shards
from interp.training.batch import fingerprint
from interp.types import InterpError

PATIENCE = 50.0
"""Seconds that a rank waits for another in one exchange; INTERP_PATIENCE is taken instead where it is set."""
PATH_BYTES = 4096
SMALL = 2**18
"""Numbers: tensors of fewer are exchanged together, for each exchange takes its time however little is said."""


class LostRank(InterpError):
    """Another rank ended or did not answer: nothing can be exchanged any more."""


@contextmanager
def listening() -> Iterator[None]:
    """Raises LostRank for any exchange that fails."""
    try:
        yield
    except RuntimeError as error:  # whatever gloo, NCCL and the store raise is one
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise LostRank(
            "another rank has ended or did not answer, so this one ends too (its own message says why it did). What was "
            "saved last is whole; the same command goes on from there, on as many ranks as you like. "
            f"(torch.distributed: {said[0][:160]})"
        ) from error


def patience() -> timedelta:
    return timedelta(seconds=float(os.environ.get("INTERP_PATIENCE", PATIENCE)))


class Grid(Shards):
    """One of several ranks; see `Shards` for what each method gives back."""

    def __init__(self, features: int) -> None:
        """Called on all ranks together."""
        world, rank = dist.get_world_size(), dist.get_rank()
        self.features, self.data, self.leads = features, world // features, rank == 0
        self.row, self.column = divmod(rank, features)
        grid = [[row * features + column for column in range(features)] for row in range(self.data)]
        with listening():
            # Not PyTorch's DeviceMesh: its groups wait half an hour for a rank that is lost.
            self._beside, _ = dist.new_subgroups_by_enumeration(grid, timeout=patience())
            self._below, _ = dist.new_subgroups_by_enumeration(
                [list(column) for column in zip(*grid, strict=True)], timeout=patience()
            )
            self._all = dist.new_group(timeout=patience())

    @property
    def _world(self) -> int:
        return self.data * self.features

    def alike(self) -> Shards:
        same = copy.copy(self)
        same.data, same.row, same._all = 1, 0, self._beside
        return same

    def own(self, batch: Any) -> Any:
        """Raises InterpError for a batch that cannot be shared equally."""
        if not isinstance(batch, Tensor):
            return tuple(self.own(part) for part in batch)
        if len(batch) % self.data:
            raise InterpError(
                f"a batch of {len(batch):,} rows cannot be shared equally among {self.data} ranks; choose a batch size "
                f"(--batch) that {self.data} divides, or another number of ranks."
            )
        here = len(batch) // self.data
        return batch[self.row * here : (self.row + 1) * here]

    def rows(self, count: int) -> int:
        return count * self.data

    def held(self, d_sae: int) -> slice:
        here = d_sae // self.features
        return slice(self.column * here, (self.column + 1) * here)

    def _sum(self, x: Tensor, group: Any, ranks: int, how: Any = dist.ReduceOp.SUM) -> Tensor:
        if ranks > 1 and x.numel():
            x = x.contiguous()
            with listening():
                dist.all_reduce(x, how, group=group)
        return x

    def sum_rows(self, x: Tensor) -> Tensor:
        return self._sum(x, self._below, self.data)

    def mean_rows(self, x: Tensor) -> Tensor:
        return self.sum_rows(x).div_(self.data)

    def mean_each(self, grads: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.data == 1:
            return grads
        small = {name: x for name, x in grads.items() if x.numel() <= SMALL}
        made = {name: self.mean_rows(x) for name, x in grads.items() if name not in small}
        return made | dict(zip(small, _packed(list(small.values()), self.mean_rows), strict=True))

    def over_rows(self, norms: list[Tensor], sums: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        if self.data == 1:
            return norms, sums
        whole = _packed([*(x.double().square() for x in norms), *(x.double() for x in sums)], self.sum_rows)
        return [x.sqrt().float() for x in whole[: len(norms)]], whole[len(norms) :]

    def over_features(self, *sums: Tensor) -> list[Tensor]:
        return _packed(list(sums), self.sum_features)

    def sum_features(self, x: Tensor) -> Tensor:
        return self._sum(x, self._beside, self.features)

    def norm_features(self, x: Tensor) -> float:
        return self.add(float(x.norm()) ** 2) ** 0.5

    def _gather(self, x: Tensor, group: Any, ranks: int) -> Tensor:
        """Parts of one shape, one below the other."""
        if ranks == 1:
            return x
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(ranks)]
        with listening():
            dist.all_gather(parts, x, group=group)
        return torch.cat(parts)

    def gather_rows(self, x: Tensor) -> Tensor:
        return self._gather(x, self._below, self.data)

    def pick_rows(self, x_BO: Tensor, rows: Tensor) -> Tensor:
        here = rows - self.row * len(x_BO)
        mine = (here >= 0) & (here < len(x_BO))
        return self.sum_rows(torch.where(mine[:, None], x_BO[here.clamp(0, len(x_BO) - 1)], 0.0))

    def gather_features(self, x: Tensor) -> Tensor:
        return self._gather(x, self._beside, self.features)

    def mean_features(self, x_F: Tensor) -> Tensor:
        both = self.sum_features(torch.stack([x_F.sum(), x_F.new_tensor(len(x_F))]))
        return both[0] / both[1]

    def before(self, n: int) -> int:
        return int(self.gather_features(torch.tensor([n]))[: self.column].sum())

    def add(self, x: float) -> float:
        return float(self.sum_features(torch.tensor(x, dtype=torch.float64)))

    def count(self, n: int) -> int:
        return int(self._sum(torch.tensor(n), self._all, self._world))

    def least(self, x: Tensor, known: bool = True) -> Tensor:
        x = x.clone() if known else torch.full_like(x, torch.inf)
        least = self._sum(x, self._all, self._world, dist.ReduceOp.MIN)
        return torch.where(least.isfinite(), least, 0.0)

    def largest(self, values_N: Tensor, count: int, flat_N: Tensor, batch: int, width: int) -> Tensor:
        if count <= 0:
            return torch.zeros_like(values_N, dtype=torch.bool)
        edge, above, equal = self._edge(values_N, count)
        if above + equal <= count:
            return values_N >= edge
        mask = values_N > edge
        ties = (values_N == edge).nonzero().squeeze(1)
        row, feature = flat_N[ties] // width + self.row * batch, flat_N[ties] % width + self.column * width
        place = row * (width * self.features) + feature  # in the whole batch's (B, F)
        padded = place.new_full((equal,), torch.iinfo(torch.int64).max)
        padded[: len(place)] = place
        last = self._gather(padded, self._all, self._world).sort().values[count - above - 1]
        mask[ties[place <= last]] = True
        return mask

    def around(self, values_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return self._edge(values_N, count)[0].double(), self._edge(values_N, count + 1)[0].double()

    def _edge(self, values_N: Tensor, count: int) -> tuple[Tensor, int, int]:
        """(the value of number `count` among all ranks' positive values, how many are larger, how many equal); where there
        are fewer, 0 is that value."""
        bits = values_N.view(BITS[values_N.dtype]).int()
        low = 0 if values_N.dtype == torch.bfloat16 else 16
        high = bits >> low
        at, above, equal = self._bin(high, 2**15, count)
        if low:
            rest, more, equal = self._bin(bits[high == at] & 0xFFFF, 2**16, count - above)
            at, above = at * 2**16 + rest, above + more
        return torch.tensor(at, dtype=BITS[values_N.dtype], device=values_N.device).view(values_N.dtype), above, equal

    def _bin(self, numbers_N: Tensor, bins: int, count: int) -> tuple[int, int, int]:
        """(the number that stands at `count` from above among all ranks' numbers below `bins`, how many are larger, and how
        many equal); 0 where there are fewer."""
        counts = self._sum(torch.bincount(numbers_N, minlength=bins), self._all, self._world)
        reached = counts.flip(0).cumsum(0)
        place = min(int(torch.searchsorted(reached, count)), bins - 1)
        before, until = int(reached[place - 1]) if place else 0, int(reached[place])
        return bins - 1 - place, before, until - before

    def keep_topk(self, active: Active, k: int) -> Active:
        if self.features == 1:
            return active
        batch, width = len(active.offsets) - 1, min(k, active.d_sae)
        where = active.rows * width + torch.arange(len(active.rows), device=active.rows.device)
        where -= active.offsets[active.rows]
        grid = active.values.new_zeros(batch * width).index_copy_(0, where, active.values).view(batch, width)
        kept = self._passing(grid, k) & (grid > 0)
        return active.picked(kept.view(-1).index_select(0, where).nonzero().squeeze(1))

    def keep_largest(self, pre_BF: Tensor, k: int) -> Tensor:
        if self.features == 1:
            return super().keep_largest(pre_BF, k)
        best = pre_BF.topk(min(k, pre_BF.shape[1]), dim=1)
        grid = best.values.new_full((len(pre_BF), k), -torch.inf)
        grid[:, : best.values.shape[1]] = best.values
        kept = self._passing(grid, k)[:, : best.values.shape[1]]
        return pre_BF.zero_().scatter_(1, best.indices, torch.where(kept, best.values, 0.0))

    def _passing(self, grid_BK: Tensor, k: int) -> Tensor:
        """Which of each row's numbers are among the k largest of all feature ranks'."""
        batch, width = grid_BK.shape
        whole = self.gather_features(grid_BK.float()).view(self.features, batch, width).transpose(0, 1)
        whole = whole.reshape(batch, self.features * width)
        best = whole.topk(k, dim=1, sorted=False).indices
        mine = slice(self.column * width, (self.column + 1) * width)
        return torch.zeros_like(whole, dtype=torch.bool).scatter_(1, best, True)[:, mine]

    def save(
        self, path: Path, tensors: dict[str, Tensor], axes: dict[str, int], metadata: dict[str, str] | None = None
    ) -> None:
        shapes = {}
        for name, x in tensors.items():
            long = [n * self.features if axes.get(name) == axis else n for axis, n in enumerate(x.shape)]
            shapes[name] = (tuple(long), x.dtype)
        layout = by_offset.Layout.of(shapes, metadata)
        with places.whole_file(path) if self.leads else nullcontext(path) as own:
            if self.leads:
                by_offset.begin(own, layout)
            partial = Path(self.told(str(own)))
            if self.row == 0:
                own_axes = {name: axes.get(name) for name in tensors if name in axes or self.column == 0}
                first = {
                    n: self.column * tensors[n].shape[axis or 0] if n in axes else 0 for n, axis in own_axes.items()
                }
                parts = {name: (tensors[name], axis, first[name]) for name, axis in own_axes.items()}
                try:
                    by_offset.write(partial, layout, parts)
                except OSError as error:
                    raise places.disk_error(path, error) from error
            self.wait()
        self.wait()

    def told(self, text: str) -> str:
        """What the first rank says; also waits for it."""
        raw = text.encode()
        line = torch.zeros(PATH_BYTES, dtype=torch.uint8)
        if self.leads:
            line[: len(raw)] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        with listening():
            dist.broadcast(line, 0, group=self._all)
        return bytes(line.tolist()).rstrip(b"\0").decode()

    def check_same(self, given: Any, what: str, *wishes: bool) -> list[bool]:
        """Raises InterpError on every rank when one holds something else."""
        digest = int.from_bytes(hashlib.blake2b(repr(fingerprint(given)).encode(), digest_size=8).digest()) >> 2
        said = torch.tensor([digest, -digest, *map(int, wishes)])
        both = self._sum(said, self._all, self._world, dist.ReduceOp.MAX)
        if int(both[0]) != -int(both[1]):
            raise InterpError(
                f"the ranks have different {what}; all must be given the same (each takes its own part of it): the same "
                "files, the same order, the same seed, the same settings."
            )
        return [bool(wish) for wish in both[2:]]

    def agree(self, wish: bool) -> bool:
        return bool(self._sum(torch.tensor(int(wish)), self._all, self._world, dist.ReduceOp.MAX))

    def wait(self) -> None:
        self.agree(False)


def _packed(tensors: list[Tensor], exchange: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What an exchange makes of each of some tensors of one type, as it makes it of all in one row."""
    if not tensors:
        return []
    made = exchange(torch.cat([x.reshape(-1).to(tensors[0].device) for x in tensors]))
    return [part.view_as(x) for part, x in zip(made.split([x.numel() for x in tensors]), tensors, strict=True)]
