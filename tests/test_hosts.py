"""One SAE on several hosts (network namespaces): a link is slow, a link is cut, a host is gone, and nothing is lost."""

import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from interp.checkpoint import load
from interp.sae.metrics import reconstruction
from interp.training.state import FILE
from tests import ranks
from tests.hosts import NotPermitted, hosts

BATCHES = 60
PATIENCE = 5.0
"""Seconds that a rank waits for another; the usual 50 would do as well, and take as long."""


def step_of(folder: Path) -> int:
    """At which step the saved state stands; 0 where there is none."""
    if not (folder / "run" / FILE).exists():
        return 0
    with safe_open(folder / "run" / FILE, framework="pt") as file:
        return int(file.metadata()["step"])


def goes_on(folder: Path, begun: list, by: int = 4) -> int:
    """The step of a state that is saved after now; AssertionError when somebody has ended before."""
    first = step_of(folder)
    while (step := step_of(folder)) < first + by:
        assert all(rank.is_alive() for rank in begun), [(folder / f"said.{n}").read_text() for n in range(len(begun))]
        time.sleep(0.02)
    return step


def all_end_with_a_sentence(folder: Path, left: dict) -> None:
    """Within a minute, though nobody tells them that another is gone."""
    began = time.perf_counter()
    assert ranks.end(list(left.values()), 60) == [2] * len(left), [(folder / f"said.{n}").read_text() for n in left]
    assert time.perf_counter() - began < 60
    for number in left:
        said = (folder / f"said.{number}").read_text()
        assert "another rank has ended or did not answer" in said
        assert "the same command goes on" in said


@pytest.mark.slow
@pytest.mark.alone
def test_slow_and_cut_links_and_a_lost_host_lose_nothing(tmp_path):
    try:
        with hosts(4) as net:
            _slow_cut_and_lost(net, tmp_path)
    except NotPermitted as error:
        pytest.skip(f"no network namespaces here: {error}")
    steps, _ = ranks.run("batchtopk", 1, BATCHES)  # one process
    x = ranks.planted(ranks.HELD)
    made = reconstruction(load(tmp_path / "sae"), x)
    assert made.fvu == pytest.approx(reconstruction(steps[-1].sae, x).fvu, abs=1e-4)
    with safe_open(tmp_path / "run" / FILE, framework="pt") as file:
        assert int(file.metadata()["step"]) == BATCHES == steps[-1].step


def _slow_cut_and_lost(net, folder):
    torch.set_num_threads(1)  # as the ranks have

    def begin():
        return net.begin(ranks.resumed, folder, 2, BATCHES, patience=PATIENCE)

    begun = begin()
    goes_on(folder, begun)
    net.slow(1)
    slow = goes_on(folder, begun)  # a slow link ends nobody
    net.cut(2)
    all_end_with_a_sentence(folder, dict(enumerate(begun)))
    cut = step_of(folder)
    assert slow <= cut < BATCHES
    net.mend(2)
    begun = begin()  # on the same hosts, one of them still slow
    assert goes_on(folder, begun) > cut
    net.lose_power(0, begun[0])  # where the others met
    all_end_with_a_sentence(folder, dict(enumerate(begun[1:], 1)))
    lost = step_of(folder)
    assert cut < lost < BATCHES
    net.plug_in(0)
    net.hasten(1)
    begun = begin()
    assert ranks.end(begun, 60) == [0] * 4, (folder / "said.0").read_text()
