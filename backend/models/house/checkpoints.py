"""Published checkpoints of the Llama family under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from backend.models.house.layers import interleave

if TYPE_CHECKING:
    from backend.models.house.llama import LlamaConfig


def our_names(sizes: LlamaConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published checkpoint under our names: fused where we fuse, rotary pairs interleaved."""
    width = sizes.head_dim
    out = {"embed.weight": state["model.embed_tokens.weight"], "norm.weight": state["model.norm.weight"]}
    if not sizes.tied:
        out["head.weight"] = state["lm_head.weight"]
    for i in range(sizes.num_layers):
        theirs, ours = f"model.layers.{i}.", f"blocks.{i}."
        attention, mlp = theirs + "self_attn.", theirs + "mlp."
        for part, present in (("weight", True), ("bias", sizes.qkv_bias)):
            if present:
                q, k, v = (state[f"{attention}{x}_proj.{part}"] for x in "qkv")
                out[f"{ours}qkv.{part}"] = torch.cat((interleave(q, width), interleave(k, width), v))
        for part, present in (("weight", True), ("bias", sizes.out_bias)):
            if present:
                out[f"{ours}out.{part}"] = state[f"{attention}o_proj.{part}"]
        for part, present in (("weight", True), ("bias", sizes.ffn_bias)):
            if present:
                out[f"{ours}gate_up.{part}"] = torch.cat([state[f"{mlp}{x}_proj.{part}"] for x in ("gate", "up")])
                out[f"{ours}down.{part}"] = state[f"{mlp}down_proj.{part}"]
        if sizes.qk_norm:
            for x in "qk":
                out[f"{ours}{x}_norm.weight"] = interleave(state[f"{attention}{x}_norm.weight"], width)
        out[f"{ours}attn_norm.weight"] = state[f"{theirs}input_layernorm.weight"]
        out[f"{ours}ffn_norm.weight"] = state[f"{theirs}post_attention_layernorm.weight"]
    return out
