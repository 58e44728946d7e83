"""Two things side by side as a sheet: two features, two SAEs, or what two lists of texts make features do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from interp.commands.finding import AboutSae
from interp.commands.inspecting import Inspected
from interp.render import Html, visible
from interp.render.parts import fold, go, histogram, interval, pill, worded
from interp.render.tag import join, tag
from interp.render.words import counted, density, strength
from interp.ui.feature_sheet import STATUS, VERDICTS, Looks, example_row
from interp.ui.shared import unreadable, url
from interp.views import FeaturePage

if TYPE_CHECKING:
    from interp.commands.pairing import Differs, PairOfFeatures, PairOfTexts

EXAMPLES = 8
TOKENS = 8
CARD = {
    "fvu": "variance unexplained",
    "l0": "features a token",
    "ce_sae": "loss with it in place",
    "ce": "loss without",
    "dead_share": "share that never fires",
}
"""Figures of a card, and their words."""
MEASURES = {
    "ev": "variance explained",
    "delta_ce": "loss that it adds, nats",
    "kl": "KL of the next token, nats",
}
"""Measures of a comparison on the same tokens, and their words."""


def number(value: float) -> str:
    """A figure as tables have it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def differences(figures: "Sequence[Differs]", names: Mapping[str, object], head: Sequence[str]) -> Html | None:
    """A line a figure: both sides, the difference and its interval on one scale around 0."""
    if not figures:
        return None
    rows = []
    for each in figures:
        ends = each.interval
        most = max(abs(each.difference), *(abs(end) for end in ends or (0.0,))) or 1.0
        bar = interval(
            each.difference,
            *(ends or (each.difference, each.difference)),
            ends=(-most, most),
            null=0.0,
            alt=f"{each.difference:+.3g}",
        )
        said = "" if ends is None else f"{ends[0]:+.3g} to {ends[1]:+.3g}"
        verdict = pill("apart", "good") if each.apart else pill("not told apart" if ends else "too few", "plain")
        cells = (number(each.one), number(each.other), f"{each.difference:+.3g}")
        rows.append(
            tag(
                "tr",
                tag("td", names.get(each.what, each.what)),
                *(tag("td", cell, class_="n") for cell in cells),
                tag("td", bar),
                tag("td", said, class_="n faint"),
                tag("td", verdict),
            )
        )
    top = [tag("th", words, class_="n" if 0 < at < 4 or at == 5 else None) for at, words in enumerate(head)]
    return tag("table", tag("tr", top), rows)


# ---- two features ----


def features_html(pair: "PairOfFeatures", sides: Sequence[tuple[str, AboutSae, Inspected, Looks]]) -> Html:
    """The two beside each other, and what was compared above them."""
    alike: list[object] = []
    if pair.cosine is not None:
        alike.append(tag("p", "Cosine of their decoder rows: ", tag("b", f"{pair.cosine:.3f}"), "."))
    if pair.both is not None and pair.only_one is not None and pair.only_other is not None:
        either = pair.both + pair.only_one + pair.only_other
        share = f"{pair.both / either:.1%}" if either else "none"
        together = f"Both fire at {pair.both:,} tokens ({share} of those where either does), only the first at {pair.only_one:,}, only the second at {pair.only_other:,}"
        correlation = "" if pair.correlation is None else f"; correlation of activations {pair.correlation:.3f}"
        alike.append(tag("p", f"{together}{correlation}."))
    head = ("", "first", "second", "difference", "", "95 % interval", "")
    table = differences(pair.figures, {}, head)
    if table is not None:
        alike += [
            table,
            tag(
                "p",
                f"Intervals: a bootstrap over {counted(pair.documents, 'document')}, the same ones for both.",
                class_="note",
            ),
        ]
    if pair.lacks:
        alike.append(tag("p", worded(pair.lacks), class_="note"))
    columns = [tag("div", _side(*side), class_="one") for side in sides]
    return join(fold("How alike they are", *alike, name="first"), tag("div", columns, class_="halves sides"))


def _side(name: str, opened: AboutSae, of: Inspected, looks: Looks) -> list[object]:
    """One feature, as briefly as can be compared."""
    page, said = of.shown.page, of.headline
    title = go(
        join(tag("span", page.feature, class_="number"), said.name),
        url("feature", sae=opened.sae, feature=page.feature),
    )
    kind, means = VERDICTS.get(said.verdict, ("plain", ""))
    verdict = [
        pill(said.status, STATUS.get(said.status, "plain")) if said.status else None,
        pill(f"trial: {said.verdict}", kind, means),
    ]
    if said.f1 is not None:
        verdict.append(tag("span", f"F1 {said.f1[0]:.2f} ({said.f1[1]:.2f} to {said.f1[2]:.2f})"))
    effect = page.evidence.effect if page.evidence is not None else None
    facts = [
        ("density", density(page.density)),
        ("largest", strength(page.max)),
        ("entropy", f"{abs(page.token_entropy):.2f} nats"),
    ]
    if effect is not None and effect.kl is not None:
        facts.append(("effect, KL", f"{effect.kl:.2g} nats"))
    listed = [tag("div", tag("dt", term), tag("dd", value)) for term, value in facts]
    plot = histogram(
        page.histogram, 0.0, page.max, f"Histogram of activations up to {page.max:.2f}", name=f"{name}-activation"
    )
    tokens = [
        tag("tr", tag("td", visible(token), class_="t"), tag("td", f"{count / max(page.fires, 1):.0%}", class_="n"))
        for token, count in page.top_tokens[:TOKENS]
    ]
    says = page.says[0].raised[:TOKENS] if page.says else []
    raised = [tag("tr", tag("td", visible(token), class_="t"), tag("td", f"{x:.2f}", class_="n")) for token, x in says]
    pair = [
        tag("div", tag("h3", "Fires on"), tag("table", tokens)),
        tag("div", tag("h3", "Promotes"), tag("table", raised)),
    ]
    return [
        tag("h2", title, dir="auto"),
        tag("p", f"of {opened.name}", class_="note"),
        tag("div", verdict, class_="verdict"),
        tag("dl", listed, class_="facts four"),
        plot,
        tag("div", _strongest(page, looks), class_="shots" if looks else "rows"),
        tag("div", pair, class_="halves always"),
    ]


