"""Words that every room shares."""

import difflib
from collections.abc import Iterable
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
    """The feature's number, or an error that says which numbers exist."""
    if not 0 <= feature < d_sae:
        raise InterpError(
            f"no feature {feature} in {name}, which has features 0 to {d_sae - 1}; "
            "was the number written against a wider SAE?"
        )
    return int(feature)
