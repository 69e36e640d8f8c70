"""What is not supported is one sentence, whatever the entry; and what sets a model apart has a name."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pruning import RunConfig
from pruning.cli.main import main
from pruning.engine.loop import prune_loaded
from pruning.errors import ModelError
from pruning.models.families import FAMILIES
from pruning.models.folder import LoadedModel, describe
from pruning.models.layer_view import family_of, geometry, layer_views
from pruning.models.loading import load
from tests.conftest import CONFIGS, SIZES, byte_tokenizer, tiny_model

UNSUPPORTED = {
    "olmo2": {},
    "starcoder2": {"use_bias": True},
    "phi3": {},
    "gemma2": {"head_dim": 8},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
    "granite": {"embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
}


@pytest.mark.parametrize("model_type", UNSUPPORTED.keys() - FAMILIES.keys())
def test_an_unsupported_model_is_one_sentence_from_every_entry(model_type, tmp_path, capsys):
    sizes = {} if model_type == "gpt2" else SIZES
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes | UNSUPPORTED[model_type]))
    says = f"type '{model_type}' are not supported: supported are {', '.join(FAMILIES)}"
    for entry in (family_of, layer_views, geometry):
        with pytest.raises(ModelError, match=says):
            entry(model)
    loaded = LoadedModel(model, byte_tokenizer(), "it", tmp_path, "it")
    with pytest.raises(ModelError, match=says):
        list(prune_loaded(loaded, RunConfig.create(eval_blocks=0)))
    model.save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    for entry in (describe, load):
        with pytest.raises(ModelError, match=says):
            entry(str(tmp_path / "m"))
    folder = str(tmp_path / "m")
    capsys.readouterr()
    for command in (
        ["prune", "--model", folder],
        ["calibrate", "--model", folder],
        ["score", "--model", folder],
        ["evaluate", "--model", folder],
        ["export", folder, "--out", str(tmp_path / "out")],
        ["bench", folder],
        ["generate", "a", "--models", folder],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err.strip()
        assert says in error and len(error.splitlines()) == 1


def test_what_is_no_causal_language_model_is_said():
    classifier = AutoModelForSequenceClassification.from_config(CONFIGS["llama_mha"]())
    for model in (classifier.score, object()):
        with pytest.raises(ModelError, match="not supported"):
            layer_views(model)
    broken = tiny_model("qwen2")
    del broken.model.layers[1].mlp.down_proj
    with pytest.raises(ModelError, match="is not built as Qwen2 models are"):
        layer_views(broken)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_geometry_of_a_config_is_that_of_the_live_model(name):
    model = tiny_model(name)
    config = json.loads(model.config.to_json_string(use_diff=False))
    assert FAMILIES[model.config.model_type].geometry(config) == geometry(model)


@pytest.mark.parametrize(
    ("model_type", "config", "found"),
    [
        ("llama", {}, set()),
        ("llama", {"hidden_act": "relu"}, {"activation:relu"}),
        ("qwen3", {}, {"query_key_norms"}),
        ("mistral", {"sliding_window": 8, "max_position_embeddings": 64}, {"window"}),
        ("mistral", {"sliding_window": 64, "max_position_embeddings": 64}, set()),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, {"rope:yarn"}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope:linear"}),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, {"partial_rotary_factor"}),
        ("llama", {"embedding_multiplier": 12.0, "logits_scaling": 1.0}, {"embedding_multiplier"}),
        ("llama", {"final_logit_softcapping": 30.0}, {"final_logit_softcapping"}),
    ],
)
def test_what_sets_a_model_apart_has_a_name(model_type, config, found):
    assert FAMILIES[model_type].differences(config).keys() == found
