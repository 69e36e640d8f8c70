"""Checkpoints of tiny pruned models, and what they are compared on."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SeedOssConfig

from pruning.models.checkpoint import save
from pruning.models.layer_view import geometry
from tests.conftest import CONFIGS, SIZES, tiny_model, tiny_pruned

IDS = torch.randint(0, 256, (2, 20), generator=torch.manual_seed(5))
# Whatever the scores: the first layer loses heads, or the first two lose groups, and the last none. Where
# heads cannot leave, the scores alone make the widths of the MLPs different.
HEADS = {"query_head": ("0.attn.0",), "kv_group": ("0.attn.0-1", "1.attn.2-3")}


@pytest.fixture
def checkpoint(text_file, tmp_path, monkeypatch):
    """Writes the checkpoint of a tiny pruned model; `dense` changes its config."""
    monkeypatch.setitem(CONFIGS, "seed_oss", lambda: SeedOssConfig(**SIZES, head_dim=8))

    def make(name, dense=None, **options):
        original = CONFIGS[name]

        def config():
            made = original()
            for key, value in (dense or {}).items():
                setattr(made, key, value)
            return made

        monkeypatch.setitem(CONFIGS, name, config)
        if "allocation" not in options:
            unit = "kv_group" if name == "llama_mha" else options.get("attention_unit", "kv_group")
            if "attn" in geometry(tiny_model(name)).names:
                options = {"remove": HEADS[unit], "keep": ("2.attn",), **options}
        done = tiny_pruned(name, text_file, **options)
        record = {"config": {"method": "iterative", "mixture": {"text": 1.0}}}
        folder = save(done.loaded.source, done.loaded.tokenizer, tmp_path / "model", record, done.mask)
        return folder, done.loaded

    return make


def rewrite(folder, **changes):
    """A checkpoint's record with changes, as a person writes it: without checksums."""
    file = folder / "pruning.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in ("files", "checksum")}))


def changed(folder, name, value):
    """The checkpoint with one number of a tensor changed."""
    rewrite(folder)
    state = load_file(folder / "model.safetensors")
    state[name].view(-1)[0] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
