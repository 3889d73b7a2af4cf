"""Draft heads on a target's hidden states: Medusa's, Hydra's with a prefix layer, and EAGLE's layer.

All predict over a trimmed vocabulary with the target's own head, and read the target's own embedding: neither is in
their files, so they are loaded with the `Words` of the target they sit on. Training calls the modules with autograd;
`pack` freezes them for decoding. Hidden states are read divided by the size that each of their features usually has.

Letters: N rows, K tokens of the trimmed vocabulary, V of the target's, C features, E features of an embedding made
small, R places ahead, S features of what a row hands on to its children.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.layers import LinearMap, Norm, norm_floor, pack_bytes, pack_linear, wide
from backend.models.house.llama import Block, Llama, LlamaConfig, Packed


@dataclass(frozen=True)
class HeadsConfig:
    """Sizes. kind: "medusa", "hydra" or "eagle". vocab_size: K; target_vocab: V; dim: C. reach: R.

    Args:
        small: E, hydra only. num_heads, num_kv_heads, head_dim, ffn_dim: of the layer, not for medusa.
    """

    kind: str
    vocab_size: int
    target_vocab: int
    dim: int
    reach: int
    small: int = 0
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int = 64
    ffn_dim: int = 0
    context: int = 8192
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    def layer(self) -> LlamaConfig:
        """The one layer as a Llama of its own."""
        return LlamaConfig(
            vocab_size=self.vocab_size, dim=self.dim, num_layers=1, num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads, head_dim=self.head_dim, ffn_dim=self.ffn_dim, context=self.context,
            rope_theta=self.rope_theta, norm_eps=self.norm_eps, tied=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Words:
    """What the heads take from their target: its embedding, and the rows of its head for the tokens ids_K."""

    embed_VC: Tensor
    head_KC: Tensor
    ids_K: Tensor

    @classmethod
    def of(cls, embed_VC: Tensor, head_VC: Tensor, ids_K: Tensor) -> Words:
        """From the whole embedding and head, which may be the same tensor."""
        ids_K = ids_K.to(head_VC.device)
        return cls(embed_VC, head_VC[ids_K].contiguous(), ids_K)


class Heads(nn.Module):
    """What all kinds share: the usual size of the target's features, by which they are divided.

    Args:
        config: sizes. feature_C, embed_C: usual size (root mean square) of hidden states and embeddings.
    """

    feature_C: Tensor
    embed_C: Tensor

    def __init__(self, config: HeadsConfig, feature_C: Tensor | None = None, embed_C: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("feature_C", torch.ones(config.dim) if feature_C is None else feature_C.float())
        self.register_buffer("embed_C", torch.ones(config.dim) if embed_C is None else embed_C.float())

    @property
    def num_params(self) -> int:
        """Number of trained weights; the target's embedding and head are not counted."""
        return sum(p.numel() for p in self.parameters())

    def fold(self) -> None:
        """Move every norm's weight into the map behind it, so that the maps can be kept in bytes. Laws stay."""


class MedusaHeads(Heads):
    """One residual block a place, all reading the newest hidden state (Medusa-1)."""

    def __init__(self, config: HeadsConfig, feature_C: Tensor | None = None, embed_C: Tensor | None = None) -> None:
        super().__init__(config, feature_C, embed_C)
        blocks = [nn.Linear(config.dim, config.dim) for _ in range(config.reach)]
        for block in blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)
        self.blocks = nn.ModuleList(blocks)

    def states(self, feature_NC: Tensor) -> list[Tensor]:
        """What the target's head reads for each place, R times [N, C]."""
        x_NC = feature_NC / self.feature_C
        return [feature_NC + self.feature_C * F.silu(block(x_NC)) for block in self.blocks]


