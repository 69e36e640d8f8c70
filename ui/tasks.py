"""Tasks on a finished run, executed by worker processes: text generation, export, and speed measurement."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from pruning.checksums import read_json
from pruning.errors import PruningError, RunError
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import FORMATS, export_plans
from pruning.formatting import plain, sentence, size_text
from pruning.runs.jobs import Job, job
from pruning.runs.run import Run
from ui import state

STORED = "default"  # as stored, or the default of the format
DOWNLOAD_BYTES = 200_000_000  # larger files stay on disk: a download passes through the server's memory


def working(
    task: Job, what: str, show: Callable[[dict[str, Any]], None], meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Progress and result of a task, polled while it runs.

    Args:
        task: started or not.
        what: the task does, in words.
        show: draws its output.
        meanwhile: draws partial output while it runs.
    """

    @st.fragment(run_every=1.0 if task.state == "running" else None)
    def body(was: str) -> None:
        now = task.state
        if now == "running":
            left, right = st.columns([4, 1], vertical_alignment="center")
            left.info(f"{what}: {task.seconds:.0f} s elapsed. The task continues if you leave this page.")
            if right.button("Cancel", key=f"cancel-{task.path.name}"):
                task.cancel()
                st.rerun()
            meanwhile()
        elif now == "failed":
            st.error(plain(task.problem))
        elif now == "finished":
            show(task.output)
        if now != was and was == "running":
            st.rerun()

    body(task.state)


def start(task: Job, arguments: Sequence[str]) -> None:
    """Start a task and redraw the page."""
    try:
        task.start(arguments)
    except PruningError as error:
        state.explain(error)
        return
    st.rerun()


def store_args(run: Run) -> list[str]:
    """The command-line arguments that name the run store."""
    return ["--runs-dir", str(run.path.parent)]


def size(checkpoint: Path) -> str:
    """Suffix of the names of a run's tasks: empty for its final model, -03 for that after iteration 3."""
    return checkpoint.name.removeprefix("model")


def continuation(run: Run, checkpoint: Path) -> None:
    """Text generated from one prompt by the dense and the pruned model, in a worker process."""
    task = job(state.store(), f"generate-{run.id}{size(checkpoint)}")
    with st.form(f"prompt-{run.id}", border=False):
        left, middle, right = st.columns([6, 2, 2], vertical_alignment="bottom")
        prompt = left.text_input("Prompt", "The river rises in", max_chars=2000)
        temperature = middle.number_input(
            "Temperature", 0.0, 2.0, 0.7, 0.1, help="0: always the most likely token (greedy decoding)"
        )
        pressed = right.form_submit_button("Generate", width="stretch", disabled=task.state == "running")
    if pressed:
        arguments = ["generate", "--models", run.config.model, str(checkpoint)]
        arguments += ["--temperature", str(temperature), "--device", run.config.device]
        start(task, [*arguments, "--stream-file", str(task.path / "so-far.json"), "--", prompt])

    def growing() -> None:
        partial: dict[str, Any] = {}
        with contextlib.suppress(RunError):
            partial = read_json(task.path / "so-far.json") or {}
        for column, name, text in zip(
            st.columns(2), ("Dense", "Pruned"), [*partial.get("texts", []), "", ""], strict=False
        ):
            column.markdown(f"**{name}**")
            column.code(partial.get("prompt", prompt) + text, language=None, wrap_lines=True)

    def show(output: dict[str, Any]) -> None:
        for column, name, each in zip(
            st.columns(2), ("Dense", "Pruned"), output["continuations"], strict=True
        ):
            column.markdown(f"**{name}**")
            column.code(output["prompt"] + each["text"], language=None, wrap_lines=True)
            column.caption(f"{each['tokens']} tokens in {each['seconds']:.1f} s")

    working(task, "Generating text, one model after the other", show, growing)


