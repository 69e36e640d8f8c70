"""The README's snippets do what they say."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pruning import RunConfig
from pruning.engine.loop import prune_loaded
from pruning.formats.write import export
from pruning.measure.writing import continue_prompt
from pruning.models.checkpoint import save
from pruning.models.loading import load
from pruning.serving.engines import find_python
from tests.conftest import needs_demo

README = Path(__file__).resolve().parent.parent / "README.md"
SNIPPETS = dict(
    re.findall(r"```python\n# load: (\w+)\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
)


ENGINE = {"VLLM": "vllm", "MLX": "mlx", "GGUF": "llamacpp"}


@needs_demo
@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("EQUAL", "hf"),
        ("DIFFERENT", "hf"),
        ("GGUF", "gguf"),
        pytest.param("VLLM", "hf", marks=pytest.mark.engines),
        pytest.param("MLX", "deci", marks=pytest.mark.engines),
    ],
)
def test_a_snippet_loads_a_pruned_model_in_a_fresh_process(name, format, tmp_path):
    python = find_python(ENGINE.get(name, "transformers"))
    if python is None:
        pytest.skip(f"{ENGINE[name]} is not installed: make engines, or requirements-gguf.txt")
    allocation = "equal" if name == "EQUAL" else "global"
    config = RunConfig.create(iterations=1, samples=2, eval_blocks=0, allocation=allocation)
    *_, done = prune_loaded(load("demo", "cpu"), config)
    folder = save(done.loaded.source, done.loaded.tokenizer, tmp_path / "model", {}, done.mask)
    written = export(folder, format, tmp_path / "out", verify=False)
    code = SNIPPETS[name].replace(f'"{name}"', repr(str(written.path)))
    if name not in ENGINE:
        code += 'ids = tokenizer("The river", return_tensors="pt")\n'
        code += "print(tokenizer.decode(model.generate(**ids, max_new_tokens=4, do_sample=False)[0]))"
    # elsewhere, so that nothing of this project can be imported by accident
    # and nobody there to answer a question
    (tmp_path / "snippet.py").write_text(code)
    result = subprocess.run(
        [python, "snippet.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
    )
    assert result.returncode == 0, result.stderr
    if name not in ENGINE:
        prompt = done.loaded.tokenizer("The river", return_tensors="pt")["input_ids"]
        text = done.loaded.tokenizer.decode([*prompt[0], *continue_prompt(done.loaded, prompt, 4)])
        assert result.stdout.strip() == text.strip()
    assert sum(character.isalpha() for character in result.stdout) > 5  # a few words, in every engine
    assert code.count("\n") <= 6
