"""How many processors this process may use: what the user set, the scheduler allows, and a container pays for."""

import math
import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def threads() -> int:
    """How many threads to compute with: what OMP_NUM_THREADS says, else as many as there are `cores`."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # further numbers are of nested regions
    return int(first) if first.isdecimal() and int(first) > 0 else cores()


def cores() -> int:
    """How many cores this process may use: those of its affinity, or fewer where a container's quota is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """Cores' worth of time that this process's control groups are given (Linux, cgroup 1 and 2); infinite without a limit."""
    least = math.inf
    for limit, period in _limits():
        if limit.isdecimal() and period.isdecimal() and int(period):
            least = min(least, int(limit) / int(period))
    return least


def _limits() -> list[tuple[str, str]]:
    """(time, in a period of) as the kernel writes them, of the group of this process and of all groups around it."""
    pairs = []
    for name in (".", *_own_groups()):
        if words := _read(GROUPS / name / "cpu.max").split():
            pairs.append((words[0], words[-1]))
    for name in ("cpu", "cpu,cpuacct"):
        both = [_read(GROUPS / name / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")]
        pairs.append((both[0], both[1]))
    return pairs


def _own_groups() -> list[str]:
    last = _read(OWN_GROUP).strip().rpartition("::")[2].strip("/")
    parts = last.split("/") if last else []
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
