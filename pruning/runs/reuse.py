"""Whether a finished run is still what its config means: model, tokenizer, text and tasks as they are now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.config import RunConfig
from pruning.errors import ModelError, PruningError, RunError, reason_of
from pruning.models.folder import fingerprint, locate
from pruning.runs.inputs import (
    check_tasks,
    check_text,
    check_tokenizer,
    check_weights,
    tokenizer_digest,
)
from pruning.runs.outcome import Inputs, TextPart
from pruning.runs.run import Run


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
        from pruning.measure.tasks import task_digests

        where = (config.task_data, config.task_folder, config.task_limit)
        key = ("tasks", config.tasks, *where)
        if key not in self._cache:
            self._cache[key] = task_digests(config.tasks, *where)
        return self._cache[key]
