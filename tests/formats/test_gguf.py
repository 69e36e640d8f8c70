"""GGUF files, read back and in llama.cpp."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from pruning.errors import ExportError
from pruning.formats.checkpoint_info import CheckpointInfo
from pruning.formats.format import FORMATS, export_plans
from pruning.formats.gguf import K_QUANTS, interleave, write_gguf
from pruning.formats.gguf_vocabulary import unsupported_reason
from pruning.formats.llamacpp import logits, open_gguf
from pruning.formats.write import export
from pruning.models.checkpoint import save
from pruning.models.folder import describe
from pruning.models.loading import load
from pruning.models.source import InMemory
from tests.conftest import CONFIGS, SIZES, needs_demo, needs_llama_cpp, tiny_model
from tests.formats.conftest import IDS, changed


def test_rows_go_from_halves_to_pairs():
    rows = torch.arange(8.0)[:, None]  # one head of 8: halves 0-3 and 4-7
    assert interleave(rows, 8).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, "neither a byte-level BPE"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "type 'yarn'"),
    ],
)
def test_what_llama_cpp_cannot_compute_is_known_beforehand(file, change, reason, checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    offered = {plan.format: plan for plan in export_plans(CheckpointInfo.read(folder))}
    assert reason in offered["gguf"].unsupported_reason and offered["gguf"].unsupported_reason.endswith(
        "use --format hf."
    )
    with pytest.raises(ExportError, match=reason):
        export(folder, "gguf", tmp_path / "out")


def test_norms_and_biases_keep_their_precision(checkpoint, tmp_path):
    from gguf import GGUFReader

    folder, _ = checkpoint("qwen2")
    state = load_file(folder / "model.safetensors")
    reader = GGUFReader(export(folder, "gguf", tmp_path / "gguf", "bf16").path)
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    for name, original in (
        ("output_norm.weight", "model.norm.weight"),
        ("blk.0.ffn_down.bias", "model.layers.0.mlp.down_proj.bias"),
    ):
        assert np.array_equal(written[name], state[original].numpy())


def test_a_weight_beyond_a_type_is_refused(checkpoint, tmp_path):
    folder, _ = checkpoint("qwen2")
    changed(folder, "model.layers.0.mlp.up_proj.weight", 1e6)
    with pytest.raises(ExportError, match=r"'blk\.0\.ffn_up\.weight' .* f16 cannot hold .* --weights"):
        export(folder, "gguf", tmp_path / "gguf", "f16")
    assert export(folder, "gguf", tmp_path / "gguf", "bf16").path.exists()


def test_several_chat_templates_go_along(checkpoint, tmp_path):
    from gguf import GGUFReader

    folder, loaded = checkpoint("qwen2")
    loaded.tokenizer.chat_template = {"default": "one", "tool_use": "two"}
    loaded.tokenizer.save_pretrained(folder)
    for _ in range(2):  # the second replaces the first
        export(folder, "hf", tmp_path / "hf")
    reader = GGUFReader(export(folder, "gguf", tmp_path / "gguf").path)
    assert reader.get_field("tokenizer.chat_template").contents() == "one"
    assert reader.get_field("tokenizer.chat_template.tool_use").contents() == "two"


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_a_gguf_file_holds_every_layers_own_widths(kind, checkpoint, tmp_path):
    from gguf import GGUFReader

    folder, _ = checkpoint("qwen2")
    layers = describe(str(folder)).geometry.layers
    assert len(set(map(str, layers))) > 1
    reader = GGUFReader(export(folder, "gguf", tmp_path / "gguf", kind).path)

    def array(name):
        return [int(v) for v in reader.get_field(f"deci.{name}").contents()]

    assert array("feed_forward_length") == [layer["mlp"].entries for layer in layers]
    assert array("attention.head_count") == [layer["attn"].entries for layer in layers]
    assert array("attention.head_count_kv") == [layer["attn"].groups for layer in layers]
    names = {tensor.name for tensor in reader.tensors}
    biased = json.loads((folder / "pruning.json").read_text())["biased"]
    parts = {"attn": "attn_output", "mlp": "ffn_down"}
    for site, has_bias in biased.items():
        layer, part = site.split(".")
        assert (f"blk.{layer}.{parts[part]}.bias" in names) == has_bias
    assert {"blk.1.attn_q.bias", "blk.2.ffn_down.bias"} <= names
    assert "output.weight" not in names  # tied


@needs_llama_cpp
@pytest.mark.parametrize(
    ("name", "unit"),
    list(itertools.product(["qwen2", "llama_mha", "llama_gqa_bias", "seed_oss"], ["kv_group", "query_head"])),
)
@torch.no_grad()
def test_llama_cpp_computes_the_same_logits(name, unit, checkpoint, tmp_path):
    folder, loaded = checkpoint(name, attention_unit=unit)
    llm = open_gguf(export(folder, "gguf", tmp_path / "gguf", "f32").path)
    theirs, ours = logits(llm, IDS[0].tolist()), loaded.model(IDS[:1]).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 0.005 * np.abs(ours).max()
    assert (theirs.argmax(1) == ours.argmax(1)).all()


@needs_llama_cpp
@needs_demo
@pytest.mark.long
@torch.no_grad()
def test_llama_cpp_continues_the_pruned_demo_model_alike(tmp_path):
    from pruning import RunConfig
    from pruning.engine.blocks import evaluation_blocks
    from pruning.engine.loop import prune_loaded

    config = RunConfig.create(iterations=2, samples=8, eval_blocks=0)
    *_, done = prune_loaded(load("demo", "cpu"), config)
    model, tokenizer = done.loaded.model, done.loaded.tokenizer
    folder = save(InMemory(model), tokenizer, tmp_path / "model", {}, done.mask)
    llm = open_gguf(export(folder, "gguf", tmp_path / "gguf", "f32").path)
    prompt = "The river rises in the north.\n\nIt's 12345 metres, na\u00efve?  def f(x):\n    return x"
    for blocks in evaluation_blocks(config.replace(eval_blocks=1), tokenizer, model):
        ids = blocks.ids[0].tolist()
        theirs, ours = logits(llm, ids), model(torch.tensor([ids])).logits[0].numpy()
        assert np.abs(theirs - ours).max() < 0.005 * np.abs(ours).max()
        assert (theirs.argmax(1) == ours.argmax(1)).mean() > 0.99
    assert llm.tokenize(prompt.encode(), add_bos=False) == tokenizer(prompt).input_ids
    start = tokenizer("The city of", return_tensors="pt")
    ours = model.generate(**start, max_new_tokens=24, do_sample=False)[0, start.input_ids.shape[1] :]
    tokens = llm.generate(start.input_ids[0].tolist(), temp=0)
    assert list(itertools.islice(tokens, 24)) == ours.tolist()


@needs_llama_cpp
@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_a_real_models_massive_activations_are_no_reason_to_refuse(kind, smollm2, tmp_path):
    """A single logit of SmolLM2 differs by more than a percent in f16, and by a quarter in q8_0."""
    folder = save(smollm2.source, smollm2.tokenizer, tmp_path / "model")
    assert export(folder, "gguf", tmp_path / "gguf", kind).difference > 0


# --- tokenizers ------------------------------------------------------------------------------------------


def sentencepiece(text, form):
    """A small BPE as Llama 2's and Mistral's are: pieces joined by score, bytes for what is unknown."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(text.splitlines(), trainers.BpeTrainer(vocab_size=330, show_progress=False))
    learned = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in learned
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    bpe = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if form == "metaspace":
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        space = normalizers.Replace(" ", "\u2581")
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), space])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TEXTS = ["line 12: 144 mmm", "line  3:\n\n  9 ddd", "na\u00efve \u65e5\u672c \U0001f680", "", "a"]


