"""A model in one engine that answers line by line: JSON on standard input, JSON on standard output.

    python worker.py ENGINE MODEL CONTEXT BATCH DTYPE

runs in the engine's own environment and so imports nothing of this project. A line names a method of the
engine and its arguments; the answer holds its result. Decoding is greedy, and no token ends a text. A GGUF
file and mlx-lm compute in the type of the stored weights.
"""

import json
import os
import sys
import time

os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}


class Transformers:
    """A folder in stock transformers."""

    def __init__(self, model, context, batch, dtype):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        torch.set_grad_enabled(False)
        load = AutoModelForCausalLM.from_pretrained
        self.model = load(model, trust_remote_code=True, dtype=getattr(torch, dtype)).eval()

    def version(self):
        import transformers

        return f"transformers {transformers.__version__}"

    def score(self, prompts):
        """The log-probability of each token of each prompt but the first."""
        scores = []
        for ids in map(self.torch.tensor, prompts):
            logits = self.model(ids[None]).logits[0, :-1].float().log_softmax(-1)
            scores.append(logits.gather(1, ids[1:, None])[:, 0].tolist())
        return scores

    def generate(self, prompts, new):
        """The tokens that follow each prompt."""
        options = {"max_new_tokens": new, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        return [
            self.model.generate(self.torch.tensor([ids]), **options)[0, len(ids) :].tolist()
            for ids in prompts
        ]

    def time(self, batch, length, new):
        """Seconds for a batch of prompts, and for the tokens behind them."""
        ids = self.torch.tensor(texts(batch, length, self.model.config.vocab_size))
        start = time.perf_counter()
        cache = self.model(ids, use_cache=True, logits_to_keep=1).past_key_values
        middle, token = time.perf_counter(), ids[:, -1:]
        for _ in range(new):
            token = self.model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        return middle - start, time.perf_counter() - middle


class VLLM:
    """A folder in vLLM."""

    def __init__(self, model, context, batch, dtype):
        # in this process, so that an idle model takes no time from the one that is measured
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "WARNING"}
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        from vllm import LLM, SamplingParams

        self.params = SamplingParams
        self.llm = LLM(
            model,
            dtype=dtype,
            trust_remote_code=True,
            max_model_len=context,
            max_num_seqs=batch,
            max_num_batched_tokens=batch * context,
            enforce_eager=True,  # compiling takes minutes on a CPU
            enable_prefix_caching=False,
            skip_tokenizer_init=True,
        )
        self.requests = 0

    def version(self):
        from importlib.metadata import version

        import vllm

        return f"vLLM {vllm.__version__} with transformers {version('transformers')}"

    def architecture(self):
        """The name of the class that vLLM runs."""
        return self.llm.apply_model(lambda model: type(model).__name__)[0]

    def _sampling(self, new, **more):
        return self.params(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False, **more)

    def _run(self, prompts, sampling):
        return self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)

    def score(self, prompts):
        outputs = self._run(prompts, self._sampling(1, prompt_logprobs=0))
        return [
            [scores[i].logprob for i, scores in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]
            for ids, output in zip(prompts, outputs, strict=True)
        ]

    def generate(self, prompts, new):
        return [list(output.outputs[0].token_ids) for output in self._run(prompts, self._sampling(new))]

    def time(self, batch, length, new):
        engine, size = self.llm.llm_engine, self.llm.model_config.get_vocab_size()
        waiting = set()
        start = time.perf_counter()
        for ids in texts(batch, length, size):
            self.requests += 1
            waiting.add(str(self.requests))
            engine.add_request(str(self.requests), {"prompt_token_ids": ids}, self._sampling(new + 1))
        while waiting:  # for the first token of each
            waiting -= {output.request_id for output in engine.step()}
        middle = time.perf_counter()
        while engine.has_unfinished_requests():
            engine.step()
        return middle - start, time.perf_counter() - middle


