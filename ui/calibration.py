"""What the Calibration page needs beside figures: the domains' agreement, kept, and a domain of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.models.geometry import Geometry, Kind
from pruning.runs.iterations import StoredIteration
from pruning.text.sources import EMBEDDED_DOMAINS
from ui import state

UPLOAD_BYTES = 5_000_000


def agreement(it: StoredIteration, chosen: state.Choice, kind: Kind) -> viz.Agreement:
    """How far the domains agree; the mixture has no part in it, so that a slider need not wait for it.

    Raises:
        ConfigError: the ratio cannot be reached.
    """
    domains = state.domain_names(chosen.run)
    config = chosen.config().replace(mixture=dict.fromkeys(domains, 1.0), parent=None)
    return _agreement(str(it.path), state.stamp(it), config.model_dump_json(), kind, it, config, it.geometry)


@st.cache_resource(max_entries=16, show_spinner=False)
def _agreement(
    path: str,
    stamp: int,
    key: str,
    kind: Kind,
    _it: StoredIteration,
    _config: RunConfig,
    _geometry: Geometry,
) -> viz.Agreement:
    return viz.agreement_data(_it.statistics, _it.norms, _geometry, _config, kind)


def upload() -> None:
    """A form that makes a domain of a file."""
    with st.form("upload", border=True):
        file = st.file_uploader(
            f"Your own domain: a text or JSON Lines file of at most {UPLOAD_BYTES // 10**6} MB",
            type=["txt", "jsonl"],
            max_upload_size=UPLOAD_BYTES // 10**6,
        )
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        name = left.text_input("Name of your domain", max_chars=24, placeholder="letters and digits")
        pressed = right.form_submit_button("Add it", width="stretch")
    if not pressed:
        return
    if file is None:
        st.error("There is no file yet: choose one, then press Add it.")
    elif file.size > UPLOAD_BYTES:
        limit = UPLOAD_BYTES / 1e6
        st.error(f"The file has {file.size / 1e6:.1f} MB, the limit is {limit:.0f} MB: upload a part of it.")
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in EMBEDDED_DOMAINS:
        taken = ", ".join(EMBEDDED_DOMAINS)
        st.error(f"{name!r} cannot be a name: take letters and digits, and none of {taken}.")
    else:
        folder = state.store().root / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{file.file_id}{Path(file.name).suffix}"
        path.write_bytes(file.getvalue())
        st.session_state.setdefault("uploads", {})[name] = str(path.resolve())
        chosen = st.session_state.get("domains", list(EMBEDDED_DOMAINS))
        st.session_state.domains = list(dict.fromkeys([*chosen, name]))
        st.success(f"{name} is a domain now: take statistics below, and it gets a slider.")
