"""The checker behind the test run's shape hook: beartype, with int accepted where float is asked (PEP 484).

jaxtyping binds the arguments of every call, checks them, and checks them again with what comes back, so that sizes named by the same letter are
compared. Where nothing that is annotated is an array there is no such letter: beartype alone makes the same checks, at a fraction of the time.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))  # as jaxtyping's own is one
SHAPED = jaxtyping.jaxtyped


def checked(fn: Any = None, **given: Any) -> Any:
    """What the hook puts around every function and class of the package, in the place of `jaxtyping.jaxtyped`."""
    if fn is None:
        return lambda fn: checked(fn, **given)
    if inspect.isfunction(fn) and not _speaks_of_arrays(fn):
        return check(fn)
    if inspect.isclass(fn) and dataclasses.is_dataclass(fn) and _own_init(fn) and not _speaks_of_arrays(fn.__init__):
        fn.__init__ = check(fn.__init__)  # type: ignore[method-assign]
        return fn
    return SHAPED(fn, **given)


def _own_init(cls: type) -> bool:
    return "__init__" in vars(cls)


def _speaks_of_arrays(fn: Callable[..., Any]) -> bool:
    return any(_is_array(hint) for hint in inspect.get_annotations(fn).values())


def _is_array(hint: Any) -> bool:
    """Also of what cannot be told, as a hint in quotes."""
    if isinstance(hint, str):
        return True
    return "jaxtyping" in type(hint).__module__ or any(_is_array(part) for part in get_args(hint) if part is not ...)
