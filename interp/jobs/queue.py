"""The queue: what is submitted, begun, stopped, resumed and removed, each under one lock."""

import os
import site
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp import places
from interp.commands.options import Json
from interp.jobs import asking
from interp.jobs.process import spawn
from interp.jobs.record import ASKED, FORMAT, HOW_FAR, LOG, RESULT, STOPPED, UNKNOWN, Job, Standing, read
from interp.processors import cores
from interp.types import InterpError, unknown

CORES_A_JOB = 8
"""Training gains little from more; two jobs at once on fewer would each take longer than one after the other."""
KEPT = ("INTERP_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that a job gets from whoever submitted it; all others (so no secrets on disk) from whoever starts it."""
PATIENCE = 30.0
"""Seconds from asking a job to stop, in which a command ends its step and saves, until it is made to."""
LAST_WORDS = 5.0
"""Seconds between SIGTERM and SIGKILL."""
WAIT = 30.0
"""Seconds to wait for the lock, which others hold for some milliseconds."""


def folder() -> Path:
    """Where jobs live."""
    return (places.data() / "jobs").absolute()


def room() -> int:
    """How many jobs may run at once on this machine: one for every CORES_A_JOB cores, or what INTERP_JOBS says.

    Raises InterpError when INTERP_JOBS is no number from 1 up.
    """
    said = os.environ.get("INTERP_JOBS", "")
    if not said:
        return max(1, cores() // CORES_A_JOB)
    if not said.isascii() or not said.isdigit() or int(said) < 1:
        raise InterpError(f"INTERP_JOBS is {said!r}; it says how many jobs run at once: 1 or more.")
    return int(said)


def submit(command: str, arguments: Mapping[str, Json | Path]) -> Job:
    """The job that runs a command of `interp.commands` with these arguments, queued or begun already.

    The arguments are written to disk as they are. Paths among them begin at the working folder of this process. Raises
    InterpError for a command, an argument or a value that does not exist, and when INTERP_HOME cannot be written.
    """
    places.refuse_read_only("no job is begun")
    room()  # a mistake in INTERP_JOBS is said before anything is written
    given = asking.plain(arguments)
    asking.fitted(command, given)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    if "INTERP_HOME" in kept:
        kept["INTERP_HOME"] = os.path.abspath(kept["INTERP_HOME"])
    created = time.time()
    asked = {
        "format": FORMAT,
        "command": command,
        "arguments": given,
        "created": created,
        "cwd": os.getcwd(),
        "python": sys.executable,
        "code": _code(),
        "environment": kept,
    }
    with turn("the job"):
        places.drop_partials(folder())
        number = _next_number()
        made = folder() / str(number)
        with places.whole_folder(made) as partial:
            places.write_json(partial / ASKED, asked)
            Standing(state="queued", queued=created).write(partial)
            (partial / LOG).touch()
        start_next()
    return read(made)


def resume(id: str) -> Job:
    """The job, queued again: its command is called with the same arguments, and goes on from what it kept.

    Raises InterpError when there is none, when it is queued or runs, and when it is done.
    """
    places.refuse_read_only(f"job {id} is not resumed")
    with turn("resuming it"):
        job = find(id)
        if not job.over or job.state == "done":
            raise InterpError(f"job {id} is {job.state}; what was stopped, failed or is lost can be resumed.")
        if job.command == UNKNOWN:
            raise InterpError(f"job {id} cannot be resumed: {job.error}")
        before = Standing.read(job.folder)
        begun = before.restarted or (job.folder / HOW_FAR).exists()
        Standing(state="queued", queued=time.time(), attempt=before.attempt, restarted=begun).write(job.folder)
        start_next()
    return read(job.folder)


def stop(id: str, *, patience: float = PATIENCE) -> Job:
    """The job, stopped; what it did is kept. It may also have ended by itself in the meantime.

    It gets what Ctrl-C sends, and may finish its step and save; after `patience` seconds SIGTERM, and LAST_WORDS later
    SIGKILL, with all processes that it began. Raises InterpError when there is none, and when it is over already.
    """
    places.refuse_read_only(f"job {id} is not stopped")
    with turn("stopping it", needed=False):
        job = find(id)
        if job.over:
            raise InterpError(f"job {id} is {job.state} already.")
        standing = Standing.read(job.folder)
        if standing.process is None:
            replace(standing, state="stopped", ended=time.time()).write(job.folder)
            return read(job.folder)
        with suppress(InterpError):  # on a full disk it is stopped nevertheless
            replace(standing, stopping=True).write(job.folder)
        standing.process.interrupt()
    process, code = standing.process, STOPPED
    for seconds, harder in ((patience, process.end), (LAST_WORDS, process.kill), (LAST_WORDS, None)):
        ends = time.monotonic() + seconds
        while process.alive and time.monotonic() < ends:
            time.sleep(0.05)
        if process.alive and harder is not None:
            harder()
            code = -9 if harder == process.kill else code
    with turn("stopping it", needed=False), suppress(InterpError):
        after = Standing.read(job.folder)
        if after.state == "running" and not process.alive:  # it could not say so itself
            replace(after, state="stopped", ended=time.time(), exit_code=code).write(job.folder)
        start_next()
    return read(job.folder)


def remove(id: str) -> None:
    """Take a job out of the list, with its log and its result; what its command wrote elsewhere stays.

    Raises InterpError when there is none, and when it is queued or runs.
    """
    places.refuse_read_only(f"job {id} stays")
    with turn("removing it"):
        job = find(id)
        if not job.over:
            raise InterpError(f"job {id} is {job.state}; stop it first.")
        places.drop_folder(job.folder)


def find(id: str) -> Job:
    """The job of this number.

    Raises InterpError when there is none.
    """
    if id.isascii() and id.isdigit() and (folder() / id).is_dir():
        return read(folder() / id)
    raise unknown("job", id, [path.name for path in folders()])


def folders() -> list[Path]:
    """The folders of all jobs, oldest first."""
    try:
        found = [path for path in folder().iterdir() if path.name.isascii() and path.name.isdigit()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise places.disk_error(folder(), error) from error
    return sorted(found, key=lambda path: int(path.name))


@contextmanager
def turn(what: str, *, wait: float = WAIT, needed: bool = True) -> Iterator[None]:
    """Hold the queue.

    Raises InterpError when others hold it for longer than `wait`, or it cannot be written; unless it is not `needed`.
    """
    place = folder()
    with ExitStack() as held:
        try:
            if places.read_only():
                raise InterpError(f"this was started read-only, so {what} has to wait.")
            place.mkdir(mode=0o700, parents=True, exist_ok=True)  # arguments and logs are their owner's business
            held.enter_context(places.only_one(place, what, wait=wait))
        except OSError as error:
            if needed:
                raise places.disk_error(place, error) from error
        except InterpError:
            if needed:
                raise
        yield


def start_next() -> None:
    """Begin as many queued jobs as there is room for; whoever calls holds the queue."""
    queued, free = waiting()
    for path in queued:
        if free <= 0:
            return
        free -= _start(path, Standing.read(path))


def waiting() -> tuple[list[Path], int]:
    """(folders of the queued jobs, first come first; how many more may run)."""
    standings = {path: Standing.read(path) for path in folders()}
    running = sum(standing.seen()[0] == "running" for standing in standings.values())
    queued = [path for path, standing in standings.items() if standing.state == "queued"]
    return sorted(queued, key=lambda path: (standings[path].queued, int(path.name))), room() - running


def _start(job: Path, standing: Standing) -> bool:
    """Begin a job; whether it began. It waits for the queue, and ends when `state.json` does not name it."""
    for name in (HOW_FAR, RESULT):
        (job / name).unlink(missing_ok=True)
    begun = replace(standing, state="running", attempt=standing.attempt + 1, started=time.time())
    try:
        asked = places.read_json(job / ASKED)
        process = spawn(_call(asked, job), cwd=asked["cwd"], environment=_environment(asked), log=job / LOG)
    except (InterpError, OSError, KeyError, TypeError) as error:
        why = f"it could not be begun: {str(error).rstrip('.')}."
        replace(begun, state="failed", ended=time.time(), exit_code=1, error=why).write(job)
        return False
    replace(begun, process=process).write(job)
    return True


def _call(asked: dict[str, Any], job: Path) -> list[str]:
    python = asked["python"] if Path(asked["python"]).exists() else sys.executable
    # -P: nothing of the working folder is taken for a module.
    return [python, "-P", "-u", "-X", "utf8", "-m", "interp.jobs.run", str(job)]


def _environment(asked: dict[str, Any]) -> dict[str, str]:
    """That of whoever starts the job, with what its submitter's had of KEPT, and its share of the cores."""
    made = {name: value for name, value in os.environ.items() if name not in KEPT} | asked["environment"]
    made.setdefault("OMP_NUM_THREADS", str(max(1, cores() // room())))
    if asked["code"]:
        others = [path for path in made.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", asked["code"])]
        made["PYTHONPATH"] = os.pathsep.join([asked["code"], *others])
    return made


def _code() -> str:
    """The folder that this package is imported from, where Python would not find it by itself."""
    here = Path(__file__).resolve().parents[2]
    installed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]
    return "" if here in [Path(place).resolve() for place in installed] else str(here)


def _next_number() -> int:
    """A number that no job ever had, also none that was removed."""
    last = folder() / "last"
    try:
        before = int(last.read_text(encoding="ascii"))
    except (OSError, ValueError):
        before = 0
    number = 1 + max([before, *(int(path.name) for path in folders())])
    with places.whole_file(last) as partial:
        partial.write_text(str(number), encoding="ascii")
    return number
