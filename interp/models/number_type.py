"""A model's number type while its modules are made, for the thread that makes them and for no other.

transformers sets PyTorch's default number type meanwhile, which is the process's: a page that computes in another thread would get
numbers of that type, two models that are made at once would get each other's, and what stays behind after both depends on which ends
first. Here the type is handed to each function that makes a tensor, by a mode of the thread, and models are opened one at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_turn = threading.RLock()
MAKES = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace, torch.empty_strided)
)  # fmt: skip
"""Functions whose numbers are of the default type whatever they are given."""
INFERS = frozenset((torch.tensor, torch.full, torch.arange, torch.scalar_tensor, torch.as_tensor))
"""Functions whose numbers are of the default type where they are given Python's floats."""


class _Type(TorchFunctionMode):
    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is not None or func not in MAKES | INFERS:
            return func(*args, **kwargs)
        if func in MAKES:
            return func(*args, **(kwargs | {"dtype": self.kind}))
        made = func(*args, **kwargs)
        typed = any(isinstance(each, Tensor) or hasattr(each, "dtype") for each in (*args, *kwargs.values()))
        return made if typed or made.dtype != torch.get_default_dtype() else made.to(self.kind)


@contextmanager
def _thread_type(dtype: torch.dtype, model_class_name: str | None = None) -> Iterator[Any]:
    """In the place of transformers' `local_torch_dtype`."""
    if not dtype.is_floating_point:
        raise ValueError(f"{model_class_name or 'a model'} cannot be made of {dtype}, which is no floating-point type")
    with _Type(dtype):
        yield


@contextmanager
def opening() -> Iterator[None]:
    """While a model is opened: no other is, and PyTorch's default number type stays what it is."""
    from transformers import modeling_utils

    with _turn:
        own = modeling_utils.local_torch_dtype
        modeling_utils.local_torch_dtype = _thread_type
        try:
            yield
        finally:
            modeling_utils.local_torch_dtype = own
