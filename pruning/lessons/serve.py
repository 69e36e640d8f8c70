"""The process that answers lessons: one JSON request on a line of its input, answers on lines of its output.

`python -m pruning.lessons.serve`; it ends when its input does, so that it never outlives the app.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from pruning.errors import PruningError


def main() -> None:
    """Load the demo model, then answer requests until there are no more."""
    # what libraries print must not come between answers
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch

    # threads that wait for each other on a busy machine cost a small model tenfold what they save
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    from pruning.lessons import experiments
    from pruning.lessons.lab import Lab

    labs = {name: Lab(name) for name in ("demo", "smollm2")}
    _ = labs["demo"].loaded, labs["demo"].dense
    for line in sys.stdin:
        request = json.loads(line)
        try:
            _say(answers, answer=experiments.answer(labs, request, lambda p: _progress(answers, p)))
        except PruningError as error:
            _say(answers, error=str(error))


def _progress(answers: TextIO, progress: Any) -> None:
    if progress.total:
        _say(answers, progress=min(progress.done / progress.total, 1.0), stage=progress.stage)


def _say(answers: TextIO, **content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
