"""Safetensors files that several processes write together, each its own part of every tensor at its place in the file.

A safetensors file is eight bytes with the header's length, the header (JSON: of each tensor its type, shape and where its
bytes begin and end), then the bytes, row after row. So who knows all names, types and shapes knows where every element
stands, and need not hold it: one process writes the header and stretches the file (`begin`), each then writes its parts
(`write`). The bytes are those that `safetensors.torch.save_file` writes of the whole. Writing is by position and never by
mapping the file into memory, where two machines could overwrite each other's part of a page.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass(frozen=True)
class Place:
    """Where a whole tensor stands."""

    begin: int
    """Its first byte in the file."""
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Layout:
    """Everything of a file but the tensors' bytes."""

    header: bytes
    places: Mapping[str, Place]
    size: int
    """Bytes of the whole file."""

    @staticmethod
    def of(tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]], metadata: Mapping[str, str] | None) -> "Layout":
        """For whole tensors of these shapes and types; large types come first, as in every safetensors file."""
        order = sorted(tensors, key=lambda name: (-tensors[name][1].itemsize, name))
        said: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
        at, places = 0, dict[str, Place]()
        for name in order:
            shape, dtype = tensors[name]
            end = at + torch.Size(shape).numel() * dtype.itemsize
            said[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [at, end]}
            places[name], at = Place(at, shape, dtype), end
        text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        first = 8 + len(text)
        places = {name: Place(first + place.begin, place.shape, place.dtype) for name, place in places.items()}
        return Layout(len(text).to_bytes(8, "little") + text, places, first + at)


def begin(path: Path, layout: Layout) -> None:
    """Write the header, and stretch the file to its length."""
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)


def write(path: Path, layout: Layout, parts: Mapping[str, tuple[Tensor, int | None, int]]) -> None:
    """Write parts of tensors into a file that was begun: of each name (part, axis, first), where the part is the tensor's from
    `first` on along that axis, 0 or 1; without an axis it is the whole."""
    with path.open("r+b", buffering=0) as file:
        for name, (part, axis, first) in parts.items():
            place = layout.places[name]
            assert part.dtype == place.dtype
            data = memoryview(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            row = torch.Size(place.shape[1:]).numel() * part.dtype.itemsize
            if axis != 1:
                _put(file.fileno(), data, place.begin + (first if axis == 0 else 0) * row)
                continue
            own, skip = part.shape[1] * part.dtype.itemsize, first * part.dtype.itemsize
            for number in range(len(part)):
                _put(file.fileno(), data[number * own : (number + 1) * own], place.begin + number * row + skip)
        os.fsync(file.fileno())


def _put(file: int, data: memoryview, at: int) -> None:
    while len(data):  # a system writes at most 2 GiB at a time
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done
