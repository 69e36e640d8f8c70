"""Kills, damage, full disks and starts at once: whether a run is ever lost, or silently wrong.

    python benchmarks/faults.py kills --count 200     a worker is killed at every write, then at random moments
    python benchmarks/faults.py matrix                every file of a run missing, empty, half, and with a bit flipped
    python benchmarks/faults.py disks                 writes that fail after so many bytes, in the store and in the cache
    python benchmarks/faults.py starts --count 20     six processes that resume one run at once
    python benchmarks/faults.py changes               text, tokenizer, weights or tasks change before a run is resumed

A tiny random Qwen2 is pruned in two iterations. Each case happens to a copy of its run in a process of its own, then
the run is resumed, and every number is compared with an uninterrupted run. `lost`: it cannot be resumed. `wrong`: it
ends with other numbers. `changes` wants a refusal that leaves the iterations as they are, and the right numbers once
the change is taken back; a change that no number depends on is to be gone on with. `--sample N` takes every Nth case; --json prints what happened to each.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
HOWS = ("missing", "empty", "half", "flipped")
WRITES = [(os, name) for name in ("fsync", "replace", "rename", "link", "mkdir", "unlink", "rmdir")]
AT_ONCE = 6


def spoil(file, how):
    """Do to a file what crashes and disks do."""
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
        return
    if how == "flipped" and content:
        content[len(content) // 2] ^= 1
    keep = {"empty": 0, "half": len(content) // 2}.get(how, len(content))
    file.write_bytes(content[:keep])


def apart(work, kill_after=None):
    """Do something in a forked process, which dies with it; returns its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setpgid(0, 0)
            silence = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):
                os.dup2(silence, stream)
            code = work() or 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            with contextlib.suppress(OSError):
                print(traceback.format_exc(), file=sys.__stderr__)
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def command(*arguments):
    """The exit code of a command line; 1 stands for a traceback."""
    from pruning.cli.main import main

    return main(list(arguments))


def go_on(run):
    """Resume a run as a person would; 2 where a sentence says why not."""
    return apart(lambda: command("runs", "resume", run.id, "--yes", "--runs-dir", str(run.path.parent)))


def numbers(run):
    """Every number that a run came to, by where it stands; read whole, whatever the checksums say."""
    from safetensors.numpy import load_file

    arrays = {}
    files = (file for file in run.path.rglob("*.safetensors") if ".changed-" not in file.parent.name)
    for file in sorted(files):
        name = str(file.relative_to(run.path))
        arrays |= {f"{name} {key}": array.tobytes() for key, array in load_file(file).items()}
    results = run.results()
    return arrays | {"perplexity": repr(results and results.perplexity)}


def verdict(run, expected):
    """What became of a run after it was resumed."""
    from pruning.runs.run import Run

    code = go_on(run)
    run = Run(run.path)
    state = run.status().state
    if code not in (0, 2) or state != "finished" or run.corruption():
        return f"lost (exit {code}, {state}, {run.status().message})"
    return "right" if numbers(run) == expected else "wrong"


class Cases:
    """A finished run and an unfinished one, to be copied for every case."""

    def __init__(self, base):
        from pruning import RunConfig
        from pruning.runs.run import RunStore
        from tests.conftest import byte_tokenizer, tiny_model

        self.base, self.turn = base, 0
        tiny_model("qwen2").save_pretrained(base / "tiny")
        byte_tokenizer().save_pretrained(base / "tiny")
        (base / "words.txt").write_text("\n".join(f"line {i}: {i * i}" for i in range(600)))
        options = {"model": str(base / "tiny"), "mixture": {"words": 1}, "ratio": 0.4, "iterations": 2}
        options |= {"domains": {"words": str(base / "words.txt")}, "samples": 4, "seq_len": 24}
        config = RunConfig.create(**options, eval_blocks=3, device="cpu")
        self.store = RunStore(base / "whole")
        self.run, self.begun = self.create(config), self.create(config)
        self.fresh = self.copy(self.run)
        assert go_on(self.run) == 0, self.run.status()
        assert apart(lambda: self.until(self.begun, 1)) == 0
        self.expected = numbers(self.run)

    def create(self, config):
        """A new run."""
        return self.store.create(config)

    @staticmethod
    def until(run, last):
        """Carry out a run up to an iteration."""
        from pruning.runs.worker import execute

        def stop(event):
            if getattr(event, "number", None) == last:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            execute(run, stop)

    def copy(self, run):
        """The same run in a store, and with a cache, of its own."""
        from pruning.runs import permissions
        from pruning.runs.run import Run

        self.turn += 1
        folder = self.base / f"case-{self.turn}"
        os.environ["PRUNESCOPE_CACHE"] = str(folder / "cache")
        permissions.agree(permissions.permissions_for(run.config))  # a worker has nobody to ask
        return Run(Path(shutil.copytree(run.path, folder / "runs" / run.id)))

    def drop(self, run):
        """Remove a case that went well."""
        shutil.rmtree(run.path.parent.parent, ignore_errors=True)


