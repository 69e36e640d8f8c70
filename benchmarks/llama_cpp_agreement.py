"""The pruned demo model in llama.cpp against transformers: logits, next tokens, greedy text, by type of weights.

pip install -r requirements-gguf.txt && python benchmarks/llama_cpp_agreement.py
"""

import itertools
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, machine, table

from pruning import RunConfig
from pruning.engine.blocks import evaluation_blocks
from pruning.formats.llamacpp import logits, open_gguf
from pruning.formats.write import export
from pruning.runs.worker import prune

TOKENS, PROMPT, NEW = 256, 32, 32


@torch.no_grad()
def main():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        done = prune(RunConfig.create(eval_blocks=0), folder)
        model, tokenizer = done.loaded.model, done.loaded.tokenizer
        config = done.run.config.replace(eval_blocks=1)
        domains = evaluation_blocks(config, tokenizer, model)
        for kind in ("f32", "f16", "bf16", "q8_0"):
            written = export(done.run.checkpoint, "gguf", Path(folder) / kind, kind)
            llm = open_gguf(written.path)
            for blocks in domains:
                ids = blocks.ids[0][:TOKENS].tolist()
                theirs = logits(llm, ids)
                ours = model(torch.tensor([ids])).logits[0].numpy()
                prompt = ids[:PROMPT]
                continued = model.generate(
                    torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None
                )[0, PROMPT:].tolist()
                tokens = itertools.islice(llm.generate(prompt, temp=0), NEW)
                both = zip(tokens, continued, strict=True)
                alike = next((i for i, (a, b) in enumerate(both) if a != b), NEW)
                agree = (theirs.argmax(1) == ours.argmax(1)).mean()
                rows.append(
                    (kind, f"{written.bytes / 1e6:.1f}", blocks.domain, f"{np.abs(theirs - ours).max():.3f}",
                     f"{np.abs(ours).max():.1f}", f"{100 * agree:.1f}%", f"{alike} of {NEW}")
                )  # fmt: skip
                print(rows[-1], flush=True)
    head = (
        "type",
        "MB",
        "domain",
        "largest difference of a logit",
        "largest logit",
        "same next token",
        "greedy tokens alike",
    )
    text = f"# The demo model, pruned by 50%, in llama.cpp\n\n{machine()}, llama-cpp-python {version('llama-cpp-python')}\n\n"
    text += f"{TOKENS} tokens of each domain's held-out text, against transformers in float32.\n\n{table(head, rows)}\n\n`python benchmarks/llama_cpp_agreement.py`\n"
    (RESULTS / "llama_cpp_agreement.md").write_text(text)


if __name__ == "__main__":
    main()
