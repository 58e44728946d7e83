"""A feature's page as one sheet: what it is called and whether that holds, what speaks against it, where it fires, what it does.

Nothing is computed here: every number is one that `commands.inspecting` gave.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from interp.commands.finding import AboutSae
from interp.commands.inspecting import Inspected
from interp.render import Html, visible
from interp.render.look import Look, Picture, Unseen, look_card
from interp.render.parts import copies, fold, go, interval, pill, stretch_row, tokens_row, worded
from interp.render.tag import join, tag
from interp.render.words import PLACES, TRAINED, TRAINED_MEANS, counted, density, strength
from interp.ui.feature_figures import YOURS, again_line, figures
from interp.ui.item_sheet import yours_html
from interp.ui.shared import unreadable, url
from interp.views import Example, Spectrum

if TYPE_CHECKING:
    from interp.commands.inspecting import Again

BANDS = {"all": "all", "0": "strongest", "1": "1st fifth", "2": "2nd", "3": "3rd", "4": "4th", "5": "weakest fifth"}
"""By the URL's `band`: what the button is called."""
SHOWN_AS = {"band": tuple(BANDS), "context": ("snippet", "full")}
"""How examples are shown, by the URL's keys; the first holds without."""
VERDICTS = {
    "confirmed": ("good", "Its claim was tried on text it was not made from, and lies above every null."),
    "told from chance": (
        "doubt",
        "It lies above the nulls of its own SAE, but not above what labels of a random-weight model's features reach.",
    ),
    "refuted": ("bad", "On text it was not made from its claim does no better than chance."),
    "undecided": ("doubt", "On text it was not made from it is neither told from chance nor refuted."),
    "too few": ("plain", "It fires too seldom in the testing documents to be judged."),
    "no claim": ("plain", "No claim was found that explains where it fires."),
    "never fires": ("plain", "It never fires in the indexed text."),
    "not tried": ("plain", "The label that stands here was not tried."),
}
STATUS = {"confirmed": "good", "refuted": "bad", "undecided": "doubt"}


Looks = Mapping[int, Look | Unseen]
"""What examples of pictures and sound look like, by position; empty for text."""
NO_LOOKS: Looks = MappingProxyType({})


def feature_html(
    opened: AboutSae,
    of: Inspected,
    *,
    text: Spectrum | None,
    ran: "Mapping[str, Again | str]",
    read_only: bool = False,
    looks: Looks = NO_LOOKS,
) -> Html:
    """The whole sheet; `text` is what a person typed, as the model reads it; `ran` has figures measured again, by name."""
    page = of.shown.page
    value = float(text.matrix([page.feature])[0].max()) if text is not None and text.tokens else None
    left, right = figures(of, yours=value, ran=ran, read_only=read_only)
    text_first = [
        None if text is None else yours(text, page.feature, page.max, page.kind),
        against(of, ran.get("edits"), read_only, looks),
        examples(of, ran.get("firing"), read_only, looks),
    ]
    return join(head(opened, of), tag("div", tag("div", text_first, left), tag("div", right), class_="columns"))


# ---- what it is called ----


