"""Prunescope: see which channels of a model matter, tune whose text decides, prune, read what it cost.

streamlit run app.py
"""

import streamlit as st

from ui import state

st.set_page_config(page_title="Prunescope", page_icon="assets/icon.png", layout="wide")
st.logo("assets/logo.svg", size="large")

page = st.navigation(
    {
        "Start": [st.Page("pages/overview.py", title="Overview", icon=":material/home:", default=True)],
        "Understand": [
            st.Page("pages/calibration.py", title="Calibration", icon=":material/library_books:"),
            st.Page("pages/importance.py", title="Importance", icon=":material/grid_on:"),
            st.Page("pages/masks.py", title="Masks", icon=":material/filter_alt:"),
        ],
        "Run": [
            st.Page("pages/prune.py", title="Prune", icon=":material/content_cut:"),
            st.Page("pages/results.py", title="Results", icon=":material/bar_chart:"),
        ],
    }
)
state.sidebar()
page.run()