class HydraHeads(Heads):
    """Heads that also read the tokens on the way to their place, behind a layer over all hidden states (Hydra++)."""

    def __init__(self, config: HeadsConfig, feature_C: Tensor | None = None, embed_C: Tensor | None = None) -> None:
        super().__init__(config, feature_C, embed_C)
        self.layer = Block(config.layer())
        self.norm = Norm(config.dim, config.norm_eps)
        self.shrink = nn.Linear(config.dim, config.small, bias=False)
        widths = [config.dim + (place + 1) * config.small for place in range(config.reach)]
        straight, bent = ([nn.Linear(width, config.dim, bias=False) for width in widths] for _ in range(2))
        for linear in (*straight, *bent, self.layer.out, self.layer.down):
            nn.init.zeros_(linear.weight)
        self.straight, self.bent = nn.ModuleList(straight), nn.ModuleList(bent)
        with torch.no_grad():  # the layer begins as the identity
            self.layer.attn_norm.weight.copy_(self.feature_C.square().mean().sqrt() / self.feature_C)
            self.layer.ffn_norm.weight.copy_(self.layer.attn_norm.weight)
            self.norm.weight.fill_(float(self.feature_C.square().mean().sqrt()))

    def shrunk(self, embed_NC: Tensor) -> Tensor:
        """Embeddings made small, [N, E]."""
        small_NE: Tensor = self.shrink(embed_NC / self.embed_C)
        return small_NE

    def state(self, place: int, prefix_NC: Tensor, path_NE: Tensor) -> Tensor:
        """What the target's head reads, [N, C]. prefix_NC: of the layer; path_NE: small embeddings of the way."""
        x_NI = torch.cat((prefix_NC / self.feature_C, path_NE), dim=-1)
        change_NC: Tensor = self.straight[place](x_NI) + F.silu(self.bent[place](x_NI))
        return prefix_NC + self.feature_C * change_NC

    def fold(self) -> None:
        """See `Heads.fold`; the final norm stays, since its weight is not read by one map only."""
        _fold(self.layer)


class EagleLayer(Heads):
    """One layer that continues hidden states: it reads a token with the state it was read from (EAGLE)."""

    def __init__(self, config: HeadsConfig, feature_C: Tensor | None = None, embed_C: Tensor | None = None) -> None:
        super().__init__(config, feature_C, embed_C)
        self.fuse = nn.Linear(2 * config.dim, config.dim, bias=False)
        self.layer = Block(config.layer())
        self.norm = Norm(config.dim, config.norm_eps)
        with torch.no_grad():
            self.norm.weight.copy_(self.feature_C)

    def fused(self, embed_NC: Tensor, feature_NC: Tensor) -> Tensor:
        """Input of the layer, [..., C]."""
        x_NI = torch.cat((embed_NC / self.embed_C, feature_NC / self.feature_C), dim=-1)
        fused_NC: Tensor = self.fuse(x_NI)
        return fused_NC

    def fold(self) -> None:
        """See `Heads.fold`."""
        _fold(self.layer)


KINDS: dict[str, type[Heads]] = {"medusa": MedusaHeads, "hydra": HydraHeads, "eagle": EagleLayer}


def _weights(linears: nn.ModuleList) -> list[Tensor]:
    return [linear.weight for linear in linears if isinstance(linear, nn.Linear)]


def _fold(layer: Block) -> None:
    with torch.no_grad():
        for norm, linear in ((layer.attn_norm, layer.qkv), (layer.ffn_norm, layer.gate_up)):
            linear.weight.mul_(norm.weight)
            norm.weight.fill_(1.0)


class Medusa:
    """Medusa's heads packed for decoding: one call gives the laws of all places."""

    def __init__(self, heads: MedusaHeads, words: Words, dtype: torch.dtype, in_bytes: bool = False) -> None:
        pack = packer(dtype, in_bytes)
        self.config, self.words, self.dtype = heads.config, words, dtype
        self._blocks = pack(torch.cat(_weights(heads.blocks)))
        self._bias_I = torch.cat([block.bias for block in heads.blocks if isinstance(block, nn.Linear)]).to(dtype)
        self._head = pack(words.head_KC)
        self._feature_C, self._scale_C = heads.feature_C.to(dtype), (1 / heads.feature_C).to(dtype)

    @torch.inference_mode()
    def laws(self, feature_1C: Tensor) -> Tensor:
        """Logits [R, K] of all places, float32 at least."""
        bent_RC = F.silu(self._blocks(feature_1C * self._scale_C) + self._bias_I).view(self.config.reach, -1)
        return self._head(torch.addcmul(feature_1C, bent_RC, self._feature_C)).to(wide(self.dtype))