def head(opened: AboutSae, of: Inspected) -> Html:
    """Name, claim, status and trial; the figures that everybody asks for first."""
    page, said = of.shown.page, of.headline
    name = [tag("span", page.feature, class_="number"), said.name]
    if said.claims:
        level = f", where it fires above {said.level:.3g}" if said.level else ""
        search = go(tag("code", f"at:({said.claim})"), url("features", q=f"at:({said.claim})"), "search for this")
        claims: object = [f"Claims: {said.claims}{level}. ", search]
    else:
        claims = (
            "Automatic description: nobody named it, and nothing was tried."
            if said.automatic
            else "Claims nothing that can be tried."
        )
    left = tag(
        "div",
        tag("h1", name, dir="auto"),
        tag("p", claims, class_="claims"),
        tag("div", _verdict(of), class_="verdict"),
        tag("div", _acts(opened, of), class_="acts"),
    )
    facts = [
        ("density", density(page.density), "Share of the index's counted positions on which it fires."),
        ("fires on", counted(page.fires, *PLACES[page.kind]), f"In {counted(page.documents, 'document')}."),
        ("documents", f"{page.documents:,}", "In which it fires."),
        ("largest", strength(page.max), "Activation."),
        ("mean", strength(page.mean), "Where it is active."),
        ("entropy", f"{abs(page.token_entropy):.2f} nats", "Of the tokens it fires on; 0: always the same one."),
    ]
    listed = [tag("div", tag("dt", term), tag("dd", value), title=title) for term, value, title in facts]
    veil = None
    if not page.fires:
        veil = tag(
            "p", "It never fires in the index: it may be dead, or rarer than one in the index's tokens.", class_="veil"
        )
    return join(tag("header", left, tag("dl", listed, class_="facts"), class_="head"), veil)


def _verdict(of: Inspected) -> list[object]:
    said = of.headline
    shown: list[object] = []
    if said.status:
        by = " · ".join(each for each in (said.author or "no author", said.method, day(said.created)) if each)
        shown += [
            pill(said.status, STATUS.get(said.status, "plain"), "What the label book says."),
            tag("span", by, class_="note"),
        ]
    kind, means = VERDICTS.get(said.verdict, ("plain", ""))
    shown.append(pill(f"trial: {said.verdict}", kind, means))
    if said.f1 is not None:
        value, low, high = said.f1
        alt = f"F1 {value:.2f}, 95 % interval {low:.2f} to {high:.2f}"
        null = max((each for each in (said.chance, said.random_model) if each is not None), default=None)
        where = f"{counted(said.fires, 'firing')} in {counted(said.documents, 'document')}"
        chance = "" if said.chance is None else f", chance {said.chance:.2g}"
        random = "" if said.random_model is None else f", random-weight model {said.random_model:.2g}"
        words = [tag("b", f"F1 {value:.2f}"), f" ({low:.2f} to {high:.2f}), {where}{chance}{random}"]
        shown.append(tag("span", interval(value, low, high, null=null, alt=alt), tag("span", words), class_="figure"))
    if said.starred:
        shown.append(pill("★", "doubt", "Marked with a star."))
    shown += [pill(each, "plain", "A tag.") for each in said.tags]
    return shown


def day(created: str) -> str:
    """A date as people read it; empty where there is none."""
    try:
        return datetime.fromisoformat(created).strftime("%-d %B %Y")
    except ValueError:
        return ""


def _acts(opened: AboutSae, of: Inspected) -> list[object]:
    number = of.shown.page.feature
    link = tag("button", "copy link", type="button", data_copy=url("feature", feature=number), data_address=True)
    strength = max(of.shown.page.max, 0.0)
    return [
        link,
        copies("copy JSON", of.json, "Everything on this page."),
        copies("copy citation", of.citation, of.citation),
        copies(
            "copy as Python", f'interp.Workbench.open("{opened.name}").feature({number})', "The same page in a script."
        ),
        go("steer it", url("steer", edits=f"{number},clamp,{strength:.3g}"), class_="faint")
        if of.shown.page.kind == "text"
        else None,
        go("compare it", url("compare", a=str(number)), class_="faint"),
        go("find more like it", url("features", q=f"like:{number}"), class_="faint"),
    ]


# ---- the text that was typed ----


def yours(text: Spectrum, feature: int, top: float, kind: str = "text") -> Html:
    """A text with the feature's activations."""
    values = text.matrix([feature])[0].tolist()
    most = max(values, default=0.0)
    fires = sum(value > 0 for value in values)
    out = text.counted.count(False) if text.medium is None else text.left_out
    left_out = f"; {counted(out, *PLACES[kind])} left out as sinks" if out else ""
    said = f"Largest activation here: {strength(most)}, on {counted(fires, *PLACES[kind])}{left_out}."
    line = yours_html(text, feature, max(top, most)) or tag(
        "div", tokens_row(text.tokens, values, max(top, most)), class_="line", dir="auto", data_first="0"
    )
    return fold(f"Your {YOURS[kind]}", line, tag("p", said, class_="note"), name="first")


