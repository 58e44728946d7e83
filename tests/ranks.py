"""Several ranks on this machine: processes of their own, which talk over real sockets as those of several machines do.

What ranks do stands here and not in a test's file, which they would have to import with all of pytest.
"""

import os
import runpy
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from interp.checkpoint import save_weights
from interp.sae import ARCHITECTURES
from interp.sae.architecture import Architecture, Moment
from interp.sae.batchtopk import select
from interp.sae.shards import ONE, Shards
from interp.training import Step, TrainConfig, parallel, steps, train
from interp.types import InterpError
from tests.warm import WARM, start, start_server

D_IN, D_SAE, BATCH, HELD = 16, 32, 64, 512
CONFIG = {"dead_after": 64, "aux_k": 2, "lr": 5e-3, "bfloat16": False, "save_every": 256}


def planted(rows: int) -> Tensor:
    """Sparse positive mixtures of 24 random directions, away from the origin."""
    draw = torch.Generator().manual_seed(5)
    truth = torch.nn.functional.normalize(torch.randn(24, D_IN, generator=draw), dim=1)
    code, where = torch.zeros(rows, 24), torch.rand(rows, 24, generator=draw).topk(3, dim=1).indices
    return code.scatter_(1, where, 1 + torch.rand(rows, 3, generator=draw)) @ truth * 7 + 3


def rule_of(kind: str, **options: Any) -> Architecture:
    """An architecture of D_IN and D_SAE by name, with what it cannot do without."""
    sizes: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
    if kind == "crosscoder":
        sizes = {"widths": (6, 10), "d_sae": D_SAE}
    if kind in ("topk", "batchtopk", "matryoshka", "transcoder", "crosscoder"):
        sizes["k"] = 3
    if kind == "transcoder":
        sizes |= {"d_out": D_IN, "skip": True}
    made: Architecture = ARCHITECTURES[kind](**sizes | ({"l0": 3.0} if kind == "jumprelu" else {}) | options)
    return made


def run(
    kind: str, features: int, batches: int, into: Path | None = None, more: dict[str, Any] | None = None, **options: Any
) -> tuple[list[Step], Shards]:
    """The events of a run over the planted rows, and how it was shared."""

    def form(x: Tensor) -> Any:
        if kind == "transcoder":
            return x, x.flip(1)
        return tuple(x.split((6, 10), dim=1)) if kind == "crosscoder" else x

    x, rule = planted(batches * BATCH + HELD), rule_of(kind, **options)
    config = TrainConfig(tokens=batches * BATCH, feature_ranks=features, **CONFIG | (more or {}))
    given = [form(part) for part in x[HELD:].split(BATCH)]
    made = list(steps(given, rule, config, held_out=form(x[:HELD]), into=into))
    return made, parallel.shards_of(rule, features)


# Tasks: what each rank does.


