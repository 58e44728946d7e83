"""Several ranks on this machine: processes of their own, which talk over real sockets as those of several machines do."""

import os
import socket
import sys
import traceback
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.warm import WARM, start_server


def begin(world: int, task: Any, *given: Any, patience: float = 50.0) -> list[BaseProcess]:
    """So many ranks that call `task(rank, *given)`, begun; `task` is a module's own function, and stands in PRELOADED."""
    start_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [WARM.Process(target=_run, args=(rank, world, port, patience, task, given)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    return ranks


def end(ranks: list[BaseProcess], seconds: float = 60) -> list[int | None]:
    """Their exit codes, None of one that is still at work after so long: it is killed."""
    for rank in ranks:
        rank.join(seconds)
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
        rank.join()
    return codes


def _run(rank: int, world: int, port: int, patience: float, task: Any, given: tuple[Any, ...]) -> None:
    import torch

    from interp.training.parallel import joined
    from interp.types import InterpError

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "INTERP_PATIENCE": str(patience)}
    folder = Path(given[0])
    with (folder / f"said.{rank}").open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    try:
        with joined():
            task(rank, *given)
    except InterpError as error:
        sys.stderr.write(f"interp: {error}\n")
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
