import streamlit as st

from pruning.errors import PruningError
from pruning.runs.preflight import check
from ui import run_form, state, watch
from ui.consent import consent
from ui.glossary import popover

chosen = state.choice()
st.title("Prune")

left, right = st.columns(2, gap="medium")
with left:
    st.subheader("New run")
    try:
        config = run_form.config(chosen)
        check(config)
        run_form.summary(config)
        enough = run_form.needs_words(config) and consent(config)
        if st.button("Start", type="primary", icon=":material/content_cut:", disabled=not enough):
            state.begin(config)
    except PruningError as error:
        state.explain(error)
    popover("iteration", "compensation", "zero-shot accuracy", "perplexity")

with right:
    runs = {run.id: run for run in state.store().all()}
    if not runs:
        st.info("No run has been started here yet. Press Start: its progress and perplexity appear here.")
        st.stop()
    active = [name for name, run in runs.items() if run.active]
    watched = st.session_state.get("watched")
    if watched not in runs:  # never chosen, or deleted since
        watched = (active or list(runs))[0]
    watched = st.selectbox(
        "Run to monitor",
        list(runs),
        list(runs).index(watched),
        format_func=lambda name: state.label(runs[name]),
    )
    st.session_state.watched = watched
    watch.show(runs[watched])
