"""What is freed stays with the process while it is asked to, and not longer."""

import psutil
import pytest
import torch

from interp.device import keeping_freed_memory

BLOCK, BLOCKS = 6 * 2**20, 40
"""Values of a block, 24 MiB (under glibc's own limit for blocks that are mapped), and blocks."""


def resident() -> int:
    return psutil.Process().memory_info().rss // 2**20


def touched_and_freed() -> int:
    """MiB that the process holds when the blocks are there."""
    blocks = [torch.ones(BLOCK) for _ in range(BLOCKS)]
    held = resident()
    del blocks
    return held


def test_memory_is_kept_within_and_given_back_after():
    with keeping_freed_memory() as told:
        if not told:
            pytest.skip("this allocator cannot be told")
        with keeping_freed_memory():
            full = touched_and_freed()
        assert resident() > full - 100, "an inner one must not end the outer one"
    assert resident() < full - 24 * BLOCKS + 150


def test_memory_is_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError), keeping_freed_memory() as told:
        full = touched_and_freed()
        raise ZeroDivisionError
    assert not told or resident() < full - 24 * BLOCKS + 150
