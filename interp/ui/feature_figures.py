"""The figures beside a feature's text, each a section that can be folded, with where it comes from and a button that makes it again."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp.commands.inspecting import Inspected, Origin
from interp.commands.items import one_place
from interp.render import Html, visible
from interp.render.parts import copies, fold, go, histogram, interval, pill, share_bar, worded
from interp.render.tag import join, tag
from interp.render.words import PLACES, counted, duration, strength
from interp.ui.shared import url
from interp.views import FeaturePage, Says

if TYPE_CHECKING:
    from interp.commands.inspecting import Again

KINDS = {"holds": "good", "does not": "bad", "unclear": "doubt"}
DRAWN = ("labels", "effects", "replication", "edits")
"""Parts of the evidence that have sections."""
TOO_LITTLE = "too little text"
FORMS = {"code": "what looks like code", "list": "lists"}
ROWS = 8
YOURS = {"text": "text", "pictures": "picture", "sound": "clip", "numbers": "row"}


def figures(
    of: Inspected, *, yours: float | None, ran: "Mapping[str, Again | str]", read_only: bool
) -> tuple[list[Html | None], list[Html | None]]:
    """(the sections under the examples, those beside them), in the order in which they stand."""

    def line(name: str) -> Html | None:
        return again_line(of.origins.get(name), ran.get(name), read_only)

    pair = [replication(of, line("replication")), tokens(of.shown.page)]
    under = [
        trial(of, line("label")),
        tag("div", *(tag("div", each) for each in pair if each is not None), class_="halves"),
    ]
    beside = [
        activations(of.shown.page, yours),
        promotes(of.shown.page, line("promotes")),
        effect(of, line("effect")),
        further(of),
        neighbours(of, line("near")),
    ]
    return under, beside


def again_line(
    origin: Origin | None, ran: "Again | str | None", read_only: bool, words: str = "run again"
) -> Html | None:
    """Where a figure comes from, the command that makes it, a button that makes it again, and what that gave."""
    if origin is None:
        return None
    button = None
    if origin.figure and not read_only:
        button = tag(
            "button",
            words,
            type="button",
            data_again=origin.figure,
            title="Measure it again now, for this feature alone.",
        )
    said = None
    if isinstance(ran, str):
        said = tag("div", pill("not run", "plain"), " ", worded(ran), class_="said")
    elif ran is not None:
        said = tag("div", _compared(ran), class_="said")
    return tag(
        "div",
        button,
        copies("copy command", origin.command, origin.command),
        tag("span", origin.on),
        said,
        class_="again",
    )


def _compared(ran: "Again") -> list[object]:
    kind = {True: ("agrees", "good"), False: ("differs", "bad"), None: ("measured", "plain")}[ran.agrees]
    head = [tag("th", each, class_="n" if at else None) for at, each in enumerate(("", "recorded", "now"))]
    rows = [
        tag(
            "tr",
            tag("td", each.what),
            tag("td", _number(each.recorded), class_="n"),
            tag("td", _number(each.now), class_="n"),
        )
        for each in ran.rows
    ]
    return [pill(*kind), " ", worded(f"{ran.sentence} ({duration(ran.took)})."), tag("table", tag("tr", head), rows)]


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:,.0f}" if value == int(value) and abs(value) >= 10 else f"{value:.4g}"


# ---- activations ----


def activations(page: FeaturePage, yours: float | None) -> Html | None:
    """How strongly it fires, with what was typed marked."""
    if not page.fires:
        return None
    clean = page.clean.level if page.clean is not None and page.clean.share < 1 else None
    marks = {} if yours is None or yours <= 0 else {f"your {YOURS[page.kind]} {strength(yours)}": yours}
    if clean is not None:
        marks["clean above"] = clean
    quantiles = ", ".join(f"{x:.2f}" for x in page.quantiles)
    alt = f"Histogram of {page.fires:,} activations above 0, up to {page.max:.2f}; quantiles 10, 25, 50, 75, 90 and 99 %: {quantiles}."
    plot = histogram(page.histogram, 0.0, page.max, alt, clean=clean, marks=marks, name="activation")
    half = page.quantiles[2]
    said = f"Half are above {strength(half)}, a tenth above {strength(page.quantiles[4])}. Heights are logarithmic."
    clean_said = page.clean_sentence()
    more = tag("p", f"{clean_said[:1].upper()}{clean_said[1:]}.", class_="note") if clean_said else None
    return fold(
        "Activations",
        plot,
        tag("p", said, class_="note"),
        more,
        side=counted(page.fires, *PLACES[page.kind]),
        name="activations",
    )


# ---- what it says ----


def promotes(page: FeaturePage, line: Html | None) -> Html | None:
    """Tokens it promotes and suppresses, by the lens that was judged best."""
    if not any(says.raised or says.lowered for says in page.says):
        return None
    inside: list[object] = []
    for says in page.says:
        inside += [_said(says), tag("p", f"{says.how[:1].upper()}{says.how[1:]}.", class_="note")]
    if page.logit_histogram:
        low, high = page.suppressed[0][1], page.promoted[0][1]
        alt = f"Histogram of the direct effect of a unit on every token's logit, from {low:.2g} to {high:.2g} (logit lens)."
        inside.append(tag("h3", "Every token's logit", tag("span", "logit lens, one unit")))
        inside.append(histogram(page.logit_histogram, low, high, alt))
    first = page.says[0].raised[:1]
    side = f"first ‘{visible(first[0][0])}’" if first else None
    return fold("Promotes and suppresses", *inside, line, side=side, name="promotes")


def _said(says: Says) -> Html:
    verb, score, times = says.heads[0], says.heads[1], says.heads[2]
    cells = ((verb, "t"), (score, "n"), ("suppresses", "t"), (score, "n"))
    head = [tag("th", words, class_="n" if kind == "n" else None) for words, kind in cells]
    rows = []
    for up, up_score, up_times, down, down_score, down_times in says.rows()[:ROWS]:
        rows.append(
            tag(
                "tr",
                tag("td", up, class_="t", title=f"{up_times:,} {times}" if up_times else None),
                tag("td", "" if up_score is None else f"{up_score:.2f}", class_="n"),
                tag("td", down, class_="t", title=f"{down_times:,} {times}" if down_times else None),
                tag("td", "" if down_score is None else f"{down_score:.2f}", class_="n"),
            )
        )
    return tag("table", tag("tr", head), rows)


# ---- what it causes ----


def effect(of: Inspected, line: Html | None) -> Html | None:
    """What ablating it does to the next token, beside its controls."""
    evidence = of.shown.page.evidence
    record = evidence.effect if evidence is not None else None
    if evidence is None or record is None or record.kl is None:
        return None
    row = evidence.row
    shown: list[tuple[str, float | None, float | None, float | None]] = [
        ("this feature", record.kl, record.kl_low, record.kl_high)
    ]
    shown.append(
        ("other features", record.control_kl, row.get("effect_control_kl_low"), row.get("effect_control_kl_high"))
    )
    most = max((high or value or 0.0 for _, value, _, high in shown), default=1.0) or 1.0
    rows = [_measured(words, value, low, high, most) for words, value, low, high in shown]
    where = f"{counted(record.positions, 'position')} in {counted(record.documents, 'document')}"
    if record.above_kl is not None and record.below_kl is not None:
        rows.append(_measured("above its clean level", record.above_kl, None, None, most))
        rows.append(_measured("below it", record.below_kl, None, None, most))
    verdict = pill(
        "exceeds its controls" if record.exceeds else "not shown to exceed its controls",
        "good" if record.exceeds else "bad",
    )
    q = "" if record.q is None else f" q {record.q:.2g};"
    loss = ""
    if record.loss is not None and record.loss_low is not None and record.loss_high is not None:
        loss = f" Loss of the token that follows: {record.loss:+.2g} nats ({record.loss_low:+.2g} to {record.loss_high:+.2g})."
    said = f"KL of the next token in nats where it is ablated, and where the same amount is taken along other features;{q} {where}. The next token only.{loss}"
    return fold(
        "Effect",
        tag("p", verdict),
        tag("table", rows),
        tag("p", said, class_="note"),
        line,
        side=f"KL {record.kl:.2g} nats",
        name="effect",
    )


def further(of: Inspected) -> Html | None:
    """What else was tested and shown, in sentences: parts of the evidence that have no figure of their own here."""
    evidence = of.shown.page.evidence
    records = {} if evidence is None else evidence.records
    said = [each.text for name, record in records.items() if name not in DRAWN for each in record.said() if each.shown]
    if not said:
        return None
    return fold("Also shown", tag("ul", [tag("li", worded(text), class_="yes") for text in said]), name="further")


def _measured(words: str, value: float | None, low: float | None, high: float | None, most: float) -> Html:
    if value is None:
        return tag("tr", tag("td", words), tag("td", "not known"))
    ends = "" if low is None or high is None else f"{low:.2g} to {high:.2g}"
    bar = interval(
        value,
        value if low is None else low,
        value if high is None else high,
        ends=(0.0, most),
        alt=f"{words}: {value:.2g}, {ends}",
    )
    return tag(
        "tr",
        tag("td", words, class_="w"),
        tag("td", bar),
        tag("td", f"{value:.2g}", class_="n"),
        tag("td", ends, class_="n faint"),
    )


# ---- the label's trial ----


def trial(of: Inspected, line: Html | None) -> Html | None:
    """The trial of its label, and where it holds: languages, forms, sources."""
    evidence = of.shown.page.evidence
    own = evidence.label if evidence is not None else None
    if evidence is None or own is None or own.f1 is None:
        return None
    row = evidence.row
    null = max((each for each in (own.null, own.null_random_model) if each is not None), default=None)
    names = {"f1": "F1", "precision": "precision", "recall": "recall"}
    rows = [
        _share(words, [row.get(f"label_{name}{end}") for end in ("", "_low", "_high")], null if name == "f1" else None)
        for name, words in names.items()
    ]
    final = (
        f" On the final documents: {own.final_verdict} (F1 {own.final_f1:.2f})."
        if own.final_verdict and own.final_f1 is not None
        else ""
    )
    said = f"At {counted(own.fires, 'firing')} in {counted(own.documents, 'document')} that the label was not made from; the dotted line is what chance reaches.{final}"
    inside: list[object] = [tag("table", rows), tag("p", said, class_="note")]
    whole: list[object] = [tag("div", inside)]
    if own.scope:
        whole.append(tag("div", tag("h3", "Where it holds", tag("span", "precision there")), *_scope(own.scope)))
    return fold("Trial of the label", tag("div", whole, class_="halves"), line, side=own.verdict, name="trial")


def _share(words: str, figure: Sequence[float | None], null: float | None) -> Html:
    value, low, high = figure
    if value is None or low is None or high is None:
        return tag("tr", tag("td", words), tag("td", "not known"))
    bar = interval(value, low, high, null=null, alt=f"{words} {value:.2f}, {low:.2f} to {high:.2f}")
    return tag(
        "tr",
        tag("td", words, class_="w"),
        tag("td", bar),
        tag("td", f"{value:.2f}", class_="n"),
        tag("td", f"{low:.2f} to {high:.2f}", class_="n faint"),
    )


def _scope(scope: Sequence[Mapping[str, Any]]) -> list[Html | None]:
    """Where it holds and where not; parts with too little text to say are only named."""
    said = [one for one in scope if one["verdict"] != TOO_LITTLE]
    rows = []
    for one in said:
        precision, low, high = one["precision"], one["low"], one["high"]
        known = None not in (precision, low, high)
        bar = interval(precision, low, high, alt=f"{precision:.2f}, {low:.2f} to {high:.2f}") if known else None
        rows.append(
            tag(
                "tr",
                tag("td", _part(one), class_="w", title=one["part"]),
                tag("td", bar),
                tag("td", f"n {one['fires']:,}", class_="n faint"),
                tag("td", pill(one["verdict"], KINDS.get(one["verdict"], "plain"))),
            )
        )
    little = ", ".join(f"{_part(one)} {one['fires']:,}" for one in scope if one["verdict"] == TOO_LITTLE)
    return [tag("table", rows), tag("p", f"Too little text to say: {little}.", class_="note") if little else None]


def _part(one: Mapping[str, Any]) -> str:
    return f"{FORMS.get(one['value'], one['value'])}" if one["part"] == "form" else str(one["value"])


# ---- found again ----


def replication(of: Inspected, line: Html | None) -> Html | None:
    """Whether other trainings found it again."""
    evidence = of.shown.page.evidence
    if evidence is None or evidence.row.get("again_of") is None:
        return None
    row = evidence.row
    null = row["again_null_99"]
    head = [
        tag("th", each, class_="n" if at else None)
        for at, each in enumerate(("nearest there", "cosine", "correlation", "95 % interval"))
    ]
    columns = [
        row[f"again_{name}"] or [] for name in ("match", "cosine", "correlation", "correlation_low", "correlation_high")
    ]
    rows = []
    for match, cosine, correlation, low, high in zip(*columns, strict=True):
        ends = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
        shown = "" if correlation is None else f"{correlation:.2f}"
        cells = [
            tag("td", f"feature {match}"),
            *(tag("td", each, class_="n") for each in (f"{cosine:.2f}", shown, ends)),
        ]
        rows.append(tag("tr", cells))
    found = row["again_found"]
    side = "not judged" if found is None else f"in {found} of {row['again_of']}"
    chance = "not known" if null is None else f"{null:.2f}"
    said = f"Other trainings of the same recipe. Found again: best by cosine and by correlation, both ways, and above the 99th percentile of chance ({chance})."
    return fold(
        "Found again", tag("table", tag("tr", head), rows), tag("p", said, class_="note"), line, side=side, name="again"
    )


# ---- tokens and neighbours ----


def tokens(page: FeaturePage) -> Html | None:
    """Tokens it fires on, by total activation."""
    if not page.top_tokens or not page.fires or one_place(page):
        return None
    most = max(count for _, count in page.top_tokens)
    rows = [
        tag(
            "tr",
            tag("td", visible(token), class_="t"),
            tag("td", share_bar(count / most)),
            tag("td", f"{count:,}", class_="n"),
            tag("td", f"{count / page.fires:.0%}", class_="n faint"),
        )
        for token, count in page.top_tokens[:10]
    ]
    return fold(
        f"{PLACES[page.kind][1].capitalize()} it fires on",
        tag("table", rows),
        side=f"‘{visible(page.top_tokens[0][0])}’",
        name="tokens",
    )


def neighbours(of: Inspected, line: Html | None) -> Html:
    """Nearest decoder rows, features that fire together with it, neurons that write its direction."""
    page = of.shown.page
    near = [_other(of, f, f"{cosine:.2f}") for f, cosine in page.nearest[:ROWS]]
    together = [_other(of, c.feature, f"{c.count} of {c.of}", f"{c.lift:,.0f} ×") for c in page.coactive[:ROWS]]
    neurons = [
        tag(
            "tr",
            tag("td", go(f"{layer}.{n}", url("neuron", neuron=f"{layer}.{n}"))),
            tag("td", f"{cosine:.2f}", class_="n"),
        )
        for layer, n, cosine in page.neurons
    ]
    parts: list[object] = []
    for title, unit, rows in (
        ("Nearest features", "cosine of decoder rows", near),
        ("Fires together with", f"{PLACES[page.kind][1]}, times chance", together),
        ("Aligned neurons", "cosine with what the neuron writes", neurons),
    ):
        if rows:
            parts += [tag("h3", title, tag("span", unit)), tag("table", rows)]
    return fold("Neighbours", *parts, line, name="near")


def _other(of: Inspected, number: int, *cells: str) -> Html:
    name = join(tag("span", number, class_="faint"), " ", of.names.get(number, ""))
    return tag(
        "tr", tag("td", go(name, url("feature", feature=number))), *(tag("td", each, class_="n") for each in cells)
    )
