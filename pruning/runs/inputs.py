"""Inputs of a run: recorded when it begins, compared when it continues or is reused.

Text, tokenizer, weights and tasks have to be the same, or the run is refused. The dtype is the recorded one.
Another device or other versions of libraries are noted with the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.checksums import with_checksum, write_json
from pruning.errors import ModelError, PruningError, RunError, reason_of
from pruning.formatting import quoted
from pruning.models.folder import fingerprint, locate
from pruning.runs.folder import StoredIteration, log
from pruning.runs.run import INPUTS_FILE, Run
from pruning.runs.schema import Computation, Inputs, TextPart
from pruning.versions import versions

if TYPE_CHECKING:
    from pruning.models.folder import LoadedModel

# Files of a model's folder that determine how text becomes tokens, chat templates included.
TOKENIZER_FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt"),
    *("tekken.json", "*.model", "*.tiktoken", "*.jinja", "chat_template*.json"),
    "additional_chat_templates/*",
)
PARTS = {"calibration": "calibration", "heldout": "held-out"}  # parts of a domain's text, and in words
TextDigests = Mapping[str, Mapping[str, TextPart]]


# --- recording ---------------------------------------------------------------------------------------------


def tokenizer_digest(folder: Path) -> str:
    """Digest of the files of a folder that determine how text becomes tokens."""
    digest = hashlib.blake2b(digest_size=16)
    files = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def text_digests(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, TextPart]]:
    """Digests by domain and part of its text, from `blocks.describe_blocks`."""
    return {
        domain: {part: TextPart.model_validate(source[part]) for part in PARTS if part in source}
        for domain, source in sources.items()
    }


def _write_inputs(run: Run, inputs: Inputs) -> None:
    """Write the inputs of a run, and log them, so that `repair` can restore them."""
    write_json(run.path / INPUTS_FILE, inputs.model_dump())
    log(run.path, "inputs", inputs=with_checksum(inputs.model_dump()))


def computation(loaded: LoadedModel) -> Computation:
    """Device, dtype and versions of the present computation."""
    weight = next(loaded.model.parameters())
    return Computation(
        device=weight.device.type, dtype=str(weight.dtype).removeprefix("torch."), versions=versions()
    )


def begin(
    run: Run, loaded: LoadedModel, sources: Mapping[str, Mapping[str, Any]], computed: Computation
) -> list[str]:
    """Record the inputs of a run that begins, or compare them with the record of one that continues.

    Args:
        run: a run that begins or continues.
        loaded: its dense model.
        sources: sources of its text, from `blocks.describe_blocks`.
        computed: device, dtype and versions of the present computation.

    Returns:
        Remarks on what cannot be compared or is different from before, in sentences.

    Raises:
        RunError: tokenizer or text have changed.
    """
    iterations = run.iterations()
    # the tokenizer of an export of masks is that of its dense model, in another folder
    tokenizer = tokenizer_digest(Path(loaded.tokenizer.name_or_path or loaded.path))
    text = text_digests(sources)
    if not iterations:  # all that an earlier attempt did is done again
        inputs = Inputs(weights=loaded.fingerprint, tokenizer=tokenizer, dtype=computed.dtype, text=text)
        _write_inputs(run, inputs)
        return []
    if run.inputs is None:
        return [
            "an earlier version began this run and did not record its text: the text is used as it is now."
        ]
    check_inputs(run, tokenizer=tokenizer, text=text, blocks=True)
    return changes(iterations[-1:], computed)


def begin_tasks(run: Run, digests: Mapping[str, str]) -> None:
    """Record the digests of a run's tasks, or compare them with the record.

    Raises:
        RunError: a task has changed.
    """
    check_inputs(run, tasks=digests)
    if (stored := run.inputs) and stored.tasks != digests:
        _write_inputs(run, stored.model_copy(update={"tasks": dict(digests)}))


# --- comparing ---------------------------------------------------------------------------------------------


def way_out(run: Run) -> str:
    """End of a message about changed inputs of a run: how to start another run."""
    return f"or start another run from its config (prune --config {str(run.path / 'config.json')!r})."


def check_inputs(
    run: Run,
    weights: str | None = None,
    tokenizer: str | None = None,
    text: TextDigests | None = None,
    tasks: Mapping[str, str] | None = None,
    blocks: bool = False,
) -> None:
    """Check that the given inputs are the same as when a run began, where that was recorded.

    Args:
        run: a run that continues or is reused.
        weights: fingerprint of the dense model.
        tokenizer: see `tokenizer_digest`.
        text: digests by domain and part of its text.
        tasks: digests by task, see `harness.task_digest`.
        blocks: whether blocks of tokens are compared as well as documents.

    Raises:
        RunError: an input has changed.
    """
    config, name = run.config, f"run {run.id!r} began"
    if weights and {iteration.metrics.weights for iteration in run.iterations()} - {"", weights}:
        raise RunError(
            f"the model {config.model!r} is no longer the one that run {run.id!r} began with: restore its "
            f"files, {way_out(run)}"
        )
    if (stored := run.inputs) is None:
        return
    if tokenizer and stored.tokenizer != tokenizer:
        raise RunError(
            f"the tokenizer of model {config.model!r}, or its chat template, is no longer the one that "
            f"run {run.id!r} began with: restore its files, {way_out(run)}"
        )
    for domain, part, now in ((d, p, now) for d, parts in (text or {}).items() for p, now in parts.items()):
        before = stored.text.get(domain, {}).get(part)
        if before is None or (before == now if blocks else before.documents == now.documents):
            continue
        change, cure = "gives other tokens now", "go back to the library versions in its config.json"
        if before.documents != now.documents:
            change, cure = "has changed", "restore the old text"
        source = quoted(config.domains.get(domain, "embedded"))
        raise RunError(
            f"the {PARTS[part]} text of domain {quoted(domain)} ({source}) {change} since {name}: {cure}, "
            f"{way_out(run)}"
        )
    for task, digest in (tasks or {}).items():
        if stored.tasks.get(task, digest) != digest:
            folders = filter(None, (config.task_data, config.task_folder))
            origin = " or ".join(map(quoted, folders)) or "its data set, or the version of lm-eval"
            raise RunError(
                f"task {quoted(task)} asks or scores other items than when {name}: restore its old data and "
                f"files ({origin}), {way_out(run)}"
            )


def changes(iterations: Sequence[StoredIteration], now: Computation | None = None) -> list[str]:
    """Remarks on iterations that different devices or versions computed, in sentences.

    Args:
        iterations: iterations of a run, in order.
        now: computation of the next one.
    """
    steps = [(each.number, each.metrics.computed) for each in iterations]
    steps += [(steps[-1][0] + 1, now)] if now else []
    sentences = []
    for (_, before), (number, after) in zip(steps, steps[1:], strict=False):
        if before and after and before != after:
            old, new = before.plain(), after.plain()
            differences = ", ".join(
                f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
                for name in {**old, **new}
                if old.get(name) != new.get(name)
            )
            sentences.append(
                f"From iteration {number} on the run was computed differently ({differences}): "
                "small differences between its numbers may come from that."
            )
    return sentences


class Reuse:
    """Compares finished runs with the present inputs of their configs, and reads shared inputs once.

    Attributes:
        notes: reasons why runs are not reused or cannot be compared, in sentences.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._cache: dict[tuple[object, ...], Any] = {}

    def usable(self, run: Run) -> bool:
        """Whether a run has the present inputs of its config, as far as that is known."""
        try:
            if stored := run.inputs:
                self._compare(run, stored)
            elif run.last_iteration >= 0:
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
        from pruning.engine.blocks import documents
        from pruning.measure.tasks import task_digests

        config = run.config
        folder, weights, tokenizer = self._once(("model", config.model), partial(_model, config.model))
        check_inputs(run, weights, tokenizer_digest(folder))

        def text(domain: str, part: str) -> TextPart:
            source = documents(
                config, domain, "calibration" if part == "calibration" else "heldout", tokenizer
            ).source
            return TextPart(documents=source["documents"], digest="", blocks=0, tokens=0)

        for domain, parts in stored.text.items():
            for part in parts:
                key = ("text", config.model, domain, config.domains.get(domain), part, config.seed)
                now = self._once(key, partial(text, domain, part))
                check_inputs(run, text={domain: {part: now}})
        if config.tasks:
            options = config.task_data, config.task_folder, config.task_limit
            digests = partial(task_digests, config.tasks, *options)
            check_inputs(run, tasks=self._once(("tasks", config.tasks, *options), digests))

    def _once(self, key: tuple[object, ...], compute: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]


def _model(name: str) -> tuple[Path, str, Any]:
    """Folder of a model's tokenizer, fingerprint of its weights, and the tokenizer."""
    from transformers import AutoTokenizer

    path = locate(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # tokenizers raise a dozen types
        raise ModelError(f"the tokenizer in {str(path)!r} cannot be read: {reason_of(error)}.") from error
    return Path(tokenizer.name_or_path or path), fingerprint(path), tokenizer
