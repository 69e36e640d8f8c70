"""The figures that the paper reports (arXiv 2601.02674), to stand beside this project's own."""

from __future__ import annotations

from functools import cache
from typing import Any

from pruning.paths import ASSETS


@cache
def paper() -> dict[str, Any]:
    """The paper's figures, by experiment."""
    import yaml

    content = yaml.safe_load((ASSETS / "paper.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content
