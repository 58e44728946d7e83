"""Commands as tools: their schemas are made from the commands' own signatures, less what writes or reads elsewhere."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import Field

from interp.commands import COMMANDS, Command, Parameter, labelling
from interp.mcp.bounds import LONGEST_QUERY, LONGEST_TEXT, MOST_ITEMS, Bounds, answer
from interp.mcp.offered import Offered
from interp.render.terminal import printable
from interp.types import InterpError

Given = dict[str, Any]
Check = Callable[[Given, Offered], None]


@dataclass(frozen=True)
class Offer:
    """How a command becomes a tool."""

    command: str
    without: tuple[str, ...] = ()
    """Parameters that no client may give."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What the server gives in their place."""
    needed: tuple[str, ...] = ()
    """Parameters that must be given though the command does without."""
    most: Mapping[str, float] = field(default_factory=dict)
    """The largest numbers."""
    allow: str = ""
    """What --allow must name for it."""
    about: str = ""
    """Where the command's own docstring speaks of more than the tool does."""
    check: Check = lambda given, offered: None
    """Raises InterpError for what the schema cannot tell."""


def _check_query(given: Given, _: Offered) -> None:
    if re.search(r"contrast\s*:", given["query"], re.IGNORECASE):
        raise InterpError("contrast: reads files, which this server does not; ask it on the command line.")


def _check_edits(given: Given, offered: Offered) -> None:
    """Features of SAEs that are offered, and no direction of texts, which would be read from files."""
    left = list(given["edits"])
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        if isinstance(value, dict):
            if "toward" in value or "away" in value:
                raise InterpError("a direction of texts is read from files, which this server does not; name features.")
            if "sae" in value:
                offered.folder(str(value["sae"]))
            left += value.values()


def _check_label(given: Given, _: Offered) -> None:
    """A label that says something, and replaces none that a person has confirmed or refuted."""
    for name in ("text", "author"):
        if not given[name].strip():
            raise InterpError(f"the {name} is empty; a proposed label says what the feature is, and who proposes it.")
    now = labelling.current_label(given["sae"], given["number"])
    if now is not None and now.status != "proposed":
        raise InterpError(
            f"feature {given['number']} has the label {now.text!r}, {now.status} by {now.author or 'somebody'}; that is "
            "changed with `interp label` only."
        )


OFFERS: dict[str, Offer] = {
    "search": Offer("search", without=("save", "rerun"), most={"limit": 100}, check=_check_query),
    "feature": Offer("feature"),
    "spectrum": Offer("spectrum", most={"top": 20}),
    "effects": Offer("effects", most={"contexts": 90}),
    "verify": Offer(
        "verify",
        without=("model", "hook", "write", "full", "metrics", "tokens", "device", "remember"),
        fixed={"remember": False},
        about="Check every file's hash, then make anew what the checkpoint claims: numbers on a text of interp's own, and "
        "blocks of the index. The list of claims says what was recomputed, what is only hashed, and what nobody checked.",
    ),
    "library": Offer(
        "library", without=("root",), about="The SAEs offered here: model, hook point, size, L0, EV, labels."
    ),
    "keys": Offer("keys"),
    "steer": Offer(
        "steer",
        without=("preset", "record", "save_preset"),
        most={"tokens": 200},
        allow="steer",
        check=_check_edits,
        about='Continue texts with and without edits of features. An edit is {"kind": "Clamp", "feature": 1234, '
        '"strength": 8.0}; other kinds are Add, Scale, Ablate and Orthogonal.',
    ),
    "propose_label": Offer(
        "label",
        without=("status", "tag", "star", "method"),
        fixed={"status": "proposed", "method": "mcp"},
        needed=("text", "author"),
        allow="label",
        check=_check_label,
        about="Propose what a feature stands for; the labels it had come back, the newest last. It is kept as proposed, "
        "under the author's name, and replaces none that was confirmed or refuted.",
    ),
}
"""By the tool's name."""


def make_tool(name: str, offered: Offered, bounds: Bounds) -> Tool:
    """The tool of that name, for these checkpoints."""
    offer = OFFERS[name]
    command = COMMANDS[offer.command]
    parameters = [each for each in command.parameters if each.name not in offer.without]

    async def call(**given: Any) -> str:
        try:
            return await answer(partial(_run, offer, command, offered, given), bounds)
        except InterpError as error:
            raise ToolError(printable(error)) from None

    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_parameter(each, offer) for each in parameters], return_annotation=str
    )
    reads = not offer.allow
    made = Tool.from_function(
        call,
        name,
        description=_about(offer.about or command.about),
        annotations=ToolAnnotations(read_only_hint=reads, destructive_hint=False, open_world_hint=False),
        structured_output=False,
    )
    # An argument that the tool does not have is refused; pydantic would pass it over.
    model = made.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    made.parameters = model.model_json_schema(by_alias=True)
    return made


def _run(offer: Offer, command: Command, offered: Offered, given: Given) -> object:
    if offer.command == "library":
        return offered.library()
    if "sae" in given:
        given = given | {"sae": offered.folder(given["sae"])}
    offer.check(given, offered)
    return command.call(**given, **offer.fixed)


def _parameter(parameter: Parameter, offer: Offer) -> inspect.Parameter:
    """As the SDK reads it: types, bounds and help of the command's own, and the longest that a text or list may be."""
    option, kind = parameter.option, parameter.type
    needed = parameter.required or parameter.name in offer.needed
    bounds: dict[str, Any] = {}
    if kind in (int, float):
        high = offer.most.get(parameter.name, option.high)
        bounds = {"ge": option.low, "le": high}
    elif kind is str:
        bounds = {"max_length": LONGEST_QUERY if parameter.name in ("query", "sae") else LONGEST_TEXT}
    else:
        kind = dict[str, Any] if kind not in (bool,) else bool
    annotation: Any = Annotated[kind, Field(**bounds)]
    if parameter.several:
        annotation = Annotated[list[annotation], Field(max_length=MOST_ITEMS)]
    if parameter.nullable and not needed:
        annotation = annotation | None
    default = parameter.default
    return inspect.Parameter(
        parameter.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[annotation, Field(description=_help(parameter))],
        default=inspect.Parameter.empty if needed else list(default) if parameter.several else default,
    )


def _help(parameter: Parameter) -> str:
    return (
        "The SAE's name, or the end of its path, as `library` lists it."
        if parameter.name == "sae"
        else parameter.option.help
    )


def _about(docstring: str) -> str:
    """A command's docstring without the errors of Python."""
    kept = [part for part in inspect.cleandoc(docstring).split("\n\n") if not part.startswith("Raises ")]
    return "\n\n".join(part.split(" Raises InterpError")[0] for part in kept)
