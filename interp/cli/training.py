"""Harvests, trainings, sweeps and the self-test on the command line."""

from collections.abc import Sequence
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer

from interp.cli.app import REQUIRED, Asked, Typed, register
from interp.commands import COMMANDS
from interp.commands.training import Harvested, Trained, setting_types
from interp.render.terminal import table, tell
from interp.render.words import counted
from interp.types import InterpError, unknown

SETTLED = ("d_in", "d_out", "widths", "tokens")
"""Fields that the activations settle."""


def read_numbers(option: str, kind: type, text: str) -> list[Any]:
    """The numbers of `16,32`. Raises InterpError for anything else."""
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InterpError(f"{option} is {text!r}; write numbers with commas between them, such as 16,32.") from None


def _with_commas(name: str, kind: type, about: str, default: str = "") -> Typed:
    """An option that takes several numbers, or words, with commas between them."""
    option = "--" + name.replace("_", "-")

    def read(text: str, _: Asked) -> list[Any]:
        return [part.strip() for part in text.split(",")] if kind is str else read_numbers(option, kind, text)

    return Typed(Annotated[str, typer.Option(option, help=about)], default, read)


def _settings(command: str) -> Typed:
    """`--set NAME=VALUE`: options of the architectures, and fields of TrainConfig."""

    def read(pairs: Sequence[str] | None, typed: Asked) -> dict[str, Any]:
        return read_settings(pairs or (), [part.strip() for part in typed["architecture"].split(",")], command)

    about = "NAME=VALUE sets any other field of the architecture or of TrainConfig (docs/training.md); repeatable."
    return Typed(Annotated[list[str] | None, typer.Option("--set", help=about)], None, read)


def read_settings(pairs: Sequence[str], architectures: Sequence[str], command: str) -> dict[str, Any]:
    """What NAME=VALUE pairs set.

    Raises InterpError for a name that neither the architectures nor TrainConfig have, and for one that the command has
    an option for.
    """
    known = setting_types(architectures)
    own = {parameter.name for parameter in COMMANDS[command].parameters}
    free = {name: kind for name, kind in known.items() if name not in own and name not in SETTLED}
    made = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if name in own and name in known:
            raise InterpError(f"{name} has an option of its own: --{name.replace('_', '-')}.")
        if name not in free or not equals:
            raise unknown("setting", name, free, try_="Write NAME=VALUE.")
        made[name] = _value(name, text, free[name])
    return made


def _value(name: str, text: str, kind: Any) -> Any:
    """The text as a field's type has it: a number, true or false, a word, or numbers with commas between them."""
    if get_origin(kind) is tuple:
        return tuple(read_numbers(name, int, text))
    kind = next(part for part in (get_args(kind) or (kind,)) if part is not NoneType)
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InterpError(f"{name} takes {'true or false' if kind is bool else kind.__name__}, not {text!r}.") from None


def _harvested(store: Harvested, _: Asked) -> None:
    tell(f"{counted(store.positions, 'position')} in {store.into}")


def _trained(trained: Trained, _: Asked) -> None:
    tell(f"{trained.about} in {trained.into}")


def _swept(rows: list[dict[str, Any]], _: Asked) -> None:
    head = [key for key in rows[0] if key not in ("name", "tokens")]
    table(head, [["" if row[key] is None else row[key] for key in head] for row in rows])


def _recovered(recovery: dict[str, Any], asked: Asked) -> None:
    if asked["circuits"]:
        columns = ["circuit", "dictionary", "measure", "hits", "of", "share", "low", "high"]
        table(columns, [[row[name] for name in columns] for row in recovery["circuits"]])
        return
    planted = asked["features"]
    table(["measure", "value"], [[key, value] for key, value in recovery.items()])
    tell(
        f"{recovery['recovered']} of {planted} planted features came back "
        f"({recovery['recovered_by_random_rows']} by chance, from random rows)."
    )
    spare = max(recovery["d_sae"] - planted, 0)
    if recovery["dead"] and spare:
        tell(
            f"Of the SAE's {recovery['d_sae']:,} features {recovery['dead']:,} fire on no held-out row; {spare:,} are more "
            "than were planted and have nothing to find."
        )


register(
    "harvest",
    _harvested,
    "interp harvest smollm2 wiki-en blocks.15.hook_resid_post --tokens 200000 --into acts",
    face=("background",),
)
register(
    "train",
    _trained,
    "interp train acts blocks.15.hook_resid_post saes/mine --d-sae 4608 --k 32 --epochs 2",
    typed={
        "hook": Typed(
            Annotated[
                str,
                typer.Argument(
                    help="Hook point to read (`interp hooks MODEL` lists them); for a crosscoder, several joined by +."
                ),
            ],
            REQUIRED,
            lambda text, _: [part.strip() for part in text.split("+")],
        ),
        "settings": _settings("train"),
    },
    face=("background",),
)
register(
    "sweep",
    _swept,
    "interp sweep acts sweeps/a --hook blocks.15.hook_resid_post --d-sae 2304 --k 16,32,64 --seed 0,1",
    typed={
        "architecture": _with_commas("architecture", str, "Kinds of SAE, with commas between them.", "batchtopk"),
        "d_sae": _with_commas(
            "d_sae", int, "How many features an SAE has, with commas between several numbers.", "4608"
        ),
        "k": _with_commas(
            "k", int, "How many features are active on a token, for topk kinds, with commas. Without: 32."
        ),
        "l0": _with_commas("l0", float, "How many active features a token jumprelu aims at, with commas."),
        "l1": _with_commas("l1", float, "Weights of the sparsity penalty, for standard and gated, with commas."),
        "seed": _with_commas("seed", int, "Seeds, with commas between them.", "0"),
        "lr": _with_commas(
            "lr", float, "Largest learning rates, with commas. Without: one that fits the number of features."
        ),
        "settings": _settings("sweep"),
    },
    face=("as_json", "background"),
)
register(
    "selftest",
    _recovered,
    "interp selftest --architecture matryoshka --k 4 --features 128",
    typed={"settings": _settings("selftest")},
)
