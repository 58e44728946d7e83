"""Names of before, which go on working for one release with a warning that gives the new one."""

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed(home: str, names: Mapping[str, str], homes: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """The `__getattr__` of the module `home`: what stood under the old name, and a DeprecationWarning.

    `names` gives for each old name the new one, in the same module or as `module:name`; `homes` the modules inside `home`
    of names that are imported when first used.
    """

    def get(name: str) -> object:
        if homes and name in homes:
            return getattr(import_module(f"{home}.{homes[name]}"), name)
        if name not in names:
            raise AttributeError(f"module {home!r} has no attribute {name!r}")
        place, _, new = names[name].rpartition(":")
        where = place or home
        warn_renamed(f"{home}.{name}", f"{where}.{new}")
        value: object = getattr(import_module(where), new)
        return value

    return get


def warn_renamed(before: str, now: str) -> None:
    """The warning, given to whoever called the function that calls this one."""
    warnings.warn(f"{before} is now {now}; the old name goes with the next release.", DeprecationWarning, stacklevel=3)


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: keywords that a function had before are passed on as those of today, with a DeprecationWarning."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            for old, new in names.items():
                if old in given:
                    warn_renamed(f"{function.__name__}({old}=…)", f"{new}=…")
                    given[new] = given.pop(old)
            return function(*args, **given)

        return call

    return decorate
