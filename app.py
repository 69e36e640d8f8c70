"""Prunescope: see which channels of a model matter, tune the domain mixture, prune, read what it cost.

streamlit run app.py
"""

from ui import frame

frame.draw().run()
