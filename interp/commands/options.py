"""What a face is told of a command's parameters, kept in their annotations: help, bounds, choices.

A command is a plain function. What stands before its `*` a command line takes as arguments, what stands after it as
options; a parameter without an `Option` (a function to be called with news) is for Python only.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from interp.types import InterpError

EMBEDDED = "saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216"
"""The SAE that comes with the project."""
Json = None | bool | int | float | str | list[Any] | dict[str, Any]
"""What JSON has."""


@dataclass(frozen=True)
class Option:
    """Of one parameter."""

    help: str
    """A sentence that a newcomer understands."""
    low: float | None = None
    """The least that is allowed."""
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter as a face shows it."""

    name: str
    type: Any
    """`str`, `int`, `float`, `bool`, `Path`, or what a list holds; without the None that says that it may be left out."""
    several: bool
    """Whether it takes a list."""
    nullable: bool
    """Whether None is a value."""
    option: Option
    default: Any
    """`inspect.Parameter.empty` where it must be given."""
    keyword: bool
    """Whether it is an option, and not an argument in its place."""

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def read_parameters(function: Callable[..., object]) -> list[Parameter]:
    """The function's parameters that have an `Option`, in their order."""
    found = []
    for name, given in inspect.signature(function).parameters.items():
        notes = [note for note in getattr(given.annotation, "__metadata__", ()) if isinstance(note, Option)]
        if not notes:
            continue
        kind = get_args(given.annotation)[0]
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        kinds = [part for part in parts if part is not NoneType]
        several = get_origin(kinds[0]) in (list, Sequence)
        found.append(
            Parameter(
                name=name,
                type=get_args(kinds[0])[0] if several else kinds[0],
                several=several,
                nullable=NoneType in parts,
                option=notes[0],
                default=given.default,
                keyword=given.kind is inspect.Parameter.KEYWORD_ONLY,
            )
        )
    return found


Sae = Annotated[
    str,
    Option("Folder of a checkpoint; the end of its path is enough for those in saes/ and those that came with interp."),
]
Feature = Annotated[int, Option("The feature's number.")]
Model = Annotated[str, Option("An embedded model (see `interp models`), a local folder, or org/name on the hub.")]
Device = Annotated[str, Option("Where the model runs: auto, cpu, cuda or mps.")]
Restart = Annotated[bool, Option("Begin again and replace what the folder holds.")]
Together = Annotated[
    bool,
    Option(
        "Share the work with every other process that was begun with the same command, here or on machines that see the same "
        "folder."
    ),
]
Stored = Annotated[
    str,
    Option(
        "How activations are written: int8 takes half the disk of bfloat16 (docs/scale.md). Without: as the model gives them."
    ),
]
Special = Annotated[bool, Option("Read special tokens that the text spells (a rendered chat template's) as such.")]
Seed = Annotated[
    int, Option("Number from which all that is random begins: the first weights, and features that are begun anew.")
]


def refuse_idle(given: Mapping[str, object], why: str) -> None:
    """Raises InterpError that names the options which were given and would do nothing."""
    named = ", ".join(f"--{option.lower()}" for option, value in given.items() if value)
    if named:
        raise InterpError(f"{named} would do nothing {why}.")
