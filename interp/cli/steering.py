"""Steering on the command line: edits are typed as FEATURE=NUMBER."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.app import (
    Asked,
    Typed,
    add,
    plain_parameters,
    print_json,
    register,
    showing,
    typed_parameters,
)
from interp.cli.training import read_numbers
from interp.commands import COMMANDS
from interp.commands.options import refuse_idle
from interp.commands.steering import read_feature, steer, sweep_strengths
from interp.render import visible
from interp.render.terminal import say, table, tell, write, write_json
from interp.render.words import counted
from interp.types import FeatureRef, InterpError

if TYPE_CHECKING:
    from interp.commands.steering import Ablation, Effects, Replay, SteerBatch, SteerRun, StrengthSweep, Transcript

KINDS = {"clamp": "Clamp", "add": "Add", "scale": "Scale", "ablate": "Ablate", "orthogonal": "Orthogonal"}
"""Options by the edits that they make, in the order in which these act."""
BARE = ("ablate", "orthogonal")
"""Edits without a strength."""
Edit = dict[str, Any]


def _option(name: str, kind: Any, default: Any, about: str) -> Typed:
    return Typed(Annotated[kind, typer.Option(f"--{name}", help=about)], default, lambda value, _: value)


SEVERAL = list[str] | None
OWN = {
    "prompt": Typed(
        Annotated[
            SEVERAL, typer.Argument(help="Texts to continue. A sweep has neutral ones of its own.", show_default=False)
        ],
        None,
        lambda value, _: value,
    ),
    "preset": _option("preset", str, "", "Edits to make: a preset's name or file."),
    "clamp": _option("clamp", SEVERAL, None, "FEATURE=ACTIVATION holds a feature at this activation; repeatable."),
    "add": _option("add", SEVERAL, None, "FEATURE=AMOUNT adds so much of the feature's direction; repeatable."),
    "scale": _option("scale", SEVERAL, None, "FEATURE=FACTOR multiplies the feature's activation; repeatable."),
    "ablate": _option("ablate", SEVERAL, None, "FEATURE is held at 0; repeatable."),
    "orthogonal": _option(
        "orthogonal", SEVERAL, None, "FEATURE's direction is taken out of the activations; repeatable."
    ),
    "contrast": _option(
        "contrast",
        str,
        "",
        "TOWARD,AWAY=AMOUNT adds the difference between the mean activations of two files of texts (a line of a .txt, a "
        "row of others).",
    ),
    "unit": _option(
        "unit",
        str,
        "activation",
        "Unit of --add and --contrast: activation, or residual, the norm of the activations there.",
    ),
    "where": _option(
        "where",
        str,
        "all",
        "Tokens at which edits act: all, prompt, generated, from:I (from the I-th on) or token:/REGEX/.",
    ),
    "when": _option(
        "when", str, "", "Edit only while FEATURE>ACTIVATION; self>ACTIVATION means the edited feature itself."
    ),
    "include_masked": _option(
        "include-masked",
        bool,
        False,
        "Edit attention sinks (the first position, separators, massive norms) as well.",
    ),
    "sweep": _option(
        "sweep", str, "", "FEATURE (or `contrast`) to try at several strengths, with controls and a verdict."
    ),
    "strengths": _option(
        "strengths",
        str,
        "",
        "Strengths of a sweep, as multiples of the feature's largest activation (of a contrast's AMOUNT), with commas.",
    ),
    "kind": _option("kind", str, "clamp", "What a sweep does with the feature: clamp or add."),
    "target": _option(
        "target",
        SEVERAL,
        None,
        "Token whose probability a sweep follows; repeatable. Without: those that it is measured to make likely.",
    ),
    "regex": _option("regex", str, "", "Regular expression (RE2) that a sweep counts in its texts."),
    "controls": Typed(
        Annotated[bool, typer.Option(help="Run a sweep's controls, or leave them and the verdict out.")],
        True,
        lambda value, _: value,
    ),
}
"""What is typed in another form than the commands take it."""
STREAM = _option("stream", bool, False, "Print the steered text while it is generated.")


def _steer(**given: Any) -> None:
    """Continue texts with and without edits of features, or sweep one feature over strengths.

    Edits act in this order: preset, clamp, add, scale, ablate, orthogonal, contrast. `--sweep contrast` sweeps the
    direction of `--contrast` as it would a feature.
    """
    _check(given)
    shared = {key: given[key] for key in ("tokens", "temperature", "top_p", "chat", "special", "record")}
    shared |= {"stop": given["stop"] or [], "seed": given["seed"] or [0]}
    if given["sweep"]:
        swept = sweep_strengths(
            given["sae"],
            "" if given["sweep"] == "contrast" else given["sweep"],
            **(_contrast(given["contrast"]) if given["contrast"] else {}),
            prompt=given["prompt"] or [],
            strengths=read_numbers("--strengths", float, given["strengths"]),
            target=given["target"] or [],
            on_note=lambda text: say(f"steer: {text}"),
            **{key: given[key] for key in ("kind", "where", "regex", "controls")},
            **shared,
        )
        write_json(swept.to_json()) if given["as_json"] else _show_sweep(swept)
    else:
        run = steer(
            given["sae"],
            given["prompt"] or [],
            edits=_edits(given),
            on_text=_typed() if given["stream"] and not given["as_json"] else None,
            **{key: given[key] for key in ("preset", "save_preset")},
            **shared,
        )
        write("\n" if given["stream"] and not given["as_json"] else "")
        write_json(run.to_json()) if given["as_json"] else _show_run(run)


def _check(given: Mapping[str, Any]) -> None:
    """Raises InterpError when options of a single run meet a sweep, or the other way round."""
    of_sweep = {"strengths": given["strengths"], "kind": given["kind"] != "clamp", "target": given["target"]}
    of_sweep |= {"regex": given["regex"], "no-controls": not given["controls"]}
    of_run = {kind: given[option] for option, kind in KINDS.items()}
    of_run |= {"preset": given["preset"], "when": given["when"], "unit": given["unit"] != "activation"}
    of_run |= {
        "include-masked": given["include_masked"], "save-preset": given["save_preset"], "stream": given["stream"]
    }  # fmt: skip
    sweep = given["sweep"]
    if sweep:
        refuse_idle(of_run, "in a sweep, which edits one feature by itself; leave out the one or the other")
    else:
        refuse_idle(of_sweep, "without a sweep; add --sweep FEATURE")
    if sweep and (sweep == "contrast") != bool(given["contrast"]):
        raise InterpError("a direction is swept with both --sweep contrast and --contrast TOWARD,AWAY=AMOUNT.")
    several = len(given["prompt"] or ()) > 1 or len(given["seed"] or ()) > 1
    refuse_idle({"stream": given["stream"] and several}, "with several prompts or seeds; give one of each")


def _edits(given: Mapping[str, Any]) -> list[Edit]:
    """The edits that the options mean, kind by kind, as the commands take them."""
    place: Edit = {"where": given["where"], "include_masked": given["include_masked"]}
    if given["when"]:
        when = given["when"]
        own = when.replace(" ", "").startswith("self>")
        of, above = _pair(when.replace("self", "0", 1) if own else when, ">")
        place["when"] = {"feature": None if own else of, "above": above}
    edits: list[Edit] = []
    for option, kind in KINDS.items():
        for value in given[option] or []:
            if option in BARE:
                edits.append({"kind": kind, "feature": _feature(value), **place})
                continue
            feature, strength = _pair(value)
            unit = {"unit": given["unit"]} if kind == "Add" else {}
            edits.append({"kind": kind, "feature": feature, "strength": strength, **unit, **place})
    if given["contrast"]:
        texts = _contrast(given["contrast"])
        direction = {key: texts[key] for key in ("toward", "away")}
        edits.append({"kind": "Add", "feature": direction, "strength": texts["amount"], "unit": given["unit"], **place})
    return edits


def _contrast(text: str) -> dict[str, Any]:
    """The parts of TOWARD,AWAY=AMOUNT, where TOWARD and AWAY name files or corpora."""
    files, _, amount = text.rpartition("=")
    toward, _, away = (part.strip() for part in files.partition(","))
    try:
        strength = float(amount)
    except ValueError:
        raise InterpError(f"{text!r} is no contrast: {amount!r} is no amount; write TOWARD,AWAY=AMOUNT.") from None
    if not toward or not away:
        raise InterpError(f"{text!r} is no contrast: it names no two sets of texts; write TOWARD,AWAY=AMOUNT.")
    return {"toward": toward, "away": away, "amount": strength}


def _feature(text: str) -> int | dict[str, Any]:
    """The feature as an edit in JSON has it."""
    feature = read_feature(text)
    return asdict(feature) if isinstance(feature, FeatureRef) else feature


def _pair(text: str, sign: str = "=") -> tuple[int | dict[str, Any], float]:
    feature, _, strength = text.rpartition(sign)
    try:
        return _feature(feature), float(strength)
    except (ValueError, InterpError):
        raise InterpError(f"{text!r} is no edit; write FEATURE{sign}STRENGTH, such as 1234{sign}8.") from None


def _typed() -> Callable[[str, str], None]:
    """Prints what a growing steered text has gained; a character cut in two waits for its rest."""
    shown = 0

    def told(_: str, steered: str) -> None:
        nonlocal shown
        whole = steered.rstrip("\ufffd")
        write(whole[shown:])
        shown = max(shown, len(whole))

    return told


# ---- what comes back ----


def _show_run(run: "SteerRun | SteerBatch") -> None:
    """A run or a batch on standard output."""
    if run.kind == "steer":
        for title, text in (("baseline", run.baseline), ("steered", run.steered)):
            tell(title, style="bold")
            tell(text)
        for sentence in run.conflicts:
            tell(sentence)
        return
    rows = [[run.prompts[o["prompt"]], o["variant"], run.seeds[o["seed"]], o["text"]] for o in run.outputs]
    table(["prompt", "edits", "seed", "text"], rows)
    for sentence in dict.fromkeys(sentence for conflicts in run.conflicts for sentence in conflicts):
        tell(sentence)


def _show_sweep(run: "StrengthSweep") -> None:
    rows = run.rows()

    def interval(row: dict[str, Any], name: str) -> str:
        return f"{row[name]:.2g} ({row[name + '_low']:.2g} to {row[name + '_high']:.2g})"

    # Two tables, so that eighty columns hold them.
    shifts = [[row["series"], row["factor"], interval(row, "shift"), interval(row, "kl")] for row in rows]
    table(["series", "factor", "shift", "kl"], shifts, "nats, with 95 % intervals")
    names = ["series", "factor", "perplexity", "distinct_2", "loops", "fires", "says_target"]
    names += ["matches"] if run.config["regex"] else []
    table(names, [[row[name] for name in names] for row in rows], "means over the texts")
    tell(run.window.sentence)
    tell(run.verdict.sentence if run.verdict else "")


def _effects(measured: "Effects", _: Asked) -> None:
    tell(f"{counted(measured.contexts, 'context')}, with 95 % intervals over them")
    for effect in (measured.ablated, measured.clamped):
        for sentence in effect.sentences():
            tell(sentence)
        pairs = zip(effect.raised, effect.lowered, strict=True)
        table(["raises", "nats", "lowers", "nats"], [[visible(a), x, visible(b), y] for (a, x), (b, y) in pairs])


def _ablated(measured: "Ablation", _: Asked) -> None:
    tell(measured.sentence())
    rows = zip(measured.tokens, measured.activation, measured.change, strict=True)
    table(["position", "activation", measured.unit], [[visible(text), active, change] for text, active, change in rows])


def _transcribed(made: "list[Transcript]", _: Asked) -> None:
    table(["file", "heard", "with the features held"], [[one.file, one.heard, one.edited] for one in made])


def _replayed(replay: "Replay", _: Asked) -> None:
    tell(replay.sentence())


def _leave_when_it_differs(replay: "Replay", _: Asked) -> None:
    if not replay.identical:
        raise typer.Exit(1)


def _presets(**given: Any) -> None:
    """Sets of edits kept for an SAE; files that can be passed on."""
    if given["name"]:
        print_json(COMMANDS["preset"].call(given["sae"], given["name"]))
        return
    rows: Any = COMMANDS["presets"].call(given["sae"])
    if given["as_json"]:
        print_json(rows)
    else:
        table(["preset", "edits", "note"], [[row["name"], len(row["edits"]), row["note"]] for row in rows])


def _steer_parameters() -> list[Any]:
    """The options of both commands, those of the run before those of the sweep, each once."""
    plain = {each.name: each for each in plain_parameters(COMMANDS["steer"])}
    own = {each.name: each for each in typed_parameters(OWN)}
    rest = [each for name, each in plain.items() if name not in (*own, "sae", "edits")]
    return [plain["sae"], *own.values(), *rest, *typed_parameters({"stream": STREAM}), *showing("as_json")]


add(
    _steer,
    "steer",
    "interp steer SAE 'The best city is' --clamp 1234=8 --tokens 40 --record run.json",
    COMMANDS["steer"],
    _steer_parameters(),
    about=_steer.__doc__ or "",
)
register(
    "ablate",
    _ablated,
    "interp ablate SAE 1234 'The best city is Paris.'",
    to_json=lambda measured, _: measured.to_json(),
)
register("transcribe", _transcribed, "interp transcribe SAE speech.wav --feature 12")
register("effects", _effects, "interp effects SAE 1234", to_json=lambda measured, _: measured.to_json())
register("replay", _replayed, "interp replay run.json", after=_leave_when_it_differs)
add(
    _presets,
    "presets",
    "interp presets SAE",
    COMMANDS["presets"],
    [
        *plain_parameters(COMMANDS["presets"]),
        *typed_parameters(
            {
                "name": Typed(
                    Annotated[
                        str, typer.Argument(help="A preset's name or file, to be shown whole. Without: list them.")
                    ],
                    "",
                    lambda value, _: value,
                )
            }
        ),
        *showing("as_json"),
    ],
    about=_presets.__doc__ or "",
)
