"""A neuron as a sheet: each sign's contexts under the feature that fires there, beside the features nearest to what it writes."""

from interp.commands.finding import AboutSae
from interp.render import Html, visible
from interp.render.parts import copies, fold, go, histogram, pill, stretch_row
from interp.render.tag import join, tag
from interp.render.words import counted, density, strength
from interp.ui.shared import unreadable, url
from interp.views import Contexts, FeaturePage, NeuronPage

SHOWN = 4
"""Examples of one feature's contexts."""
GROUPS = 10


def neuron_html(opened: AboutSae, found: NeuronPage) -> Html:
    """Both signs, and what splits them."""
    name = f"{found.layer}.{found.neuron}"
    command = f"interp neuron {opened.name} {name}"
    head = tag(
        "header",
        tag(
            "div",
            tag("h1", tag("span", "neuron", class_="number"), name),
            tag("p", _said(found), class_="claims"),
            tag(
                "div",
                tag("button", "copy link", type="button", data_copy=url("neuron", neuron=name), data_address=True),
                copies("copy command", command, command),
                go("features near it", url("features", q=f"neuron:{name}"), class_="faint"),
                class_="acts",
            ),
        ),
        class_="head",
    )
    signs = [_sign(found, sign) for sign in found.signs]
    return join(head, tag("div", tag("div", signs), tag("div", _near(found)), class_="columns"))


def _said(found: NeuronPage) -> str:
    """How many features its contexts are split among."""
    told = []
    for sign in found.signs:
        groups = [each for each in found.contexts(sign) if each.feature is not None]
        shown = sum(len(each.examples) for each in found.contexts(sign))
        told.append(f"where it is {sign}, {counted(len(groups), 'feature')} account for {counted(shown, 'example')}")
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}."


def _sign(found: NeuronPage, sign: str) -> Html:
    """Its examples, under the features that fire there."""
    page = found.signs[sign]
    if not page.fires:
        return fold(f"Where it is {sign}", tag("p", "Nowhere in the index of its layer.", class_="note"), name=sign)
    plot = histogram(page.histogram, 0.0, page.max, f"Histogram of magnitudes up to {page.max:.2f}", name="activation")
    facts = f"{page.description}. Density {density(page.density)}; its tokens have {abs(page.token_entropy):.2f} nats of entropy."
    groups = [_group(each, page) for each in found.contexts(sign)[:GROUPS]]
    left_out = len(found.contexts(sign)) - GROUPS
    more = (
        tag("p", f"{counted(left_out, 'further feature')} with fewer examples.", class_="note")
        if left_out > 0
        else None
    )
    told = tag("p", f"{facts[:1].upper()}{facts[1:]}", class_="note")
    side = f"largest {strength(page.max)}, in {counted(page.documents, 'document')}"
    return fold(
        f"Where it is {sign}", tag("div", plot, class_="one"), told, *groups, more, side=side, name=f"sign-{sign}"
    )


def _group(own: Contexts, page: FeaturePage) -> Html:
    if own.feature is None:
        title: object = "no feature fires"
    else:
        title = go(join(tag("span", own.feature, class_="faint"), " ", own.name), url("feature", feature=own.feature))
    rows = [
        stretch_row(
            e.tokens,
            e.values,
            page.max,
            peak=e.peak,
            lead=f"{e.value:.2f}",
            place=f"{share:.0%} of its largest" if share else e.title,
            more=tag(
                "p",
                f"{e.source} · {e.title} · position {e.position:,} · peak at ‘{visible(e.tokens[e.peak])}’",
                class_="note",
            ),
            ids=e.ids,
            first=e.position - e.peak,
            unread=e.unread,
        )
        for e, share in sorted(own.examples, key=lambda each: unreadable(each[0]))[:SHOWN]
    ]
    return tag(
        "div", tag("h3", tag("span", title), tag("span", counted(len(own.examples), "example"))), rows, class_="rows"
    )


def _near(found: NeuronPage) -> list[Html]:
    """The features nearest to what it writes."""
    rows = []
    for page, cosine in found.features:
        called = page.label.text if page.label else page.description
        title = go(join(tag("span", page.feature, class_="faint"), " ", called), url("feature", feature=page.feature))
        status = pill(page.label.status, "plain") if page.label else None
        cells = (f"{cosine:.2f}", f"{abs(page.token_entropy):.2f}")
        rows.append(tag("tr", tag("td", title, " ", status), *(tag("td", each, class_="n") for each in cells)))
    head = [tag("th", words, class_="n" if at else None) for at, words in enumerate(("feature", "cosine", "entropy"))]
    said = "Cosine of the decoder row with what the neuron writes; entropy in nats of the tokens each fires on: the lower, the fewer."
    entropy = [abs(page.token_entropy) for page in found.signs.values() if page.fires]
    side = f"the neuron has {max(entropy):.2f} nats" if entropy else None
    return [
        fold(
            "Nearest to what it writes",
            tag("table", tag("tr", head), rows),
            tag("p", said, class_="note"),
            side=side,
            name="near",
        )
    ]
