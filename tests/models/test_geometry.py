import pytest
import torch

from pruning.errors import ModelError
from pruning.models.folder import describe
from pruning.models.geometry import Geometry, Site
from pruning.models.layer_view import family_of, geometry
from tests.conftest import TINY, byte_tokenizer, tiny_model


def test_sites_print_and_parse():
    assert Site.parse(str(Site(12, "mlp"))) == Site(12, "mlp")


@pytest.mark.parametrize("name", TINY)
def test_costs_add_up_to_the_parameters_of_the_linear_layers(name):
    model = tiny_model(name)
    counted = sum(
        parameter.numel()
        for key, parameter in model.model.layers.named_parameters()
        if "proj" in key and not key.endswith(("o_proj.bias", "down_proj.bias"))
    )
    assert geometry(model).linear_parameters == counted


@pytest.mark.parametrize("name", TINY)
def test_the_config_alone_tells_the_same_geometry(name, tmp_path):
    model = tiny_model(name)
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    summary = describe(str(tmp_path))
    assert summary.geometry == geometry(model)
    assert summary.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_the_cache_has_the_keys_and_values_that_the_model_leaves_there(name):
    model = tiny_model(name)
    cache = model(torch.zeros(1, 5, dtype=torch.long), use_cache=True).past_key_values
    values = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert 5 * geometry(model).cache_values == values


def test_geometry_survives_json():
    shape = geometry(tiny_model("qwen2"))
    assert Geometry.from_dict(shape.to_dict()) == shape


def test_another_architecture_is_refused_by_name():
    model = tiny_model("qwen2")
    model.config.model_type = "gpt2"
    with pytest.raises(ModelError, match="'gpt2' are not supported: supported are "):
        family_of(model)
