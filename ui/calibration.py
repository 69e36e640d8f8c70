"""Helpers of the Calibration page: cached agreement between domains, and the upload of a custom domain."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.models.geometry import Geometry, Kind
from pruning.runs.iterations import StoredIteration
from pruning.text.sources import EMBEDDED_DOMAINS, load_text
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


def upload(goes_to: str = "domains") -> None:
    """Controls that turn a file into a custom domain; what it holds is said at once.

    Args:
        goes_to: key of the multiselect that the new domain is chosen in.
    """
    file = st.file_uploader(
        f"Custom domain: a text or JSON Lines file of at most {UPLOAD_BYTES // 10**6} MB",
        type=["txt", "jsonl"],
        max_upload_size=UPLOAD_BYTES // 10**6,
        key=f"file-{goes_to}",
    )
    path = None
    if file is not None and file.size <= UPLOAD_BYTES:
        folder = state.store().root / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{file.file_id}{Path(file.name).suffix}"
        path.write_bytes(file.getvalue())
        try:
            texts = load_text(Path(file.name).stem, str(path), "calibration").texts
            st.caption(
                f"{len(texts):,} documents, {sum(map(len, texts)):,} characters for calibration. It begins:"
            )
            st.code(texts[0][:160], language=None, wrap_lines=True)
        except PruningError as error:
            state.explain(error)
            return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    usual = re.sub(r"\W+", "_", Path(file.name).stem)[:24] if file is not None else ""
    key = f"title-{goes_to}-{usual}"
    left.text_input(
        "Domain name", usual, max_chars=24, placeholder="letters, digits and underscores", key=key
    )
    # the key, not the name: a click may arrive together with the last letters
    right.button(
        "Add domain", width="stretch", on_click=_add, args=(goes_to, key, path), key=f"add-{goes_to}"
    )
    if said := st.session_state.pop(f"said-{goes_to}", None):
        good, words = said
        (st.success if good else st.error)(words)
    elif file is not None and file.size > UPLOAD_BYTES:
        limit = UPLOAD_BYTES / 1e6
        st.error(
            f"The file has {file.size / 1e6:.1f} MB, the limit is {limit:.0f} MB: upload a shorter file."
        )


def _add(goes_to: str, key: str, path: Path | None) -> None:
    """Callback: a named file becomes a domain, chosen in the form."""
    name = st.session_state[key]
    if path is None:
        said = False, "No file is selected: choose one, then press Add domain."
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in EMBEDDED_DOMAINS:
        taken = ", ".join(EMBEDDED_DOMAINS)
        said = (
            False,
            f"{name!r} is not a valid domain name: start with a letter, use only letters, digits and underscores, "
            f"and none of the names {taken}.",
        )
    else:
        st.session_state.setdefault("uploads", {})[name] = str(path.resolve())
        chosen = st.session_state.get(goes_to, list(EMBEDDED_DOMAINS))
        st.session_state[goes_to] = list(dict.fromkeys([*chosen, name]))
        said = True, f"Domain {name} added. It is chosen in the form."
    st.session_state[f"said-{goes_to}"] = said
