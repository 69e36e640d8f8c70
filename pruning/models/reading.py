"""Live models from files: dense ones, pruned ones with widths by layer, and dense ones cut by masks.

Nothing is filled in or skipped in silence: a model has every weight or is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from pruning.checksums import checksum_of
from pruning.errors import ModelError, library_errors
from pruning.files import PRUNING_FILE
from pruning.formatting import quoted
from pruning.models.delta import Delta
from pruning.models.families import FAMILIES
from pruning.models.family import CausalLM, rope_type, rotary_embeddings
from pruning.models.folder import EXPORT_KEYS, LoadedModel, dense_type, fingerprint, read_config, read_record
from pruning.models.geometry import Geometry
from pruning.models.layer_view import geometry
from pruning.models.mask import Mask
from pruning.models.surgery import empty_model
from pruning.models.tensors import read_object, weight_files, weights_digest


def model_config(path: Path) -> Any:
    """The config of a folder's dense architecture, as transformers has it.

    Raises:
        ModelError: it is not supported, or holds a value that transformers does not take.
    """
    content = read_config(path)
    model_type = dense_type(content)
    # attention as it was on the machine that trained the model may not be installed here
    attention = ("_attn_implementation", "attn_implementation", "output_attentions")
    for key in ("model_type", *attention, *EXPORT_KEYS):
        content.pop(key, None)
    with library_errors(ModelError, f"the config {quoted(path / 'config.json')} cannot be used"):
        config = CONFIG_MAPPING[model_type].from_dict(content)
    activation = getattr(config, FAMILIES[model_type].activation)
    if activation not in ACT2FN:
        raise ModelError(
            f"the config {quoted(path / 'config.json')} names the activation {quoted(activation)}, "
            "which transformers does not know: copy the model's own config again."
        )
    for rotary in rotary_embeddings({"rope_parameters": config.rope_parameters}):
        if (kind := rope_type(rotary)) not in ("default", *ROPE_INIT_FUNCTIONS):
            raise ModelError(
                f"the config {quoted(path / 'config.json')} names a rotary embedding of type {quoted(kind)}, "
                f"which transformers does not compute: it knows default, {', '.join(ROPE_INIT_FUNCTIONS)}."
            )
    return config


def read_dense(path: Path, dtype: Any) -> CausalLM:
    """A dense model, in a torch dtype or, if None, in the stored one.

    Raises:
        ModelError: weights that are broken, missing or without a place in the architecture.
    """
    options: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype or "auto"}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, config=model_config(path), trust_remote_code=False, **options
        )
    except SafetensorError as error:
        raise _broken(path, error) from None
    model, report = loaded
    # the library fills what is missing with random numbers and skips what it does not know
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"the weights in {str(path)!r} lack {missing[0]!r}{_more(missing)}: copy or download them again."
        )
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        # a head of its own is used although the config ties it: say so, or it would not be saved
        model.config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}
    unexpected = sorted(key for key in report["unexpected_keys"] if not key.endswith("rotary_emb.inv_freq"))
    if unexpected:
        raise ModelError(
            f"the weights in {str(path)!r} hold {unexpected[0]!r}{_more(unexpected)}, for which "
            f"{type(model).__name__} has no place: give the model's own config, or for a pruned model its "
            f"{PRUNING_FILE}."
        )
    return model


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _broken(path: Path, error: Exception) -> ModelError:
    return ModelError(f"the weights in {str(path)!r} are broken ({error}): copy or download them again.")


def read_pruned(path: Path, dtype: Any) -> CausalLM:
    """A pruned model by its record, in a torch dtype or, if None, in the stored one.

    Raises:
        ModelError: the weights are broken, or do not fit the record.
    """
    record, config = read_record(path), model_config(path)
    state: dict[str, torch.Tensor] = {}
    try:
        for file in weight_files(path):
            state |= load_file(file)
    except SafetensorError as error:
        raise _broken(path, error) from None
    shapes = Geometry.from_dict(record["geometry"])
    if len(shapes.layers) != config.num_hidden_layers:
        layers = len(shapes.layers)
        raise _misfit(path, f"it names {layers} layers and the config {config.num_hidden_layers}")
    if unnamed := [site for site in map(str, shapes.sites) if site not in record["biased"]]:
        raise _misfit(path, f"it does not say whether {unnamed[0]} has a bias")
    model = empty_model(config, shapes, record["biased"])
    _check_fit(path, state, model)
    stored = next(iter(state.values())).dtype
    model.load_state_dict({k: v.to(dtype or stored) for k, v in state.items()}, strict=False, assign=True)
    model.tie_weights()
    if (path / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(path, trust_remote_code=False)
    return model


def read_tokenizer(path: Path, config: Any, trust_remote_code: bool) -> tuple[Any, dict[str, str]]:
    """A model's tokenizer, and the checksums of the Python files that were run for it.

    Args:
        path: of the model.
        config: the model's, so that the library need not run an export's modelling file to find it.
        trust_remote_code: whether code of the folder may run.

    Raises:
        ModelError: the tokenizer is code of the folder, and is not trusted.
    """
    code: dict[str, str] = {}
    if reference := _tokenizer_code(path):
        module = f"{reference.rpartition('.')[0].rpartition('--')[2]}.py"
        if "--" in reference or not (path / module).is_file():
            raise ModelError(
                f"the tokenizer in {quoted(path)} is the Python code {quoted(reference)}, which is not in "
                "that folder: download the file into it, and look at it."
            )
        if not trust_remote_code:
            raise ModelError(
                f"the tokenizer in {quoted(path)} is Python code that came with it, {quoted(module)}, and is "
                "not run: look at it, then add --trust-remote-code, or give a tokenizer.json that needs none."
            )
        code = {file.name: checksum_of(file) for file in sorted(path.glob("*.py"))}
    tokenizer = AutoTokenizer.from_pretrained(path, config=config, trust_remote_code=bool(code))
    return tokenizer, code


def _tokenizer_code(path: Path) -> str:
    """`MODULE.CLASS` of the code that a folder's tokenizer is; empty where transformers has the class."""
    file = path / "tokenizer_config.json"
    content = read_object(file) if file.exists() else {}
    name = content.get("tokenizer_class")
    if isinstance(name, str) and tokenizer_class_from_name(name):
        return ""
    auto_map = content.get("auto_map")
    reference = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    classes = reference if isinstance(reference, list) else [reference]
    return next((name for name in reversed(classes) if isinstance(name, str)), "")


