"""What a checkpoint says of itself, as pages show it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.commands.options import Sae
from interp.render import Html
from interp.render.sheet import element, folded_html, join_html, rows_html
from interp.render.words import counted, size
from interp.types import InterpError

FIGURES = ("l0", "fvu", "delta_ce", "kl", "dead")
"""Of a card's metrics, those that are shown; the rest are in card.json."""
UNITS = {"delta_ce": "nats a token", "kl": "nats a token", "l0": "features a token", "dead": "features"}


def card_html(sae: Sae) -> Html:
    """Model, hook point, recipe, text, measures with their intervals, licences, files with their hashes.

    Raises InterpError when there is no such checkpoint, or its card is broken.
    """
    from interp.checkpoint import Card
    from interp.checkpoint.files import present, resolve

    folder = resolve(sae)
    files, other = present(folder)
    total = sum(path.stat().st_size for path in files.values())
    parts = []
    if "card.json" in files:
        card = Card.read(folder)
        parts += [rows_html(["", ""], _facts(card), ["name", ""]), *_measured(card.metrics)]
        parts.append(folded_html("Recipe", rows_html(["", ""], _flat(card.recipe), ["name", ""])))
        parts.append(folded_html("Licences", rows_html(["", ""], list(card.licences.items()), ["name", ""])))
    else:
        parts.append(element("p", "It has no card.json, so nothing is known of how it was made.", kind="first"))
    hashes = card.files if "card.json" in files else {}
    rows = [[name, size(path.stat().st_size), element("code", hashes.get(name, ""))] for name, path in files.items()]
    words = f"{counted(len(files), 'file')}, {size(total)}"
    parts.append(folded_html(words, rows_html(["", "size", "SHA-256 that the card names"], rows, ["", "num", ""])))
    if other:
        parts.append(element("p", f"Not of a checkpoint: {', '.join(other[:20])}", kind="soft small"))
    return join_html(parts)


def _facts(card: Any) -> list[list[object]]:
    text = str(card.corpus.get("name", "")) or "not said"
    rows: list[list[object]] = [
        ["model", join_html([element("span", card.model), element("code", f"  weights {card.model_sha256[:16]}…")])],
        ["hook point", card.hook_name + (f" → {card.hook_name_out}" if card.hook_name_out else "")],
        ["kind", card.architecture],
        ["weights", element("code", card.sae_sha256 or "not said")],
        ["text", text if len(text) < 400 else f"{text[:400]}…"],
        ["harvested in", f"{card.dtype}, attention {card.attention}, blocks of {card.context} positions"],
        ["made with", ", ".join(f"{name} {version}" for name, version in card.versions.items()) or "not said"],
    ]
    return rows


def _measured(metrics: Mapping[str, Any]) -> Iterator[Html]:
    """A table of the card's measures, a column a text."""
    sets = {name: value for name, value in metrics.items() if isinstance(value, dict) and name != "report"}
    if not sets and any(isinstance(value, int | float) for value in metrics.values()):
        sets = {"as its maker measured": dict(metrics)}
    sets = {name: value for name, value in sets.items() if any(key in value for key in FIGURES)}
    if not sets:
        return
    rows = []
    for key in FIGURES:
        cells = [_figure(value.get(key), value.get(f"{key}_interval")) for value in sets.values()]
        if any(cells):
            rows.append([f"{key}{f' ({UNITS[key]})' if key in UNITS else ''}", *cells])
    yield element("h2", "What its maker measured")
    yield rows_html(["", *sets], rows, ["name", *["num"] * len(sets)])


def _figure(value: Any, interval: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    ends = f" ({interval[0]:.4g} to {interval[1]:.4g})" if isinstance(interval, list) and len(interval) == 2 else ""
    return f"{value:,}{ends}" if isinstance(value, int) else f"{value:.4g}{ends}"


def _flat(recipe: Mapping[str, Any], before: str = "") -> list[list[object]]:
    rows: list[list[object]] = []
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{key}.")
        else:
            rows.append([f"{before}{key}", str(value)[:300]])
    return rows


def archive_of(folder: str) -> tuple[Path, bytes]:
    """The path and the bytes of a packed checkpoint, to be handed to a browser.

    Raises InterpError when it is gone, or larger than what a server's memory is asked to hold.
    """
    from interp.commands.sharing import LARGEST_UPLOAD

    path = Path(folder)
    try:
        if path.stat().st_size > LARGEST_UPLOAD:
            raise InterpError(f"{path.name} is too large to be handed to a browser; take it from {path}.")
        return path, path.read_bytes()
    except OSError as error:
        raise InterpError(f"{path} cannot be read: {error.strerror or error}.") from None
