"""The command line's frame: how a command becomes one of its own, and how the program ends."""

import gc
import inspect
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from interp.cli.background import say_begun
from interp.commands import COMMANDS, Command, Parameter, as_json, installed_version, use_threads
from interp.render.terminal import never_fail_on_a_character, say, tell, write_json
from interp.types import InterpError

app = typer.Typer(
    name="interp",
    help="Train sparse autoencoders on a model's activations; see, search, name and steer their features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
LITTLE_GARBAGE = 50_000
"""Objects made between two looks for garbage (Python's own number is 700): what a command imports is none, and looking through
it again and again took a tenth of a search."""
Asked = Mapping[str, Any]
"""Every value that was given or stands by default, by its name."""
Show = Callable[[Any, Asked], None]
REQUIRED = inspect.Parameter.empty
FACE: dict[str, tuple[Any, bool]] = {
    "as_json": (
        Annotated[
            bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
        ],
        False,
    ),
    "as_csv": (Annotated[bool, typer.Option("--csv", help="Print comma-separated values on standard output.")], False),
    "wide": (
        Annotated[
            bool, typer.Option("--wide", help="Print every column and every cell whole, however long the lines.")
        ],
        False,
    ),
    "background": (
        Annotated[
            bool,
            typer.Option(
                "--background",
                help="Run it as a job, which goes on when this terminal is closed (`interp jobs`); its arguments are kept.",
            ),
        ],
        False,
    ),
}
"""Options that say how an answer is shown, and where it is made."""


@dataclass(frozen=True)
class Typed:
    """A parameter whose value is typed in another form than the command takes."""

    annotation: Any
    """`Annotated[..., typer.Option(...)]` or `typer.Argument`."""
    default: Any
    read: Callable[[Any, Asked], Any]
    """From what was typed (and all that was) to what the command takes; raises InterpError."""


def register(
    name: str,
    show: Show,
    example: str,
    *,
    command: str = "",
    of: typer.Typer = app,
    typed: Mapping[str, Typed] | None = None,
    face: tuple[str, ...] = ("as_json",),
    to_json: Callable[[Any, Asked], str] | None = None,
    after: Show = lambda record, asked: None,
) -> None:
    """Offer `COMMANDS[command or name]` under a name; `show` prints what it gives back.

    `typed` are the parameters that are typed in another form, `face` the options of showing that it has, `to_json`
    makes the document of --json where it is not the record itself, and `after` ends the command however it was shown.
    """
    called = COMMANDS[command or name]
    forms = {each.name: _form(each) for each in called.parameters} | dict(typed or {})

    def run(**given: Any) -> None:
        asked = {key: form.read(given[key], given) for key, form in forms.items()}
        if given.get("background"):
            from interp.jobs import submit

            job = submit(command or name, asked)
            print_json(job) if given.get("as_json") else say_begun(job)
            return
        record = called.call(**asked)
        if given.get("as_json"):
            print_json(record) if to_json is None else write_json(to_json(record, asked))
        else:
            show(record, asked | {key: given[key] for key in face})
        after(record, asked)

    add(run, name, example, called, [*typed_parameters(forms), *showing(*face)], of)


def showing(*names: str) -> list[inspect.Parameter]:
    """The options that say how an answer is shown."""
    return typed_parameters({name: Typed(*FACE[name], _same) for name in names})


def plain_parameters(command: Command) -> list[inspect.Parameter]:
    """A command's parameters, typed as it takes them."""
    return typed_parameters({each.name: _form(each) for each in command.parameters})


def typed_parameters(forms: Mapping[str, Typed]) -> list[inspect.Parameter]:
    """Parameters that are typed in forms of their own."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(key, keyword, annotation=f.annotation, default=f.default) for key, f in forms.items()]


def add(
    run: Callable[..., None],
    name: str,
    example: str,
    command: Command,
    parameters: list[inspect.Parameter],
    of: typer.Typer = app,
    about: str = "",
) -> None:
    """Put a function on the command line; one whose command takes up its work says so when it is stopped.

    `about` is its help where the command's own does not say what it does.
    """

    several = [each.name for each in command.parameters if each.default == ()]

    def guarded(**given: Any) -> None:
        given |= {
            key: () for key in several if key in given and given[key] is None
        }  # as Typer says that none was named
        try:
            if command.computes and not given.get("background"):
                use_threads()
            run(**given)
        except KeyboardInterrupt:  # said here, for Typer turns it into an exit code
            kept = "; what was done is kept, and the same command without --restart goes on from there"
            say(f"interp: stopped{kept if command.resumes else ''}.")
            raise

    guarded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    of.command(name, help=_help(about or command.about), epilog=f"Example:  {example}")(guarded)


def _help(docstring: str) -> str:
    """What a person at a terminal needs of a docstring: not what Python gets back, nor which error it raises."""
    first, *rest = inspect.cleandoc(docstring).split("\n\n")
    first = re.split(r"\s+Raises InterpError", first)[0]
    return "\n\n".join([first, *(paragraph for paragraph in rest if "Raises InterpError" not in paragraph)])


def _form(parameter: Parameter) -> Typed:
    """How a parameter is typed: arguments in their places, options by their names, lists by repeating."""
    option, default = parameter.option, parameter.default
    kind = list[parameter.type] if parameter.several else parameter.type
    low, high = (option.low, option.high) if parameter.type in (int, float) else (None, None)
    if parameter.several and not parameter.required:
        kind, default = kind | None, list(default) or None
    elif parameter.nullable:
        kind = kind | None
    name = parameter.name.rstrip("_").replace("_", "-")
    if not parameter.keyword:
        shown = not parameter.required and default not in ("", None)
        info = typer.Argument(help=option.help, show_default=shown, min=low, max=high)
    elif parameter.type is bool:
        info = typer.Option(*([f"--{name}"] if default is False else [f"--{name}/--no-{name}"]), help=option.help)
    else:
        info = typer.Option(f"--{name}", help=option.help, min=low, max=high)
    read = partial(_list, default) if parameter.several else _same
    return Typed(Annotated[kind, info], default, read)  # `default` may be inspect.Parameter.empty


def _same(value: Any, _: Asked) -> Any:
    return value


def _list(default: Any, value: Any, _: Asked) -> list[Any]:
    return list(value or (default if isinstance(default, list) else []))


def print_json(record: object) -> None:
    """One JSON document; what could not be measured is null."""
    write_json(json.dumps(as_json(record), indent=2, ensure_ascii=False, allow_nan=False))


def _version(asked: bool) -> bool:
    """What was asked; the option's value is what its callback gives back."""
    if asked:
        tell(f"interp {installed_version()}")
        raise typer.Exit()
    return asked


@app.callback()
def interp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Train sparse autoencoders on a model's activations; see, search, name and steer their features."""


def main() -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    never_fail_on_a_character()
    _hush()
    gc.set_threshold(LITTLE_GARBAGE)
    try:
        _check_unicode(sys.argv[1:])
        code = app(standalone_mode=False)
    except InterpError as error:
        say(f"interp: {error}")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        if hasattr(error, "format_message"):  # a mistake in the command's own arguments
            say(f"interp: {error.format_message()}")
            sys.exit(2)
        say(traceback.format_exc())  # a mistake of ours, whose message may hold anything
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _check_unicode(arguments: list[str]) -> None:
    """Raises InterpError for an argument that is no text, unless a file has that name: no tokenizer could read it."""
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(text):
                raise InterpError(
                    f"the argument {text} is no text in this terminal's encoding, {sys.getfilesystemencoding()}, and no "
                    "file has that name."
                ) from None


def _hush() -> None:
    """Keep other libraries' warnings and advice from users, who can do nothing about them, unless Python was asked for
    warnings (-W, PYTHONWARNINGS)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
