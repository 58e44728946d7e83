"""Navigation: the pages, each with a URL that opens it again."""

from pathlib import Path

import streamlit as st

from interp.ui import door, garbage, keys, warming
from interp.ui.shared import ICON, PAGES, chosen, switcher

NAMED = {
    "start": "Start",
    "features": "Features",
    "feature": "Feature",
    "labels": "Labels",
    "compare": "Compare",
    "neuron": "Neuron",
    "prompt": "Prompt",
    "steer": "Steer",
    "circuits": "Circuits",
    "train": "Train",
    "evaluate": "Evaluate",
    "library": "Library",
    "jobs": "Jobs",
}
"""The pages in the order of the bar: the file in `pages/`, and what it is called."""
FIRST = "start"


def main() -> None:
    """Draw the page that the URL names, under the bar that leads to all of them."""
    pages = {name: st.Page(PAGES / f"{name}.py", title=title, default=name == FIRST) for name, title in NAMED.items()}
    here = st.navigation(list(pages.values()), position="hidden")
    st.set_page_config(page_title=f"{here.title} · interp", page_icon=ICON, layout="wide")
    st.html(Path(__file__).parent / "style.css")
    if door.shut():
        return
    bar(pages)
    try:
        here.run()
    finally:
        garbage.keep()
        warming.drawn.set()


def bar(pages: dict[str, "st.Page"]) -> None:
    """One line: links of our own, for Streamlit's menu forgets which SAE is open; which SAE that is; the keys."""
    sae = {"sae": chosen()}
    with st.container(horizontal=True, key="bar"):
        with st.container(key="brand", width="content"):
            st.page_link(pages[FIRST], label="interp", query_params=sae)
        for name, each in pages.items():
            with st.container(key=f"nav-{name}", width="content"):
                st.page_link(each, query_params=sae)
        switcher(pages[FIRST])
        keys.listen()


if __name__ == "__main__":
    main()
