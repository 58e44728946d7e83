"""Navigation: the pages, each with a URL that opens it again."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent / "pages"


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=":material/biotech:", layout="wide")
    pages = [
        st.Page(PAGES / "features.py", title="Features", icon=":material/table_rows:", default=True),
        st.Page(PAGES / "feature.py", title="Feature", icon=":material/lightbulb:"),
        st.Page(PAGES / "neuron.py", title="Neuron", icon=":material/hub:"),
        st.Page(PAGES / "prompt.py", title="Prompt", icon=":material/gradient:"),
        st.Page(PAGES / "steer.py", title="Steer", icon=":material/explore:"),
        st.Page(PAGES / "library.py", title="Library", icon=":material/menu_book:"),
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
