"""What is known of a job, read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from interp import places
from interp.commands.options import Json
from interp.jobs.process import Process
from interp.progress import Progress
from interp.types import InterpError

State = Literal["queued", "running", "done", "failed", "stopped", "lost"]
ASKED, NOW, HOW_FAR, LOG, RESULT = "job.json", "state.json", "progress.json", "log.txt", "result.json"
FORMAT, STOPPED = 1, 130
UNKNOWN = "?"
"""The command of a job that does not say it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command and its arguments, and how it stands with them."""

    id: str
    command: str
    arguments: Mapping[str, Json]
    state: State
    folder: Path
    cwd: Path
    """The working folder, at which paths among the arguments begin."""
    created: datetime
    started: datetime | None = None
    """When the last attempt began."""
    ended: datetime | None = None
    exit_code: int | None = None
    """0 done, 2 a mistake of the user's, 1 one of ours, 130 stopped, -9 stopped by force; None before, and of one lost."""
    error: str = ""
    """Why it failed or is lost, in a sentence; a traceback is in the log."""
    attempt: int = 0
    """How often it was started."""
    pid: int | None = None
    """Its process, while it runs."""
    stopping: bool = False
    """Whether it was asked to stop, and has not ended yet."""
    progress: Progress | None = None
    """How far the last attempt came, where the command says so."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it unless it is resumed."""
        return self.state not in ("queued", "running")

    @property
    def log(self) -> Path:
        """Everything that it said; escape it where it is shown (`render.terminal.printable`)."""
        return self.folder / LOG

    @property
    def result_path(self) -> Path:
        """Where the record lies that the command gave back; it exists once the job is done."""
        return self.folder / RESULT

    def result(self) -> Json:
        """The record that the command gave back, as JSON has it.

        Raises InterpError when the job is not done.
        """
        if self.state != "done":
            raise InterpError(
                f"job {self.id} is {self.state}, so it has no result{': ' * bool(self.error)}{self.error}"
            )
        return places.read_json(self.result_path)

    def to_dict(self) -> dict[str, Json]:
        """The job as JSON has it; times in UTC."""
        times = {"created": self.created, "started": self.started, "ended": self.ended}
        return {
            "id": self.id,
            "command": self.command,
            "arguments": dict(self.arguments),
            "cwd": str(self.cwd),
            "state": self.state,
            **{name: when.isoformat() if when else None for name, when in times.items()},
            "exit_code": self.exit_code,
            "error": self.error,
            "attempt": self.attempt,
            "pid": self.pid,
            "stopping": self.stopping,
            "progress": None if self.progress is None else vars(self.progress).copy(),
            "folder": str(self.folder),
            "log": str(self.log),
            "result": str(self.result_path) if self.state == "done" else None,
        }


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a job stands, as `state.json` has it."""

    state: State
    queued: float
    """Its place in the queue: when it was submitted or resumed, in Unix seconds."""
    attempt: int = 0
    process: Process | None = None
    stopping: bool = False
    """Whether somebody asked it to stop."""
    restarted: bool = False
    """Whether an attempt of it got so far that the next is to go on, and not to begin again."""
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    error: str = ""

    @staticmethod
    def read(folder: Path) -> "Standing":
        """That of the job in a folder; where the file is missing or broken the job is lost, and says so."""
        number, perhaps = (int, float), (int, float, type(None))
        kinds = {"state": str, "queued": number, "attempt": int, "started": perhaps, "ended": perhaps, "error": str}
        try:
            kept = places.read_json(folder / NOW)
            wrong = places.unlike(kept, kinds)
            if wrong or kept["state"] not in get_args(State):
                raise TypeError(f"{folder / NOW} says nothing of a job: {wrong or kept['state']}.")
            process = kept.get("process")
            return Standing(**kept | {"process": Process(**process) if process else None})
        except (InterpError, TypeError) as error:
            return Standing(state="lost", queued=0.0, error=str(error))

    def write(self, folder: Path) -> None:
        """Raises InterpError when the disk does not take it."""
        process = None if self.process is None else vars(self.process).copy()
        places.write_json(folder / NOW, vars(self) | {"process": process})

    def seen(self) -> "tuple[State, str]":
        """(state, why) as it is now: the process of one that is said to run may be gone."""
        if self.state != "running" or (self.process is not None and self.process.alive):
            return self.state, self.error
        if self.stopping:
            return "stopped", ""
        return "lost", (
            "its process is gone and did not say how it ended: it was killed, the machine went down, or the disk was full; "
            "resume it."
        )


def read(folder: Path) -> Job:
    """The job in a folder.

    Raises InterpError when there is none. One whose files are broken is lost, and says so.
    """
    now, (state, why) = _settled(folder)
    try:
        asked = places.read_json(folder / ASKED)
        wrong = places.unlike(asked, {"command": str, "arguments": dict, "created": (int, float), "cwd": str})
        if wrong:
            raise InterpError(f"{folder / ASKED} says nothing of a job: {wrong}.")
    except InterpError as error:
        if not folder.is_dir():
            raise InterpError(f"there is no job {folder.name}.") from None
        asked = {"command": UNKNOWN, "arguments": {}, "cwd": "", "created": folder.stat().st_mtime}
        state, why = "lost", str(error)
    return Job(
        id=folder.name,
        command=asked["command"],
        arguments=asked["arguments"],
        state=state,
        folder=folder,
        cwd=Path(asked["cwd"]),
        created=_time(asked["created"]),
        started=_time(now.started) if now.started else None,
        ended=_time(now.ended) if now.ended else None,
        exit_code=now.exit_code,
        error=why,
        attempt=now.attempt,
        stopping=now.stopping and state == "running",
        pid=now.process.pid if now.process and state == "running" else None,
        progress=_progress(folder),
    )


def _settled(folder: Path) -> tuple[Standing, tuple[State, str]]:
    """How a job stands: one whose process is gone may have said how it ended after the file was read."""
    now = Standing.read(folder)
    if now.seen()[0] != now.state:
        now = Standing.read(folder)
    return now, now.seen()


def _progress(folder: Path) -> Progress | None:
    try:
        return Progress(**places.read_json(folder / HOW_FAR))
    except (InterpError, TypeError):
        return None


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