def writes(work, kill_at=None):
    """Do something, counting what the main thread asks of the disk, and die before one of it."""
    count = 0

    def counted(plain):
        def call(*arguments, **named):
            nonlocal count
            if threading.current_thread() is threading.main_thread():
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments, **named)

        return call

    for module, name in WRITES:
        setattr(module, name, counted(getattr(module, name)))
    work()
    return count


def kills(cases, count, sample):
    """A kill before each write, then kills at random until there are enough."""
    from pruning.runs.worker import execute

    run = cases.copy(cases.fresh)
    count_file = cases.base / "count"
    began = time.monotonic()
    assert apart(lambda: count_file.write_text(str(writes(lambda: execute(run)))) and 0) == 0
    seconds, total = time.monotonic() - began, int(count_file.read_text())
    dice = random.Random(0)
    moments = [("write", number) for number in range(1, total + 1)][::sample]
    moments += [("after", dice.uniform(0, seconds)) for _ in range(max(0, count - len(moments)))]
    for what, when in moments[: count or None]:
        run = cases.copy(cases.fresh)
        if what == "write":
            apart(lambda run=run, when=when: writes(lambda: execute(run), when) and 0)
        else:
            apart(lambda run=run: execute(run) and 0, kill_after=when)
        yield f"killed {what} {when:.3g}", run, verdict(run, cases.expected)


def matrix(cases, count, sample):
    """Every file of a finished run and of an unfinished one, damaged in every way."""
    every = [
        (run, str(file.relative_to(run.path)), how)
        for run in (cases.run, cases.begun)
        for file in sorted(run.path.rglob("*"))
        if file.is_file()
        for how in HOWS
    ]
    for base, name, how in every[::sample]:
        run = cases.copy(base)
        spoil(run.path / name, how)
        if name == "config.json":  # whether there is something to resume is not known before
            apart(lambda run=run: command("runs", "repair", run.id, "--runs-dir", str(run.path.parent)))
        result = verdict(run, cases.expected)
        yield f"{how} {name} ({'finished' if base is cases.run else 'unfinished'})", run, result


def disks(cases, count, sample):
    """A disk that takes files of a few bytes only: RLIMIT_FSIZE cuts a write off as a full disk does."""
    for where in ("store", "cache"):
        for limit in [0, 1, 100, 1000, 5000, 20_000, 50_000][::sample]:
            run = cases.copy(cases.fresh)

            def work(run=run, limit=limit, where=where):
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                if where == "cache":
                    os.environ["PRUNESCOPE_CACHE"] = f"/dev/null/{limit}"
                else:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                return command("runs", "resume", run.id, "--yes", "--runs-dir", str(run.path.parent))

            code = apart(work)
            right = {0} if where == "cache" else {0, 2}
            result = verdict(run, cases.expected) if code in right else f"lost (exit {code})"
            yield f"{where} takes {limit} bytes a file", run, result


def starts(cases, count, sample):
    """Processes that resume one run at the same moment: one worker."""
    for turn in range(count):
        run = cases.copy(cases.begun)
        at = time.time() + 0.3

        def work(run=run, at=at):
            from pruning.errors import RunError

            time.sleep(max(0.0, at - time.time()))
            try:
                run.launch()
            except RunError:
                return 2
            return 0

        with ThreadPoolExecutor(AT_ONCE) as pool:
            children = list(pool.map(apart, [work] * AT_ONCE))
        while run.active:
            time.sleep(0.05)
        started = sum(event["event"] == "started" for event in run.events())
        right = sorted(children) == [0] + [2] * (AT_ONCE - 1) and started == 2  # once before, once now
        result = (
            "right" if right and numbers(run) == cases.expected else f"wrong ({children}, {started} starts)"
        )
        yield f"turn {turn + 1}", run, result


