"""Every form that a pruned model can be written in."""

from pruning.export import gguf, huggingface, masks  # noqa: F401 - they register their formats
