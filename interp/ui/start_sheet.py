"""The first page's lists as HTML: figures of the SAE, features worth seeing, what a search found, what fires on a sentence.

Nothing is computed here: every number is one that `commands` gave.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.render import Html, visible
from interp.render.look import looked_html
from interp.render.parts import go, tokens_row
from interp.render.tag import join, tag
from interp.render.words import counted
from interp.ui.shared import url

if TYPE_CHECKING:
    from interp.commands.finding import Answer
    from interp.commands.items import ItemKind
    from interp.commands.starting import Firing, Glimpse, Shelved, Shown
    from interp.render.look import Look, Unseen
    from interp.views import Spectrum

TRY = (
    ("token:/^ ?(Paris|London)$/", "fires on these"),
    ("medicine and disease", "means this"),
    ('promotes:" France"', "makes the model say it"),
    ("confirmed:yes sort:effect", "best first"),
    ("The Eiffel Tower is in Paris.", "what fires on it"),
)
"""What to try, and what that looks for."""
LONG = 110
"""Characters of a name in a list."""


def figures_html(figures: "Sequence[Shown]") -> Html:
    """The SAE's figures in a row, each with its interval below it, and what it means under the pointer."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", each.name), tag("dd", each.value, tag("small", each.interval)), title=each.says)
            for each in figures
        ),
        class_="strip",
    )


def try_item_html(reads: "ItemKind") -> Html:
    """What to do on the first page of a model that reads no text."""
    link = go(f"give it a {reads.one}", url("prompt"), f"and see which features fire on it, on which {reads.place[1]}")
    return tag("div", tag("span", "Try", class_="faint"), tag("span", link), class_="try")


def try_html(texts: Sequence[str]) -> Html:
    """What to type next: `texts` are the addresses' parameters of each of TRY."""
    links = [
        tag("span", go(tag("code", line), address), tag("span", what, class_="faint"))
        for (line, what), address in zip(TRY, texts, strict=True)
    ]
    return tag("div", tag("span", "Try", class_="faint"), *links, class_="try")


def shelf_html(shelved: "Sequence[Shelved]", looks: "Sequence[Look | Unseen | None]") -> Html:
    """A card for each feature worth seeing; `looks` is what its glimpse looks like, if it is of a picture or clip."""
    return tag("div", *(_card(*each) for each in zip(shelved, looks, strict=True)), class_="cards")


def _card(each: "Shelved", look: "Look | Unseen | None") -> Html:
    address = url("neuron", neuron=each.neuron) if each.neuron else url("feature", feature=each.feature)
    kind = tag("span", each.kind, class_="kind bad" if "refuted" in each.kind else "kind")
    number = tag("span", each.neuron or each.feature, class_="number")
    return tag(
        "div",
        tag("div", kind, number, class_="top"),
        tag("div", go(_short(each.name), address, each.name), class_="name", dir="auto"),
        _glimpse(each.glimpse, look),
        tag("div", each.why, class_="note"),
        class_="card",
    )


def _glimpse(seen: "Glimpse | None", look: "Look | Unseen | None") -> Html | None:
    if seen is None:
        return None
    top = max(seen.values, default=0.0)
    if look is not None:
        return tag("div", looked_html(look, top, seen.tokens[seen.peak], player=False), class_="small")
    return tag("div", tokens_row(seen.tokens, seen.values, top, seen.peak), class_="line one", dir="auto")


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"


def hits_html(
    answer: "Answer", seen: "Sequence[Glimpse | None]", looks: "Sequence[Look | Unseen | None]", shown: int
) -> Html:
    """The first hits, each with its reason and a stretch of text, or a look at a picture or clip."""
    hits = answer.hits
    rows = [
        tag(
            "div",
            tag(
                "div",
                tag("span", hit.feature, class_="number"),
                go(_short(hit.label), url("feature", feature=hit.feature), hit.label),
                class_="name",
                dir="auto",
            ),
            _glimpse(glimpse, look),
            tag("div", "; ".join(hit.why.values()), class_="note"),
            class_="hit",
        )
        for hit, glimpse, look in zip(hits[:shown], seen, looks, strict=True)
    ]
    notes = [tag("p", note, class_="note") for note in hits.notes]
    return join(*notes, tag("div", *rows, class_="hits"))


def fires_html(spectrum: "Spectrum", firing: "Sequence[Firing]", token: int | None) -> Html:
    """A sentence's tokens (a click chooses one), and the features that are strongest there."""
    strip = [
        tag(
            "button",
            visible(text) or "▯",
            type="button",
            class_="pick" if known else "pick sink",
            data_set=f"token={at}",
            data_toggles=True,
            aria_pressed="true" if at == token else None,
            title=f"token {at}" if known else f"token {at}: a sink, where nothing is encoded",
        )
        for at, (text, known) in enumerate(zip(spectrum.tokens, spectrum.counted, strict=True))
    ]
    rows = [
        tag(
            "div",
            tag(
                "div",
                tag("span", each.feature, class_="number"),
                go(
                    _short(each.name),
                    url("feature", feature=each.feature, text="".join(spectrum.tokens[1:])),
                    each.name,
                ),
                class_="name",
                dir="auto",
            ),
            tag("div", tokens_row(each.tokens, each.values, each.top, each.peak), class_="line one", dir="auto"),
            tag("div", f"{each.value:.3g} here; at most {each.top:.3g} in the index", class_="note"),
            class_="hit",
        )
        for each in firing
    ]
    where = "on the whole text" if token is None else f"on ‘{visible(spectrum.tokens[token])}’"
    head = tag("p", f"Strongest {where}; choose a token to see what fires there.", class_="note")
    nothing = None if rows else tag("p", "Nothing is encoded here: this position is a sink.", class_="note")
    return join(tag("div", *strip, class_="tokens"), head, nothing, tag("div", *rows, class_="hits"))


def found_words(total: int) -> str:
    """`1 feature`, `2,000 features`."""
    return counted(total, "feature")
