"""The command line: it shows and asks, and computes nothing. A file a room of `interp.commands`."""

from interp.cli import (
    circuits,
    comparing,
    dashboard,
    evaluating,
    evidence,
    finding,
    indexing,
    jobs,
    labelling,
    planning,
    sharing,
    steering,
    texts,
    training,
)
from interp.cli.app import app, main
from interp.cli.labelling import labels
from interp.commands import COMMANDS

_ORDER = list(COMMANDS)
app.registered_commands.sort(key=lambda command: _ORDER.index(command.name or ""))
"""The help lists commands as a newcomer meets them."""

__all__ = [
    "app",
    "circuits",
    "comparing",
    "dashboard",
    "evaluating",
    "evidence",
    "finding",
    "indexing",
    "jobs",
    "labelling",
    "labels",
    "main",
    "planning",
    "sharing",
    "steering",
    "texts",
    "training",
]
