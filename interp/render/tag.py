"""HTML elements put together so that nothing can be written but what was meant: every string is escaped, wherever it stands."""

import html
import re

from interp.render.html import Html

VOID = frozenset({"br", "hr", "img", "input"})
"""Elements without an end. Shapes of SVG have one: left open, each would hold all that follow, and none of those is drawn."""
NAME = re.compile(r"[a-z][a-zA-Z0-9-]*")
"""Of elements and attributes; SVG has capitals in some."""


def tag(name: str, *inside: object, **attributes: object) -> Html:
    """An element around what stands inside it: `Html` as it is, lists of it in a row, anything else as escaped text.

    Attributes are written with `_` for `-`, and one at the end of a word of Python's (`class_`); None and False leave one out, True has
    it without a value.
    """
    assert NAME.fullmatch(name), name
    written = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(*inside)}</{name}>")


def join(*inside: object) -> Html:
    """Several pieces in a row; None is nothing."""
    return Html("".join(_piece(each) for each in inside))


def _piece(each: object) -> str:
    if each is None:
        return ""
    if isinstance(each, Html):
        return str(each)
    if isinstance(each, (list, tuple)):
        return str(join(*each))
    return html.escape(str(each))


def _attribute(name: str, value: object) -> str:
    assert NAME.fullmatch(name), name
    assert not name.lower().startswith("on"), name  # no attribute of ours runs anything
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
