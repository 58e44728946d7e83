"""A folder of feature pages that opens from the disk: no server, no script, no request to anywhere.

`index.html` and its followers list the features, 500 each; `feature-N.html` is a page. Every string goes through
`interp.render`, and a content policy in each page forbids whatever is not its own style.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.exports.contents import Contents
from interp.index import Example
from interp.index.levels import clean_level
from interp.render import Html, bars_svg, line_html, link_html, page_html, table_html, text_html, title_html, visible
from interp.render.look import Look, Unseen, looked_html

LISTED = 500
BANDS = ("Strongest", "First fifth of documents", "Second", "Third", "Fourth", "Last fifth")


def write(contents: Contents, features: list[int], folder: Path) -> list[str]:
    """A page a feature and lists of them, which need no server; what they do not hold comes back."""
    there = set(features)
    for feature in features:
        body = "".join(_page(contents, feature, there))
        title = f"{feature}: {contents.name(feature)[0]}"
        (folder / _file(feature)).write_text(page_html(title, Html(body)), encoding="utf-8")
    _write_lists(contents, features, folder)
    return ["search, steering and texts of one's own, which need the dashboard"]


def _file(feature: int) -> str:
    return f"feature-{feature}.html"


def _list_file(number: int) -> str:
    return "index.html" if number == 0 else f"index-{number}.html"


def _write_lists(contents: Contents, features: list[int], folder: Path) -> None:
    parts = [features[start : start + LISTED] for start in range(0, len(features), LISTED)] or [[]]
    links = [link_html(_list_file(i), f"{p[0]}–{p[-1]}" if p else "none") for i, p in enumerate(parts)]
    about = table_html(["", ""], _about(contents))
    for number, part in enumerate(parts):
        rows = []
        for feature in part:
            name, automatic = contents.name(feature)
            row = contents.index.features.loc[feature]
            said = f"{name} (automatic, untested)" if automatic else name
            rows.append([link_html(_file(feature), str(feature)), said, float(row["density"]), float(row["max"])])
        listed = table_html(["feature", "label", "density", "max"], rows)
        body = title_html(contents.card.name) + about + " ".join(links) + listed
        (folder / _list_file(number)).write_text(page_html(contents.card.name, Html(body)), encoding="utf-8")


def _about(contents: Contents) -> list[tuple[str, object]]:
    card = contents.card
    licences = [(f"licence, {what}", text) for what, text in card.licences.items()]
    return [
        ("model", f"{card.model}, weights {card.model_sha256[:12]}…"),
        ("hook point", card.hook_name),
        ("features", contents.index.d_sae),
        ("weights", card.sae_sha256),
        ("text", f"{int(contents.index.meta['kept_positions']):,} counted positions"),
        *licences,
    ]


def _page(contents: Contents, feature: int, there: set[int]) -> Iterator[str]:
    row, label = contents.index.row(feature), contents.labels.get(feature)
    name, automatic = contents.name(feature)
    yield link_html("index.html", contents.card.name)
    yield title_html(f"Feature {feature}: {name}" + (" (automatic, untested)" if automatic else ""))
    if label:
        yield table_html(["status", "author", "note"], [[label.status, label.author, label.note]])
    yield table_html(["density", "fires", "documents", "mean", "max"], [_facts(row)])
    counts = [int(count) for count in row["histogram"]]
    clean = clean_level(contents.index, feature)
    title = f"{sum(counts):,} activations from 0 to {float(row['max']):.3g}, in equal bins"
    yield bars_svg(
        counts,
        title + (f"; {clean.sentence()}" if clean else ""),
        mark=clean.level / float(row["max"]) if clean and clean.share < 1 else None,
    )
    promoted, suppressed = (contents.effects(row, column) for column in ("promoted", "suppressed"))
    effects = [(visible(a), x, visible(b), y) for (a, x), (b, y) in zip(promoted, suppressed, strict=True)]
    yield table_html(["promotes", "logit", "suppresses", "logit"], effects)
    yield table_html(["nearest by decoder", "cosine", ""], _neighbours(contents, row, there))
    tokens = zip(contents.index.text(row["top_tokens"][:10]), row["top_token_counts"][:10], strict=True)
    yield table_html(["fires on", "times"], [(visible(token), int(count)) for token, count in tokens])
    some = contents.index.examples(feature)
    yield from _examples(some, float(row["max"]), contents.looks(feature, some))


def _facts(row: dict[str, Any]) -> list[object]:
    counts = [f"{int(row['fires']):,}", f"{int(row['documents']):,}"]
    return [f"{float(row['density']):.3g}", *counts, float(row["mean"]), float(row["max"])]


def _neighbours(contents: Contents, row: dict[str, Any], there: set[int]) -> list[list[object]]:
    rows: list[list[object]] = []
    for other, cosine in zip(row["nearest"][:8], row["nearest_cosine"][:8], strict=True):
        number = int(other)
        shown = link_html(_file(number), str(number)) if number in there else str(number)
        rows.append([shown, float(cosine), contents.name(number)[0]])
    return rows


def _examples(examples: list[Example], largest: float, looks: Mapping[int, Look | Unseen]) -> Iterator[str]:
    for band in sorted({example.band for example in examples}):
        group = [example for example in examples if example.band == band]
        yield title_html(BANDS[band] if band < len(BANDS) else f"Band {band}")
        lines = [_shown(e, largest, looks.get(e.position)) for e in group]
        rows = [(e.value, line, f"{e.source}: {e.title}", e.trained_on) for e, line in zip(group, lines, strict=True)]
        yield table_html(["max", "text", "document", "trained on"], rows)
    yield from (title_html(said) for said in dict.fromkeys(e.unread for e in examples) if said)


def _shown(example: Example, largest: float, look: Look | Unseen | None) -> Html:
    """An example as a line of text, a crop or a waveform."""
    if look is None:
        return line_html(example.tokens, example.values, largest, peak=example.peak)
    place = example.tokens[example.peak]
    return Html(f"{looked_html(look, largest, f'{example.title}, {place}')}{text_html(place)}")
