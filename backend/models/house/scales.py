"""Pictures map by map, coarse to fine: a transformer that draws all tokens of a map in one call.

A sequence is one row an attribute, then one row a cell of every map. What a cell's row reads is the sum of the maps
before its own (`backend.codecs.pyramid`), shrunk to the map's size: the colours of the cell and of those around it and
the nearest colour of the palette; of the first map, a vector of its own. To that come vectors of the cell's row, its
column and its map. Rows of attributes see each other; the others see them, their own map and all coarser ones (Tian et
al. 2024, 2404.02905), or, in a Markov model, their own map alone, so that nothing is kept between calls (Kumbong et al.
2025, 2506.04421). Half of every head is turned by row and half by column, in pixels of the finished picture, so that a
cell finds those that it lies in, in coarser maps.

What is asked may speak to every block besides (Peebles and Xie 2023, 2212.09748; shared among blocks in 2404.02905):
one map makes a scale, a shift and a gate for both branches of a block from the sum of vectors of the attributes, each
block adds numbers of its own to them, and the head has a scale and a shift.

A Markov model may have a second way through its last blocks, from which the cells of a map that are masked can be drawn
again given the others: `redraws` is how many blocks it has of its own.

Letters: A attributes, K maps, N cells of a map, L cells of all maps, T rows of a pass, S rows to see, V codes, B batch,
C features, P rotary pairs, Y the side of the picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.codecs.portraits import VOCABULARY
from backend.codecs.pyramid import SIDE, UNKNOWN, Kind, Pyramid, enlarging, shipped, shrinking
from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.adaln import ASKED, UNASKED, Asked, Unasked
from backend.models.house.layers import Norm, rotary_speeds, rotary_turns, rotate, wide

THETA = 100.0  # of the angles: the slowest pair turns by about a third over 16 pixels
EPS = 1e-5
CHOICES = tuple(len(values) + 1 for values in VOCABULARY.values())
Map = tuple[int, Tensor | None]  # number of a map, and the sum [B, 3, Y, Y] of those before it; None without any


@dataclass(frozen=True)
class ScalesConfig:
    """Sizes of a model.

    Args:
        kind: of its pyramid. redraws: blocks of the mask branch, 0 for a model without one.
        adaln: whether attributes speak to every block, by a shared map.
    """

    kind: Kind
    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    markov: bool = False
    redraws: int = 0
    adaln: bool = False


class ScaleCache:
    """Keys and values of the rows of one batch that were run, by layer."""

    def __init__(self) -> None:
        self.rows = 0
        self.held: list[tuple[Tensor, Tensor]] = []

    def extend(self, layer: int, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Those of a layer with new ones behind them."""
        if layer == len(self.held):
            self.held.append((k_BHTD, v_BHTD))
        else:
            before = self.held[layer]
            self.held[layer] = (torch.cat((before[0], k_BHTD), dim=2), torch.cat((before[1], v_BHTD), dim=2))
        return self.held[layer]