class Chained:
    """What hydra and eagle share when packed: a layer with a cache over the text, and states handed from row to row.

    Args:
        heads: trained. words: of the target. dtype, in_bytes: as in `Llama.pack`.
    """

    def __init__(
        self, heads: HydraHeads | EagleLayer, words: Words, dtype: torch.dtype, in_bytes: bool, head: LinearMap
    ) -> None:
        config = heads.config
        self.config, self.words, self.dtype = config, words, dtype
        self.vocab_size, self.context, self.device = config.vocab_size, config.context, words.embed_VC.device
        pack = packer(dtype, in_bytes)

        def fold(linear: nn.Linear, norm: Norm | None) -> LinearMap:
            return pack(linear.weight, None if norm is None else norm.scale())

        self._layer = Llama(
            config.layer(),
            Packed(
                embed_VC=words.embed_VC,
                layers=(heads.layer.kernels(fold),),
                norm_scale_C=heads.norm.scale().to(wide(dtype)),
                head=head,
                head_VC=None,
                dtype=dtype,
                floor=norm_floor(config.dim, config.norm_eps, words.embed_VC),
                head_floor=norm_floor(config.head_dim, config.norm_eps, words.embed_VC),
            ),
        )
        self.open_cache = self._layer.open_cache


class Hydra(Chained):
    """Hydra's heads packed for decoding. A row hands on its prefix state and the small embeddings of its way."""

    def __init__(self, heads: HydraHeads, words: Words, dtype: torch.dtype, in_bytes: bool = False) -> None:
        super().__init__(heads, words, dtype, in_bytes, head=lambda x: x)
        pack = packer(dtype, in_bytes)
        self._head = pack(words.head_KC)
        self._shrink = pack(heads.shrink.weight)
        both = zip(_weights(heads.straight), _weights(heads.bent), strict=True)
        self._places = [pack(torch.cat(pair)) for pair in both]
        self._embed_scale_C = (1 / heads.embed_C).to(dtype)
        self._feature_C, self._scale_C = heads.feature_C.to(dtype), (1 / heads.feature_C).to(dtype)

    @torch.inference_mode()
    def text_rows(self, ids_N: Tensor, feature_NC: Tensor, positions_N: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """Append the text's rows to the cache; logits [1, K] behind the last one, and what it hands on, [1, S]."""
        c = self.config
        rows_NC = feature_NC.to(wide(self.dtype), copy=True)  # the layer writes into its input
        prefix_1C, _ = self._layer.forward_rows(rows_NC, positions_N, cache, last=1)
        state_1S = prefix_1C.new_zeros(1, 2 * c.dim + c.reach * c.small).to(self.dtype)
        state_1S[:, : c.dim] = prefix_1C
        state_1S[:, c.dim : 2 * c.dim] = prefix_1C * self._scale_C
        return self._read(ids_N[-1:], state_1S, 0)

    @torch.inference_mode()
    def draft_rows(
        self, ids_N: Tensor, state_NS: Tensor, positions_N: Tensor, cache: Any, visible_NS: Tensor | None, place: int
    ) -> tuple[Tensor, Tensor]:
        """Rows of guesses, all followed by `place`. state_NS: of their parents. Logits [N, K] and states [N, S]."""
        cache.append(len(ids_N))  # rows have slots, but hold nothing: the layer only sees the text
        return self._read(ids_N, state_NS.clone(), place)

    def _read(self, ids_N: Tensor, state_NS: Tensor, place: int) -> tuple[Tensor, Tensor]:
        dim, start = self.config.dim, 2 * self.config.dim + place * self.config.small
        end = start + self.config.small
        embed_NC = self.words.embed_VC[ids_N].to(self.dtype)
        state_NS[:, start:end] = self._shrink(embed_NC * self._embed_scale_C)
        straight_NC, bent_NC = self._places[place](state_NS[:, dim:end].contiguous()).chunk(2, dim=1)
        read_NC = torch.addcmul(state_NS[:, :dim], F.silu(bent_NC).add_(straight_NC), self._feature_C)
        return self._head(read_NC).to(wide(self.dtype)), state_NS


class Eagle(Chained):
    """EAGLE's layer packed for decoding. A row hands on the hidden state that it predicts."""

    def __init__(self, heads: EagleLayer, words: Words, dtype: torch.dtype, in_bytes: bool = False) -> None:
        pack = packer(dtype, in_bytes)
        super().__init__(heads, words, dtype, in_bytes, head=pack(words.head_KC))
        self._fuse = pack(heads.fuse.weight)
        self._scale_I = (1 / torch.cat((heads.embed_C, heads.feature_C))).to(dtype)

    @torch.inference_mode()
    def text_rows(self, ids_N: Tensor, feature_NC: Tensor, positions_N: Tensor, cache: Any) -> tuple[Tensor, Tensor]:
        """As `Hydra.text_rows`."""
        logits_1K, state_NC = self._rows(ids_N, feature_NC, positions_N, cache, None, 1)
        return logits_1K, state_NC[-1:]

    @torch.inference_mode()
    def draft_rows(
        self, ids_N: Tensor, state_NS: Tensor, positions_N: Tensor, cache: Any, visible_NS: Tensor | None, place: int
    ) -> tuple[Tensor, Tensor]:
        """As `Hydra.draft_rows`."""
        return self._rows(ids_N, state_NS, positions_N, cache, visible_NS, len(ids_N))

    def _rows(
        self, ids_N: Tensor, feature_NC: Tensor, positions_N: Tensor, cache: Any, visible_NS: Tensor | None, last: int
    ) -> tuple[Tensor, Tensor]:
        embed_NC = self._embedded(ids_N, positions_N)
        x_NI = torch.cat((embed_NC, feature_NC.to(self.dtype)), dim=1).mul_(self._scale_I)
        fused_NC = self._fuse(x_NI).to(wide(self.dtype))
        return self._layer.forward_rows(fused_NC, positions_N, cache, visible_NS, last)

    def _embedded(self, ids_N: Tensor, positions_N: Tensor) -> Tensor:
        """What the layer reads of tokens at these positions, [N, C] in its type."""
        return self.words.embed_VC[ids_N].to(self.dtype)


def packer(dtype: torch.dtype, in_bytes: bool) -> Callable[..., LinearMap]:
    """`pack(weight_OI, scale_I)`: a frozen map, of bytes or in dtype."""
    if in_bytes:
        return pack_bytes
    return lambda weight_OI, scale_I=None: pack_linear(weight_OI, None, dtype, scale_I)


def pack_heads(heads: Heads, words: Words, dtype: torch.dtype, in_bytes: bool = False) -> Medusa | Hydra | Eagle:
    """Freeze for decoding. in_bytes: weights of one byte and products in bfloat16, whatever dtype says."""
    dtype = torch.bfloat16 if in_bytes else dtype
    words = Words(words.embed_VC.to(dtype), words.head_KC.to(dtype), words.ids_K)
    if isinstance(heads, MedusaHeads):
        return Medusa(heads, words, dtype, in_bytes)
    if isinstance(heads, HydraHeads):
        return Hydra(heads, words, dtype, in_bytes)
    assert isinstance(heads, EagleLayer)
    return Eagle(heads, words, dtype, in_bytes)


def save_heads(path: Path, heads: Heads, ids_K: Tensor, odds: list[list[float]], bits: float = 8) -> None:
    """Write the heads with matrices of so many bits (see `rounded`), and all else in float32. Folds their norms.

    odds: [k][r] is how often the r-th best guess for place k was right. bits: Hydra's straight maps, which
    lose nearly all that is lost by rounding, take at least 7.
    """
    heads.fold()
    weights = {name: weight.detach().float().cpu() for name, weight in heads.state_dict().items()}
    straight = [name for name in weights if name.startswith("straight.")]
    state = rounded.in_bits(weights, bits, straight, finer_bits=max(bits, 7))
    state["ids_K"] = ids_K.to(torch.int32)
    metadata = {"config": json.dumps(asdict(heads.config)), "odds": json.dumps(odds)}
    save_file(state, path, metadata=metadata)


def read_heads(path: Path, device: torch.device | str = "cpu") -> tuple[Heads, Tensor, list[list[float]]]:
    """Heads, ids_K and odds in a file of `save_heads`, float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"{path.name} is not in assets/house: train it with python -m backend.train.smollm2_heads.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    ids_K = stored.pop("ids_K").long()
    config = HeadsConfig(**json.loads(metadata["config"]))
    heads = KINDS[config.kind](config).to(device)
    heads.load_state_dict(rounded.from_bytes(stored))
    return heads, ids_K, json.loads(metadata["odds"])
