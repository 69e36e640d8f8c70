"""Helpers of the Calibration page: cached agreement between domains, and the upload of a custom domain."""

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
    """Agreement between single-domain scores and masks; independent of the domain mixture, so it is cached.

    Raises:
        ConfigError: the pruning ratio cannot be reached.
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
    """A form that turns an uploaded file into a custom domain."""
    with st.form("upload", border=True):
        file = st.file_uploader(
            f"Custom domain: a text or JSON Lines file of at most {UPLOAD_BYTES // 10**6} MB",
            type=["txt", "jsonl"],
            max_upload_size=UPLOAD_BYTES // 10**6,
        )
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        name = left.text_input("Domain name", max_chars=24, placeholder="letters, digits and underscores")
        pressed = right.form_submit_button("Add domain", width="stretch")
    if not pressed:
        return
    if file is None:
        st.error("No file is selected: choose one, then press Add domain.")
    elif file.size > UPLOAD_BYTES:
        limit = UPLOAD_BYTES / 1e6
        st.error(
            f"The file has {file.size / 1e6:.1f} MB, the limit is {limit:.0f} MB: upload a shorter file."
        )
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in EMBEDDED_DOMAINS:
        taken = ", ".join(EMBEDDED_DOMAINS)
        st.error(
            f"{name!r} is not a valid domain name: start with a letter, use only letters, digits and underscores, "
            f"and none of the names {taken}."
        )
    else:
        folder = state.store().root / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{file.file_id}{Path(file.name).suffix}"
        path.write_bytes(file.getvalue())
        st.session_state.setdefault("uploads", {})[name] = str(path.resolve())
        chosen = st.session_state.get("domains", list(EMBEDDED_DOMAINS))
        st.session_state.domains = list(dict.fromkeys([*chosen, name]))
        st.success(f"Domain {name} added. Collect statistics below to include it in the domain mixture.")
