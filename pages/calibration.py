import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.errors import PruningError
from pruning.models.folder import describe
from pruning.models.geometry import Kind
from pruning.text.sources import EMBEDDED_DOMAINS, load_text
from ui import calibration, state
from ui.glossary import popover

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
        kind: Kind = st.segmented_control(
            "Site", ("mlp", "attn"), default="mlp", required=True, key="agree", bind="query-params"
        )
        try:
            agreement = calibration.agreement(state.iteration(run, 1), chosen, kind)
            left, right = st.columns([2, 3])
            left.plotly_chart(
                viz.agreement_figure(agreement), alt="Rank correlation of domains", config=state.PLOT
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
models = dict.fromkeys(["demo", *(other.config.model for other in state.all_runs())])
model = left.selectbox(
    "Model",
    list(models),
    key="model",
    accept_new_options=True,
    persist_state="session",
    help="demo, a folder on this machine, or a hub id such as Qwen/Qwen2.5-0.5B",
)
summary = None
try:
    summary = describe(model or "demo")
    shape = summary.geometry.layers[0]
    left.markdown(
        f"**{summary.model_type}**, {len(summary.geometry.layers)} layers, width {summary.geometry.hidden_size:,}, "
        f"{shape.heads} query and {shape.kv_heads} key-value heads, MLP {shape.channels:,}, context {summary.context:,}, "
        f"{summary.parameters / 1e6:,.1f} M parameters in {summary.dtype}"
    )
except PruningError as error:
    left.warning(str(error))
samples = right.number_input("Blocks of each domain", 1, 4096, 32)
seq_len = right.number_input("Tokens of a block", 16, 8192, 256)

calibration.upload()
own: dict[str, str] = st.session_state.get("uploads", {})
st.session_state.setdefault("domains", list(EMBEDDED_DOMAINS))
domains = st.multiselect("Domains", [*EMBEDDED_DOMAINS, *own], key="domains", persist_state="session")
if st.button("Take statistics", type="primary", disabled=summary is None):
    try:
        config = RunConfig.create(
            model=model or "demo",
            ratio=0,
            iterations=1,
            samples=samples,
            seq_len=seq_len,
            mixture=dict.fromkeys(domains, 1.0),
            domains={name: own[name] for name in domains if name in own},
            save_model=False,
        )
        state.begin(config)
    except PruningError as error:
        state.explain(error)
popover("calibration", "domain", "mixture weights", "variance")
