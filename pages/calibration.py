import re
from pathlib import Path

import streamlit as st

from pruning import visualization as viz
from pruning.config import EMBEDDED_DOMAINS, PruningError, RunConfig
from pruning.domains import load_text
from pruning.models import describe
from pruning.worker import check
from ui import state
from ui.glossary import popover

UPLOAD_BYTES = 5_000_000
chosen = state.choice()
run = chosen.run
st.title("Which text decides?")
st.caption(
    "Weights change the fused mean and variance of every channel. No forward pass is needed: statistics are kept by domain."
)

shown = state.statistics_iteration(chosen)
if shown is not None:
    st.plotly_chart(viz.mixture_figure(chosen.mixture), alt="Normalised mixture weights", config=state.PLOT)
    st.subheader("Do the domains agree?")
    if len(state.domain_names(run)) > 1:
        kind = st.segmented_control(
            "Site", ["mlp", "attn"], default="mlp", required=True, key="agree", bind="query-params"
        )
        first = state.iteration(run, 1)
        try:
            agreement = viz.agreement_data(first.statistics, first.norms, run.geometry, chosen.config(), kind)
            left, right = st.columns([2, 3])
            left.plotly_chart(
                viz.agreement_figure(agreement),
                alt="Rank correlation of domains",
                config=state.PLOT,
            )
            right.plotly_chart(
                viz.overlap_figure(agreement), alt="Overlap of masks by layer", config=state.PLOT
            )
        except PruningError as error:
            state.explain(error)
    else:
        st.info("This run has one domain. Take statistics of more below to compare them.")

st.subheader("Read what is read")
names = state.domain_names(run)
for name, tab in zip(names, st.tabs(names), strict=True):
    source = run.config.domains.get(name, "embedded")
    if source.startswith("hub:"):
        tab.caption(f"{source}: the run's log names the revision.")
        continue
    try:
        texts = load_text(name, source, "calibration").texts
        tab.caption(f"{len(texts):,} documents, {sum(map(len, texts)):,} characters ({source})")
        tab.code(texts[len(texts) // 2][:900], language=None, wrap_lines=True)
    except PruningError as error:
        tab.warning(str(error))

st.subheader("Take statistics of a model")
left, right = st.columns(2)
model = left.text_input(
    "Model", "demo", help="demo, a folder on this machine, or a hub id such as Qwen/Qwen2.5-0.5B"
)
try:
    summary = describe(model)
    shape = summary.geometry.layers[0]
    left.markdown(
        f"**{summary.model_type}**, {len(summary.geometry.layers)} layers, width {summary.geometry.hidden_size:,}, "
        f"{shape.heads} query and {shape.kv_heads} key-value heads, MLP {shape.channels:,}, context {summary.context:,}, "
        f"{summary.parameters / 1e6:,.1f} M parameters in {summary.dtype}"
    )
except PruningError as error:
    left.warning(str(error))
    summary = None
samples = right.number_input("Blocks of each domain", 1, 4096, 32)
seq_len = right.number_input("Tokens of a block", 16, 8192, 256)

own: dict[str, str] = st.session_state.setdefault("uploads", {})
upload = st.file_uploader(
    f"Your own domain: a text or JSON Lines file of at most {UPLOAD_BYTES // 10**6} MB",
    type=["txt", "jsonl"],
    max_upload_size=UPLOAD_BYTES // 10**6,
)
title = st.text_input("Name of your domain", max_chars=24, placeholder="letters and digits")
if upload is not None and title:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", title) or title in EMBEDDED_DOMAINS:
        st.error(
            f"{title!r} cannot be a name: take letters and digits, and none of {', '.join(EMBEDDED_DOMAINS)}."
        )
    elif upload.size > UPLOAD_BYTES:
        st.error(
            f"The file has {upload.size / 1e6:.1f} MB, the limit is {UPLOAD_BYTES / 1e6:.0f} MB: upload a part of it."
        )
    else:
        folder = state.store().root / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{upload.file_id}{Path(upload.name).suffix}"
        path.write_bytes(upload.getvalue())
        own[title] = str(path.resolve())
domains = st.multiselect("Domains", [*EMBEDDED_DOMAINS, *own], default=[*EMBEDDED_DOMAINS, *own])
if st.button("Take statistics", type="primary", disabled=summary is None):
    try:
        config = RunConfig.create(
            model=model,
            ratio=0,
            iterations=1,
            samples=samples,
            seq_len=seq_len,
            mixture=dict.fromkeys(domains, 1.0),
            domains={name: own[name] for name in domains if name in own},
            save_model=False,
        )
        check(config)
        new = state.store().create(config)
        new.launch()
        st.session_state.watched = new.id
        st.switch_page("pages/prune.py")
    except PruningError as error:
        state.explain(error)
popover("calibration", "domain", "mixture weights", "variance")
