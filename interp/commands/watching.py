"""A training run as it goes: what its log says, for whoever looks on from another process."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.commands.options import Json
from interp.types import InterpError

MOST = 600
"""Steps that a curve shows; of a longer run every so many."""
COMMANDS_THAT_TRAIN = ("train", "sweep")


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One step of a run."""

    step: int
    tokens: int
    loss: float | None
    fvu: float | None
    l0: float | None
    dead: int
    """Features that did not fire for a while; of the last, those that fire on no held-out row."""
    rate: float | None
    """Tokens a second, of the step itself."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is known of one SAE in the making, or made."""

    name: str
    folder: str
    """The checkpoint's, once the run is over."""
    steps: Sequence[Logged] = ()
    notes: Sequence[str] = ()
    """What the run said, oldest first."""
    d_sae: int | None = None
    last: Logged | None = None
    """The end, measured on held-out rows; None before."""
    found: dict[str, Any] = field(default_factory=dict)
    """Where it is read from: `log` and, while it goes, `latest`, the SAE as it stands."""

    @property
    def over(self) -> bool:
        return self.last is not None


def runs_of(command: str, arguments: dict[str, Json], cwd: Path) -> list[Run]:
    """The runs of a job's command, those that have begun: of `train` one, of `sweep` one a folder."""
    into = arguments.get("into")
    if command not in COMMANDS_THAT_TRAIN or not isinstance(into, str):
        return []
    folder = cwd / into
    if command == "train":
        run = read_run(folder, d_sae=arguments.get("d_sae"))
        return [run] if run else []
    found = [read_run(below) for below in _runs_below(folder)]
    return [run for run in found if run]


def _runs_below(folder: Path) -> list[Path]:
    """The folders of a sweep's SAEs: those that are made, and those in the making."""
    try:
        made = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        going = [path for path in (folder / ".run").iterdir() if path.is_dir()] if (folder / ".run").is_dir() else []
    except OSError:
        return []
    return sorted({path.name: path for path in [*going, *made]}.values(), key=lambda path: path.name)


def read_run(folder: Path, *, d_sae: Json = None) -> Run | None:
    """The run that trains into a folder; None when none has begun.

    Raises InterpError when its log cannot be read.
    """
    logs = [folder / ".run" / "log.jsonl", folder / "log.jsonl", folder / "training_log.jsonl"]
    log = next((path for path in logs if path.is_file()), None)
    if log is None:
        return None
    records = _records(log)
    steps = [_logged(record) for record in records if not record["finished"]]
    ends = [_logged(record) for record in records if record["finished"]]
    notes = [note for record in records for note in record["notes"]]
    latest = log.parent / "latest"
    found = {"log": str(log)} | ({"latest": str(latest)} if (latest / "cfg.json").exists() and not ends else {})
    return Run(
        name=folder.name,
        folder=str(folder),
        steps=_thinned(steps),
        notes=notes,
        d_sae=d_sae if isinstance(d_sae, int) else None,
        last=ends[-1] if ends else None,
        found=found,
    )


def _records(log: Path) -> list[dict[str, Any]]:
    """The log's whole lines; one that is being written is passed over."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InterpError(f"the log {log} cannot be read: {error.strerror or error}.") from None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"step", "tokens", "finished", "notes"} <= record.keys():
            records.append(record)
    return records


def _logged(record: dict[str, Any]) -> Logged:
    step, tokens, seconds = int(record["step"]), int(record["tokens"]), record.get("seconds")
    numbers = {name: record.get(name) for name in ("loss", "fvu", "l0")}
    rate = tokens / step / seconds if step and isinstance(seconds, int | float) and seconds > 0 else None
    return Logged(step=step, tokens=tokens, dead=int(record.get("dead") or 0), rate=rate, **numbers)


def _thinned(steps: Sequence[Logged]) -> list[Logged]:
    """At most about MOST of them, the last among them."""
    every = max(1, len(steps) // MOST)
    return list(steps[(len(steps) - 1) % every :: every]) if steps else []
