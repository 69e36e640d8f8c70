"""Prunescope: see which channels of a model matter, tune the domain mixture, prune, read what it cost.

streamlit run app.py
"""

import streamlit as st

from pruning.paths import ASSETS
from ui import navigation, sidebar

page = navigation.pages()
st.logo(str(ASSETS / "logo.svg"), size="large")
sidebar.draw(page.title)
page.run()