@needs_llama_cpp
@pytest.mark.parametrize("form", ["metaspace", "prepend"])
def test_llama_cpp_splits_text_as_a_sentencepiece_tokenizer_does(form, text_file, tmp_path, monkeypatch):
    tokenizer = sentencepiece(text_file.read_text(), form)
    monkeypatch.setitem(CONFIGS, "spm", lambda: LlamaConfig(**SIZES | {"vocab_size": len(tokenizer)}))
    model = tiny_model("spm")
    assert unsupported_reason(json.loads(tokenizer.backend_tokenizer.to_str())) == ""
    write_gguf(model, tokenizer, tmp_path / "model.gguf")
    llm = open_gguf(tmp_path / "model.gguf")
    texts = [*TEXTS, text_file.read_text()[:400], *([" a leading space"] if form == "prepend" else [])]
    for text in texts:
        assert llm.tokenize(text.encode(), add_bos=False) == tokenizer(text).input_ids
        assert llm.detokenize(tokenizer(text).input_ids).decode().lstrip() == text.lstrip()
    assert llm.token_eos() == tokenizer.eos_token_id and llm.token_bos() == tokenizer.bos_token_id


@pytest.mark.parametrize("form", ["metaspace", "prepend"])
def test_a_sentencepiece_tokenizer_comes_back_from_its_gguf_file(form, text_file, tmp_path, monkeypatch):
    tokenizer = sentencepiece(text_file.read_text(), form)
    monkeypatch.setitem(CONFIGS, "spm", lambda: LlamaConfig(**SIZES | {"vocab_size": len(tokenizer)}))
    write_gguf(tiny_model("spm"), tokenizer, tmp_path / "model.gguf")
    again = load(str(tmp_path / "model.gguf"), "cpu").tokenizer
    special = ["<s>line 1"] if form == "prepend" else []  # a space follows it in llama.cpp, whatever the form
    for text in [*TEXTS, text_file.read_text()[:400], *special]:
        assert again(text).input_ids == tokenizer(text).input_ids
        assert again.decode(again(text).input_ids, skip_special_tokens=True).lstrip() == text.removeprefix(
            "<s>"
        )