def trained(rank: int, folder: Path, features: int, batches: int, runs: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Train each, and keep its SAE and what its steps measured, in a folder of its number."""
    for number, (kind, more) in enumerate(runs):
        made, shards = run(kind, features, batches, more=more)
        assert made[-1].sae is not None
        save_weights(made[-1].sae, folder / str(number), shards=shards)
        if rank == 0:
            torch.save([(s.fvu, s.l0, s.dead) for s in made], folder / f"{number}.pt")


def resumed(rank: int, folder: Path, features: int, batches: int, kind: str = "batchtopk") -> None:
    """Train in the folder, from where the state there stands."""
    made, shards = run(kind, features, batches, into=folder / "run")
    assert made[-1].sae is not None
    save_weights(made[-1].sae, folder / "sae", shards=shards)


def stoppable(rank: int, folder: Path, batches: int) -> None:
    """Train until somebody asks for the end."""
    x = planted(batches * BATCH + HELD)
    config = TrainConfig(tokens=batches * BATCH, **CONFIG | {"save_every": 10**9})
    train(
        x[HELD:].split(BATCH),
        rule_of("topk"),
        config,
        held_out=x[:HELD],
        into=folder / "run",
        listeners=[_tell(folder)],
    )


def _tell(folder: Path) -> Callable[[Step], None]:
    """What says each step from the second on: only then has every rank ended its first, before which a signal ends it at once."""
    return lambda step: (folder / "step").write_text(str(step.step)) and None if step.step > 1 else None


def chosen(rank: int, folder: Path, features: int) -> None:
    """Which entries are chosen among values of which many are equal."""
    rule, shards = rule_of("batchtopk"), parallel.shards_of(rule_of("batchtopk"), features)
    for dtype in (torch.bfloat16, torch.float32):
        active, _ = choice(dtype, shards)
        first = shards.held(D_SAE).start
        rows = active.rows + rank // features * len(active.offsets[1:])
        torch.save((rows, active.features + first, active.values), folder / f"{dtype}.{rank}.pt")
    assert rule.d_sae == D_SAE


def choice(dtype: torch.dtype, shards: Shards = ONE) -> tuple[Any, Tensor]:
    """The BatchTopK entries of a batch whose values are small whole numbers, most of them shared by many entries."""
    draw = torch.Generator().manual_seed(1)
    u = torch.randint(-3, 4, (BATCH, D_IN), generator=draw).float()
    W = torch.randint(-2, 3, (D_SAE, D_IN), generator=draw).float()
    held = shards.held(D_SAE)
    p = {"W_enc": W[held], "b_enc": torch.zeros(held.stop - held.start)}
    return select(p, shards.own(u), 5, Moment(0.0, torch.tensor(0.0), dtype, shards))


def other_data(rank: int, folder: Path) -> None:
    """Each rank has other rows from the fourth batch on."""
    x = planted(16 * BATCH)
    x[3 * BATCH :] += rank
    list(steps(x.split(BATCH), rule_of("topk"), TrainConfig(tokens=16 * BATCH), held_out=x[:BATCH]))


def other_settings(rank: int, folder: Path) -> None:
    """Each rank has another seed."""
    x = planted(4 * BATCH)
    list(steps(x.split(BATCH), rule_of("topk"), TrainConfig(tokens=4 * BATCH, seed=rank), held_out=x[:BATCH]))


def refused(rank: int, folder: Path) -> None:
    """The sentences for what cannot be shared among two ranks."""
    x = planted(4 * BATCH)

    def said(rows: int = BATCH, kind: str = "batchtopk", more: dict[str, Any] | None = None, **options: Any) -> str:
        config = TrainConfig(tokens=4 * rows, **(more or {}))
        try:
            list(steps(x.split(rows), rule_of(kind, **options), config, held_out=x[:BATCH]))
        except InterpError as error:
            return str(error)
        return ""

    sentences = [
        said(rows=63),
        said(d_sae=33, more={"feature_ranks": 2}),
        said(more={"feature_ranks": 3}),
        said(temporal=1.0),
        said(more={"feature_ranks": 2, "orthogonal": 0.1}),
    ]
    (folder / f"sentences.{rank}").write_text("\n".join(sentences))


def command(rank: int, folder: Path, *arguments: object) -> None:
    """`python -m interp` with these arguments."""
    sys.argv = ["interp", *map(str, arguments)]
    runpy.run_module("interp", run_name="__main__")


def counted(rank: int, folder: Path, features: int, kinds: Sequence[str]) -> None:
    """How many bytes this rank sends in a step of each kind: a ring's share of what it sums, and what it gives others to gather."""
    sent, sum_, gather = [0.0], dist.all_reduce, dist.all_gather

    def summing(x: Tensor, op: Any, group: Any) -> None:
        ranks = dist.get_world_size(group)
        sent[0] += 2 * (ranks - 1) / ranks * x.nbytes
        sum_(x, op, group=group)

    def gathering(parts: list[Tensor], x: Tensor, group: Any) -> None:
        sent[0] += (len(parts) - 1) * x.nbytes
        gather(parts, x, group=group)

    dist.all_reduce, dist.all_gather = summing, gathering
    for kind in kinds:
        x = torch.randn(9 * 512, 64, generator=torch.Generator().manual_seed(0))
        rule = ARCHITECTURES[kind](d_in=64, d_sae=512, k=8)
        config = TrainConfig(tokens=8 * 512, feature_ranks=features, bfloat16=True)
        each = []
        for _ in steps(x[512:].split(512), rule, config, held_out=x[:512]):
            each.append(sent[0])
            sent[0] = 0.0
        (folder / f"{kind}.{rank}").write_text(str(statistics.median(each[2:-1])))


# Processes.


def begin(
    world: int, task: Callable[..., None], folder: Path, *given: Any, patience: float = 50.0
) -> list[BaseProcess]:
    """So many ranks that call `task(rank, folder, *given)`, begun; what rank r says lies in `folder/said.r`."""
    start_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        WARM.Process(target=run_rank, args=(rank, world, ("127.0.0.1", port), patience, task, folder, given))
        for rank in range(world)
    ]
    for rank in ranks:
        start(rank)
    return ranks


def until(path: Path, ranks: list[BaseProcess], folder: Path) -> None:
    """Returns when the file is there; AssertionError, with what the first rank said, when all of them have ended before."""
    while not path.exists():
        assert any(rank.is_alive() for rank in ranks), (folder / "said.0").read_text()
        time.sleep(0.01)


def end(ranks: list[BaseProcess], seconds: float = 60) -> list[int | None]:
    """Their exit codes, None of one that is still at work after so long: it is killed."""
    for rank in ranks:
        rank.join(seconds)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
        rank.join()
    return codes


def run_rank(
    rank: int,
    world: int,
    meet: tuple[str, int],
    patience: float,
    task: Any,
    folder: Path,
    given: tuple[Any, ...],
) -> None:
    """In a process of its own: one of the ranks, which meet at an address and port."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": meet[0], "MASTER_PORT": str(meet[1]), "INTERP_PATIENCE": str(patience)}
    with (folder / f"said.{rank}").open("w") as said:
        for number in (1, 2):
            os.dup2(said.fileno(), number)
    try:
        if task is command:  # which joins the others itself
            task(rank, folder, *given)
        else:
            with parallel.joined():
                task(rank, folder, *given)
    except InterpError as error:
        sys.stderr.write(f"interp: {error}\n")
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
