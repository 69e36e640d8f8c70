"""A Qwen2 model whose layers have widths of their own: structured pruning took heads and channels from it.

Loads with `AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`, and in vLLM with
`--trust-remote-code`. Everything but the widths is transformers' own. `config.per_layer_config` holds the
widths of each layer; `config.output_bias` says that the output projections have biases, which stand in for
the mean of what was removed.
"""

from contextlib import contextmanager

from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model


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
            _resize(layer.self_attn, layer.mlp, widths, config)
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


def _resize(attention, mlp, widths, config):
    heads = widths.num_attention_heads * config.head_dim
    kv_heads = widths.num_key_value_heads * config.head_dim
    channels, bias = widths.intermediate_size, config.output_bias
    attention.num_key_value_groups = widths.num_attention_heads // widths.num_key_value_heads
    attention.q_proj = _resized(attention.q_proj, outputs=heads)
    attention.k_proj = _resized(attention.k_proj, outputs=kv_heads)
    attention.v_proj = _resized(attention.v_proj, outputs=kv_heads)
    attention.o_proj = _resized(attention.o_proj, inputs=heads, bias=bias)
    mlp.intermediate_size = channels
    mlp.gate_proj = _resized(mlp.gate_proj, outputs=channels)
    mlp.up_proj = _resized(mlp.up_proj, outputs=channels)
    mlp.down_proj = _resized(mlp.down_proj, inputs=channels, bias=bias)


def _resized(linear, inputs=None, outputs=None, bias=False):
    return nn.Linear(
        inputs or linear.in_features,
        outputs or linear.out_features,
        bias=bias or linear.bias is not None,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
    )