# ---- what speaks against it ----


def against(of: Inspected, ran: "Again | str | None", read_only: bool, looks: Looks = NO_LOOKS) -> Html:
    """What could not be shown, where the label is wrong, and the edits that part it from the feature."""
    page, contrary = of.shown.page, of.contrary
    lacking = [tag("li", worded(text), class_="not") for text in _not_shown(of)]
    inside: list[object] = [tag("ul", lacking) if lacking else None]
    if contrary is None:
        inside.append(tag("p", worded(_sentence(of.contrary_lacks)), class_="note"))
    else:
        share = f"{contrary.outside:,} of {contrary.fired:,}"
        inside.append(
            tag(
                "h3",
                "It fires, and the label does not hold",
                tag("span", f"{share} stored firings above {contrary.level:.3g}"),
            )
        )
        inside.append(_rows(contrary.beyond, page.max, looks) or tag("p", "None is stored.", class_="note"))
        if contrary.held is not None:
            share = f"{contrary.silent:,} of {contrary.held:,} places in testing documents"
            inside.append(tag("h3", "The label holds, and it is silent", tag("span", share)))
            inside.append(_rows(contrary.short, page.max, looks) or tag("p", "There is none.", class_="note"))
        if contrary.lacks:
            inside.append(tag("p", worded(contrary.lacks), class_="note"))
    inside += _failed_edits(of)
    inside.append(again_line(of.origins.get("edits"), ran, read_only, "try it by editing texts"))
    count = len(lacking)
    return fold("What speaks against it", *inside, side=f"{count} not shown" if count else None, name="against")


def _not_shown(of: Inspected) -> list[str]:
    """What could not be shown, but for what stands over the page: the trial of the label itself."""
    evidence = of.shown.page.evidence
    own = evidence.label if evidence is not None else None
    tried = f"The label {own.claimed} is " if own is not None and own.claim and of.headline.f1 is not None else None
    edits = evidence.missing.get("edits") if evidence is not None and of.edits is not None else None
    told = [each.text for each in of.shown.page.tested() if not each.shown]
    return [text for text in told if text != edits and not (tried and text.startswith(tried))]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _failed_edits(of: Inspected) -> list[object]:
    if of.edits is None:
        return []
    rows = []
    for number, failure in enumerate(of.edits.failures):
        said = f"{failure.sentence} (from {strength(failure.before)} to {strength(failure.after)})"
        rows.append(tag("p", f"{_sentence(said)}{':' if of.failed else '.'}", class_="note"))
        if of.failed:
            rows.append(example_row(of.failed[number], of.shown.page.max, lead=strength(failure.before)))
    if rows and not of.failed:
        rows.append(tag("p", "Their texts are of another index than the one that is open.", class_="note"))
    head = tag(
        "h3",
        "Edits after which label and feature disagree",
        tag("span", f"{of.edits.failed} of {of.edits.tried} edits"),
    )
    return [head, tag("div", rows, class_="rows") if rows else tag("p", "None failed.", class_="note")]


# ---- where it fires ----


