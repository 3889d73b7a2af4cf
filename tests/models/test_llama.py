"""The lean forward against transformers on tiny random weights, and its own ways of computing the same numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from backend.errors import UserError
from backend.models.house.llama import Llama, LlamaConfig

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 96,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
FAMILY = {
    "llama": (transformers.LlamaConfig, {}),
    "llama-tied-with-biases": (
        transformers.LlamaConfig,
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-llama3-rope": (transformers.LlamaConfig, {"rope_parameters": LLAMA3}),
    "llama-linear-rope": (transformers.LlamaConfig, {"rope_parameters": LINEAR}),
    "mistral": (transformers.MistralConfig, {"sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 24}),
}


def make(name: str) -> tuple[Llama, Any]:
    """The same random weights as a lean model and as a transformers model."""
    torch.manual_seed(0)
    config_class, variant = FAMILY[name]
    config = config_class(**{**SIZES, **variant})
    theirs = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, mean=float(weight.dim() == 1), std=0.2)
    return Llama.from_hf(config.to_dict(), theirs.state_dict()), theirs


@pytest.fixture(scope="module")
def lean() -> Llama:
    return make("qwen3")[0]


@pytest.fixture(name="ids_N")
def some_ids() -> Tensor:
    return torch.randint(0, 97, (40,), generator=torch.Generator().manual_seed(1))


def run(model: Llama, ids_N: Tensor, cuts: tuple[int, ...] = (), layers: list[int] | None = None) -> Tensor:
    """Logits of a chain fed to a fresh cache in pieces that end at `cuts`."""
    cache = model.open_cache(len(ids_N))
    bounds = [0, *cuts, len(ids_N)]
    pieces = [model.forward_rows(ids_N[a:b], torch.arange(a, b), cache, layers=layers)[0] for a, b in pairwise(bounds)]
    return torch.cat(pieces)


@pytest.mark.parametrize("name", FAMILY)
def test_logits_equal_transformers(name: str, ids_N: Tensor) -> None:
    ours, theirs = make(name)
    with torch.no_grad():
        expected = theirs(ids_N[None]).logits[0]
        trained = ours(ids_N[None])[0]
    assert ours.num_params == sum(weight.numel() for weight in theirs.parameters())
    torch.testing.assert_close(trained, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(run(ours, ids_N), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(run(ours.pack(torch.float32), ids_N), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cuts", [(1,), (30, 31, 32), (7, 39)])
def test_pieces_equal_the_whole(lean: Llama, ids_N: Tensor, cuts: tuple[int, ...]) -> None:
    model = lean.pack(torch.float64)
    torch.testing.assert_close(run(model, ids_N, cuts), run(model, ids_N), atol=1e-9, rtol=0)


def test_tree_rows_equal_chain_rows(lean: Llama, ids_N: Tensor) -> None:
    """After a prefix of 10, a tree: root r with children a and b, b with child c. Every path equals its own chain."""
    model = lean.pack(torch.float64)
    prefix, (r, a, b, c) = ids_N[:10], ids_N[10:14].tolist()
    cache = model.open_cache(20)
    model.forward_rows(prefix, torch.arange(10), cache)
    visible_NS = torch.ones(4, 14, dtype=torch.bool)
    visible_NS[:, 10:] = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], dtype=torch.bool)
    tree, hidden = model.forward_rows(
        torch.tensor([r, a, b, c]), torch.tensor([10, 11, 11, 12]), cache, visible_NS=visible_NS
    )
    for row, path in ((0, [r]), (1, [r, a]), (2, [r, b]), (3, [r, b, c])):
        chain = run(model, torch.cat((prefix, torch.tensor(path))))
        torch.testing.assert_close(tree[row], chain[-1], atol=1e-9, rtol=0)
    assert hidden.shape == (4, model.config.dim)

    cache.keep([*range(10), 10, 12, 13])  # the path r, b, c
    after, _ = model.forward_rows(ids_N[20:21], torch.tensor([13]), cache)
    chain = run(model, torch.cat((prefix, torch.tensor([r, b, c]), ids_N[20:21])))
    torch.testing.assert_close(after[0], chain[-1], atol=1e-9, rtol=0)


def test_truncate_forgets_and_overwrites(lean: Llama, ids_N: Tensor) -> None:
    model = lean.pack(torch.float64)
    cache = model.open_cache(40)
    model.forward_rows(ids_N[:20], torch.arange(20), cache)
    cache.truncate(12)
    again, _ = model.forward_rows(ids_N[30:33], torch.arange(12, 15), cache)
    chain = run(model, torch.cat((ids_N[:12], ids_N[30:33])))
    torch.testing.assert_close(again, chain[-3:], atol=1e-9, rtol=0)


def test_cache_refuses_what_it_does_not_hold(lean: Llama, ids_N: Tensor) -> None:
    cache = lean.open_cache(8)
    lean.forward_rows(ids_N[:6], torch.arange(6), cache)
    for slots in ([0, 2, 1], [0, 6], [1, 1], [-1, 0], list(range(7))):
        with pytest.raises(ValueError, match="keep"):
            cache.keep(slots)
    with pytest.raises(ValueError, match="cut"):
        cache.truncate(7)
    with pytest.raises(ValueError, match="8 slots"):
        lean.forward_rows(ids_N[:3], torch.arange(6, 9), cache)
    assert cache.length == 6


def test_packed_equals_unpacked(lean: Llama, ids_N: Tensor) -> None:
    torch.testing.assert_close(run(lean.pack(torch.float32), ids_N), run(lean, ids_N), atol=1e-4, rtol=0)


def test_bfloat16_runs_and_is_near(lean: Llama, ids_N: Tensor) -> None:
    near, exact = run(lean.pack(torch.bfloat16), ids_N, (30,)), run(lean, ids_N)
    assert near.dtype == torch.float32
    assert float((near - exact).norm() / exact.norm()) < 0.03


def test_last_gives_the_final_rows(lean: Llama, ids_N: Tensor) -> None:
    logits, hidden = lean.forward_rows(ids_N, torch.arange(40), lean.open_cache(40), last=3)
    torch.testing.assert_close(logits, run(lean, ids_N)[-3:], atol=1e-4, rtol=0)
    assert hidden.shape == (40, lean.config.dim)


def test_layers_run_a_smaller_model(ids_N: Tensor) -> None:
    ours, theirs = make("llama")
    del theirs.model.layers[1]
    with torch.no_grad():
        expected = theirs(ids_N[None], use_cache=False).logits[0]
    torch.testing.assert_close(run(ours, ids_N, (11,), layers=[0, 2]), expected, atol=1e-4, rtol=0)


def test_unsupported_checkpoints_are_named() -> None:
    with pytest.raises(UserError, match="'gpt2'"):
        LlamaConfig.from_hf({"model_type": "gpt2"})
    with pytest.raises(UserError, match="'yarn'"):
        LlamaConfig.from_hf({**SIZES, "model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}})
    with pytest.raises(UserError, match="'gelu'"):
        LlamaConfig.from_hf({**SIZES, "model_type": "llama", "hidden_act": "gelu"})
    with pytest.raises(UserError, match="embed_tokens"):
        Llama.from_hf({**SIZES, "model_type": "llama"}, {})


def test_a_sliding_window_bounds_the_context() -> None:
    assert LlamaConfig.from_hf({**SIZES, "model_type": "mistral", "sliding_window": 64}).context == 64
    assert LlamaConfig.from_hf({**SIZES, "model_type": "qwen2", "sliding_window": 64}).context == 256


@pytest.mark.gpu
def test_cuda_equals_cpu(lean: Llama, ids_N: Tensor) -> None:
    model = lean.to("cuda").pack(torch.float32)
    cache = model.open_cache(40)
    there, _ = model.forward_rows(ids_N.cuda(), torch.arange(40, device="cuda"), cache)
    torch.testing.assert_close(there.cpu(), run(lean.to("cpu"), ids_N), atol=1e-3, rtol=0)
