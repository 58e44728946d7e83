"""A second device where there is none: its tensors say `meta`, and hold numbers all the same.

The real thing, a GPU, is not here, and PyTorch's own meta and fake tensors hold no numbers, so nothing that counts what
is active runs on them. Inside `elsewhere()` a tensor that is made on, or moved to, `meta` keeps its numbers in the CPU's
memory. As on a GPU, an operation that meets tensors of both devices is refused (but for numbers without a dimension), and
so is numpy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
COPY = torch.ops.aten.copy_.default
MOVES = (torch.ops.aten._to_copy.default, COPY)


class Elsewhere(Tensor):
    """A tensor that says `meta`; its numbers are in `here`."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        strides = here.stride() if here.layout == torch.strided else None
        made = Tensor._make_wrapper_subclass(cls, here.shape, strides=strides, dtype=here.dtype, device=ELSEWHERE)
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


def _called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the operation gives, on the device of what it is given, or on the one it names."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _Operations():  # made of others, which inference_mode leaves to whoever listens
            return func.decompose(*args, **kwargs)
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = {id(x.here): x for x in given if isinstance(x, Elsewhere)}
    if func not in MOVES and there and any(x.ndim for x in given if not isinstance(x, Elsewhere)):
        raise RuntimeError(f"{func} meets tensors of two devices: {[(x.device.type, *x.shape) for x in given]}")
    if func is COPY:
        away = isinstance(given[0], Elsewhere)
    else:
        named = kwargs.get("device")
        away = bool(there) if named is None else torch.device(named) == ELSEWHERE
    if kwargs.get("device") is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map(lambda x: x.here if isinstance(x, Elsewhere) else x, (args, kwargs))

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor) or not away:
            return x
        if id(x) in there:
            return there[id(x)]  # changed in place, and so the same tensor as before
        with torch.inference_mode(False):  # or a view could not be made of it
            return Elsewhere(x)

    return tree_map(placed, func(*args, **kwargs))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _Lists(TorchFunctionMode):
    """`torch.tensor` makes an empty meta tensor without asking the dispatcher; here it is made on the CPU, then moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Within it `meta`, which it gives, is a device with numbers."""
    with _Operations(), _Lists():
        yield ELSEWHERE
