"""Helpers of the Calibration page: cached agreement between domains, and the upload of a custom domain."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.files import writing
from pruning.formatting import plain, quoted, sentence
from pruning.models.geometry import Geometry
from pruning.runs import permissions
from pruning.runs.folder import StoredIteration
from pruning.runs.run import Run
from pruning.text.files import READ_CHARACTERS, SUPPORTED_FILES
from pruning.text.sources import EMBEDDED_DOMAINS, describe_source, load_text
from ui import state, stored

UPLOAD_BYTES = READ_CHARACTERS  # of plain text no more would be read
FILE_NAME_BYTES = 200  # of an upload that are kept, the last; file systems take 255
NAMED = "write FILE:COLUMN with one of"  # what a message asks of the command line


def agreement(it: StoredIteration, chosen: state.Choice, name: str) -> viz.Agreement:
    """Agreement between single-domain scores and masks; independent of the domain mixture, so it is cached.

    Raises:
        ConfigError: the pruning ratio cannot be reached.
    """
    domains = state.domain_names(chosen.run)
    config = chosen.config().replace(mixture=dict.fromkeys(domains, 1.0), parent=None)
    return _agreement(str(it.path), stored.stamp(it), config.model_dump_json(), name, it, config, it.geometry)


@st.cache_resource(max_entries=16, show_spinner=False)
def _agreement(
    path: str, stamp: int, key: str, name: str, _it: StoredIteration, _config: RunConfig, _geometry: Geometry
) -> viz.Agreement:
    return viz.agreement_data(_it.statistics, _it.norms, _geometry, _config, name)


def text(run: Run, name: str) -> None:
    """What a run read as the text of a domain, from its own record: no file is opened for it."""
    name_or_path = run.config.domains.get(name, "embedded")
    if name_or_path == "embedded":
        texts = load_text(name, name_or_path, "calibration").texts
        st.caption(f"{len(texts):,} documents, {sum(map(len, texts)):,} characters (embedded)")
        st.code(texts[len(texts) // 2][:900], language=None, wrap_lines=True)
        return
    try:
        source = json.loads((run.path / "sources.json").read_text(encoding="utf-8"))[name]
        line, sample = describe_source(source), str(source["sample"])
    # the record is missing, or another program wrote it
    except (AttributeError, KeyError, OSError, RecursionError, StopIteration, TypeError, ValueError):
        st.caption(f"{plain(name_or_path)}: the run has no record of what was read.")
        return
    st.caption(plain(line))
    st.code(sample, language=None, wrap_lines=True)


def upload(goes_to: str = "domains") -> None:
    """Controls that turn a file into a custom domain, with a preview of its text.

    Args:
        goes_to: key of the multiselect that the new domain is chosen in.
    """
    file = st.file_uploader(
        f"Custom domain: a file of at most {UPLOAD_BYTES // 10**6} MB",
        max_upload_size=UPLOAD_BYTES // 10**6,
        help=f"{sentence(SUPPORTED_FILES)}. Text with chats passes the chat template of the model.",
        key=f"file-{goes_to}",
    )
    left, middle, right = st.columns([3, 3, 2], vertical_alignment="bottom")
    usual = re.sub(r"\W+", "_", Path(file.name).stem)[:24] if file is not None else ""
    key = f"title-{goes_to}-{usual}"
    left.text_input(
        "Domain name", usual, max_chars=24, placeholder="letters, digits and underscores", key=key
    )
    column = middle.text_input(
        "Column",
        placeholder="of a table",
        key=f"column-{goes_to}",
        help="The column of a table that is text. It may be left empty if the columns have the usual names, such as "
        "text, content, messages, or instruction and output. Several are joined: title+body",
    )
    fits = file is not None and file.size <= UPLOAD_BYTES
    source = _read(file.name, file.file_id, file.getvalue(), column) if file is not None and fits else None
    # the key, not the name: a click may arrive together with the last letters
    right.button(
        "Add domain",
        width="stretch",
        disabled=file is not None and source is None,  # why it cannot be read stands above
        on_click=_add,
        args=(goes_to, key, source),
        key=f"add-{goes_to}",
    )
    if outcome := st.session_state.pop(f"outcome-{goes_to}", None):
        is_added, message = outcome
        (st.success if is_added else st.error)(message)
    elif file is not None and not fits:
        limit = UPLOAD_BYTES / 1e6
        st.error(
            f"The file has {file.size / 1e6:.1f} MB, the limit is {limit:.0f} MB: upload a shorter file."
        )


def _read(title: str, file_id: str, content: bytes, column: str) -> str | None:
    """Keep an upload under its own file name, read it, and say what was read or why nothing was.

    Returns:
        The source of a domain; None where nothing was read.
    """
    path = state.store().root.resolve() / "uploads" / file_id / _file_name(title)
    source = f"{path}:{column}" if column else str(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        record = load_text(path.stem, source, "calibration").source
        permissions.agree([permissions.read_permission(source)])
    except PruningError as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        message = str(error).replace(quoted(path), quoted(path.name))
        st.error(plain(sentence(message.replace(NAMED, "enter under Column one of"))))
        return None
    st.caption(plain(describe_source({**record, "path": path.name})))
    st.code(record["sample"], language=None, wrap_lines=True)
    return source


def _add(goes_to: str, key: str, source: str | None) -> None:
    """Callback: a named file becomes a domain, chosen in the form."""
    name = st.session_state[key]
    if source is None:
        outcome = False, "No file was read: choose one, then press Add domain."
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in EMBEDDED_DOMAINS:
        taken = ", ".join(EMBEDDED_DOMAINS)
        outcome = (
            False,
            f"{plain(repr(name))} is not a valid domain name: start with a letter, use only letters, digits and "
            f"underscores, and none of the names {taken}.",
        )
    else:
        st.session_state.setdefault("uploads", {})[name] = source
        chosen = st.session_state.get(goes_to, list(EMBEDDED_DOMAINS))
        st.session_state[goes_to] = list(dict.fromkeys([*chosen, name]))
        outcome = True, f"Domain {name} added. It is chosen in the form."
    st.session_state[f"outcome-{goes_to}"] = outcome


def _file_name(title: str) -> str:
    """The person's own name of a file, as far as it can be one."""
    name = (
        re.sub(r"[\0/\\]", "_", title)
        .encode("utf-8", "replace")[-FILE_NAME_BYTES:]
        .decode("utf-8", "replace")
    )
    return name if name.strip(".") else "text"
