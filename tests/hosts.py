"""Several hosts on this machine: network namespaces of Linux, each with a card of its own, joined by a bridge.

A link can be cut, made slow, and mended, and a host can lose its power, while ranks (tests/ranks.py) talk over it. The machine's own
network is left alone: the bridge lies in a namespace, too.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests import ranks
from tests.warm import WARM, start, start_server

CLONE_NEWNET = 0x40000000
SLOW = (("netem", "delay", "5ms", "rate", "20mbit"), ("tbf", "rate", "20mbit", "burst", "16kb", "latency", "1s"))
"""Ways of the kernel to make a link slow, of which not every kernel has the first."""


class NotPermitted(Exception):
    """This machine makes no network namespaces for us, or has no `ip`."""


def ip(*words: object) -> None:
    _call("ip", *words)


def _call(*words: object) -> None:
    if shutil.which(str(words[0])) is None:
        raise NotPermitted(f"there is no `{words[0]}` (iproute2)")
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotPermitted(f"`{' '.join(map(str, words))}`: {done.stderr.strip()}")


class Hosts:
    """So many hosts; number 0 is where ranks meet."""

    def __init__(self, count: int) -> None:
        self.switch = f"interp-{os.getpid()}-switch"
        self.names = [f"interp-{os.getpid()}-{number}" for number in range(count)]
        self.meetings = 0

    def build(self) -> None:
        """Raises NotPermitted where this machine does not let us."""
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge", "up")
        for number in range(len(self.names)):
            self.plug_in(number)

    def plug_in(self, number: int) -> None:
        """A new host of that number."""
        name = self.names[number]
        ip("netns", "add", name)
        ip("-n", self.switch, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("-n", self.switch, "link", "set", f"port{number}", "master", "bridge", "up")
        ip(
            "-n", name, "link", "set", "eth0", "address", f"02:00:00:00:00:{number:02x}"
        )  # a host that is back has its card
        ip("-n", name, "address", "add", f"10.231.0.{number + 1}/24", "dev", "eth0")
        for card in ("lo", "eth0"):
            ip("-n", name, "link", "set", card, "up")

    def cut(self, number: int) -> None:
        ip("-n", self.switch, "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        ip("-n", self.switch, "link", "set", f"port{number}", "up")

    def slow(self, number: int) -> str:
        """Make what the host hears slow, and say how: by a delay where the kernel has one, else by few bytes a second."""
        for way in SLOW:
            try:
                _call("tc", "-n", self.switch, "qdisc", "replace", "dev", f"port{number}", "root", *way)
            except NotPermitted as error:
                refused = error
                continue
            return way[0]
        raise refused

    def hasten(self, number: int) -> None:
        _call("tc", "-n", self.switch, "qdisc", "del", "dev", f"port{number}", "root")

    def lose_power(self, number: int, process: BaseProcess) -> None:
        """The host is gone at once, and nobody is told: neither it nor the system says goodbye for its process."""
        self.cut(number)
        process.kill()
        process.join()
        ip("-n", self.switch, "link", "del", f"port{number}")
        ip("netns", "del", self.names[number])

    def begin(self, task: Callable[..., None], folder: Path, *given: Any, patience: float) -> list[BaseProcess]:
        """As `ranks.begin`, a rank on each host."""
        start_server()
        self.meetings += 1
        made = []
        for rank, name in enumerate(self.names):
            to_run = (name, rank, len(self.names), 29500 + self.meetings, patience, task, folder, given)
            made.append(WARM.Process(target=_run_on, args=to_run))
            start(made[-1])
        return made

    def clear(self) -> None:
        """Take all away; namespaces that are gone already are passed over."""
        for name in (*self.names, self.switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """Raises NotPermitted where this machine does not let us."""
    if shutil.which("ip") is None:
        raise NotPermitted("there is no `ip` (iproute2)")
    made = Hosts(count)
    try:
        made.build()
        yield made
    finally:
        made.clear()


def _run_on(host: str, rank: int, world: int, port: int, *given: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{host}") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {host}")
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    ranks.run_rank(rank, world, ("10.231.0.1", port), *given)
