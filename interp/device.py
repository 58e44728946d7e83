"""Which device and number type to use on this machine."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import psutil
import torch

from interp.render.words import size
from interp.types import InterpError, unknown


def resolve_device(device: str) -> torch.device:
    """The device to use; `auto` takes CUDA, then MPS, then the CPU. InterpError when it is not there."""
    if device != "auto":
        try:
            made = torch.device(device)
        except RuntimeError:
            raise unknown("device", device, ["auto", "cpu", "cuda", "mps"]) from None
        there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
        if (made.index or 0) >= there.get(made.type, 1):
            raise InterpError(f"there is no device {device} on this machine; auto takes what there is, cpu always is.")
        return made
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The asked dtype, or bfloat16 where it is native, else float32. InterpError for another name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype != "auto":
        if dtype not in known:
            raise unknown("dtype", dtype, known)
        return known[dtype]
    return torch.bfloat16 if native_bfloat16(device) else torch.float32


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (emulation is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
        return any(bool(getattr(torch.cpu, name)()) for name in checks if hasattr(torch.cpu, name))
    return False


def check_memory(needed: int, what: str, device: torch.device | None = None) -> None:
    """Raises InterpError when `needed` bytes are more than this machine, or the GPU that is named, has free."""
    gpu = device is not None and device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if gpu else psutil.virtual_memory().available
    if needed > free:
        raise InterpError(
            f"{what} {'needs' if what.startswith('1 ') else 'need'} {size(needed)} of memory at least, and {size(free)} are "
            f"free{f' on {device}' if gpu else ''}; ask for less."
        )


_keepers, _counted = [0], Lock()
"""How many blocks of `keeping_freed_memory` are under way in this process."""


@contextmanager
def keeping_freed_memory() -> Iterator[bool]:
    """Within it this process reuses large blocks that it frees, and afterwards gives them back; whether the allocator can be told so
    (glibc's can).

    By default glibc gives every block over 32 MiB, and the top of its heap, back to the system at once, and a step of
    training pays for the same pages again: a fifth of its time. One within another ends with the outer one.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield False
        return
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    with _counted:
        _keepers[0] += 1
        told = bool(mallopt(mmap, 2**30)) and bool(mallopt(trim, 2**31 - 1))
    try:
        yield told
    finally:
        with _counted:
            _keepers[0] -= 1
            if not _keepers[0]:  # as glibc's own thresholds are once a process has freed large blocks
                mallopt(mmap, 2**25)
                mallopt(trim, 2**26)
                malloc_trim(0)
