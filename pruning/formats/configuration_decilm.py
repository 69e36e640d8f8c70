"""The config of a DeciLM whose layers have widths of their own: `block_configs` says what each has.

vLLM builds its own DeciLM from it, with `--trust-remote-code`; mlx-lm reads `config.json` alone.
"""

from transformers import LlamaConfig


class Block(dict):
    """A part of `block_configs`, whose keys are attributes as well."""

    def __getattr__(self, name):
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        return Block(value) if isinstance(value, dict) else value


class DeciLMConfig(LlamaConfig):
    """Llama's config and `block_configs`, one for each layer."""

    model_type = "nemotron-nas"
    block_configs: list | None = None

    def __post_init__(self, **kwargs):
        self.block_configs = [Block(block) for block in self.block_configs or []]
        super().__post_init__(**kwargs)
