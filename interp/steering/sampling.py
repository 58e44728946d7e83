"""How the tokens of an answer are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from typing import Any, TypedDict

from interp.types import InterpError, unknown


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling`, as keywords of a script."""

    max_new_tokens: int
    seed: int
    temperature: float
    top_p: float
    stop: Sequence[str]
    chat: bool
    special: bool


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; `seed` counts only above temperature 0. Raises InterpError for a field that cannot be."""

    max_new_tokens: int = 40
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    """Strings that end an answer; it is cut before them."""
    chat: bool = False
    """Put the prompt into the model's chat template."""
    special: bool = False
    """Read special tokens that the prompt spells, a rendered template's, as such."""

    @staticmethod
    def of(options: Mapping[str, Any]) -> "Sampling":
        """From keywords; InterpError for one that is no field."""
        known = [each.name for each in fields(Sampling)]
        for name in options:
            if name not in known:
                raise unknown("setting of sampling", name, known)
        return Sampling(**options)

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, Sequence) or not all(isinstance(text, str) for text in stop):
            raise InterpError(f"stop is {self.stop!r}; give a string or a list of strings.")
        if any(not text for text in stop):
            raise InterpError("a stop string is empty; leave it out.")
        object.__setattr__(self, "stop", tuple(stop))
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "max_new_tokens", check_whole("max_new_tokens", self.max_new_tokens, 1, 2**31))
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InterpError(f"{name} is {value!r}; give a number.")
        for name in ("chat", "special"):
            if not isinstance(getattr(self, name), bool):
                raise InterpError(f"{name} is {getattr(self, name)!r}; it is true or false.")
        if self.chat and self.special:
            raise InterpError("chat puts the template's special tokens in itself; leave special out.")

    def to_dict(self) -> dict[str, Any]:
        """As records hold it."""
        return asdict(self) | {"stop": list(self.stop)}


def check_whole(name: str, value: object, low: int, high: int) -> int:
    """The whole number, or an InterpError that says which are allowed."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise InterpError(f"{name} is {value!r}; give a whole number from {low} to {high}.")
    return int(value)


def check_seed(value: object) -> int:
    """The seed; a row's generator takes a million times as much, in 64 bits."""
    return check_whole("seed", value, -(2**40), 2**40)
