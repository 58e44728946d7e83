"""Hook points by module path, for any `torch.nn.Module`.

A tap is a module that gives back what it is given. It is put behind (or before) another module once, by a hook of PyTorch's,
and from then on is that place's hook point: whoever reads or edits there registers a hook on the tap. Of an output with several
parts the first tensor passes the tap. While nobody listens, the module's own output object goes on untouched.

Names: `encoder.layer.3` is what that submodule puts out, `encoder.layer.3.hook_in` what enters it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

IN = ".hook_in"


class Tap(nn.Module):
    """A hook point: gives back what it is given. With `lead`, as many rows of zeros stand before the positions that the
    module itself sees, so that positions are numbered as in the model's input."""

    def __init__(self, lead: int = 0) -> None:
        super().__init__()
        self.lead = lead

    def forward(self, x: Tensor) -> Tensor:
        """What it was given."""
        return x

    @property
    def heard(self) -> bool:
        """Whether anybody reads or edits here."""
        return bool(self._forward_hooks)

    def passed(self, x: Tensor) -> Tensor:
        """What goes on in the place of `x`; the same object while nobody listens."""
        if not self.heard:
            return x
        if not self.lead or x.ndim < 3:
            made = self(x)
        else:
            made = self(torch.cat([x.new_zeros(x.shape[0], self.lead, *x.shape[2:]), x], 1))[:, self.lead :]
        assert isinstance(made, Tensor)
        return made


def tap_output(module: nn.Module, tap: Tap | Callable[[], Tap | None]) -> Tap | Callable[[], Tap | None]:
    """The tap, put behind the module; a function says at each call which it is."""

    def hook(_: nn.Module, __: Any, out: Any) -> Any:
        now = tap if isinstance(tap, Tap) else tap()
        return None if now is None or not now.heard else _replaced(out, now)

    module.register_forward_hook(hook)
    return tap


def tap_input(module: nn.Module, tap: Tap | Callable[[], Tap | None]) -> Tap | Callable[[], Tap | None]:
    """The tap, put before the module; a function says at each call which it is."""

    def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        now = tap if isinstance(tap, Tap) else tap()
        if now is None or not now.heard:
            return None
        for place, value in enumerate(given):
            if isinstance(value, Tensor):
                return (*given[:place], now.passed(value), *given[place + 1 :]), named
        for name, value in named.items():
            if isinstance(value, Tensor):
                return given, named | {name: now.passed(value)}
        return None

    module.register_forward_pre_hook(hook, with_kwargs=True)
    return tap


def _replaced(out: Any, tap: Tap) -> Any:
    """The module's output with its first tensor passed through the tap."""
    if isinstance(out, Tensor):
        return tap.passed(out)
    if isinstance(out, tuple | list) and type(out) in (tuple, list):
        for place, value in enumerate(out):
            if isinstance(value, Tensor):
                return type(out)([*out[:place], tap.passed(value), *out[place + 1 :]])
        return None
    if isinstance(out, dict):  # transformers' outputs are, by the names of their parts
        for name, value in out.items():
            if isinstance(value, Tensor):
                out[name] = tap.passed(value)
                return out
    return None


def tap_modules(module: nn.Module, lead: Callable[[str], int] = lambda path: 0) -> dict[str, nn.Module]:
    """Hook points behind and before every submodule that runs, by its path."""
    points: dict[str, nn.Module] = {}
    for path, part in list(module.named_modules()):
        if path and not isinstance(part, nn.ModuleList | nn.ModuleDict | Tap):
            behind, before = Tap(lead(path)), Tap(lead(path))
            tap_output(part, behind)
            tap_input(part, before)
            points[path], points[path + IN] = behind, before
    return points


def tap_calls(
    modules: Sequence[nn.Module], root: nn.Module, taps: Sequence[Tap], put: Callable[[nn.Module, Any], Any]
) -> None:
    """Taps for modules that one pass calls many times (layers that share their weights): call number i passes tap i.

    `put` is `tap_output` or `tap_input`; `root` is what a pass begins with.
    """
    called = 0

    def begin(*_: Any) -> None:
        nonlocal called
        called = 0

    def now() -> Tap | None:
        nonlocal called
        called += 1
        return taps[called - 1] if called <= len(taps) else None

    root.register_forward_pre_hook(begin)
    for module in modules:
        put(module, now)
