"""What the Importance page shows of channels: quantities, comparisons, and the card of one channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import streamlit as st

from pruning import visualization as viz
from pruning.config import RunConfig
from pruning.runs import Run, StoredIteration
from pruning.sites import Kind, Site
from ui import state

Array = np.ndarray
Values = dict[Site, Array]


def _fused(it: StoredIteration, config: RunConfig, weights: Mapping[str, float]) -> dict:
    return it.statistics.fuse(weights, config.fusion)


QUANTITIES: dict[str, Callable[[StoredIteration, RunConfig, Mapping[str, float]], Values]] = {
    "fluctuation score": lambda it, c, w: state.scores(it, c, w),
    "input variance": lambda it, c, w: {s: f.variance for s, f in _fused(it, c, w).items()},
    "root mean square": lambda it, c, w: {s: np.sqrt(f.mean_square) for s, f in _fused(it, c, w).items()},
    "weight norm": lambda it, c, w: {site: norm for site, (norm, _) in it.norms.items()},
}


def values(it: StoredIteration, quantity: str, config: RunConfig, weights: Mapping[str, float]) -> Values:
    """A quantity of every channel, (C,) by site, NaN where removed."""
    return QUANTITIES[quantity](it, config, weights)


def compared(
    run: Run, it: StoredIteration, what: str, quantity: str, config: RunConfig, weights: Mapping[str, float]
) -> Values | None:
    """What to subtract: another iteration, a domain alone, or equal weights; None for nothing."""
    if what == "nothing":
        return None
    if what == "first iteration":
        return values(state.iteration(run, 1), quantity, config, weights)
    if what == "equal weights":
        return values(it, quantity, config, {name: 1 / len(weights) for name in weights})
    return values(it, quantity, config, {what.removesuffix(" alone"): 1.0})


def limits(
    run: Run, kind: Kind, quantity: str, scale: str, config: RunConfig, weights: Mapping[str, float]
) -> tuple[float, float]:
    """One colour scale for the first and the last iteration, so that colours mean the same in all."""
    numbers = [it.number for it in run.iterations() if it.number > 0]
    maps = [
        viz.importance_data(
            values(state.iteration(run, n), quantity, config, weights),
            kind,
            what=quantity,
            scale=scale,
            bins=256,
        )
        for n in {numbers[0], numbers[-1]}
    ]
    return viz.colour_limits(maps)


def card(
    run: Run, it: StoredIteration, site: Site, channel: int, config: RunConfig, weights: Mapping[str, float]
) -> None:
    """All that is known of one channel, with the formula and its live numbers."""
    moments = {name: parts[site] for name, parts in it.statistics.moments.items()}
    score = state.scores(it, config, weights)[site]
    fused = _fused(it, config, weights)[site]
    if np.isnan(score[channel]):
        gone = next((i.number for i in run.iterations() if not i.mask.channels(site)[channel]), None)
        st.info(f"Channel {channel} of {site} was removed in iteration {gone}.")
        return
    norm = it.norms[site][0][channel]
    there = ~np.isnan(score)
    rank = int((score[there] > score[channel]).sum()) + 1
    left, right = st.columns([2, 3])
    with left:
        st.latex(
            rf"S = \mathrm{{var}} \cdot \lVert W_{{:,{channel}}} \rVert^2 = "
            rf"{fused.variance[channel]:.3g} \cdot {norm:.3g}^2 = {fused.variance[channel] * norm**2:.3g}"
        )
        st.markdown(f"Rank **{rank:,}** of {int(there.sum()):,} channels still in this layer.")
        removed = next((i.number for i in run.iterations() if not i.mask.channels(site)[channel]), None)
        st.markdown(
            f"Removed in iteration **{removed}**." if removed else "**Retained** to the end of this run."
        )
    with right:
        st.dataframe(
            [
                {
                    "domain": name,
                    "mean": float(part.mean[channel]),
                    "variance": float(part.variance[channel]),
                    "weight": weights.get(name, 0.0),
                }
                for name, part in moments.items()
            ],
            hide_index=True,
            column_config={
                "mean": st.column_config.NumberColumn(format="%.4g"),
                "variance": st.column_config.NumberColumn(format="%.4g"),
                "weight": st.column_config.NumberColumn(format="percent"),
            },
        )


def layer_figure(row: Array, quantity: str, chosen: float) -> object:
    """How a quantity is spread over one layer's channels, with the chosen channel marked."""
    import plotly.graph_objects as go

    there = row[np.isfinite(row) & (row > 0)]
    figure = go.Figure(
        go.Histogram(x=np.log10(there).astype(np.float32), nbinsx=60, marker_color=viz.COLOURS[0])
    )
    if chosen > 0:
        figure.add_vline(x=float(np.log10(chosen)), line_color=viz.COLOURS[1], annotation_text="this channel")
    figure.update_xaxes(title=f"log10 {quantity}")
    figure.update_yaxes(title="channels")
    return viz.style(figure, "Most channels matter little: the long tail on the left is cut first", 280)