def _strongest(page: FeaturePage, looks: Looks) -> list[Html]:
    """Its strongest examples, a line each."""
    strongest = sorted((each for each in page.examples if each.band == 0), key=unreadable)
    return [example_row(each, page.max, looks=looks) for each in strongest[:EXAMPLES]]


# ---- two lists of texts ----


def texts_html(pair: "PairOfTexts", names: Mapping[int, str]) -> Html:
    """Features that the two sides tell apart, those first whose interval is furthest from 0."""
    how = (
        f"{counted(pair.one, 'pair')} of texts, first with first"
        if pair.paired
        else f"{pair.one} and {counted(pair.other, 'text')}, each side drawn for itself"
    )
    shown = {
        str(f): go(join(tag("span", f, class_="faint"), " ", names.get(f, "")), url("feature", feature=f))
        for f in pair.features
    }
    head = ("feature", "first", "second", "difference", "", "95 % interval", "")
    table = differences(pair.figures, shown, head)
    said = (
        "A feature's largest activation on each text, in units of its own largest in the index, mean over texts. "
        f"{how[:1].upper()}{how[1:]}; the interval is a bootstrap over them. Apart are those whose interval leaves out 0 and whose q is at most "
        f".05 over the {pair.searched:,} features that fire here (Benjamini and Hochberg)."
    )
    return join(table or tag("p", "No feature fires on any of these texts."), tag("p", said, class_="note"))


# ---- two SAEs ----


def saes_html(
    sides: Sequence[tuple[AboutSae, Mapping[str, Mapping[str, float]]]], found: Mapping[str, Any] | None
) -> Html:
    """What the two cards say, and beside it what was measured of both on the same tokens."""
    texts = [text for text in sides[0][1] if text in sides[1][1]]
    rows = []
    for text in texts:
        for name, words in CARD.items():
            values = [own[text].get(name) for _, own in sides]
            if None not in values:
                cells = [tag("td", number(value), class_="n") for value in values if value is not None]
                rows.append(tag("tr", tag("td", text.replace("_", " ")), tag("td", words), *cells))
    top = [tag("th", "text"), tag("th", "figure"), *(tag("th", about.name, class_="n") for about, _ in sides)]
    cards = (
        tag("table", tag("tr", top), rows) if rows else tag("p", "Their cards have no text in common.", class_="note")
    )
    told = [_measured(found)] if found is not None else []
    return join(
        *told,
        fold(
            "What their cards say",
            cards,
            tag(
                "p",
                "Each as it was measured when it was made; positions and text of the two may differ.",
                class_="note",
            ),
            name="first",
        ),
    )


def _measured(found: Mapping[str, Any]) -> Html:
    """The differences of a comparison on the same tokens."""
    rows = []
    for one in found["differences"]:
        low, high = one["interval"]
        most = max(abs(low), abs(high), abs(one["value"])) or 1.0
        bar = interval(one["value"], low, high, ends=(-most, most), null=0.0, alt=one["says"])
        at = "as they are" if one["wanted"] is None else f"at L0 {one['wanted']}"
        verdict = pill(f"{one['better']} is better", "good") if one["better"] else pill("not told apart", "plain")
        cells = [
            tag("td", at),
            tag("td", MEASURES.get(one["measure"], one["measure"])),
            tag("td", f"{one['value']:+.3g}", class_="n"),
            tag("td", bar),
        ]
        rows.append(tag("tr", *cells, tag("td", f"{low:+.3g} to {high:+.3g}", class_="n faint"), tag("td", verdict)))
    words = (("", ""), ("measure", ""), ("A less B", "n"), ("", ""), ("95 % interval", "n"), ("", ""))
    head = [tag("th", word, class_=kind or None) for word, kind in words]
    named = [
        tag("p", tag("b", one["letter"]), f" {one['name']} ({one['d_sae']:,} features, {one['rule']})")
        for one in found["saes"]
    ]
    of = found["of"]
    note = f"Paired over {of['documents']:,} documents of {of['text']}; the loss of {of['model']} is {of['ce']:.4g} nats a token."
    return fold(
        "On the same tokens",
        *named,
        tag("table", tag("tr", head), rows),
        tag("p", note, class_="note"),
        name="examples",
    )