def exports(run: Run, checkpoint: Path) -> None:
    """Export formats of the run, what loads each of them, and the export controls."""
    info = CheckpointInfo.read(checkpoint)
    available = {plan.format: plan for plan in export_plans(info)}
    st.dataframe(
        [
            {
                "format": plan.format,
                "size": size_text(plan.bytes) if plan.bytes else "",
                "available": not plan.unsupported_reason,
                "note": sentence(plan.unsupported_reason or plan.drawback),
                "loads in": plan.loads_in,
                "architecture": plan.architecture,
            }
            for plan in available.values()
        ],
        hide_index=True,
    )
    if not info.equal_widths:
        st.caption(
            "The layers of this run differ in width. With the allocation `equal` (Pruning options in the sidebar) all layers get "
            "the same width and stock transformers loads the export without custom code, at some cost in quality."
        )
    left, middle, right = st.columns([2, 2, 2], vertical_alignment="bottom")
    offered = [name for name, plan in available.items() if not plan.unsupported_reason]
    name = str(left.selectbox("Format", offered, key=f"format-{run.id}"))
    form = available[name]
    st.caption(f"Loads in {form.loads_in}. {sentence(f'{form.drawback}.') if form.drawback else ''}")
    kinds = FORMATS[name].kinds
    kind = middle.selectbox(
        "Weight type", [STORED, *kinds], key=f"kind-{run.id}-{'-'.join(kinds)}", disabled=not kinds
    )
    root = state.store().root / "exports" / run.id if run.path in state.SHIPPED else run.path / "exports"
    task = job(state.store(), f"export-{run.id}-{name}{size(checkpoint)}")
    if right.button("Export", key=f"write-{run.id}", width="stretch", disabled=task.state == "running"):
        out = (root / f"{name}{size(checkpoint)}").resolve()
        arguments = ["export", str(checkpoint.resolve()), "--format", name, "--out", str(out)]
        start(task, arguments + ([] if kind == STORED else ["--weights", str(kind)]))

    def show(output: dict[str, Any]) -> None:
        text = f"Exported {size_text(output['bytes'])} to {plain(output['path'])}."
        if output["difference"] is not None:
            text += f" Reloaded for verification: the largest logit difference is {output['difference']:.2g}."
        st.success(text)
        st.code(output["snippet"], language="python")
        path = Path(output["path"])
        if output["bytes"] <= DOWNLOAD_BYTES:
            file = path.name if path.is_file() else f"{run.id}-{name}.zip"
            st.download_button(
                "Download", lambda: packed(path), file, key=f"file-{run.id}", on_click="ignore"
            )

    working(task, f"Exporting and verifying {name}", show)


def timing_button(label: str, what: str, key: str, task: Job) -> bool:
    """A button that starts a timing, disabled while the task or a run is active, which would distort it.

    Args:
        label, key: of the button.
        what: it does.
        task: that it starts.
    """
    busy = any(run.active for run in state.store().all())
    return st.button(
        label,
        key=key,
        disabled=busy or task.state == "running",
        help="Not available while a run is active: it would distort the timings." if busy else what,
    )


def speed(run: Run, checkpoint: Path) -> None:
    """Speed of the dense and the pruned model, measured alternately on this machine in a worker process."""
    task = job(state.store(), f"bench-{run.id}{size(checkpoint)}")
    what = "Times the dense and the pruned model alternately in one process."
    if timing_button("Measure on this machine", what, f"measure-{run.id}", task):
        arguments = ["bench", run.config.model, str(checkpoint), "--device", run.config.device]
        start(task, [*arguments, "--batch", "1,8", "--repeats", "5"])

    def show(output: dict[str, Any]) -> None:
        names = ("dense", "pruned")  # in the order of the command's arguments
        cells: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for cell in output["speed"]:
            cells.setdefault((cell["batch"], cell["length"]), []).append(cell)
        rows = [
            {"model": name, "batch": batch, "prompt": length}
            | {f"{what} tokens/s": _spread(cell[what]) for what in ("prefill", "decode")}
            | {
                f"{what} over dense": f"{cell[what]['median'] / pair[0][what]['median']:.2f}x"
                for what in ("prefill", "decode")
            }
            for (batch, length), pair in cells.items()
            for name, cell in zip(names, pair, strict=True)
        ]
        st.dataframe(rows, hide_index=True)
        sizes = [
            {
                "model": name,
                "parameters": f"{m['parameters']:,}",
                "memory": size_text(m["memory_bytes"]),
                "KV cache per token": size_text(m["cache_bytes"]),
            }
            for name, m in zip(names, output["models"], strict=True)
        ]
        st.dataframe(sizes, hide_index=True)
        st.caption(
            f"On {output['device']} in {output['dtype']}: median over the repeats, with the range in parentheses."
        )

    working(task, "Timing the dense and the pruned model", show)


def _spread(speed: dict[str, float]) -> str:
    return f"{speed['median']:,.0f} ({speed['lowest']:,.0f} to {speed['highest']:,.0f})"


def packed(path: Path) -> bytes:
    """The content of a file, or a folder as an uncompressed zip archive: weights hardly compress."""
    if path.is_file():
        return path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path.rglob("*")):
            archive.write(file, Path(path.name) / file.relative_to(path))
    return buffer.getvalue()
