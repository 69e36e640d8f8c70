"""The pages' tests look at the small demo run; one test looks at what the app opens on."""

import pytest

from ui import state


@pytest.fixture(autouse=True)
def demo_run_first(request, monkeypatch):
    if "opens_on" not in request.node.name:
        first = {state.DEMO_RUN: state.SHIPPED[state.DEMO_RUN]}
        monkeypatch.setattr(state, "SHIPPED", first | state.SHIPPED)
