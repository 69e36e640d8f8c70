"""Agreement to what a run would read and run that was not made here."""

from __future__ import annotations

import streamlit as st

from pruning.config import RunConfig
from pruning.formatting import plain
from pruning.runs import permissions


def consent(config: RunConfig) -> bool:
    """Whether the user agrees to what a config would read and run; what that is is listed until they do."""
    pending = permissions.pending(config)
    if not pending:
        return True
    lines = [
        f"- {plain(ask)}" + (f" ({plain(permissions.code_files(ask))})" if ask.action == "run" else "")
        for ask in pending
    ]
    st.warning("\n".join(["These settings were not made here, or name code. The run would:\n", *lines]))
    if not st.checkbox("I have looked at this and agree", key=f"agree-{hash(tuple(pending))}"):
        return False
    permissions.agree(pending)
    return True
