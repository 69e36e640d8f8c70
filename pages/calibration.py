import streamlit as st

from pruning import visualization as viz
from pruning.errors import PruningError
from pruning.formatting import plain
from pruning.models.folder import describe
from pruning.text.sources import EMBEDDED_DOMAINS
from ui import calibration, models, run_form, state, stored, view_state
from ui.glossary import popover

chosen = state.choice()
run = chosen.run
st.title("Calibration")
st.caption(
    "Statistics of every channel are stored by domain and fused with the weights of the domain mixture. A change of the "
    "weights needs no forward pass."
)

shown = stored.statistics_iteration(chosen)
if shown is not None:
    st.plotly_chart(viz.mixture_figure(chosen.mixture), alt="Normalised mixture weights", config=state.PLOT)
    st.subheader("Agreement between domains")
    if len(state.domain_names(run)) > 1:
        name = view_state.module(shown.geometry, key="agree")
        try:
            agreement = calibration.agreement(stored.iteration(run, 1), chosen, name)
            left, right = st.columns([2, 3])
            left.plotly_chart(
                viz.agreement_figure(agreement),
                alt="Rank correlation of channel scores between domains",
                config=state.PLOT,
            )
            right.plotly_chart(
                viz.overlap_figure(agreement),
                alt="Overlap of single-domain masks by layer",
                config=state.PLOT,
            )
        except PruningError as error:
            state.explain(error)
    else:
        st.info("This run has one domain. Collect statistics of several domains below to compare them.")

st.subheader("Calibration text")
names = state.domain_names(run)
for name, tab in zip(names, st.tabs([plain(name) for name in names]), strict=True):
    with tab:
        calibration.text(run, name)

st.subheader("New calibration statistics")
left, right = st.columns(2)
model = st.session_state.get("model") or run.config.model
summary = None
try:
    summary = describe(model)
    sizes = ", ".join(
        f"{s.entries:,} query and {s.groups:,} key-value heads" if s.has_heads else f"MLP width {s.entries:,}"
        for s in summary.geometry.layers[0].values()
    )
    left.markdown(
        f"Model **{plain(model)}**, chosen in the sidebar: {summary.model_type}, {len(summary.geometry.layers)} layers, hidden size {summary.geometry.hidden_size:,}, "
        f"{sizes}, context length {summary.context:,}, "
        f"{summary.parameters / 1e6:,.1f} M parameters, {summary.dtype}"
    )
except PruningError as error:
    left.warning(plain(error))
samples = right.number_input("Calibration blocks per domain", 1, 4096, 32)
seq_len = right.number_input("Tokens per block", 16, 8192, 256)

calibration.upload()
own: dict[str, str] = st.session_state.get("uploads", {})
st.session_state.setdefault("domains", list(EMBEDDED_DOMAINS))
domains = st.multiselect("Domains", [*EMBEDDED_DOMAINS, *own], key="domains", persist_state="session")
try:
    sources = {name: own[name] for name in domains if name in own}
    mixture = dict.fromkeys(domains, 1.0)
    config = models.statistics_config(
        model, samples=samples, seq_len=seq_len, mixture=mixture, domains=sources
    )
    if time := run_form.estimate(config):
        st.caption(f"Estimated run time on this machine: **{time}**.")
    if st.button("Collect statistics", type="primary", disabled=summary is None):
        state.begin(config)
except PruningError as error:
    state.explain(error)
popover("calibration", "domain", "domain mixture", "variance")