def changes(cases, count, sample):
    """What an interrupted run computes on changes, and is put back."""
    from pruning.runs import permissions
    from pruning.runs.run import Run

    tasks = cases.base / "tasks"
    tasks.mkdir()
    rows = [json.dumps({"q": f"{i} is", "label": i % 2}) for i in range(4)]
    (tasks / "rows.jsonl").write_text("\n".join(rows))
    (tasks / "parts.py").write_text("def score(doc, results):\n    return {'acc': float(doc['label'])}\n")
    lines = ["task: odd", "dataset_path: json", f"dataset_kwargs: {{data_files: {tasks / 'rows.jsonl'}}}"]
    lines += ["test_split: train", "output_type: multiple_choice", "doc_to_text: 'Say: {{q}}'"]
    lines += ["doc_to_choice: [even, odd]", "doc_to_target: label", "metric_list: [{metric: acc}]"]
    (tasks / "odd.yaml").write_text("\n".join([*lines, "process_results: !function parts.score", ""]))
    (cases.base / "seen.txt").write_text("\n".join(f"row {i} of {i % 17}" for i in range(600)))
    domains = {"words": cases.begun.config.domains["words"], "seen": str(cases.base / "seen.txt")}
    options = {"tasks": ("odd",), "task_folder": str(tasks), "domains": domains}
    config = cases.begun.config.replace(**options)
    complete, begun = cases.create(config), cases.create(config)
    assert go_on(complete) == 0, complete.status()
    assert apart(lambda: cases.until(begun, 1)) == 0
    expected = numbers(complete)

    def other(text):
        return text.replace("1", "7")

    tiny, edits = cases.base / "tiny", {}
    edits["calibration and held-out text"] = cases.base / "words.txt", other
    edits["text that is measured only"] = cases.base / "seen.txt", other
    edits["text, one more line"] = cases.base / "words.txt", lambda text: f"{text}\nend"
    edits["text in other letters"] = cases.base / "words.txt", str.upper
    edits["tokenizer, another token"] = tiny / "tokenizer.json", lambda text: text.replace('"!"', '"!!"')
    edits["chat template"] = tiny / "chat_template.jinja", lambda text: text + "{{ messages }}"
    edits["config of the model"] = tiny / "config.json", lambda text: text.replace("1e-06", "1e-05")
    edits["weights"] = tiny / "model.safetensors", None
    edits["rows of a task"] = tasks / "rows.jsonl", lambda text: text.replace("0 is", "2 is")
    edits["labels of a task"] = tasks / "rows.jsonl", lambda text: text.replace('"label": 0', '"label": 1')
    edits["prompt of a task"] = tasks / "odd.yaml", lambda text: text.replace("Say", "Tell")
    edits["choices of a task"] = tasks / "odd.yaml", lambda text: text.replace("even", "level")
    edits["score of a task"] = tasks / "parts.py", lambda text: text.replace("float", "0.5 * float")
    for name, (file, edit) in list(edits.items())[::sample]:
        run = cases.copy(begun)
        before = file.read_bytes() if file.exists() else None
        arrays = {f: f.read_bytes() for f in run.path.glob("iteration-*/*")}
        if edit is None:
            spoil(file, "flipped")
        else:
            file.write_text(edit((before or b"").decode()))
        permissions.agree(permissions.permissions_for(run.config))
        code, message = go_on(run), run.status().message
        unchanged = arrays == {f: f.read_bytes() for f in run.path.glob("iteration-*/*")}
        changed = before != (file.read_bytes() if file.exists() else None)
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        result = verdict(run, expected)
        if code != 2 or not unchanged or not changed or not message:
            result = f"wrong (exit {code}, iterations unchanged: {unchanged}, changed: {changed}, {message})"
        yield f"{name}: {message}", Run(run.path), result


def exports(cases, count, sample):
    """A kill before each write of a second export into a folder in which a person has put files."""
    from pruning.formats.write import export
    from pruning.models.loading import load

    mine = {"notes.txt": "mine", "my_eval.py": "print()", "thesis.model/chapter.md": "years of work"}

    def prepare():
        cases.turn += 1
        out = cases.base / f"case-{cases.turn}" / "out"
        assert apart(lambda: export(cases.run.checkpoint, "hf", out) and 0) == 0
        for name, text in mine.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text(text)
        return out

    def again(out):
        export(cases.run.checkpoint, "hf", out, "bf16")
        load(str(out), "cpu")

    out, count_file = prepare(), cases.base / "count"
    assert apart(lambda: count_file.write_text(str(writes(lambda: again(out)))) and 0) == 0
    for number in range(1, int(count_file.read_text()) + 1)[::sample]:
        out = prepare()
        apart(lambda out=out, number=number: writes(lambda: again(out), number) and 0)
        code = apart(lambda out=out: again(out))  # goes on where the killed one was
        stayed = all(
            (out / name).is_file() and (out / name).read_text() == text for name, text in mine.items()
        )
        is_complete = {path.relative_to(out).parts[0] for path in out.rglob("*")} >= {
            "model.safetensors",
            "pruning.json",
        }
        right = code == 0 and is_complete and stayed
        result = "right" if right else f"lost (exit {code}, a person's files are there: {stayed})"
        yield f"killed before write {number}", cases.copy(cases.fresh), result


def main():
    """Carry out one kind of faults and print what became of the runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("kills", "matrix", "disks", "starts", "changes", "exports"))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    import torch

    import pruning.engine.loop
    import pruning.runs.worker  # noqa: F401 - once, for all that are forked

    torch.set_num_threads(1)
    results, began = {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prunescope-faults-") as base:
        os.environ["PRUNESCOPE_CACHE"] = f"{base}/cache"
        cases = Cases(Path(base))
        for name, run, result in globals()[args.kind](cases, args.count, args.sample):
            results[name] = result
            if result != "right" and not args.json:
                print(f"{name}: {result}", flush=True)
            cases.drop(run)
    counts = Counter(result.split(" ")[0] for result in results.values())
    if args.json:
        print(json.dumps({"cases": results, "counts": counts}))
    else:
        seconds = time.monotonic() - began
        print(f"{args.kind}: {len(results)} cases, {dict(counts)}, {seconds:.0f} s")
    return 1 if set(counts) - {"right"} else 0


if __name__ == "__main__":
    sys.exit(main())
