"""The queue of labels as a sheet: one feature as briefly as can be judged, what follows it, and who labelled what."""

from typing import TYPE_CHECKING

from interp.commands.finding import AboutSae, name_feature
from interp.commands.inspecting import Inspected
from interp.commands.queue import waiting
from interp.render import Html
from interp.render.parts import fold, go, pill
from interp.render.tag import join, tag
from interp.ui.feature_figures import activations, promotes
from interp.ui.feature_sheet import NO_LOOKS, STATUS, Looks, against, day, examples, head
from interp.ui.shared import url

if TYPE_CHECKING:
    from interp.commands.queue import Queue

NEXT = 8


def queue_html(opened: AboutSae, queue: "Queue", of: Inspected | None, *, done: int, looks: Looks = NO_LOOKS) -> Html:
    """The feature that is to be judged, and beside it the queue; `done` is how many this session decided."""
    page = of.shown.page if of is not None else None
    left: list[Html | None] = []
    if of is not None and page is not None:
        left = [head(opened, of), against(of, None, True, looks), examples(of, None, True, looks)]
    right = [_progress(queue, done), _next(opened, queue, page.feature if page else None)]
    if page is not None:
        right += [activations(page, None), promotes(page, None)]
    right += [_authors(queue), _recent(queue)]
    return tag("div", tag("div", left), tag("div", right), class_="columns")


def _progress(queue: "Queue", done: int) -> Html:
    count = queue.waiting[queue.which]
    told = f"{count:,} {'feature' if count == 1 else 'features'} {waiting()[queue.which]}"
    more = "" if not done else f"; you decided {done:,} in this session"
    return tag("p", tag("b", told), more)


def _next(opened: AboutSae, queue: "Queue", feature: int | None) -> Html | None:
    """What comes after the one that is shown."""
    some = list(queue.features)
    start = some.index(feature) + 1 if feature in some else 0
    shown = some[start : start + NEXT]
    if not shown:
        return None
    rows = [
        tag(
            "tr",
            tag("td", go(join(tag("span", f, class_="faint"), " ", name_feature(opened.sae, f)), _address(queue, f))),
        )
        for f in shown
    ]
    return fold("Next", tag("table", rows), side=f"by {queue.order}", name="next")


def _address(queue: "Queue", feature: int) -> str:
    return url("labels", feature=feature, which=queue.which, order=queue.order)


def _authors(queue: "Queue") -> Html | None:
    """How many labels stand under whose name, and how sure they are."""
    if not queue.authors:
        return None
    statuses = sorted({status for author in queue.authors for status in author.statuses})
    top = [tag("th", "author"), *(tag("th", status, class_="n") for status in statuses)]
    rows = [
        tag(
            "tr",
            tag(
                "td",
                author.name or "no author",
                class_="w",
                title=f"last on {day(author.last)}" if author.last else None,
            ),
            *(tag("td", f"{author.statuses.get(status, 0):,}", class_="n") for status in statuses),
        )
        for author in queue.authors[:20]
    ]
    return fold("Who labelled what", tag("table", tag("tr", top), rows), name="authors")


def _recent(queue: "Queue") -> Html | None:
    if not queue.recent:
        return None
    rows = [
        tag(
            "tr",
            tag(
                "td",
                go(
                    join(tag("span", each.feature, class_="faint"), " ", each.text),
                    url("feature", feature=each.feature),
                ),
            ),
            tag("td", pill(each.status, STATUS.get(each.status, "plain"))),
            tag("td", each.author or "no author", class_="n faint"),
        )
        for each in queue.recent
    ]
    return fold("Latest", tag("table", rows), name="latest")
