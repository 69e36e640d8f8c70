"""Prunescope: see which channels of a model matter, tune whose text decides, prune, read what it cost.

streamlit run app.py
"""

import streamlit as st

from ui import navigation, sidebar

page = navigation.pages()
st.logo("assets/logo.svg", size="large")
sidebar.draw(page.title)
page.run()
