"""Cutting by hand: cuts with undo and redo, and the same prompt continued by both models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import streamlit as st

from pruning.models.geometry import Site
from pruning.visualization.style import SITE_STYLES, site_style
from ui.lessons.ask import ask

TITLE = "Cut the demo model by hand"
LAYERS = 6
PROMPT = "The river rises in the mountains and"
Which = Literal["lowest", "highest"]
Cut = tuple[str, Which, float]


@dataclass
class History:
    """What was cut, and what was undone and can come back."""

    done: list[Cut] = field(default_factory=list)
    undone: list[Cut] = field(default_factory=list)

    def cut(self, what: Cut) -> None:
        """Another cut; what was undone before it is forgotten."""
        self.done.append(what)
        self.undone.clear()

    def undo(self) -> None:
        """Take the last cut back."""
        if self.done:
            self.undone.append(self.done.pop())

    def redo(self) -> None:
        """The cut that was taken back last, again."""
        if self.undone:
            self.done.append(self.undone.pop())

    def clear(self) -> None:
        """The dense model again; redo brings the cuts back one by one."""
        while self.done:
            self.undo()


def words(cut: Cut) -> str:
    """A cut as one line."""
    site, which, share = Site.parse(cut[0]), cut[1], cut[2]
    style = site_style(site.name)
    return f"layer {site.layer}: the {share:.0%} of the {style.units} with the {which} scores"


def draw() -> None:
    """The controls, and both models' texts."""
    history: History = st.session_state.setdefault("history", History())
    st.markdown(
        "Choose what to remove; its mean output stays as a bias. Which cut makes the text fall apart, and which is barely noticeable?"
    )
    parts = st.columns([2, 3, 3, 3, 2], vertical_alignment="bottom")
    layer = parts[0].selectbox("Layer", range(LAYERS), key="hand-layer")
    kind = parts[1].segmented_control(
        "Module",
        [*SITE_STYLES][::-1],
        default="mlp",
        required=True,
        key="hand-kind",
        format_func=lambda name: SITE_STYLES[name].label,
    )
    which = parts[2].segmented_control(
        "Scores", ("lowest", "highest"), default="lowest", required=True, key="hand-which"
    )
    share = parts[3].select_slider("Share", (25, 50, 75), 50, format_func=lambda v: f"{v}%", key="hand-share")
    parts[4].button(
        "Cut",
        type="primary",
        icon=":material/content_cut:",
        on_click=history.cut,
        args=((f"{layer}.{kind}", which, share / 100),),
        width="stretch",
    )
    back, words_in = st.columns([2, 3], vertical_alignment="bottom")
    with back.container(horizontal=True):
        st.button("Undo", icon=":material/undo:", on_click=history.undo, disabled=not history.done)
        st.button("Redo", icon=":material/redo:", on_click=history.redo, disabled=not history.undone)
        st.button("Start again", on_click=history.clear, disabled=not history.done)
    prompt = words_in.text_input("Prompt", PROMPT, max_chars=400, key="hand-prompt")
    if history.done:
        st.markdown("\n".join(f"{number}. {words(cut)}" for number, cut in enumerate(history.done, 1)))
    else:
        st.caption("Nothing is cut yet: both models are the same.")
    results = ask("by_hand", cuts=[list(cut) for cut in history.done], prompt=prompt)
    dense, pruned = results["perplexity"]
    for column, name, text, own in zip(
        st.columns(2, border=True), ("Dense", "Cut by hand"), results["texts"], (dense, pruned), strict=True
    ):
        with column:
            st.markdown(f"**{name}**")
            st.text(f"{prompt}{text} ...")
            change = (
                f"{own['mean'] / dense['mean'] - 1:+.0%} against dense"
                if own is pruned and history.done
                else None
            )
            st.metric("Mean perplexity", f"{own['mean']:.1f}", change, delta_color="inverse")
    st.caption(
        f"{results['ratio']:.1%} of the layers' linear parameters are removed. Both models always write the most likely "
        "token. Perplexity is measured on held-out text of four domains; the table shows each of them."
    )
    st.dataframe(
        [
            {
                "domain": name,
                "dense": dense[name],
                "cut by hand": pruned[name],
                "times": pruned[name] / dense[name],
            }
            for name in dense
        ],
        hide_index=True,
        column_config=dict.fromkeys(
            ("dense", "cut by hand", "times"), st.column_config.NumberColumn(format="%.2f")
        ),
    )
