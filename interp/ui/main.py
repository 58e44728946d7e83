"""Navigation: the pages, each with a URL that opens it again."""

import streamlit as st

from interp.ui.shared import ICON, PAGES, chosen


def main() -> None:
    st.set_page_config(page_title="interp", page_icon=ICON, layout="wide")
    pages = [
        st.Page(PAGES / "features.py", title="Features", icon=":material/table_rows:", default=True),
        st.Page(PAGES / "feature.py", title="Feature", icon=":material/lightbulb:"),
        st.Page(PAGES / "neuron.py", title="Neuron", icon=":material/hub:"),
        st.Page(PAGES / "prompt.py", title="Prompt", icon=":material/gradient:"),
        st.Page(PAGES / "steer.py", title="Steer", icon=":material/explore:"),
        st.Page(PAGES / "library.py", title="Library", icon=":material/menu_book:"),
    ]
    here = st.navigation(pages, position="hidden")
    with st.container(horizontal=True):  # links of our own, for Streamlit's menu forgets which SAE is open
        for each in pages:
            st.page_link(each, query_params={"sae": chosen()})
    here.run()


if __name__ == "__main__":
    main()