def examples(of: Inspected, ran: "Again | str | None", read_only: bool, looks: Looks = NO_LOOKS) -> Html:
    """Its examples by band, strongest first."""
    page = of.shown.page
    there = sorted({example.band for example in page.examples})
    buttons = [
        tag("button", words, type="button", data_set=f"band={key}")
        for key, words in BANDS.items()
        if key == "all" or int(key) in there
    ]
    shapes = [
        tag("button", "full context", type="button", data_set="context=full"),
        tag("button", "snippets", type="button", data_set="context=snippet"),
    ]
    bands = [_band(of, band, looks) for band in there]
    unread = dict.fromkeys(example.unread for example in page.examples if example.unread)
    bands += [tag("p", worded(said), class_="note") for said in unread]
    told = tag("p", f"{_sentence(of.shown.detected)}.", class_="note")
    ways = None if looks else [tag("span", class_="gap"), shapes]
    inside: list[object] = [tag("div", buttons, ways, class_="bar"), *bands, told]
    if not there:
        inside = [tag("p", "The index has no example of it.", class_="note")]
    side = f"largest {strength(page.max)}, in {counted(page.documents, 'document')}"
    return fold(
        "Where it fires", *inside, again_line(of.origins.get("firing"), ran, read_only), side=side, name="examples"
    )


def _band(of: Inspected, band: int, looks: Looks) -> Html:
    page = of.shown.page
    some = [example for example in page.examples if example.band == band]
    if band == 0:
        title, edges = "Strongest", f"{strength(some[0].value)} to {strength(some[-1].value)}"
    else:
        title = f"Drawn from {('the strongest fifth', 'the 2nd fifth', 'the 3rd fifth', 'the 4th fifth', 'the weakest fifth')[band - 1]} of its documents"
        high, low = (
            page.band_edges[band - 1 : band + 1] if len(page.band_edges) > band else (some[0].value, some[-1].value)
        )
        edges = f"largest {strength(high)} to {strength(low)}"
    rows = [example_row(example, page.max, looks=looks) for example in sorted(some, key=unreadable)]
    if dark := sum(map(unreadable, some)):
        edges += f" · {dark} of {len(some)} without text here"
    if small := sum(_copied(looks.get(example.position)) for example in some):
        edges += f" · {small} of {len(some)} as a small copy, kept with the index"
    return tag(
        "div",
        tag("h3", title, tag("span", edges)),
        tag("div", rows, class_="shots") if looks else rows,
        class_="band rows apart" if page.kind == "numbers" else "band rows",
        data_own=band,
    )


def _copied(look: Look | Unseen | None) -> bool:
    return isinstance(look, Look) and isinstance(look.of, Picture) and look.of.copy


def _rows(some: Sequence[Example], top: float, looks: Looks) -> Html | None:
    rows = [example_row(example, top, looks=looks) for example in some]
    return tag("div", rows, class_="shots" if looks else "rows") if rows else None


def example_row(
    example: Example, top: float, *, lead: str | None = None, more: Html | None = None, looks: Looks = NO_LOOKS
) -> Html:
    """An example as a line of tokens, or as the picture or sound that it is of; `top` is the feature's largest activation."""
    if look := looks.get(example.position):
        return look_card(
            look,
            top,
            lead=strength(example.value),
            place=example.tokens[example.peak],
            title=example.title or example.source,
            more=_about(example, text=False),
        )
    return stretch_row(
        example.tokens,
        example.values,
        top,
        peak=example.peak,
        lead=strength(example.value) if lead is None else lead,
        place=example.title or example.source,
        more=join(more, _about(example)),
        ids=example.ids,
        first=example.position - example.peak,
        unread=example.unread,
    )


def _about(example: Example, *, text: bool = True) -> Html:
    """Where an example is from, and what can be taken from it where it is of text."""
    where = f"{example.source} · {example.title} · position {example.position:,} · {example.split} split · "
    trained = tag("span", TRAINED[example.trained_on], title=TRAINED_MEANS[example.trained_on])
    token = visible(example.tokens[example.peak]) if not example.unread else ""
    acts = [
        copies("copy text", "".join(example.tokens)),
        copies("copy token ids", str(list(example.ids)), "As the model reads them."),
        go("open as a prompt", url("prompt", text="".join(example.tokens))),
    ]
    return tag(
        "div",
        tag("p", where, trained, f" · peak at ‘{token}’" if token else "", class_="note"),
        tag("div", acts if text and example.ids else None, class_="bar"),
    )
