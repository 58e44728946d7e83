"""A command in a process that is forked from one which has imported everything: it is at work from its first moment.

`multiprocessing`'s fork server imports PRELOADED once, in a clean process without the shape checks of tests/conftest.py.
"""

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from types import ModuleType

PRELOADED = [
    "transformer_lens",
    "transformers.models.llama.modeling_llama",
    "tokenizers",
    "datasets",
    "pyarrow.parquet",
    "scipy.stats",
    "duckdb",
    "interp.activations",
    "interp.index.build",
    "interp.index.by_feature",
    "interp.index.parts",
    "interp.recipe",
    "interp.workbench",
    "interp.cli",
    "tests.warm",
    "tests.ranks",
]
"""What commands import when they come to it, too."""
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(PRELOADED)


def start_server() -> None:
    """Returns when the imports are done."""
    first = WARM.Process(target=str)
    start(first)
    first.join()


def start(process: BaseProcess) -> None:
    """Begin it, without what stands as the main module here: a child would run that again, and in tests of the dashboard
    Streamlit puts a page there, and leaves it."""
    own, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = own


def forked(home: object, *arguments: object) -> BaseProcess:
    """The command line with these arguments, begun; what it says lies in HOME.log."""
    process = WARM.Process(target=run, args=(str(home), [str(each) for each in arguments]))
    start(process)
    return process


def run(home: str, arguments: list[str]) -> None:
    import torch

    from interp.cli import main

    os.environ |= {"INTERP_HOME": home, "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    with open(f"{home}.log", "wb") as log:
        for number in (1, 2):
            os.dup2(log.fileno(), number)
    sys.argv = ["interp", *arguments]
    main()