def _check_fit(path: Path, state: dict[str, torch.Tensor], model: CausalLM) -> None:
    """Check that the weights are those of the model, by name and shape."""
    tied, expected = model.all_tied_weights_keys, model.state_dict()
    for key in sorted(expected.keys() | state.keys()):
        if key not in state and key not in tied:
            raise _misfit(path, f"the weights lack {key!r}")
        if key not in expected:
            raise _misfit(path, f"the weights hold {key!r}, for which it has no place")
        if key in state and state[key].shape != expected[key].shape:
            shapes = f"{tuple(state[key].shape)}, and {tuple(expected[key].shape)} by the record"
            raise _misfit(path, f"{key!r} has the shape {shapes}")


def _misfit(path: Path, what: str) -> ModelError:
    return ModelError(
        f"the checkpoint in {str(path)!r} does not fit its {PRUNING_FILE}: {what}: export or prune again."
    )


def cut_by_masks(loaded: LoadedModel, path: Path, name: str) -> LoadedModel:
    """Cut a dense model, in place, as an export of masks in a folder says.

    Raises:
        ModelError: the masks are broken, or were made for another model.
    """
    record, dense = read_record(path), geometry(loaded.model)
    try:
        delta = Delta.read(path, dense)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"the masks in {str(path)!r} cannot be read ({type(error).__name__}): export them again."
        ) from None
    # the same shapes are not the same model: an instruct version, say, or another seed
    if not _fits(delta, record, loaded):
        raise ModelError(
            f"the mask in {str(path)!r} was made for another model than {loaded.name!r} is now: restore the "
            "files of that model, or export the masks again."
        )
    delta.apply(loaded.source)
    return replace(loaded, name=name, path=path, fingerprint=fingerprint(path))


def _fits(delta: Delta, record: dict[str, Any], loaded: LoadedModel) -> bool:
    shapes, full = delta.mask.geometry, Mask.full(delta.mask.geometry)
    return (
        {site: (array.dtype, array.shape) for site, array in delta.mask.kept.items()}
        == {site: (array.dtype, array.shape) for site, array in full.kept.items()}
        and {str(site) for site in shapes.sites} >= delta.biases.keys()
        and all(tuple(bias.shape) == (shapes.hidden_size,) for bias in delta.biases.values())
        and delta.mask.pruned == Geometry.from_dict(record["geometry"])
        and record.get("base_digest", "") in ("", weights_digest(loaded.path))
    )
