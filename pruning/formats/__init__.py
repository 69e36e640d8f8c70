"""Every format that a pruned model can be written in."""

from pruning.formats import deci, gguf, huggingface, masks  # noqa: F401 - they register their formats
