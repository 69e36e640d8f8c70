"""Server time from a slider to the figures, sizes of figures and memory: demo model and the shape of Qwen2.5-32B.

    python benchmarks/app_latency.py

A page is run by Streamlit's AppTest as the server runs it, each time with another mixture. Statistics of the 32B shape
(64 layers, 40 heads, 27,648 MLP channels, four domains) are random. In a real Chromium: the time from opening a page to
its first heatmap, from a key on a slider to the new picture, and from a page to the next.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from common import RESULTS, machine, table

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("overview", "calibration", "importance", "masks")
ITERATIONS = 16
TARGETS = {"demo": 0.3, "32B": 1.0}


def make_run(root, iterations=ITERATIONS, layers=64, channels=27_648):
    """A run of the shape of Qwen2.5-32B, or of fewer layers, with random statistics of every iteration."""
    from safetensors.numpy import save_file

    from pruning import RunConfig
    from pruning.checksums import write_json
    from pruning.engine.statistics_files import write_statistics
    from pruning.method.moments import Moments
    from pruning.models.geometry import Geometry, SiteShape
    from pruning.models.mask import Mask
    from pruning.runs.run import RunStore

    attn = SiteShape(8, 5, 128, entry_cost=128 * (2 * 5120 + 1), group_cost=2 * 128 * (5120 + 1))
    layer = {"attn": attn, "mlp": SiteShape(channels, entry_cost=3 * 5120)}
    shape = Geometry(5120, (layer,) * layers)
    config = RunConfig.create(iterations=iterations)
    run = RunStore(root).create(config)
    write_json(run.path / "geometry.json", shape.to_dict())
    write_json(run.path / "status.json", {"state": "finished", "created": 1})
    rng = np.random.default_rng(0)
    mask = Mask.full(shape)
    for number in range(iterations + 1):
        folder = run.path / f"iteration-{number:02d}"
        folder.mkdir()
        perplexity = {
            name: {"value": 10.0 + number, "nll": 1.0, "tokens": 1, "seq_len": 256} for name in config.mixture
        }
        metrics = {
            "number": number,
            "target_ratio": number / 2 / iterations,
            "seconds": 1.0,
            "ratio": number / 2 / iterations,
            "parameters": 32_763_876_352,
            "perplexity": perplexity,
        }
        write_json(folder / "metrics.json", metrics)
        if number == 0:
            continue
        scores, norms = {}, {}
        for site in shape.sites:
            size = shape.channels(site)
            scores[str(site)] = rng.lognormal(0, 1, size)
            norms[f"{site}.norm"] = rng.lognormal(0, 0.2, size)
            norms[f"{site}.mean_abs"] = norms[f"{site}.norm"] / 70
        save_file(scores, folder / "scores.safetensors")
        save_file(norms, folder / "norms.safetensors")
        save_file({str(s): a for s, a in mask.kept.items()}, folder / "mask.safetensors")
        for domain in config.mixture:
            moments = {}
            for site in shape.sites:
                size = shape.channels(site)
                moments[site] = Moments(8192, rng.normal(0, 0.1, size), 8192 * rng.lognormal(-2, 1, size))
            write_statistics(folder / f"moments-{domain}.safetensors", moments)
    return run


def server_time(what, root, repeats):
    """Seconds of a page's script with another mixture each time; run in a process of its own."""
    import os

    from streamlit.testing.v1 import AppTest

    from pruning.runs.run import RunStore

    os.environ["PRUNESCOPE_RUNS"] = str(root)
    os.chdir(ROOT)
    frame = []
    for _ in range(3):  # new sessions: later runs of AppTest leave out what app.py itself draws
        at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
        if runs := RunStore().all():
            at.query_params["run"] = runs[0].id
        began = time.perf_counter()
        at.run()
        frame.append(time.perf_counter() - began)
    pages = {}
    for page in PAGES:
        at.switch_page(f"pages/{page}.py").run()
        seconds = []
        for turn in range(repeats + 1):
            at.session_state["w_code"] = (turn * 15) % 100
            began = time.perf_counter()
            at.run()
            seconds.append(time.perf_counter() - began)
            assert not at.exception, at.exception
        sizes = [len(element.proto.spec) for element in at.get("plotly_chart")]
        pages[page] = {"seconds": seconds[1:], "payloads": sizes}
    at.switch_page("pages/importance.py").run()
    for number in range(1, (ITERATIONS if runs else 5) + 1):  # every iteration looked at once
        at.session_state["iteration"] = number
        at.run()
        assert not at.exception, at.exception
    return {"pages": pages, "frame": frame, "memory": psutil.Process().memory_info().rss}


