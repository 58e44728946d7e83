"""The script that `interp dashboard` runs.

In a folder of its own: beside a folder named `pages`, Streamlit would serve those files by themselves, without the
navigation, to whoever opens a page's URL first.
"""

from interp.ui.main import main

main()
