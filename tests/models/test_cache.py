"""A cached value is found by all that it depends on."""

import torch

from pruning import versions
from pruning.models import cache
from pruning.models.cache import cache_file
from tests.conftest import tiny_model


def test_every_part_of_a_key_counts(monkeypatch):
    model = tiny_model("qwen2")

    def file(kind="moments", state="state", inputs=("digest",)):
        return cache_file(kind, model, state, *inputs)

    files = [file(), file(kind="curves"), file(state="other"), file(inputs=("other",)), file(inputs=())]
    with monkeypatch.context() as patch:
        patch.setattr(cache, "versions", lambda: {**versions.versions(), "transformers": "another"})
        files.append(file())
    with monkeypatch.context() as patch:
        patch.setattr(versions, "code_digest", lambda: "another")
        files.append(file())
    model.to(torch.bfloat16)
    files.append(file())
    assert len({str(path) for path in files}) == len(files)
    model.to(torch.float32)
    assert file() == files[0]


def test_the_code_that_computes_is_a_version(monkeypatch, tmp_path):
    for name in versions.COMPUTING:
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("SHARE = 0.5\n")
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "versions.py"))
    digests = set()
    for name in (None, *versions.COMPUTING):
        if name:
            (tmp_path / name / "module.py").write_text("SHARE = 0.25\n")
        digests.add(versions.code_digest.__wrapped__())
    assert len(digests) == 1 + len(versions.COMPUTING)