@dataclass(frozen=True)
class View:
    """Rows that look at the same columns. bias: 0 or -inf, [rows, columns], None where each sees all of these."""

    rows: slice
    columns: Tensor
    bias: Tensor | None

    def mixed(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> Tensor:
        """Attention of these rows, written out: on CPUs training takes half the time of the fused operator's."""
        if len(self.columns) < k_BHSD.shape[2]:
            k_BHSD, v_BHSD = k_BHSD[:, :, self.columns], v_BHSD[:, :, self.columns]
        heat = (q_BHTD[:, :, self.rows] * q_BHTD.shape[-1] ** -0.5) @ k_BHSD.transpose(-1, -2)
        heat = heat if self.bias is None else heat + self.bias.to(heat.dtype)
        mixed_BHTD: Tensor = heat.softmax(-1) @ v_BHSD
        return mixed_BHTD


class ScaleBlock(nn.Module):
    """Attention with normalised queries and keys, then a gated net, both behind a norm."""

    def __init__(self, config: ScalesConfig) -> None:
        super().__init__()
        dim, ffn = config.dim, config.ffn_dim
        self.heads = config.num_heads
        self.attn_norm, self.ffn_norm = Norm(dim, EPS), Norm(dim, EPS)
        self.q_norm, self.k_norm = (Norm(dim // self.heads, EPS) for _ in "qk")
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.gate_up = nn.Linear(dim, 2 * ffn, bias=False)
        self.down = nn.Linear(ffn, dim, bias=False)
        self.own = nn.Parameter(torch.zeros(ASKED * dim)) if config.adaln else None

    def asked(self, told_BX: Tensor | None) -> Sequence[Asked | Unasked]:
        """By branch, what attributes say to it. told_BX: what the shared map makes of them, [B, 6 C]."""
        if told_BX is None or self.own is None:
            return UNASKED
        parts = (told_BX + self.own)[:, None].chunk(ASKED, dim=-1)
        return Asked(*parts[:3]), Asked(*parts[3:])

    def forward(
        self,
        h_BTC: Tensor,
        turn_T1P: Tensor,
        views: Sequence[View],
        cache: ScaleCache | None = None,
        layer: int = 0,
        told_BX: Tensor | None = None,
    ) -> Tensor:
        """The rows behind this block. views: of all rows, one behind the other. told_BX: see `asked`."""
        mixing, thinking = self.asked(told_BX)
        qkv_BTHD = self.qkv(mixing.entering(self.attn_norm(h_BTC))).unflatten(-1, (3 * self.heads, -1))
        q, k, v = qkv_BTHD.chunk(3, dim=2)
        turned = (rotate(norm(x).to(wide(x.dtype)), turn_T1P) for norm, x in ((self.q_norm, q), (self.k_norm, k)))
        q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (*turned, v))
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        mixed_BHTD = torch.cat([view.mixed(q, k, v) for view in views], dim=2)
        h_BTC = h_BTC + mixing.leaving(self.out(mixed_BHTD.transpose(1, 2).flatten(2)))
        gate, up = self.gate_up(thinking.entering(self.ffn_norm(h_BTC))).chunk(2, dim=-1)
        behind: Tensor = h_BTC + thinking.leaving(self.down(F.silu(gate) * up))
        return behind


class Scales(nn.Module):
    """Weights of a model of the maps of a pyramid. Every map of a residual pyramid has a head of its own."""

    def __init__(self, config: ScalesConfig, pyramid: Pyramid) -> None:
        super().__init__()
        assert pyramid.kind == config.kind, (pyramid.kind, config.kind)
        assert config.markov or not config.redraws, "a mask branch sees one map only"
        self.config, self.pyramid = config, pyramid
        dim, codes, maps = config.dim, pyramid.vocab_size, len(pyramid.sizes)
        self.starts = tuple(sum(CHOICES[:i]) for i in range(len(CHOICES)))
        self.embed_conditions = nn.Embedding(sum(CHOICES), dim)
        self.embed_start = nn.Parameter(torch.zeros(1, dim))
        self.embed_colour = nn.Embedding(codes, dim)
        self.embed_row, self.embed_column = nn.Embedding(SIDE, dim), nn.Embedding(SIDE, dim)
        self.embed_map = None if config.kind == "flat" else nn.Embedding(maps, dim)
        self.patch_in, self.patch_out = nn.Linear(27, dim), nn.Linear(dim, dim, bias=False)
        self.blocks = nn.ModuleList(ScaleBlock(config) for _ in range(config.num_layers))
        self.norm = Norm(dim, EPS)
        heads = 1 if config.kind == "flat" else maps
        self.heads = nn.ModuleList(nn.Linear(dim, codes, bias=False) for _ in range(heads))
        if config.adaln:
            self.embed_asked = nn.Embedding(sum(CHOICES), dim)
            self.ada = nn.Linear(dim, (ASKED + 2) * dim)
        if config.redraws:
            self.embed_mask = nn.Parameter(torch.zeros(1, dim))
            self.embed_told = nn.Embedding(codes, dim)
            self.told_in, self.told_out = nn.Linear(3, dim), nn.Linear(dim, dim, bias=False)
            self.redraw_blocks = nn.ModuleList(ScaleBlock(config) for _ in range(config.redraws))
            self.redraw_norm = Norm(dim, EPS)
            self.redraw_heads = nn.ModuleList(nn.Linear(dim, codes, bias=False) for _ in self.heads)
        self._tables: dict[torch.device, _Tables] = {}

    @property
    def num_params(self) -> int:
        """Weights in all."""
        return sum(weight.numel() for weight in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_start.device

    @property
    def tables(self) -> _Tables:
        """The numbers of the pyramid where the weights are, in float32 whatever the weights have."""
        if self.device not in self._tables:
            self._tables[self.device] = _Tables(self.pyramid, self.device)
        return self._tables[self.device]

    def totals(self, canvas_BL: Tensor, plan: Sequence[int]) -> list[Map]:
        """The maps of a plan, ascending numbers of maps, each with the sum of those before it, from whole canvases.

        canvas_BL: tokens of all maps of the pyramid, those that the plan leaves out included.
        """
        found: list[Map] = []
        total: Tensor | None = None
        for at in plan:
            found.append((at, total))
            tokens_BN = canvas_BL[:, self.pyramid.starts[at] : self.pyramid.starts[at + 1]]
            grown = self.tables.enlarged(self.tables.codes_KVD[at][tokens_BN], at)
            total = grown if total is None or self.pyramid.replaces(at) else total + grown
        return found

    def features(self, conditions_BA: Tensor, maps: Sequence[Map], cache: ScaleCache | None = None) -> list[Tensor]:
        """Features [B, N, C] of the cells of these maps, one pass over all their rows, differentiable.

        The maps must follow each other, those of earlier passes with this cache included. Without a cache, or with an
        empty one, the rows of the attributes are run in front of them.
        """
        entered = [self._entry(at, total, len(conditions_BA)) for at, total in maps]
        return self._through(list(self.blocks), self.norm, conditions_BA, maps, entered, cache)

    def redrawn(self, conditions_BA: Tensor, maps: Sequence[Map], told: Sequence[Tensor]) -> list[Tensor]:
        """The same by the mask branch. told: by map its tokens [B, N], -1 where they are masked."""
        entered = [
            self._entry(at, total, len(conditions_BA)) + self.retold(at, total, tokens_BN)
            for (at, total), tokens_BN in zip(maps, told, strict=True)
        ]
        shared = list(self.blocks)[: self.config.num_layers - self.config.redraws]
        blocks = [*shared, *self.redraw_blocks]
        return self._through(blocks, self.redraw_norm, conditions_BA, maps, entered, None)

    def logits(self, features_BNC: Tensor, at: int, redrawn: bool = False) -> Tensor:
        """Logits [B, N, V] of a map from its features."""
        heads = self.redraw_heads if redrawn else self.heads
        read: Tensor = heads[min(at, len(heads) - 1)](features_BNC)
        return read

    def _through(
        self,
        blocks: Sequence[nn.Module],
        norm: Norm,
        conditions_BA: Tensor,
        maps: Sequence[Map],
        entered: Sequence[Tensor],
        cache: ScaleCache | None,
    ) -> list[Tensor]:
        """Run rows through blocks; attributes first, where the cache has none."""
        first = cache is None or not cache.rows
        counts = [rows.shape[1] for rows in entered]
        h_BTC = torch.cat(([self._asked(conditions_BA)] if first else []) + list(entered), dim=1)
        hidden = len(CHOICES) if first else 0
        turn_T1P = self._turned([at for at, _ in maps], hidden, wide(h_BTC.dtype)).to(h_BTC.device)
        visible_TS = block_mask(hidden, counts, cache.rows if cache is not None else 0, self.config.markov)
        views = views_of(visible_TS.to(h_BTC.device), hidden + sum(counts[:-1]))
        told_BX, ending = self.told_of(conditions_BA)
        for layer, block in enumerate(blocks):
            h_BTC = block(h_BTC, turn_T1P, views, cache, layer, told_BX)
        if cache is not None:
            cache.rows += h_BTC.shape[1]
        behind: Any = ending.entering(norm(h_BTC[:, hidden:]))
        return list(behind.split(counts, dim=1))

    def told_of(self, conditions_BA: Tensor) -> tuple[Tensor | None, Asked | Unasked]:
        """What the attributes say to all blocks, [B, 6 C], and to the head; nothing where they have rows alone."""
        if not self.config.adaln:
            return None, UNASKED[0]
        sum_BC = self.embed_asked(conditions_BA + torch.tensor(self.starts, device=conditions_BA.device)).sum(1)
        told_BX = self.ada(F.silu(sum_BC)).to(wide(self.embed_start.dtype))
        size = ASKED * self.config.dim
        scale, shift = told_BX[:, None, size:].chunk(2, dim=-1)
        return told_BX[:, :size], Asked(scale, shift, torch.zeros_like(shift))

    def _turned(self, ats: Sequence[int], hidden: int, dtype: torch.dtype) -> Tensor:
        """Complex turns [T, 1, P] of rows: none of attributes, then those of the cells."""
        head_dim = self.config.dim // self.config.num_heads
        turned = torch.cat([turns(self.pyramid.sizes[at], head_dim, dtype) for at in ats])
        return torch.cat((turned.new_ones(hidden, 1, turned.shape[-1]), turned))

    def _asked(self, conditions_BA: Tensor) -> Tensor:
        """Rows [B, A, C] of the attributes; 0 is "left open", and has a vector of its own."""
        rows: Tensor = self.embed_conditions(conditions_BA + torch.tensor(self.starts, device=conditions_BA.device))
        return rows

    def place(self, at: int) -> Tensor:
        """What the rows [N, C] of a map read of their row, their column and their map."""
        down = self.tables.down(at).to(self.embed_start.dtype)
        place_NC = ((down @ self.embed_row.weight)[:, None] + (down @ self.embed_column.weight)[None]).flatten(0, 1)
        return place_NC if self.embed_map is None else place_NC + self.embed_map.weight[at]

    def _entry(self, at: int, total: Tensor | None, batch: int) -> Tensor:
        """What the rows [B, N, C] of a map read."""
        height, width = self.pyramid.sizes[at]
        place_NC = self.place(at)
        if total is None:
            return (place_NC + self.embed_start).expand(batch, -1, -1)
        small_B3HW = self.tables.shrunk(total, at)
        around = F.unfold(F.pad(small_B3HW, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2)
        patch_BNC = self.patch_out(F.gelu(self.patch_in(around.to(self.embed_start.dtype))))
        nearest_BN = self.tables.nearest(small_B3HW.flatten(2).transpose(1, 2))
        rows: Tensor = place_NC + patch_BNC + self.embed_colour(nearest_BN)
        return rows.expand(batch, height * width, -1)

    def retold(self, at: int, total: Tensor | None, tokens_BN: Tensor) -> Tensor:
        """What the mask branch reads of the tokens of a map: the colours that they lead to, or the mask."""
        code_BND = self.tables.codes_KVD[at][tokens_BN.clamp_min(0)]
        if total is not None and not self.pyramid.replaces(at):
            code_BND = code_BND + self.tables.shrunk(total, at).flatten(2).transpose(1, 2)
        read_BNC = self.told_out(F.gelu(self.told_in(code_BND.to(self.embed_start.dtype))))
        read_BNC = read_BNC + self.embed_told(self.tables.nearest(code_BND))
        return torch.where((tokens_BN == UNKNOWN)[..., None], self.embed_mask.to(read_BNC.dtype), read_BNC)


class _Tables:
    """The numbers of a pyramid as float32 tensors, and what a model does with them, never in less than float32."""

    def __init__(self, pyramid: Pyramid, device: torch.device) -> None:
        self.pyramid, self.device = pyramid, device
        self.codes_KVD = torch.from_numpy(pyramid.codes_KVD).to(device)
        self._colours_VD = torch.from_numpy(pyramid.colours_VD).to(device)
        sides = [height for height, _ in pyramid.sizes]
        self._downs = [torch.from_numpy(shrinking(side)).to(device) for side in sides]
        self._ups = [torch.from_numpy(enlarging(side)).to(device) for side in sides]

    def down(self, at: int) -> Tensor:
        """[h, Y]: means over the cells of a map."""
        return self._downs[at]

    def shrunk(self, total_B3YY: Tensor, at: int) -> Tensor:
        """A sum at the size of a map, [B, 3, h, w]."""
        with torch.autocast(self.device.type, enabled=False):
            return self._downs[at] @ total_B3YY @ self._downs[at].T

    def enlarged(self, cells_BND: Tensor, at: int) -> Tensor:
        """Numbers of the cells of a map at the size of the picture, [B, 3, Y, Y]."""
        with torch.autocast(self.device.type, enabled=False):
            cells_B3HW = cells_BND.transpose(1, 2).reshape(len(cells_BND), 3, *self.pyramid.sizes[at])
            grown_B3YY: Tensor = self._ups[at] @ cells_B3HW @ self._ups[at].T
            return grown_B3YY

    def nearest(self, cells_BND: Tensor) -> Tensor:
        """Number [B, N] of the palette's colour that is nearest."""
        with torch.autocast(self.device.type, enabled=False):
            far_BNV = (self._colours_VD**2).sum(1) - 2 * cells_BND @ self._colours_VD.T
            return far_BNV.argmin(-1)


def block_mask(hidden: int, counts: Sequence[int], seen: int, markov: bool) -> Tensor:
    """Which rows may be seen, bool [T, S]: of `seen` in the cache all, of attributes and maps as told above.

    Args:
        hidden: rows of attributes in this pass. counts: rows of each of its maps.
    """
    block_T = torch.tensor([-1] * hidden + [i for i, count in enumerate(counts) for _ in range(count)])
    visible_TT = block_T[:, None] == block_T[None]
    visible_TT = visible_TT | (block_T[None] < 0) | (~torch.tensor(markov) & (block_T[None] < block_T[:, None]))
    return torch.cat((visible_TT.new_ones(len(block_T), seen), visible_TT), dim=1)


def views_of(visible_TS: Tensor, split: int) -> list[View]:
    """What rows see, those before and those from `split` on apart: these, most of all, need no mask."""
    views = []
    for start, end in ((0, split), (split, len(visible_TS))):
        if start < end:
            columns = visible_TS[start:end].any(0).nonzero().flatten()
            part = visible_TS[start:end, columns]
            bias = None if part.all() else torch.zeros(part.shape, device=part.device).masked_fill(~part, -math.inf)
            views.append(View(slice(start, end), columns, bias))
    return views


def turns(size: tuple[int, int], head_dim: int, dtype: torch.dtype) -> Tensor:
    """Complex turns [N, 1, P] of the cells of a map, half by row and half by column, in pixels of the whole picture."""
    speed_P = rotary_speeds(head_dim // 2, THETA)
    sides = torch.meshgrid(*((torch.arange(length) + 0.5) * SIDE / length for length in size), indexing="ij")
    return torch.cat([rotary_turns(side.flatten(), speed_P, dtype) for side in sides], dim=-1)


def logits_of(model: Scales, conditions_BA: Tensor, canvas_BL: Tensor, plan: Sequence[int] | None = None) -> Tensor:
    """Logits [B, M, V] of the cells of the planned maps, all by default, in one pass; differentiable.

    canvas_BL: tokens of all maps of the pyramid, those that the plan leaves out included.
    """
    maps = model.totals(canvas_BL, range(len(model.pyramid.sizes)) if plan is None else plan)
    features = model.features(conditions_BA, maps)
    return torch.cat([model.logits(part, at) for (at, _), part in zip(maps, features, strict=True)], dim=1)


# ---------------------------------------------------------------------------------------------------------------- files
def new_scales(config: ScalesConfig, pyramid: Pyramid) -> Scales:
    """An untrained model."""
    model = Scales(config, pyramid)
    for name, weight in model.named_parameters():
        if "embed" in name:
            torch.nn.init.normal_(weight, std=0.04)
        elif name.startswith("ada."):
            torch.nn.init.zeros_(weight)  # a model begins as it would be without
        elif weight.dim() == 2:
            scale = 0.5 / math.sqrt(2 * config.num_layers) if name.endswith(("out.weight", "down.weight")) else 0.5
            torch.nn.init.normal_(weight, std=scale * weight.shape[1] ** -0.5)
    return model


def save_scales(path: Path, model: Scales, bits: int = 8) -> None:
    """Write a model, its matrices in so many bits; see `rounded`."""
    state = rounded.in_bits({name: weight.detach().float().cpu() for name, weight in model.state_dict().items()}, bits)
    told = {"config": json.dumps(asdict(model.config)), "pyramid": model.pyramid.fingerprint}
    save_file(state, path, metadata=told)


def read_scales(path: Path, device: torch.device | str = "cpu") -> Scales:
    """The model of a file of `save_scales`, in float32.

    Raises UserError if there is no such file, and if it was trained with codes that are not those that ship.
    """
    if not path.is_file():
        raise UserError(
            f"There is no {path.name} in {path.parent}; train it with python -m backend.train.portraits.scales."
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    config = ScalesConfig(**json.loads(metadata["config"]))
    pyramid = shipped(config.kind)
    if metadata["pyramid"] != pyramid.fingerprint:
        raise UserError(
            f"{path.name} was trained with other codes than those of assets/portraits/pyramid.npz; "
            "train it again with python -m backend.train.portraits.scales."
        )
    model = Scales(config, pyramid).to(device)
    model.load_state_dict(rounded.from_bytes(state))
    return model.eval().requires_grad_(False)
