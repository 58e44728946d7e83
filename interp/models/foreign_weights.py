"""Weights out of files of other programs, without those programs: ONNX and CTranslate2's `model.bin`.

An ONNX file is a Protocol Buffers message: fields of (number, kind, value), of which these are needed: the model's graph (7);
the graph's nodes (1) and initializers (5); a node's inputs (1), name (3) and operator (4); a tensor's sizes (1), type (2),
name (8) and bytes (9). Exporters fold a Linear's weight into a matrix product, transposed and under a name of its own, so the
node that uses it tells whose it is.

CTranslate2's file is: version, name and revision of the specification, a count of variables; of each its name, sizes, type
and bytes; then aliases. Strings have their length before them and end in a zero byte.

Raises InterpError, throughout, for a file that is cut short or of another kind.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.types import InterpError

_GRAPH, _NODE, _TENSOR = 7, 1, 5
_FLOAT = 1
"""ONNX's number of float32."""
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's numbers of types."""
Span = tuple[int, int]


def read_onnx(path: Path) -> dict[str, Tensor]:
    """float32 tensors of an ONNX file by name; a folded Linear's as `module.path.weight`, (out, in) again.

    InterpError when the file is no such.
    """
    raw = path.read_bytes()
    try:
        graph = next(value for number, value in _fields(raw, (0, len(raw))) if number == _GRAPH)
        parts = list(_fields(raw, _span(graph)))
        tensors = dict(_tensor(raw, _span(value)) for number, value in parts if number == _TENSOR)
        for number, value in parts:
            if number == _NODE:
                operator, name, inputs = _node(raw, _span(value))
                folded = next((i for i in inputs if i.startswith("onnx::MatMul_") and i in tensors), None)
                if operator == "MatMul" and folded is not None:
                    module = name.strip("/").removesuffix("/MatMul").replace("/", ".")
                    tensors[f"{module}.weight"] = tensors.pop(folded).T.contiguous()
    except (StopIteration, IndexError, ValueError, struct.error, TypeError) as error:
        raise InterpError(f"{path} cannot be read as an ONNX model: it is cut short, or of another kind.") from error
    return tensors


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at


def _fields(raw: bytes, span: Span) -> Iterator[tuple[int, int | Span]]:
    """(number, value) of a message's fields: a whole number, or where its bytes are."""
    at, end = span
    while at < end:
        key, at = _varint(raw, at)
        if key & 7 == 0:
            value, at = _varint(raw, at)
            yield key >> 3, value
            continue
        size, at = _varint(raw, at) if key & 7 == 2 else ({5: 4, 1: 8}[key & 7], at)
        yield key >> 3, (at, at + size)
        at += size


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _text(raw: bytes, value: int | Span) -> str:
    return raw[slice(*_span(value))].decode()


def _tensor(raw: bytes, span: Span) -> tuple[str, Tensor]:
    """(name, tensor); of another type than float32, or kept otherwise than as bytes, an empty one."""
    sizes: list[int] = []
    name, kind, where = "", 0, (0, 0)
    for number, value in _fields(raw, span):
        if number == 1 and isinstance(value, int):
            sizes.append(value)
        elif number == 1:
            at, end = _span(value)
            while at < end:
                size, at = _varint(raw, at)
                sizes.append(size)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8:
            name = _text(raw, value)
        elif number == 9:
            where = _span(value)
    if kind != _FLOAT or where == (0, 0):
        return name, torch.zeros(0)
    return name, torch.from_numpy(np.frombuffer(raw[slice(*where)], dtype="<f4").reshape(sizes).copy())


def _node(raw: bytes, span: Span) -> tuple[str, str, list[str]]:
    """(operator, name, names of its inputs)."""
    found: dict[int, list[str]] = {1: [], 3: [""], 4: [""]}
    for number, value in _fields(raw, span):
        if number in found:
            found[number].append(_text(raw, value))
    return found[4][-1], found[3][-1], found[1]


def read_ctranslate2(path: Path) -> dict[str, Tensor]:
    """float32 tensors of CTranslate2's model.bin by name. InterpError when the file is no such."""
    raw, at = path.read_bytes(), 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", raw, at)
        at += struct.calcsize(f"<{form}")
        return values

    def text() -> str:
        nonlocal at
        (size,) = take("H")
        at += size
        return raw[at - size : at - 1].decode()

    tensors: dict[str, Tensor] = {}
    try:
        take("I"), text(), take("I")
        for _ in range(take("I")[0]):
            name, (rank,) = text(), take("B")
            sizes, (kind, size) = take(f"{rank}I"), take("BI")
            values = np.frombuffer(raw, dtype=_TYPES[kind], count=size // np.dtype(_TYPES[kind]).itemsize, offset=at)
            tensors[name] = torch.from_numpy(values.reshape(sizes).astype(np.float32))
            at += size
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise InterpError(
            f"{path} cannot be read as a model of CTranslate2: it is cut short, or of another kind."
        ) from error
    return tensors
