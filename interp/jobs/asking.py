"""What may be asked of a job: a command by its name, and arguments that fit its signature."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from interp.commands import COMMANDS, Parameter
from interp.commands.options import Json
from interp.types import InterpError, unknown

_CALLED = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    Mapping: "an object",
}


def plain(arguments: Mapping[str, Json | Path]) -> dict[str, Json]:
    """The arguments as JSON gives them back; paths as text.

    Raises InterpError for what JSON does not have.
    """
    try:
        made: dict[str, Json] = json.loads(json.dumps(dict(arguments), allow_nan=False, default=os.fspath))
    except (TypeError, ValueError, RecursionError) as error:
        raise InterpError(f"the arguments are not JSON: {error}.") from None
    return made


def fitted(name: str, arguments: Mapping[str, Json]) -> dict[str, Any]:
    """What to call the command with for arguments as JSON has them.

    Raises InterpError when there is no such command, it has no such argument, one is missing, or a value does not fit.
    """
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    known = {parameter.name: parameter for parameter in COMMANDS[name].parameters}
    for given in arguments:
        if given not in known:
            raise unknown(f"argument of {name}", given, known)
    missing = [each.name for each in known.values() if each.required and each.name not in arguments]
    if missing:
        raise InterpError(f"{name} needs {', '.join(missing)}.")
    return {given: _value(name, known[given], value) for given, value in arguments.items()}


def _value(command: str, parameter: Parameter, given: Json) -> Any:
    """The value as the command takes it."""
    if given is None and parameter.nullable:
        return None
    if not parameter.several:
        return _one(command, parameter, given)
    if not isinstance(given, list):
        raise _misfit(command, parameter, given, f"a list, each {_kind(parameter)[1]}")
    return [_one(command, parameter, each) for each in given]


def _one(command: str, parameter: Parameter, given: Json) -> Any:
    kind, called = _kind(parameter)
    fits = {
        str: isinstance(given, str),
        Path: isinstance(given, str),
        bool: isinstance(given, bool),
        int: isinstance(given, int) and not isinstance(given, bool),
        float: isinstance(given, int | float) and not isinstance(given, bool),
        Mapping: isinstance(given, dict),
        tuple: isinstance(given, list),
    }
    if not fits[kind]:
        raise _misfit(command, parameter, given, called)
    option = parameter.option
    if isinstance(given, int | float) and not isinstance(given, bool):
        if option.low is not None and given < option.low:
            raise _misfit(command, parameter, given, f"{option.low:g} or more")
        if option.high is not None and given > option.high:
            raise _misfit(command, parameter, given, f"{option.high:g} or less")
    if option.choices and given not in option.choices:
        raise _misfit(command, parameter, given, f"one of {', '.join(option.choices)}")
    return Path(given) if kind is Path and isinstance(given, str) else given


def _kind(parameter: Parameter) -> tuple[Any, str]:
    kind = get_origin(parameter.type) or parameter.type
    return kind, _CALLED[kind]


def _misfit(command: str, parameter: Parameter, given: Json, wanted: str) -> InterpError:
    return InterpError(f"{command}: {parameter.name} is {str(given)[:60]!r}, and must be {wanted}.")


def call(name: str, arguments: Mapping[str, Json]) -> object:
    """The record that the command gives back.

    Raises what the command raises, and InterpError when the arguments do not fit.
    """
    return COMMANDS[name].call(**fitted(name, arguments))
