"""A Qwen2 model whose layers have widths of their own: structured pruning took heads and channels from it.

Loads with `AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`, and in vLLM with
`--trust-remote-code`. Everything but the widths is transformers' own. `config.per_layer_config` holds the
widths of each layer; `config.output_bias` says that the output projections have biases, which stand in for
the mean of what was removed.
"""

from contextlib import contextmanager
from copy import copy

from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model

# The projections of a layer that were pruned, and which widths their rows and columns have.
SITES: list = []


class PrunedQwen2Config(Qwen2Config):
    """The dense model's config, with `per_layer_config` and `output_bias`."""

    model_type = "pruned_qwen2"


class PrunedQwen2Model(Qwen2Model):
    """The dense model's decoder; only the widths of its projections differ from layer to layer."""

    config_class = PrunedQwen2Config

    def __init__(self, config):
        with _dense(config):
            super().__init__(config)
        for layer, widths in zip(self.layers, config.per_layer_config, strict=True):
            _resize(layer, widths, config)
        self.post_init()


class PrunedQwen2ForCausalLM(Qwen2ForCausalLM):
    """The dense model's class around that decoder."""

    config_class = PrunedQwen2Config

    def __init__(self, config):
        with _dense(config):
            super().__init__(config)
        self.model = PrunedQwen2Model(config)
        self.post_init()


@contextmanager
def _dense(config):
    """transformers' own constructors read one width for all layers: first the dense model's."""
    widths = config.to_dict()["per_layer_config"]
    config.per_layer_config = None
    try:
        yield
    finally:
        config.per_layer_config = widths


def _resize(layer, widths, config):
    """Give the projections of a layer its own widths, and tell the modules that keep a size themselves."""
    for site in SITES:
        sizes = {name: getattr(widths, site[name]) for name in ("entries", "groups")}
        sizes["group"] = sizes["entries"] // sizes["groups"]
        width = config.head_dim if site["heads"] else 1
        for path, parts in site["producers"].items():
            rows = width * sum(sizes[part] for part in parts)
            layer.set_submodule(path, _resized(layer.get_submodule(path), outputs=rows))
        consumer = layer.get_submodule(site["consumer"])
        columns = width * sizes["entries"]
        layer.set_submodule(site["consumer"], _resized(consumer, inputs=columns, bias=config.output_bias))
        for path, size in site["attributes"].items():
            owner, _, name = path.rpartition(".")
            if owner.endswith(".config"):  # which all layers share
                module = layer.get_submodule(owner.removesuffix(".config"))
                module.config = copy(module.config)
                setattr(module.config, name, sizes[size])
            else:
                setattr(layer.get_submodule(owner), name, sizes[size])


def _resized(linear, inputs=None, outputs=None, bias=False):
    return nn.Linear(
        inputs or linear.in_features,
        outputs or linear.out_features,
        bias=bias or linear.bias is not None,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
    )
