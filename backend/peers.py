"""The same decoding in another library, for the benchmark: transformers' generate, assisted generation, prompt lookup.

Same weights, same prompt tokens, same new tokens, both precisions. Its assistant is our draft with its short head, put
into a Llama of transformers, so that neither side drafts with a slower model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backend.catalog import ASSETS, DRAFT, DTYPES, LOCAL, Catalog
from backend.codecs.text import TextCodec
from backend.errors import UserError
from backend.models.house.draft import read_draft
from backend.models.local import load_smollm2
from backend.types import Sampling

LOOKUP_TOKENS, LOOKUP_NGRAM = 10, 3  # what our prompt_lookup copies and searches by default, too


@dataclass
class TransformersLane:
    """One way of calling `generate` in one precision."""

    name: str
    dtype: str
    model: Any
    codec: TextCodec
    sampling: Sampling
    budget: int
    extra: dict[str, Any] = field(default_factory=dict)
    peer: str = "transformers"

    def run(self, prompt: Any, seed: int) -> Any:
        """Generate for the prompt; both times are wall time."""
        from backend.bench import Timed

        torch.manual_seed(seed)
        warm = {"temperature": self.sampling.temperature, "top_k": 0, "top_p": 1.0} if self.sampling.temperature else {}
        start = time.perf_counter()
        ids_1N = torch.tensor([self.codec.encode(prompt.text).tokens], device=self.model.device)
        out_1T = self.model.generate(
            ids_1N,
            attention_mask=torch.ones_like(ids_1N),
            max_new_tokens=self.budget,
            do_sample=self.sampling.temperature > 0,
            eos_token_id=sorted(self.codec.end),
            pad_token_id=min(self.codec.end),
            **warm,
            **self.extra,
        )
        tokens = tuple(out_1T[0, ids_1N.shape[1] :].tolist())
        seconds = time.perf_counter() - start
        return Timed(tokens, seconds, seconds)


def transformers_lanes(
    catalog: Catalog, model_id: str, draft_id: str, sampling: Sampling, budget: int
) -> list[TransformersLane]:
    """Generate, assisted, assisted4 and lookup, each in float32 and bfloat16. Raises UserError for other models.

    assisted drafts as transformers does by default (up to 20 tokens, ended by low confidence), assisted4 always drafts
    4 tokens, as our `speculative` does.
    """
    if (model_id, draft_id) != (LOCAL, DRAFT):
        raise UserError(f"The transformers peer is set up for {LOCAL} with {DRAFT}; leave out --peer for {model_id}.")
    from transformers import AutoModelForCausalLM

    folder = load_smollm2()
    codec = TextCodec.from_folder(folder)
    lanes = []
    for dtype in DTYPES:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval().to(catalog.device)
        draft, draft4 = (_assistant(DTYPES[dtype]).to(catalog.device) for _ in range(2))
        draft4.generation_config.num_assistant_tokens = 4
        draft4.generation_config.num_assistant_tokens_schedule = "constant"
        draft4.generation_config.assistant_confidence_threshold = 0.0
        ways: Sequence[tuple[str, dict[str, Any]]] = (
            ("generate", {}),
            ("assisted", {"assistant_model": draft}),
            ("assisted4", {"assistant_model": draft4}),
            ("lookup", {"prompt_lookup_num_tokens": LOOKUP_TOKENS, "max_matching_ngram_size": LOOKUP_NGRAM}),
        )
        lanes += [
            TransformersLane(f"transformers {way} {dtype}", dtype, model, codec, sampling, budget, extra)
            for way, extra in ways
        ]
    return lanes


class ShortHead(nn.Module):
    """The draft's head over its own few tokens, its logits put at their places in the target's vocabulary."""

    def __init__(self, weight_KC: Tensor, ids_K: Tensor, vocab_size: int) -> None:
        super().__init__()
        self.weight_KC = nn.Parameter(weight_KC, requires_grad=False)
        self.ids_K = ids_K
        self.vocab_size = vocab_size

    def forward(self, hidden_BTC: Tensor) -> Tensor:
        """Logits [B, T, V], the lowest number where the draft has no token."""
        short_BTK = nn.functional.linear(hidden_BTC, self.weight_KC)
        low = torch.finfo(short_BTK.dtype).min
        full = short_BTK.new_full((*short_BTK.shape[:-1], self.vocab_size), low)
        return full.index_copy_(-1, self.ids_K, short_BTK)


def _assistant(dtype: torch.dtype) -> Any:
    """Our draft as a Llama of transformers: an embedding row for every token of the target, and the short head."""
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    draft = read_draft(ASSETS / f"{DRAFT}.safetensors")
    ours, c = draft.model.state_dict(), draft.model.config
    model = LlamaForCausalLM(
        TheirConfig(
            vocab_size=draft.vocab_size,
            hidden_size=c.dim,
            intermediate_size=c.ffn_dim,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.context,
            rms_norm_eps=c.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
            tie_word_embeddings=False,
        )
    )
    model.lm_head = ShortHead(draft.model.head_weight().detach().clone(), draft.ids_K, draft.vocab_size)
    theirs = {"model.embed_tokens.weight": ours["embed.weight"][draft.rows_V], "model.norm.weight": ours["norm.weight"]}
    for i in range(c.num_layers):
        theirs |= _their_layer(i, ours, (c.num_heads, c.num_kv_heads, c.num_kv_heads), c.head_dim)
    missing = model.load_state_dict(theirs, strict=False)
    assert missing.missing_keys == ["lm_head.weight_KC"], missing
    assert not missing.unexpected_keys, missing
    return model.to(dtype).eval()


def _their_layer(i: int, ours: dict[str, Tensor], heads: Sequence[int], width: int) -> dict[str, Tensor]:
    """One layer under transformers' names: products split, rotary pairs back in two halves."""
    q, k, v = torch.split(ours[f"blocks.{i}.qkv.weight"], [n * width for n in heads])
    gate, up = ours[f"blocks.{i}.gate_up.weight"].chunk(2)
    parts = {
        "self_attn.q_proj": _halves_apart(q, width),
        "self_attn.k_proj": _halves_apart(k, width),
        "self_attn.v_proj": v,
        "self_attn.o_proj": ours[f"blocks.{i}.out.weight"],
        "mlp.gate_proj": gate,
        "mlp.up_proj": up,
        "mlp.down_proj": ours[f"blocks.{i}.down.weight"],
        "input_layernorm": ours[f"blocks.{i}.attn_norm.weight"],
        "post_attention_layernorm": ours[f"blocks.{i}.ffn_norm.weight"],
    }
    return {f"model.layers.{i}.{name}.weight": weight for name, weight in parts.items()}


def _halves_apart(weight_OI: Tensor, width: int) -> Tensor:
    return weight_OI.view(-1, width // 2, 2, weight_OI.shape[1]).transpose(1, 2).reshape(weight_OI.shape)
