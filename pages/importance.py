import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.sites import Site
from ui import channels, state
from ui.glossary import popover

chosen = state.choice()
run, config = chosen.run, chosen.run.config
st.title("Which channels matter?")
shown = state.statistics_iteration(chosen)
if shown is None:
    st.info("This run has no statistics yet. They appear here as soon as its first iteration is done.")
    st.stop()

last = max(it.number for it in run.iterations())
top = st.columns([2, 2, 2, 2, 2])
quantity = top[0].selectbox("Quantity", list(channels.QUANTITIES), key="quantity", bind="query-params")
scale = top[1].selectbox("Scale", ["log", "standardised", "linear"], key="scale", bind="query-params")
order = top[2].selectbox("Channels", ["by position", "largest first"], key="order", bind="query-params")
compare = top[3].selectbox(
    "Compare with",
    ["nothing", "first iteration", *(f"{name} alone" for name in state.domain_names(run)), "equal weights"],
    key="against",
    bind="query-params",
)
aggregate = top[4].selectbox("A column shows the", ["max", "mean"], key="aggregate", bind="query-params")
if last > 1:
    st.slider("Iteration", 1, last, 1, key="iteration", bind="query-params", persist_state="session")
    shown = state.statistics_iteration(state.choice())

values = channels.values(shown, quantity, config, chosen.mixture)
against = channels.compared(run, shown, compare, quantity, config, chosen.mixture)
st.caption(
    f"{quantity[:1].upper() + quantity[1:]} before the cut of iteration {shown.number}; what is already gone is blank. "
    "Colours run from the 1st to the 99th percentile and stay the same over the iterations."
)
for kind, column in zip(("attn", "mlp"), st.columns([2, 3]), strict=True):
    data = viz.importance_data(
        values,
        kind,
        what=quantity,
        scale=scale,
        ordered=order == "largest first",
        against=against,
        aggregate=aggregate,
        bins=256,
    )
    limits = channels.limits(run, kind, quantity, scale, config, chosen.mixture) if against is None else None
    title = {"attn": "Attention: whole heads stand out", "mlp": "MLP: a few channels carry most"}[kind]
    figure = viz.importance_figure(data, title if against is None else f"Difference to {compare}", limits)
    column.plotly_chart(figure, alt=f"{quantity} of {kind} channels by layer", config={"displaylogo": False})

st.subheader("One channel")
pick = st.columns([1, 1, 1, 3])
kind = pick[0].selectbox("Site", ["mlp", "attn"], key="site", bind="query-params")
layer = pick[1].number_input("Layer", 0, len(run.geometry.layers) - 1, 0, key="layer", bind="query-params")
site = Site(int(layer), kind)
width = run.geometry.channels(site)
number = pick[2].number_input("Channel", 0, width - 1, 0, key="channel", bind="query-params")
pick[3].markdown(f"Layer {layer} has {width:,} {kind} channels. Use the arrow keys to walk through them.")
channels.card(run, shown, site, int(min(number, width - 1)), config, chosen.mixture)

st.subheader("All channels of this layer")
row = values[site]
figure = channels.layer_figure(row, quantity, np.nan_to_num(row)[int(min(number, width - 1))])
st.plotly_chart(figure, alt=f"Histogram of {quantity} in layer {layer}", config={"displaylogo": False})
popover("channel", "site", "variance", "fluctuation score", "iteration", "mixture weights")