def browser_times(root):
    """Seconds to the first heatmap of a fresh server, from a key to another picture, from page to page."""
    sys.path.insert(0, str(ROOT / "tools"))
    from screenshots import browser, server

    heatmap = "document.querySelector('.heatmaplayer image') !== null"
    picture = "Array.from(document.querySelectorAll('.heatmaplayer image')).map(i => i.getAttribute('href').length).join()"
    with server(Path(root) / "runs") as address, browser() as page:
        timings = {}
        for what in ("opening the app on a fresh server", "opening it again"):
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_function(heatmap, timeout=60_000)
            timings[f"{what}, to its first heatmap"] = time.perf_counter() - began
            page.wait_for_timeout(2000)
        page.goto(f"{address}/importance")
        page.wait_for_function(heatmap, timeout=60_000)
        page.wait_for_timeout(2000)
        keys = []
        for _ in range(5):
            before = page.evaluate(picture)
            began = time.perf_counter()
            page.get_by_role("slider", name="code").press("ArrowLeft")
            page.wait_for_function(f"{picture} !== {json.dumps(before)}", timeout=60_000)
            keys.append(time.perf_counter() - began)
            page.wait_for_timeout(800)
        timings["a key on a slider to the new heatmap"] = statistics.median(keys)
        for name in ("Masks", "Importance"):
            began = time.perf_counter()
            page.get_by_role("link", name=name).click()
            page.get_by_role(
                "heading", name={"Masks": "Masks", "Importance": "Channel importance"}[name], exact=True
            ).wait_for()
            page.wait_for_function(heatmap, timeout=60_000)
            timings[f"to the {name} page and its heatmap"] = time.perf_counter() - began
            page.wait_for_timeout(1500)
    return timings


def canvas_times(runs):
    """Of the live canvas on each of some runs: milliseconds of its frames, of packing its statistics, and their size."""
    import base64

    sys.path.insert(0, str(ROOT / "tools"))
    from screenshots import browser

    from pruning import RunConfig
    from pruning.visualization import live

    outcomes = {}
    for what, run in runs.items():
        it, config = run.iterations()[1], RunConfig.create()
        assert it.statistics and it.norms and it.scores  # read from disk beforehand, as by the app's cache
        began = time.perf_counter()
        data = live.live_data(it, config)
        packing = time.perf_counter() - began
        message = live.pack(data, config, it.geometry)
        with browser() as page:
            page.set_content(f"<style>{live.CSS}</style><div style='width: 900px'>{live.HTML}</div>")
            page.add_script_tag(content=live.SCRIPT)
            page.evaluate(
                """(text) => {
                    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                    window.canvas = mount(document.querySelector(".live"), bytes, () => {});
                    window.drag = async (count) => {
                        canvas.frames.length = 0;
                        for (let at = 0; at < count; at++) {
                            canvas.move(at % 2 ? 4 : 2, 20 + (at % 60));
                            await new Promise(requestAnimationFrame);
                        }
                        return canvas.frames;
                    };
                }""",
                base64.b64encode(message).decode(),
            )
            page.evaluate("drag(60)")  # compiled by then
            chrome = page.context.new_cdp_session(page)
            chrome.send("Performance.enable", {"timeDomain": "threadTicks"})

            def processor(chrome=chrome):
                metrics = chrome.send("Performance.getMetrics")["metrics"]
                return next(each["value"] for each in metrics if each["name"] == "ThreadTime")

            began = processor()
            frames = page.evaluate("drag(200)")
            used = 1000 * (processor() - began) / len(frames)
        low, middle, high = map(float, np.percentile(frames, [5, 50, 95]))
        outcomes[what] = {"processor": used, "p5": low, "median": middle, "p95": high}
        outcomes[what] |= {"packing": 1000 * packing, "bytes": len(message)}
        print(what, outcomes[what], flush=True)
    return outcomes