@pytest.mark.parametrize("change", ["no bytes", "a merge less", "merges out of order", "another normalizer"])
def test_a_tokenizer_that_scores_of_pieces_cannot_describe_is_refused(change, text_file):
    content = json.loads(sentencepiece(text_file.read_text(), "prepend").backend_tokenizer.to_str())
    bpe = content["model"]
    if change == "no bytes":
        bpe["byte_fallback"] = False
    elif change == "a merge less":
        del bpe["merges"][5]
    elif change == "merges out of order":
        made = ["".join(merge) for merge in bpe["merges"]]
        twice = next(i for i, piece in enumerate(made) if made.count(piece) > 1)
        bpe["merges"].append(bpe["merges"].pop(twice))
    else:
        content["normalizer"]["normalizers"].insert(0, {"type": "NFKC"})
    assert "nor a SentencePiece BPE" in unsupported_reason(content)


# --- Qwen3 and k-quants -----------------------------------------------------------------------------------


@needs_llama_cpp
@torch.no_grad()
def test_qwen3_of_equal_widths_without_biases_is_llama_cpps_qwen3(checkpoint, tmp_path):
    folder, loaded = checkpoint("qwen3", allocation="uniform", ratio=0.5, compensation="none")
    done = export(folder, "gguf", tmp_path / "gguf", "f32")
    assert done.plan.architecture == "qwen3"
    theirs, ours = logits(open_gguf(done.path), IDS[0].tolist()), loaded.model(IDS[:1]).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 0.005 * np.abs(ours).max()


@needs_llama_cpp
@pytest.mark.parametrize("kind", K_QUANTS)
@torch.no_grad()
def test_llama_cpp_makes_k_quants_of_the_pruned_model(kind, checkpoint, tmp_path):
    from gguf import GGUFReader

    sizes = {"hidden_size": 256, "head_dim": 32, "intermediate_size": 1024}
    folder, loaded = checkpoint("llama_gqa_bias", sizes, round_to=256)
    assert len(set(map(str, describe(str(folder)).geometry.layers))) > 1
    plan = FORMATS["gguf"].plan(CheckpointInfo.read(folder), kind)
    # the heads' rows, 6 heads of 32 channels are 192: no rounding of MLP widths helps
    assert "no multiple of 256" in plan.drawback and "--round-to" not in plan.drawback
    done = export(folder, "gguf", tmp_path / "gguf", kind)
    assert [file.suffix for file in done.path.parent.iterdir()].count(".gguf") == 1
    types = {t.name: t.tensor_type.name for t in GGUFReader(done.path).tensors}
    assert types["blk.1.ffn_gate.weight"] == kind.upper().removesuffix("_M")
    assert types["blk.1.ffn_down.bias"] == "F32"
    theirs, ours = logits(open_gguf(done.path), IDS[0].tolist()), loaded.model(IDS[:1]).logits[0].numpy()
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.8  # of random weights; 0.88 in q4_k_m


def test_k_quants_need_llama_cpps_own_quantiser(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning.formats.llamacpp.installed", lambda: False)
    with pytest.raises(ExportError, match="not installed: pip install -r requirements-gguf.txt, or .* q8_0"):
        export(checkpoint("qwen2")[0], "gguf", tmp_path / "gguf", "q4_k_m")
