"""One SAE on 1, 2 and 4 ranks of this machine: its FVU beside one process's, and runs of which a rank is killed.

    python benchmarks/scale.py [--kills 10] [--into FOLDER]

Rows are sparse positive mixtures of planted directions (d_in 64, d_sae 512), so that it needs no model. Ranks are processes
that talk over gloo and real sockets, with one thread each. Each kill takes a random rank of a random number of ranks at
a random moment, the run then goes on on another number of ranks until its end, and its FVU is compared with that of the
run that nobody disturbed. Seconds a step say what the exchanges cost here, where ranks share two cores; they are no forecast.
"""

import argparse
import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Iterable
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import report

from interp.sae import BatchTopK, JumpReLU, Matryoshka, TopK
from interp.training import TrainConfig, parallel, steps
from interp.training.state import FILE
from interp.types import InterpError

D_IN, D_SAE, BATCH, STEPS, HELD = 64, 512, 256, 80, 8192
GRIDS = ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4))
"""(ranks, of them sharing the features)."""
LONGER = 150
"""Steps after which, with topk, another order of sums has let other features live."""
RULES: dict[str, Any] = {
    "topk": TopK(d_in=D_IN, d_sae=D_SAE, k=8),
    "batchtopk": BatchTopK(d_in=D_IN, d_sae=D_SAE, k=8),
    "matryoshka": Matryoshka(d_in=D_IN, d_sae=D_SAE, k=8),
    "jumprelu": JumpReLU(d_in=D_IN, d_sae=D_SAE, l0=8),
}
TOLERANCE = 1e-4
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["interp.training", "torch.distributed"])


def rows(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(256, D_IN, generator=draw), dim=1)
    code, where = torch.zeros(count, 256), torch.rand(count, 256, generator=draw).topk(6, dim=1).indices
    return code.scatter_(1, where, 1 + torch.rand(count, 6, generator=draw)) @ truth * 5 + 2


def train(
    kind: str, features: int, into: Path, bfloat16: bool = False, length: int = STEPS, turned: bool = False
) -> dict[str, Any]:
    """With `turned` the rows of each batch come in reverse, which changes nothing but the order of sums."""
    x = rows(length * BATCH + HELD)
    given = [part.flip(0) if turned else part for part in x[HELD:].split(BATCH)]
    config = TrainConfig(
        tokens=length * BATCH, feature_ranks=features, bfloat16=bfloat16, dead_after=4_000, save_every=BATCH * 8
    )
    began = time.perf_counter()
    *_, last = steps(given, RULES[kind], config, held_out=x[:HELD], into=into)
    took = (time.perf_counter() - began) / length
    return {"fvu": last.fvu, "l0": last.l0, "dead": last.dead, "tokens": last.tokens, "seconds a step": took}


def rank(number: int, world: int, port: int, said: Path, given: tuple[Any, ...], answer: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    try:
        with parallel.joined():
            measured = train(*given)
        if number == 0 and answer is not None:
            answer.send(measured)
    except InterpError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def begin(world: int, said: Path, given: tuple[Any, ...], answer: Any = None) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun: list[BaseProcess] = [
        PROCESSES.Process(target=rank, args=(n, world, port, said / f"said.{n}", given, answer)) for n in range(world)
    ]
    for process in begun:
        process.start()
    return begun


def whole(world: int, said: Path, given: tuple[Any, ...]) -> dict[str, Any]:
    """What the first rank measured of a run that went to its end."""
    here, there = PROCESSES.Pipe(duplex=False)
    begun = begin(world, said, given, there)
    for process in begun:
        process.join(300)
    assert [process.exitcode for process in begun] == [0] * world, (said / "said.0").read_text()
    measured: dict[str, Any] = here.recv()
    return measured


def beside(folder: Path, kinds: Iterable[str], bfloat16: bool, length: int = STEPS) -> list[dict[str, Any]]:
    """Each architecture on every grid, and in one process with its sums in another order."""
    found = []
    for kind in kinds:
        one = None
        # JumpReLU begins its thresholds on every so many-th row, which are others when rows are turned.
        again = [] if kind == "jumprelu" else [(1, 1, True)]
        for world, features, turned in ((1, 1, False), *again, *((*grid, False) for grid in GRIDS[1:])):
            into = folder / f"{kind}-{world}-{features}-{turned}-{bfloat16}-{length}"
            into.mkdir()
            measured = whole(world, into, (kind, features, into / "run", bfloat16, length, turned))
            one = one or measured
            shared = {"architecture": kind, "bfloat16": bfloat16, "steps": length, "rows turned": turned}
            shared |= {"rows among": world // features, "features among": features}
            found.append(shared | measured | {"off": abs(measured["fvu"] - one["fvu"])})
            print(found[-1], flush=True)
    return found


def largest(runs: list[dict[str, Any]], turned: bool) -> float:
    return max(run["off"] for run in runs if run["rows turned"] == turned)


def kill(number: int, folder: Path, undisturbed: float) -> dict[str, Any]:
    """One killed rank, and the run's end on another grid."""
    draw = random.Random(number)
    (world, features), (later, shared) = draw.choice(GRIDS[1:]), draw.choice(GRIDS)
    into = folder / f"kill-{number}"
    into.mkdir()
    begun = begin(world, into, ("batchtopk", features, into / "run", False))
    while not (into / "run" / FILE).exists():
        time.sleep(0.005)
    time.sleep(draw.random())
    victim = draw.randrange(world)
    alive = all(process.is_alive() for process in begun)
    begun[victim].kill()
    killed = time.perf_counter()
    for process in begun:
        process.join(60)
    others = [process for n, process in enumerate(begun) if n != victim]
    told = all("another rank has ended" in (into / f"said.{n}").read_text() for n in range(world) if n != victim)
    ended = {"in the middle": alive, "others ended after": time.perf_counter() - killed, "with a sentence": told}
    ended["exit codes"] = [process.exitcode for process in others]
    measured = whole(later, into, ("batchtopk", shared, into / "run", False))
    good = alive and told and abs(measured["fvu"] - undisturbed) <= TOLERANCE and measured["tokens"] == STEPS * BATCH
    grids = {"before": f"{world // features} x {features}", "after": f"{later // shared} x {shared}", "killed": victim}
    made = grids | ended | {"fvu": measured["fvu"], "off": abs(measured["fvu"] - undisturbed), "good": good}
    print(made, flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = beside(folder, ["batchtopk"], False)
        kills = [kill(number, folder, undisturbed[0]["fvu"]) for number in range(asked.kills)]
        parts = {
            "float32": undisturbed + beside(folder, [kind for kind in RULES if kind != "batchtopk"], False),
            "bfloat16": beside(folder, ("topk", "batchtopk"), True),
            "float32, longer": beside(folder, ["topk"], False, LONGER),
        }
    found: dict[str, Any] = {"good kills": f"{sum(each['good'] for each in kills)} of {len(kills)}"}
    found["largest difference in FVU"] = {name: largest(runs, False) for name, runs in parts.items()}
    found["of one process whose batches' rows are turned"] = {name: largest(runs, True) for name, runs in parts.items()}
    found |= parts | {"kills": kills}
    report("scale", found)


if __name__ == "__main__":
    main()
