"""A feature looked at closely: everything that its page shows, and its figures measured again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from interp.commands.finding import ShownFeature, feature
from interp.commands.machine import installed_version
from interp.commands.opening import open_sae
from interp.commands.options import Feature, Option, Sae
from interp.types import InterpError

if TYPE_CHECKING:
    from interp.evidence.contrary import Contrary
    from interp.evidence.edited import EditTest
    from interp.evidence.headline import Headline
    from interp.lenses.said import Said
    from interp.render.look import Look, Unseen
    from interp.views import Example
    from interp.workbench.again import Again


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a figure comes from."""

    figure: str
    """As `again` takes it; the empty text where it cannot be measured again in seconds."""
    command: str
    """What makes it for all features."""
    on: str
    """Which text, and the seed."""


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """Everything that a feature's page shows."""

    shown: ShownFeature
    headline: "Headline"
    contrary: "Contrary | None"
    """Examples that speak against the label; None where it claims nothing that can be tried."""
    contrary_lacks: str
    """Why there is none."""
    edits: "EditTest | None"
    failed: "Sequence[Example]"
    """The text of each failure of `edits`, unedited; none where it is not the text of the index that is open."""
    names: Mapping[int, str]
    """Of the features that the page speaks of."""
    origins: Mapping[str, Origin]
    """By section of the page."""
    json: str
    """Page, evidence and contrary examples, as JSON."""
    citation: str


def inspect_feature(sae: Sae, number: Feature) -> Inspected:
    """All that is known of one feature, what speaks against it first.

    Raises InterpError when there is no such feature.
    """
    from interp.workbench import inspecting

    bench = open_sae(sae)
    shown = feature(sae, number)
    page = shown.page
    against: Contrary | None = None
    lacks = ""
    try:
        against = inspecting.contrary(bench, number, page)
    except InterpError as error:
        lacks = str(error)
    edits = inspecting.edits_of(bench, page)
    others = [*(f for f, _ in page.nearest), *(c.feature for c in page.coactive)]
    said = inspecting.headline_of(page)
    return Inspected(
        shown=shown,
        headline=said,
        contrary=against,
        contrary_lacks=lacks,
        edits=edits,
        failed=inspecting.failed_texts(bench, page, edits) if edits else [],
        names={other: bench.name(other) for other in dict.fromkeys(others)},
        origins=_origins(sae),
        json=_json(shown, against),
        citation=_cite(sae, said, number),
    )


def look_at(sae: Sae, of: Inspected) -> "dict[int, Look | Unseen]":
    """What the examples on a feature's page look like, by position, where they are of pictures or sound; nothing for text."""
    from interp.workbench.looking import looks

    examples = [*of.shown.page.examples, *of.failed]
    if of.contrary is not None:
        examples += [*of.contrary.beyond, *of.contrary.short]
    return looks(open_sae(sae), of.shown.page.feature, examples)


def again(
    sae: Sae,
    number: Feature,
    figure: Annotated[str, Option("Which figure: firing, promotes, near, label, edits or effect.")],
) -> "Again":
    """Measure one figure of a feature again, from the weights, the model and the index that are open, and lay it beside what was
    recorded.

    Raises InterpError for an unknown figure, and when what it needs is not here.
    """
    from interp.workbench.again import run_again

    return run_again(open_sae(sae), number, figure)


def _json(shown: ShownFeature, against: "Contrary | None") -> str:
    from interp.commands import as_json

    whole = as_json(shown.page)
    assert isinstance(whole, dict)
    more = {"detection": as_json(shown.detection), "contrary": as_json(against)}
    return json.dumps(whole | more, ensure_ascii=False)


def _cite(sae: str, said: "Headline", number: int) -> str:
    """A sentence by which a feature can be found again."""
    card = open_sae(sae).card
    tried = ""
    if said.f1 is not None:
        tried = f" Label {said.verdict}: F1 {said.f1[0]:.2f} (95 % interval {said.f1[1]:.2f} to {said.f1[2]:.2f})."
    name = "unlabelled" if said.automatic else f"“{said.name}”"
    return (
        f"Feature {number} ({name}) of {card.name}: {card.hook_name} of {card.model}, SAE weights SHA-256 {card.sae_sha256[:16]}, "
        f"model weights {card.model_sha256[:18]}.{tried} Shown by interp {installed_version()}."
    )


def _origins(sae: str) -> dict[str, Origin]:
    """Where the figures of every feature of an SAE come from, by section of the page."""
    bench = open_sae(sae)
    index, name = bench.index, bench.card.name
    kept = f"{index.meta['kept_positions']:,} positions of {len(index.documents):,} documents"
    text = f"{kept}, text {str(index.meta['text_sha256'])[:12]}" + (", examples kept only" if index.partial else "")
    weights = f"weights {bench.card.sae_sha256[:12]}"
    found = {
        "firing": Origin(figure="firing", command=f"interp index {name}", on=text),
        "promotes": Origin(figure="promotes", command=f"interp lenses {name}", on=f"{weights}; {_lenses(bench.said)}"),
        "near": Origin(figure="near", command=f"interp index {name}", on=f"{weights}; co-active counts from {kept}"),
    }
    if index.kind == "text":
        edits = "documents that labels are tried on; seed 0"
        found["edits"] = Origin(figure="edits", command=f"interp evidence {name} --parts edits", on=edits)
    try:
        parts = bench.evidence.parts
    except InterpError:
        parts = {}
    tried = parts.get("labels", {})
    found["label"] = Origin(
        figure="label",
        command=f"interp evidence {name} --parts labels",
        on=f"{str(tried.get('tried', 'not tried')).removeprefix('on ')}; {_seed(tried)}",
    )
    caused = parts.get("effects", {})
    found["effect"] = Origin(
        figure="effect",
        command=f"interp evidence {name} --parts effects",
        on=f"{caused.get('dtype', '')} passes over text {str(caused.get('text_sha256', ''))[:12]}; {_seed(caused)}".strip(),
    )
    compared = parts.get("replication", {})
    found["replication"] = Origin(
        figure="",
        command=f'interp.Workbench.open("{name}").replication(others)',
        on=f"{compared.get('positions', 0):,} positions of {compared.get('documents', 0):,} documents; {_seed(compared)}",
    )
    return found


def _lenses(said: "Said | None") -> str:
    if said is None:
        return "no lens was judged here"
    return f"lenses judged on {said.about['judged']['features']} features"


def _seed(about: object) -> str:
    seed = about.get("seed") if isinstance(about, Mapping) else None
    return "no seed" if seed is None else f"seed {seed}"
