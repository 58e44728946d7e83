"""The dashboard: `streamlit run app.py [-- SAE]`."""

from interp.ui.main import main

main()
