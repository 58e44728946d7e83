"""Processes that can be told from every other, also from those that are given their number later."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """One process of one boot of this machine."""

    pid: int
    began: float
    """In the kernel's ticks since the boot, which no change of the clock moves; without /proc, in Unix seconds."""
    boot: str
    """The boot's own name; empty where the system gives it none."""

    @staticmethod
    def of(pid: int) -> "Process":
        """The process that has this number now, dead or alive."""
        return Process(pid, _began(pid), _boot())

    @property
    def alive(self) -> bool:
        return self.boot == _boot() and self.began > 0 and self.began == _began(self.pid)

    def interrupt(self) -> None:
        """What Ctrl-C does, to this process alone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def end(self) -> None:
        """Ask the process and all that it began to end."""
        self._to_all(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and all that it began."""
        self._to_all(signal.SIGKILL)

    def _to_all(self, number: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # it leads the group of its session


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _began(pid: int) -> float:
    """When the process with this number began; 0 when there is none, or it has ended and nobody asked how."""
    if _BOOT.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return 0.0 if fields[0] in "ZX" else float(fields[19])  # state; starttime of proc_pid_stat(5)
    try:
        found = psutil.Process(pid)
        return 0.0 if found.status() == psutil.STATUS_ZOMBIE else found.create_time()
    except psutil.Error:
        return 0.0


def spawn(call: Sequence[str], *, cwd: str, environment: Mapping[str, str], log: Path) -> Process:
    """A new process in a session of its own, which says everything into the log and holds nothing of its parent's.

    It hears of STOPS once it calls `hear_stops`; until then they wait, so that none of them meets it while it begins.
    Raises OSError when the system cannot begin it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        with log.open("ab") as out:
            child = subprocess.Popen(
                list(call),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    made = Process.of(child.pid)
    # Its parent must ask how it ended, or it stays in the table of processes for as long as the parent lives.
    threading.Thread(target=child.wait, daemon=True, name=f"job {child.pid}").start()
    return made


def hear_stops() -> None:
    """Let STOPS raise KeyboardInterrupt from here on, also one that came before, and where the parent ignored them."""
    for number in STOPS:
        signal.signal(number, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def ignore_stops() -> None:
    """Let nothing but SIGKILL disturb what comes now."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
