"""What a run computes on: recorded when it begins, compared when it goes on.

Text, tokenizer, weights and tasks have to be the same, or the run is refused. The dtype is the recorded one.
Another device or other versions of what computes are noted with the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import with_checksum, write_json
from pruning.config import RunConfig
from pruning.errors import ModelError, PruningError, RunError, reason_of
from pruning.formatting import quoted
from pruning.models.folder import fingerprint, locate
from pruning.runs.folder import StoredIteration, log
from pruning.runs.run import INPUTS_FILE, Run
from pruning.runs.schema import Computation, Inputs, TextPart
from pruning.versions import versions

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel

# Files of a model's folder that decide how text becomes tokens, chat templates with them.
TOKENIZER_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt"),
    *("tekken.json", "*.model", "*.tiktoken", "*.jinja", "chat_template*.json"),
    "additional_chat_templates/*",
)
PARTS = {"calibration": "calibration", "heldout": "held-out"}  # of a domain's text, and in words


# --- recording -------------------------------------------------------------------------------------------


def tokenizer_digest(folder: Path) -> str:
    """Names the files of a folder that decide how text becomes tokens."""
    digest = hashlib.blake2b(digest_size=16)
    files = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def text_digests(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, TextPart]]:
    """By domain and part of its text what names it, from `blocks.describe_blocks`."""
    return {
        domain: {part: TextPart.model_validate(source[part]) for part in PARTS if part in source}
        for domain, source in sources.items()
    }


def describe_inputs(loaded: LoadedModel, sources: Mapping[str, Mapping[str, Any]]) -> Inputs:
    """What a run on a model and on some text computes on, its tasks left out."""
    # the tokenizer of an export of masks is that of its dense model, in another folder
    folder = Path(loaded.tokenizer.name_or_path or loaded.path)
    return Inputs(
        weights=loaded.fingerprint,
        tokenizer=tokenizer_digest(folder),
        dtype=str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        text=text_digests(sources),
    )


def write_inputs(run: Run, inputs: Inputs) -> None:
    """Record what a run computes on, and in its log, from which `repair` restores it."""
    write_json(run.path / INPUTS_FILE, inputs.model_dump())
    log(run.path, "inputs", inputs=with_checksum(inputs.model_dump()))


def computation(loaded: LoadedModel) -> Computation:
    """What computes now."""
    weight = next(loaded.model.parameters())
    return Computation(
        device=weight.device.type, dtype=str(weight.dtype).removeprefix("torch."), versions=versions()
    )


# --- comparing -------------------------------------------------------------------------------------------


def way_out(run: Run) -> str:
    """What a person can do about a run whose inputs have changed, the end of a sentence."""
    return f"or start another run from its config (prune --config {str(run.path / 'config.json')!r})."


def check_weights(run: Run, weights: str) -> None:
    """Whether a model is the one that a run began with.

    Raises:
        RunError: it is another.
    """
    begun = {iteration.metrics.weights for iteration in run.iterations()} - {"", weights}
    if begun:
        raise RunError(
            f"the model {run.config.model!r} is no longer the one that run {run.id!r} began with: restore "
            f"its files, {way_out(run)}"
        )


def check_text(run: Run, stored: Inputs, now: Mapping[str, Mapping[str, TextPart]], blocks: bool) -> None:
    """Whether text is what a run began with.

    Args:
        run: that goes on.
        stored: what it began with.
        now: by domain and part what its text is now; what is left out is not compared.
        blocks: whether the blocks of tokens are compared as well, not only the documents.

    Raises:
        RunError: a domain's text has changed, or gives other tokens.
    """
    for domain, parts in now.items():
        source = run.config.domains.get(domain, "embedded")
        for part, text in parts.items():
            begun = stored.text.get(domain, {}).get(part)
            if begun is None or (begun == text if blocks else begun.documents == text.documents):
                continue
            if begun.documents != text.documents:
                what, cure = "has changed", "restore the old text"
            else:
                what, cure = (
                    "gives other tokens now",
                    "go back to the library versions in its config.json",
                )
            raise RunError(
                f"the {PARTS[part]} text of domain {quoted(domain)} ({quoted(source)}) {what} since run "
                f"{run.id!r} began: {cure}, {way_out(run)}"
            )


def check_tokenizer(run: Run, stored: Inputs, tokenizer: str) -> None:
    """Whether a tokenizer is the one that a run began with.

    Raises:
        RunError: it is another.
    """
    if stored.tokenizer != tokenizer:
        raise RunError(
            f"the tokenizer of model {run.config.model!r}, or its chat template, is no longer the one that "
            f"run {run.id!r} began with: restore its files, {way_out(run)}"
        )


def begin(
    run: Run, loaded: LoadedModel, sources: Mapping[str, Mapping[str, Any]], computed: Computation
) -> list[str]:
    """Record what a run computes on, or compare it with what the run began with.

    Args:
        run: that begins, or goes on.
        loaded: its dense model.
        sources: of its text, from `blocks.describe_blocks`.
        computed: what computes now.

    Returns:
        What cannot be compared, or is otherwise than before, in sentences.

    Raises:
        RunError: tokenizer or text have changed.
    """
    iterations, inputs = run.iterations(), describe_inputs(loaded, sources)
    if not iterations:  # whatever was begun is done again
        write_inputs(run, inputs)
        return []
    if (stored := run.inputs) is None:
        return [
            "an earlier version began this run and did not record its text: the text is used as it is now."
        ]
    check_tokenizer(run, stored, inputs.tokenizer)
    check_text(run, stored, inputs.text, blocks=True)
    return changes(iterations[-1:], computed)


def check_tasks(run: Run, stored: Inputs, digests: Mapping[str, str]) -> None:
    """Whether tasks ask and score what they did when a run began.

    Args:
        run: that goes on.
        stored: what it began with; its tasks are recorded once the dense model has answered them.
        digests: by task, see `harness.task_digest`.

    Raises:
        RunError: a task has changed.
    """
    for name, digest in digests.items():
        if stored.tasks.get(name, digest) != digest:
            folders = filter(None, (run.config.task_data, run.config.task_folder))
            where = " or ".join(map(quoted, folders)) or "its data set, or the version of lm-eval"
            raise RunError(
                f"task {quoted(name)} asks or scores other items than when run {run.id!r} began: restore its "
                f"old data and files ({where}), {way_out(run)}"
            )


def begin_tasks(run: Run, digests: Mapping[str, str]) -> None:
    """Record what the tasks of a run ask, or compare it with what they asked when the run began.

    Raises:
        RunError: a task has changed.
    """
    if stored := run.inputs:
        check_tasks(run, stored, digests)
        if stored.tasks != digests:
            write_inputs(run, stored.model_copy(update={"tasks": dict(digests)}))


def changes(iterations: Sequence[StoredIteration], now: Computation | None = None) -> list[str]:
    """Where the iterations of a run were computed by different devices or versions, in sentences.

    Args:
        iterations: of a run, in order; those of earlier versions say nothing.
        now: what computes the next one.
    """
    steps = [(each.number, each.metrics.computed) for each in iterations]
    steps += [(steps[-1][0] + 1, now)] if now else []
    sentences = []
    for (_, before), (number, after) in zip(steps, steps[1:], strict=False):
        if before and after and before != after:
            old, new = before.plain(), after.plain()
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            words = ", ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)
            sentences.append(
                f"From iteration {number} on the run was computed differently ({words}): "
                "small differences between its numbers may come from that."
            )
    return sentences


class Reuse:
    """Compares runs with what their configs name now; what several name is read once.

    Attributes:
        notes: why runs are not used again, or cannot be compared, in sentences.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._cache: dict[tuple[object, ...], Any] = {}

    def usable(self, run: Run) -> bool:
        """Whether the numbers of a run are of what its config names now, as far as that can be known."""
        try:
            if stored := run.inputs:
                self._compare(run, stored)
            elif run.iterations():
                self.notes.append(
                    f"run {run.id} of an earlier version did not record its text, and is used again as it is."
                )
        except RunError as error:
            self.notes.append(f"run {run.id} is not used again: {error}")
            return False
        except PruningError as error:
            self.notes.append(f"run {run.id} cannot be compared with what it was made of: {error}")
        return True

    def _compare(self, run: Run, stored: Inputs) -> None:
        config = run.config
        folder, weights, tokenizer = self._model(config.model)
        check_weights(run, weights)
        check_tokenizer(run, stored, tokenizer_digest(folder))
        for domain, parts in stored.text.items():
            now = {part: self._text(config, domain, part, tokenizer) for part in parts}
            check_text(run, stored, {domain: now}, blocks=False)
        if config.tasks:
            check_tasks(run, stored, self._tasks(config))

    def _model(self, name: str) -> tuple[Path, str, Any]:
        """The folder of a model's tokenizer, a name for its weights, and the tokenizer."""
        if (name,) not in self._cache:
            from transformers import AutoTokenizer

            path = locate(name)
            try:
                tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            except Exception as error:  # tokenizers raise a dozen types
                raise ModelError(
                    f"the tokenizer in {str(path)!r} cannot be read: {reason_of(error)}."
                ) from error
            self._cache[name,] = Path(tokenizer.name_or_path or path), fingerprint(path), tokenizer
        return self._cache[name,]

    def _text(self, config: RunConfig, domain: str, part: str, tokenizer: Any) -> TextPart:
        from pruning.engine.blocks import documents

        key = ("text", config.model, domain, config.domains.get(domain), part, config.seed)
        if key not in self._cache:
            text = documents(config, domain, "calibration" if part == "calibration" else "heldout", tokenizer)
            self._cache[key] = TextPart(documents=text.source["documents"], digest="", blocks=0, tokens=0)
        return self._cache[key]

    def _tasks(self, config: RunConfig) -> dict[str, str]:
        from pruning.measure.zeroshot import task_digests

        where = (config.task_data, config.task_folder, config.task_limit)
        key = ("tasks", config.tasks, *where)
        if key not in self._cache:
            self._cache[key] = task_digests(config.tasks, *where)
        return self._cache[key]