class LlamaCpp:
    """A GGUF file in llama.cpp, through the C interface of llama-cpp-python, which takes whole batches."""

    def __init__(self, model, context, batch, dtype):
        import llama_cpp

        self.c, self.batch = llama_cpp, batch
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.use_extra_bufts = False  # its AMX kernels crash on some processors (issue 20824)
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        self.silent = silent  # kept, or the callback is collected
        llama_cpp.llama_log_set(silent, None)
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), parameters)
        if not self.model:
            raise ValueError(f"llama.cpp does not load {model}")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = batch * context
        options.n_seq_max = batch
        options.n_threads = options.n_threads_batch = len(os.sched_getaffinity(0))
        options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.tokens = llama_cpp.llama_batch_init(batch * context, 0, 1)

    def version(self):
        return f"llama-cpp-python {self.c.__version__}"

    def _clear(self):
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)

    def _read(self, rows, start, every=False):
        """Logits of the last token of each row, or of all tokens; rows begin at the same position."""
        import numpy as np

        tokens, index = self.tokens, 0
        for sequence, row in enumerate(rows):
            for offset, token in enumerate(row):
                tokens.token[index], tokens.pos[index] = token, start + offset
                tokens.n_seq_id[index], tokens.seq_id[index][0] = 1, sequence
                tokens.logits[index] = every or offset == len(row) - 1
                index += 1
        tokens.n_tokens = index
        if status := self.c.llama_decode(self.context, tokens):
            raise RuntimeError(f"llama_decode: {status}")
        count = index if every else len(rows)
        if count == index:
            return np.ctypeslib.as_array(self.c.llama_get_logits(self.context), (count, self.size)).copy()
        ends = np.cumsum([len(row) for row in rows]) - 1
        rows = [self.c.llama_get_logits_ith(self.context, int(end)) for end in ends]
        return np.stack([np.ctypeslib.as_array(row, (self.size,)) for row in rows])

    def score(self, prompts):
        import numpy as np

        scores = []
        for ids in prompts:
            self._clear()
            logits = self._read([ids], 0, every=True)[:-1].astype(np.float64)
            top = logits.max(1, keepdims=True)
            logits -= top + np.log(np.exp(logits - top).sum(1, keepdims=True))
            scores.append(logits[np.arange(len(ids) - 1), ids[1:]].tolist())
        return scores

    def generate(self, prompts, new):
        outputs = []
        for ids in prompts:
            self._clear()
            tokens = [int(self._read([ids], 0).argmax())]
            while len(tokens) < new:
                tokens.append(int(self._read([tokens[-1:]], len(ids) + len(tokens) - 1).argmax()))
            outputs.append(tokens)
        return outputs

    def time(self, batch, length, new):
        self._clear()
        rows = texts(batch, length, self.size)
        start = time.perf_counter()
        logits = self._read(rows, 0)
        middle = time.perf_counter()
        for step in range(new):
            logits = self._read(logits.argmax(1)[:, None].tolist(), length + step)
        return middle - start, time.perf_counter() - middle


class MLX:
    """A folder in mlx-lm."""

    def __init__(self, model, context, batch, dtype):
        from pathlib import Path

        import mlx.core as mx
        from mlx_lm.utils import load_model

        self.mx, (self.model, _) = mx, load_model(Path(model))

    def version(self):
        from importlib.metadata import version

        return f"mlx-lm {version('mlx-lm')}"

    def architecture(self):
        """The module of mlx-lm that holds the model's class."""
        return type(self.model).__module__.rpartition(".")[2]

    def score(self, prompts):
        mx, scores = self.mx, []
        for ids in prompts:
            logits = self.model(mx.array([ids]))[0, :-1].astype(mx.float32)
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            scores.append(mx.take_along_axis(logits, mx.array(ids[1:])[:, None], 1)[:, 0].tolist())
        return scores

    def generate(self, prompts, new):
        from itertools import islice

        from mlx_lm.generate import generate_step

        steps = (generate_step(self.mx.array(ids), self.model, max_tokens=new) for ids in prompts)
        return [[int(token) for token, _ in islice(each, new)] for each in steps]


def texts(batch, length, vocabulary):
    """Rows of arbitrary token ids, the same for every engine."""
    return [[(7919 * (row * length + i) + 13) % vocabulary for i in range(length)] for row in range(batch)]


ENGINES = {"transformers": Transformers, "vllm": VLLM, "llamacpp": LlamaCpp, "mlx": MLX}


def main():
    """Answer the lines of standard input."""
    name, model, context, batch, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints goes to standard error
    engine = ENGINES[name](model, int(context), int(batch), dtype)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps({"answer": getattr(engine, method)(**arguments)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
