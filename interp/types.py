"""Words that every room shares."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class InterpError(Exception):
    """A mistake that a user can mend: the message says what was asked, what exists, what to try.

    The command line and the pages print the message without a traceback.
    """


@dataclass(frozen=True, kw_only=True)
class FeatureRef:
    """One feature of one SAE, named so that it can be written down."""

    sae: str
    feature: int

    def __str__(self) -> str:
        return f"{self.sae}#{self.feature}"


@dataclass(frozen=True)
class Hook:
    """A place in a model where activations are read or written; `str` gives it as files and the command line spell it."""

    name: str
    """In TransformerLens' spelling, such as `blocks.15.hook_resid_post`; empty when nobody has named the place yet."""
    width: int = 0
    """Numbers in one row of activations there; 0: not told."""
    model: int = 0
    """Which model it is of, where several are read side by side: 1, 2 and so on; 0: there is only one."""

    def __str__(self) -> str:
        return f"{self.model}:{self.name}" if self.model else self.name


Hooks = str | Hook | Sequence[str | Hook]
"""Hook points as a user gives them: one, or several, each a name or a `Hook`."""


def parse_hooks(text: str) -> tuple[Hook, ...]:
    """The hook points of `h`, `h1+h2` or, of several models, `1:h+2:h`; none of an empty text.

    Raises InterpError when a name is missing beside a `+`.
    """
    if not text.strip():
        return ()
    hooks = []
    for part in (part.strip() for part in text.split("+")):
        numbered = re.fullmatch(r"([1-9]\d*):(.+)", part)
        if not part:
            raise InterpError(f"{text!r} names no hook point on one side of a +; write one, or leave the + out.")
        hooks.append(Hook(numbered[2], model=int(numbered[1])) if numbered else Hook(part))
    return tuple(hooks)


def as_hooks(given: Hooks) -> tuple[Hook, ...]:
    """The hook points that were given in any of the ways of `Hooks`, each name parsed (see `parse_hooks`)."""
    if isinstance(given, Hook):
        return (given,)
    if isinstance(given, str):
        return parse_hooks(given)
    return tuple(hook for each in given for hook in ((each,) if isinstance(each, Hook) else parse_hooks(each)))


def unknown(what: str, asked: object, known: Iterable[object], *, try_: str = "") -> InterpError:
    """The error for a name that does not exist, with the nearest names that do."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(str(asked), names, n=4, cutoff=0.5)
    if near:
        exists = f"did you mean {', '.join(near)}?"
    elif names:
        more = "" if len(names) <= 8 else f" and {len(names) - 8} more"
        exists = f"there is {', '.join(names[:8])}{more}."
    else:
        exists = "there is none."
    return InterpError(f"no {what} {str(asked)!r}: {exists}" + (f" {try_}" if try_ else ""))


def check_feature(feature: int, d_sae: int, name: str) -> int:
    """The feature's number; InterpError, saying which numbers exist, when there is no such feature."""
    if not 0 <= feature < d_sae:
        raise InterpError(
            f"no feature {feature} in {name}, which has features 0 to {d_sae - 1}; "
            "was the number written against a wider SAE?"
        )
    return int(feature)
