"""Set-up, and the start of the servers, on the command line."""

import json
import os
import runpy
import sys
from typing import Any

from interp.cli.app import add, plain_parameters
from interp.commands import COMMANDS, as_json
from interp.commands.allowed import FOLDERS
from interp.render.terminal import say, tell


def _setup(**given: Any) -> None:
    COMMANDS["setup"].call(**given)


def _dashboard(**given: Any) -> None:
    pages: Any = COMMANDS["dashboard"].call(**given)
    host, port = given["host"], given["port"]
    only = ", read-only" if pages.read_only else ""
    tell(f"dashboard of {pages.folder.name}{only}: http://{host}:{port}  (Ctrl-C ends it)")
    sys.stdout.flush()
    os.environ[FOLDERS] = os.pathsep.join(map(str, pages.folders))
    for name, asked in (("INTERP_READ_ONLY", pages.read_only), ("INTERP_LOGIN", pages.login)):
        if asked:
            os.environ[name] = "yes"
    # The server is this very process, so that whatever ends the one ends the other.
    sys.argv = ["interp.ui", str(pages.folder), str(port), host]
    runpy.run_module("interp.ui", run_name="__main__", alter_sys=True)


def _mcp(**given: Any) -> None:
    served: Any = COMMANDS["mcp"].call(given.pop("roots"), **given)
    if served.http is not None:
        say(f"tools at http://{served.host}:{served.http}/mcp  (Ctrl-C ends it)")
    sys.argv = ["interp.mcp", json.dumps(as_json(served))]
    runpy.run_module("interp.mcp", run_name="__main__", alter_sys=True)


add(_setup, "setup", "interp setup --texts", COMMANDS["setup"], plain_parameters(COMMANDS["setup"]))
add(
    _dashboard,
    "dashboard",
    "interp dashboard saes/mine --port 8501",
    COMMANDS["dashboard"],
    plain_parameters(COMMANDS["dashboard"]),
)
add(_mcp, "mcp", "interp mcp --http 8765 --allow steer", COMMANDS["mcp"], plain_parameters(COMMANDS["mcp"]))
