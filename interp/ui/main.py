"""Navigation: four pages, each with a URL that opens it again."""

from pathlib import Path

import streamlit as st

PAGES = Path(__file__).parent / "pages"


def main() -> None:
    st.set_page_config(page_title="interp", page_icon="🔬", layout="wide")
    pages = [
        st.Page(PAGES / "features.py", title="Features", icon="🔎", default=True),
        st.Page(PAGES / "feature.py", title="Feature", icon="💡"),
        st.Page(PAGES / "prompt.py", title="Prompt", icon="🌈"),
        st.Page(PAGES / "steer.py", title="Steer", icon="🧭"),
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
