"""A model for lm-evaluation-harness that caches its answers, and a hash of what a task asks.

The cache holds log-likelihoods by token ids. What the harness makes of them, with the task's current code and
data, is computed every time.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM

from pruning.checksums import read_cached, write_cached
from pruning.models.cache import cache_file
from pruning.models.folder import LoadedModel

BATCH = 32  # sequences at once
# Keys of a task's configuration that decide how its answers are scored. All others show in its requests.
SCORING = ("output_type", "process_results", "filter_list", "metric_list", "should_decontaminate")


@dataclass(frozen=True)
class Answers:
    """Log-likelihood of each continuation, and whether greedy decoding would write it."""

    values: list[tuple[float, bool]]


class CachedModel(HFLM):
    """The harness's model, which computes the log-likelihoods of the same tokens once.

    Args:
        loaded: model and tokenizer.
        state: identifier of the model's weights.
    """

    def __init__(self, loaded: LoadedModel, state: str) -> None:
        super().__init__(
            pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH, trust_remote_code=False
        )
        self._weights, self._state = loaded.model, state

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The harness's log-likelihoods without its progress bars, which would break ours."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        digest = hashlib.blake2b(digest_size=16)
        for _, context, continuation in requests:
            digest.update(np.array([len(context), len(continuation), *context, *continuation]).tobytes())
        file = cache_file("zeroshot", self._weights, self._state, digest.hexdigest())
        if answers := read_cached(file, Answers):
            return [(value, is_greedy) for value, is_greedy in answers.values]
        values = super()._loglikelihood_tokens(requests, **options)
        write_cached(file, Answers([(float(value), bool(is_greedy)) for value, is_greedy in values]))
        return values


def task_digest(task: Task) -> str:
    """Hash of what a task asks and how it scores: its requests, its rows, and the code of its scoring.

    Args:
        task: a task whose requests are built.
    """
    digest = hashlib.blake2b(digest_size=16)
    for request in task.instances:
        row = [request.request_type, request.doc_id, request.idx, request.args, request.doc]
        digest.update(json.dumps(row, default=repr, sort_keys=True).encode())
    config = task.dump_config()
    scoring = json.dumps({key: config.get(key) for key in SCORING}, default=repr, sort_keys=True)
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", scoring).encode())  # addresses differ in every process
    return digest.hexdigest()
