"""A part of a page that is one piece of HTML (`render/parts.py`), drawn at once and alive: pointer, folds, links, copies.

What happens in it comes back as triggers: a link that was followed, a state that was set (which goes into the URL), a figure that is
to be measured again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import streamlit as st

from interp.render import Html
from interp.ui.shared import PAGES, remember

HERE = Path(__file__).parent
_sheet = st.components.v2.component(
    "interp.sheet",
    html="<div class='sheet'></div>",
    css=(HERE / "sheet.css").read_text(encoding="utf-8"),
    js=(HERE / "sheet.js").read_text(encoding="utf-8"),
)


def sheet(body: Html, *, key: str, about: str = "", state: Mapping[str, str] | None = None) -> str:
    """Draw it; the figure that is to be measured again comes back, empty where none is.

    `about` names what is shown: where it changes, the page is shown from its top. `state` is what the URL says of how it is shown.
    """
    assert isinstance(body, Html)  # what is not made by `render` is not shown
    data = {"html": str(body), "about": about, "state": dict(state or {})}
    result = _sheet(key=key, data=data, on_go_change=_heard, on_set_change=_heard, on_again_change=_heard)
    if result.set:
        remember(**{str(name): str(value) for name, value in result.set.items() if name in (state or {})})
    if result.go:
        follow(str(result.go))
    return str(result.again or "")


def shown_as(allowed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """How a sheet is shown, as the URL says; the first of the allowed values where it says nothing, or nothing known."""
    given = {name: st.query_params.get(name, values[0]) for name, values in allowed.items()}
    return {name: value if value in allowed[name] else allowed[name][0] for name, value in given.items()}


def _heard() -> None:
    """A trigger without a callback is not sent."""


def follow(address: str) -> None:
    """Go to a page of the dashboard by the address that `shared.url` gave; nothing happens for any other one."""
    parts = urlsplit(address)
    name = parts.path.strip("/") or "start"
    if not parts.netloc and name in {page.stem for page in PAGES.glob("*.py")}:
        st.switch_page(PAGES / f"{name}.py", query_params=dict(parse_qsl(parts.query)))