def write(results):
    """The tables of what was measured so far."""
    rows = []
    for what in TARGETS:
        for page, cell in results[what]["pages"].items():
            rows.append(
                (f"{what}, {page}", f"{statistics.median(cell['seconds']):.3f}", f"{min(cell['seconds']):.3f} to {max(cell['seconds']):.3f}",
                 TARGETS[what], f"{max(cell['payloads']) / 1e6:.2f}", f"{results[what]['memory'] / 1e9:.2f}")
            )  # fmt: skip
    head = ("page", "server, s", "range", "target, s", "largest figure, MB", "memory of the server, GB")
    text = f"# The app: from a slider to the figures\n\n{results['machine']}\n\n{table(head, rows)}\n\n"
    text += "In Chromium on the same machine, demo model:\n\n"
    text += table(("", "seconds"), [(name, f"{value:.2f}") for name, value in results["browser"].items()])
    if canvas := results.get("canvas"):
        text += "\n\nThe live canvas, from the position of a bar to the picture (60 frames a second leave 16.7 ms). "
        text += f"Chromium without a GPU, other work beside it, {canvas['machine']}:\n\n"
        head = (
            "statistics",
            "processor time of a frame, ms",
            "from start to end, ms (median)",
            "5th to 95th percentile",
            "packing on the server, ms, once",
            "sent, MB",
        )
        text += table(
            head,
            [
                (what, f"{cell['processor']:.1f}", f"{cell['median']:.1f}", f"{cell['p5']:.1f} to {cell['p95']:.1f}", f"{cell['packing']:.0f}", f"{cell['bytes'] / 1e6:.2f}")
                for what, cell in canvas["runs"].items()
            ],
        )  # fmt: skip
    text += "\n\n`python benchmarks/app_latency.py`\n"
    print(text)
    (RESULTS / "app_latency.md").write_text(text)
    (RESULTS / "app_latency.json").write_text(json.dumps(results, indent=1))


def measure_canvas(folder):
    from pruning.paths import ASSETS
    from pruning.runs.run import Run

    runs = {
        "demo: 6 layers x 1,024 channels x 4 domains": Run(ASSETS / "demo-run"),
        "SmolLM2: 30 layers x 1,536 channels x 4 domains": Run(ASSETS / "smollm2-run"),
        "32 layers x 11,008 channels x 4 domains, in 512 columns": make_run(folder, 1, 32, 11_008),
        "32B shape: 64 layers x 27,648 channels x 4 domains, in 256 columns": make_run(folder, 1),
    }
    return {"machine": machine(), "runs": canvas_times(runs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=("canvas",), help="measure this alone, and keep the rest as it was")
    parser.add_argument("--inner", nargs=2, metavar=("WHAT", "ROOT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        print(json.dumps(server_time(*args.inner, args.repeats)))
        return
    if args.only == "canvas":
        results = json.loads((RESULTS / "app_latency.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            results["canvas"] = measure_canvas(folder)
        write(results)
        return
    results = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("empty", "browser"):
            (Path(folder) / name).mkdir()
        make_run(Path(folder) / "large")
        for what, root in (("demo", "empty"), ("32B", "large")):
            command = [
                sys.executable,
                __file__,
                "--repeats",
                str(args.repeats),
                "--inner",
                what,
                f"{folder}/{root}",
            ]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            result = results[what] = json.loads(output.strip().splitlines()[-1])
            result["pages"]["a new session's first page"] = {"seconds": result["frame"][1:], "payloads": [0]}
        results["browser"] = browser_times(Path(folder) / "browser")
        results["canvas"] = measure_canvas(Path(folder) / "canvas")
    write(results)


if __name__ == "__main__":
    main()
