"""Set-up, and the dashboard's start, on the command line."""

import runpy
import sys
from inspect import Parameter
from typing import Any

from interp.cli.app import add, plain_parameters
from interp.commands import COMMANDS
from interp.render.terminal import tell


def _setup(**_: Any) -> None:
    COMMANDS["setup"].call()


def _dashboard(sae: str, port: int, host: str) -> None:
    folder: Any = COMMANDS["dashboard"].call(sae, port=port, host=host)
    tell(f"dashboard of {folder.resolve().name}: http://{host}:{port}  (Ctrl-C ends it)")
    sys.stdout.flush()
    # The server is this very process, so that whatever ends the one ends the other.
    sys.argv = ["interp.ui", str(folder.resolve()), str(port), host]
    runpy.run_module("interp.ui", run_name="__main__", alter_sys=True)


add(_setup, "setup", "interp setup", COMMANDS["setup"], list[Parameter]())
add(
    _dashboard,
    "dashboard",
    "interp dashboard saes/mine --port 8501",
    COMMANDS["dashboard"],
    plain_parameters(COMMANDS["dashboard"]),
)
