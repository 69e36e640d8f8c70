"""Streamlit's login: where it is configured, nothing is shown before it."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


def test_a_configured_login_comes_before_everything(monkeypatch):
    import streamlit as st

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(type(st.user), "is_logged_in", False, raising=False)
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run()
    assert [button.label for button in at.button] == ["Log in"] and not at.exception
    assert not at.sidebar.selectbox and not at.get("plotly_chart")
    monkeypatch.setattr(type(st.user), "is_logged_in", True)
    at.run()
    assert at.sidebar.selectbox and not any(button.label == "Log in" for button in at.button)
