"""The pages' tests look at the small demo run; one test looks at what the app opens on."""

import pytest

from ui import state


@pytest.fixture(autouse=True)
def demo_run_first(request, monkeypatch, folders, tmp_path_factory):
    if "opens_on" in request.node.name or "no_torch" in request.node.name:
        # the header of a GGUF file takes seconds to read, once
        monkeypatch.setenv("PRUNESCOPE_CACHE", str(tmp_path_factory.getbasetemp().parent / "smollm2"))
    else:
        first = {state.DEMO_RUN: state.SHIPPED[state.DEMO_RUN]}
        monkeypatch.setattr(state, "SHIPPED", first | state.SHIPPED)
