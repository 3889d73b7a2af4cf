"""A frozen forecaster that writes many paths of one series at once: every path has a length and a cache of its own.

Patches stand at slots: those of the context first, then those of a path, then guesses. A row of a call is one path; all
rows run the same number of patches, which end at different slots, so a row with less to do runs some again.

Letters: S paths or their seats, R rows, T patches run in a call, M slots, N patches of the context (in `run`, all that
are run), I inputs, C features, H heads, D numbers of a head, P values of a patch, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backend.models.house.forecaster import Forecaster, Laws, Reader, last_known, read_laws, told
from backend.models.house.layers import LinearMap, norm_floor, pack_linear, rotary_turns, unit_norm, wide
from backend.models.house.llama import Block, Kernels, norm_into

SPARE = 16  # slots of a new cache behind those that are asked for
LOOKED_UP = 256  # slots whose rotary turns are kept in a table


class Sized(Protocol):
    """What caches and layers read of a config: features, and heads of attention."""

    @property
    def dim(self) -> int: ...
    @property
    def num_heads(self) -> int: ...


class Trunk(Protocol):
    """Frozen layers that `through` runs."""

    @property
    def config(self) -> Sized: ...
    @property
    def layers(self) -> tuple[Kernels, ...]: ...
    @property
    def floor(self) -> Tensor: ...
    @property
    def norm_scale_C(self) -> Tensor: ...  # noqa: N802


class Frozen:
    """The weights of a forecaster as decoding runs them. Shared by all sessions, never written."""

    def __init__(self, model: Forecaster, dtype: torch.dtype = torch.float32) -> None:
        def fold(linear: nn.Linear, norm: nn.Module | None) -> LinearMap:
            return pack_linear(linear.weight, linear.bias, dtype, norm.scale() if norm is not None else None)  # type: ignore[operator]

        self.config, self.dtype, self.speed_P = model.config, dtype, model.speed_P
        self.device = model.speed_P.device
        self.num_params = model.num_params
        self.read, self.law = pack_reader(model.read, dtype), pack_reader(model.law, dtype)
        self._next_law = pack_reader(model.law, dtype, 2 * model.config.patch + 1)
        self.layers = tuple(block.kernels(fold) for block in model.blocks if isinstance(block, Block))
        self.norm_scale_C = model.norm.scale().to(wide(dtype))
        self.floor = norm_floor(self.config.dim, self.config.llama.norm_eps, self.speed_P.to(dtype))
        self.quantiles = model.quantiles.to(dtype).requires_grad_(False)
        self._turns = self._turned(torch.arange(LOOKED_UP, device=self.device))

    def laws(self, h_XC: Tensor, base_X: Tensor, ahead: int) -> Laws:
        """Laws [..., 1 + ahead] behind patches with these features and last observed values."""
        out = (self.law if ahead else self._next_law)(h_XC.flatten(0, -2))
        return read_laws(out.view(*h_XC.shape[:-1], -1), base_X, self.config.patch, ahead)

    def run(self, patches_RTWP: Tensor, at_RT: Tensor, cache: Cache) -> Tensor:
        """Features [R, T, C] of patches at these slots, each with those before it that are read together with it.

        Row r has seat r of the cache, which must hold all earlier slots; its keys and values go there, too.
        """
        rows, count = at_RT.shape
        h_NC = self.read(told(patches_RTWP.to(self.dtype).flatten(2)).flatten(0, 1))
        end = int(at_RT.max()) + 1
        turn_N1P = self._turns[at_RT.flatten()] if end <= LOOKED_UP else self._turned(at_RT.flatten())
        seen_R1TM = None
        if count > 1 or int(at_RT.min()) + 1 < end:
            ahead_RTM = torch.arange(end, device=at_RT.device) > at_RT[..., None]
            seen_R1TM = h_NC.new_zeros(rows, 1, count, end).masked_fill_(ahead_RTM[:, None], -torch.inf)
        return through(self, h_NC, turn_N1P, seen_R1TM, cache.at(at_RT), 0).view(rows, count, -1)

    def cache(self, seats: int, slots: int) -> Cache:
        """An empty cache."""
        return Cache(self.config, len(self.layers), seats, slots, self.floor.to(self.dtype))

    def windows(self, patches_SMP: Tensor, at_RT: Tensor, row_R: Tensor | None = None) -> Tensor:
        """The patches at these slots, each with those before it, NaN in front of the series. [R, T, W, P]

        row_R: whose patches they are, all in turn if None.
        """
        back_W = torch.arange(1 - self.config.window, 1, device=at_RT.device)
        slots_RTW = at_RT[..., None] + back_W
        rows_R = torch.arange(len(at_RT), device=at_RT.device) if row_R is None else row_R
        found_RTWP = patches_SMP[rows_R[:, None, None], slots_RTW.clamp_min(0)]
        return found_RTWP.masked_fill_((slots_RTW < 0)[..., None], torch.nan)

    def _turned(self, at_N: Tensor) -> Tensor:
        return rotary_turns(at_N, self.speed_P, wide(self.dtype))


class Cache:
    """Keys and values of S seats, [L, S, H, M, 2 D]: for every slot the key, then the value.

    A call works on the first seats, so that nothing has to be gathered: paths change seats when others come. Slots of a
    head lie one behind the other, as products want them.
    """

    def __init__(self, config: Sized, layers: int, seats: int, slots: int, like: Tensor) -> None:
        heads = config.num_heads
        self.kv = like.new_zeros(layers, seats, heads, slots, 2 * config.dim // heads)

    def at(self, at_RT: Tensor, seat_R: Tensor | None = None) -> View:
        """Where calls of these rows write and read. seat_R: their seats, the first R if None: nothing is copied."""
        heads, slots = self.kv.shape[2:4]
        rows_R = torch.arange(len(at_RT), device=at_RT.device) if seat_R is None else seat_R
        head_RH = rows_R[:, None] * heads + torch.arange(heads, device=at_RT.device)
        index_RTH = head_RH[:, None] * slots + at_RT[..., None]
        return View(self.kv, index_RTH.flatten(), len(at_RT), seat_R, int(at_RT.max()) + 1)

    def widen(self, seats: int, slots: int) -> None:
        """Make room for so many slots, and so many seats where there is one yet: copies of it."""
        layers, _, heads, held, width = self.kv.shape
        fresh = self.kv.new_zeros(layers, seats, heads, slots, width)
        fresh[:, :, :, :held] = self.kv
        self.kv = fresh

    def take(self, seat_S: Tensor) -> None:
        """Seat s becomes a copy of seat seat_S[s]."""
        self.kv = self.kv[:, seat_S]

    def swap(self, here: Sequence[int], there: Sequence[int], end: int) -> None:
        """Seats `here` and `there` change places, as far as their first `end` slots go."""
        held = self.kv[:, :, :, :end]
        held[:, [*here, *there]] = held[:, [*there, *here]]


@dataclass(frozen=True, slots=True)
class View:
    """A `Cache` as the R rows of one call see it. index_N: places of their patches, head by head. end: slots read."""

    kv: Tensor
    index_N: Tensor
    rows: int
    seat_R: Tensor | None
    end: int

    def put(self, layer: int, k_RTHD: Tensor, v_RTHD: Tensor) -> Tensor:
        """Write keys and values; the rows' own up to the last slot, [R, H, end, 2 D]."""
        held_SHMC = self.kv[layer]
        both_RTHC = torch.cat((k_RTHD, v_RTHD), -1)
        held_SHMC.view(-1, both_RTHC.shape[-1]).index_copy_(0, self.index_N, both_RTHC.flatten(0, 2))
        own_RHMC = held_SHMC[: self.rows] if self.seat_R is None else held_SHMC[self.seat_R]
        return own_RHMC[:, :, : self.end]


def through(net: Trunk, h_NC: Tensor, turn_N1P: Tensor, seen_R1TM: Tensor | None, view: View, low: int) -> Tensor:
    """Features [N, C] behind all layers. h_NC, in front of them, is overwritten.

    turn_N1P: rotary turns of the patches. seen_R1TM: added to the scores of slots from `low` on, -inf where unseen.
    """
    heads = net.config.num_heads
    x_NC = torch.empty_like(h_NC)
    for i, layer in enumerate(net.layers):
        norm_into(x_NC, h_NC, net.floor, layer.attn_scale_C)
        heads_N3HD = layer.qkv(x_NC).view(len(h_NC), 3 * heads, -1)
        turned = heads_N3HD[:, : 2 * heads]
        torch.view_as_complex(turned.view(*turned.shape[:-1], -1, 2)).mul_(turn_N1P)
        q, k, v = heads_N3HD.view(view.rows, -1, 3, heads, heads_N3HD.shape[-1]).unbind(2)
        keys, values = view.put(i, k, v)[:, :, low:].chunk(2, dim=-1)
        mixed_RTHD = attend(q.transpose(1, 2), keys, values, seen_R1TM).transpose(1, 2)
        h_NC.add_(layer.out(mixed_RTHD.reshape(h_NC.shape)))
        norm_into(x_NC, h_NC, net.floor, layer.ffn_scale_C)
        gate_NF, up_NF = layer.gate_up(x_NC).chunk(2, dim=-1)
        h_NC.add_(layer.down(F.silu(gate_NF).mul_(up_NF)))
    out_NC: Tensor = unit_norm(h_NC, net.floor) * net.norm_scale_C
    return out_NC


def attend(q_RHTD: Tensor, keys_RHMD: Tensor, values_RHMD: Tensor, seen_R1TM: Tensor | None) -> Tensor:
    """Attention by plain products: for the few queries of a row three times as quick as the fused kernel on CPUs."""
    score_RHTM = (q_RHTD * q_RHTD.shape[-1] ** -0.5) @ keys_RHMD.transpose(-1, -2)
    if seen_R1TM is not None:
        score_RHTM += seen_R1TM
    out_RHTD: Tensor = score_RHTM.softmax(-1) @ values_RHMD
    return out_RHTD


class Strands:
    """S paths behind one context: their patches, and what was computed of them.

    A patch is computed once: guesses that come back, or are committed as they were, are found in the cache.
    """

    def __init__(self, net: Frozen, context_T: Tensor, paths: int, room: int = 0) -> None:
        """context_T: values in model units, NaN where missing; its last patch is filled, the first from the right.

        room: patches that a path will have; more are made room for when they come.
        """
        self._net = net
        context_NP = cut(context_T, net.config.patch).to(net.device)
        self.start = len(context_NP)  # slot of the first patch of a path
        self.lengths = [0] * paths
        self._values_SMP = _longer(context_NP.expand(paths, -1, -1), self.start + room + SPARE)
        self._hidden_SMC = torch.empty(0)
        self._done_S = torch.zeros(paths, dtype=torch.long, device=net.device)  # slots that are computed
        self._cache: Cache | None = None
        self._seated = list(range(paths))  # who has each seat of the cache

    @torch.no_grad()
    def laws(self, draft_RKP: Tensor | None, rows: Sequence[int], ahead: int) -> tuple[Callable[[], Laws], int]:
        """Bring the cache to what these rows are asked; a way to read laws [R, K + 1, 1 + ahead], and patches run."""
        ran = self._begin() if self._cache is None else 0
        drafted = 0 if draft_RKP is None else draft_RKP.shape[1]
        device = self._done_S.device
        row_R = torch.tensor(rows, device=device)
        first_R = self.start + torch.tensor([self.lengths[row] for row in rows], device=device)
        self._reserve(int(first_R.max()) + drafted)
        if draft_RKP is not None and drafted:
            self._guess(draft_RKP.to(self._values_SMP), row_R, first_R)
        left = int((first_R + drafted - self._done_S[row_R]).max())
        if left > 0:
            ran += self._compute(row_R, first_R + drafted, left)
        at_RK = first_R[:, None] - 1 + torch.arange(drafted + 1, device=device)
        hidden_RKC, base_RK = self._hidden_SMC[row_R[:, None], at_RK], self._bases(row_R, at_RK)
        return lambda: self._net.laws(hidden_RKC, base_RK, ahead), ran

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int]) -> None:
        """Append the first counts[r] patches of row r."""
        row_R = torch.tensor(rows, device=self._done_S.device)
        first_R = self.start + torch.tensor([self.lengths[row] for row in rows], device=row_R.device)
        most = max(counts, default=0)
        self._reserve(int(first_R.max()) + most)
        given_RKP = patches_RKP[:, :most].to(self._values_SMP)
        count_R = torch.tensor(counts, device=row_R.device)
        self._guess(given_RKP, row_R, first_R, count_R)
        self._done_S[row_R] = torch.minimum(self._done_S[row_R], first_R + count_R)
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count

    def features(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features [R, C] behind the last patch of these paths that is computed, and how many of their own are."""
        row_R = torch.tensor(rows, device=self._done_S.device)
        done_R = self._done_S[row_R]
        return self._hidden_SMC[row_R, done_R - 1], done_R - self.start

    def take(self, rows: Sequence[int]) -> None:
        """Path s becomes a copy of path rows[s], all of the same length."""
        row_S = torch.tensor(rows, device=self._done_S.device)
        if self._cache is not None:
            seat_of = {row: seat for seat, row in enumerate(self._seated)}
            self._cache.take(torch.tensor([seat_of[row] for row in rows], device=row_S.device))
            self._seated = list(range(len(rows)))
            self._hidden_SMC = self._hidden_SMC[row_S]
        self._values_SMP, self._done_S = self._values_SMP[row_S], self._done_S[row_S]
        self.lengths = [self.lengths[row] for row in rows]

    def _begin(self) -> int:
        """Read the context once, for all paths."""
        net, (paths, slots, _) = self._net, self._values_SMP.shape
        self._cache = net.cache(1, self.start)
        at_1N = torch.arange(self.start, device=net.device)[None]
        found_1NWP = net.windows(self._values_SMP[:1], at_1N)
        hidden_1NC = net.run(found_1NWP, at_1N, self._cache)
        self._cache.widen(paths, slots)
        self._hidden_SMC = _longer(hidden_1NC.expand(paths, -1, -1), slots)
        self._done_S.fill_(self.start)
        return self.start

    def _reserve(self, slots: int) -> None:
        if slots > self._values_SMP.shape[1]:
            slots += SPARE
            self._values_SMP = _longer(self._values_SMP, slots)
            if self._cache is not None:
                self._cache.widen(len(self.lengths), slots)
                self._hidden_SMC = _longer(self._hidden_SMC, slots)

    def _guess(self, given_RKP: Tensor, row_R: Tensor, first_R: Tensor, count_R: Tensor | None = None) -> None:
        """Write patches behind the paths, as many as count_R says; what was computed of others there is forgotten."""
        at_RK = first_R[:, None] + torch.arange(given_RKP.shape[1], device=row_R.device)
        held_RKP, done_R = self._values_SMP[row_R[:, None], at_RK], self._done_S[row_R]
        same_RK = (held_RKP == given_RKP).all(-1) & (at_RK < done_R[:, None])
        if count_R is not None:
            same_RK |= at_RK >= (first_R + count_R)[:, None]
            given_RKP = torch.where((at_RK < (first_R + count_R)[:, None])[..., None], given_RKP, held_RKP)
        kept_R = first_R + same_RK.long().cumprod(1).sum(1)
        self._done_S[row_R] = torch.minimum(done_R, kept_R)
        self._values_SMP[row_R[:, None], at_RK] = given_RKP

    def _compute(self, row_R: Tensor, end_R: Tensor, count: int) -> int:
        """Run the `count` patches in front of these slots."""
        assert self._cache is not None
        order = self._seat(row_R.tolist())
        if order is not None:
            row_R, end_R = row_R[order], end_R[order]
        at_RT = (end_R[:, None] + torch.arange(-count, 0, device=row_R.device)).clamp_min(0)
        hidden_RTC = self._net.run(self._net.windows(self._values_SMP, at_RT, row_R), at_RT, self._cache)
        self._hidden_SMC[row_R[:, None], at_RT] = hidden_RTC
        self._done_S[row_R] = end_R
        return at_RT.numel()

    def _seat(self, rows: Sequence[int]) -> Tensor | None:
        """Give these paths the first seats; their order there as places in `rows`, None where it is the same."""
        assert self._cache is not None
        asked = {row: r for r, row in enumerate(rows)}
        leave = [seat for seat in range(len(rows)) if self._seated[seat] not in asked]
        if leave:
            come = [seat for seat in range(len(rows), len(self._seated)) if self._seated[seat] in asked]
            self._cache.swap(leave, come, int(self._done_S.max()))
            for here, there in zip(leave, come, strict=True):
                self._seated[here], self._seated[there] = self._seated[there], self._seated[here]
        order = [asked[row] for row in self._seated[: len(rows)]]
        return None if order == list(range(len(rows))) else torch.tensor(order, device=self._done_S.device)

    def _bases(self, row_R: Tensor, at_RK: Tensor) -> Tensor:
        return last_known(self._values_SMP[row_R[:, None], at_RK]).to(self._net.dtype)


def cut(context_T: Tensor, patch: int) -> Tensor:
    """Values as patches [..., N, P], the last one full, the first filled up with NaN in front."""
    padded_T = F.pad(context_T, (-context_T.shape[-1] % patch, 0), value=torch.nan)
    return padded_T.reshape(*context_T.shape[:-1], -1, patch)


def band(net: Frozen, context_T: Tensor, futures_RH: Tensor | None, size: int) -> tuple[Tensor, int]:
    """Quantiles [R, Q, size] of the steps behind a context and what follows it, and how many patches were run."""
    series_RT = context_T[None]
    if futures_RH is not None:
        series_RT = torch.cat((context_T.expand(len(futures_RH), -1), futures_RH), 1)
    patches_RNP = cut(series_RT, net.config.patch).to(net.device)
    rows, count = patches_RNP.shape[:2]
    at_RN = torch.arange(count, device=net.device).expand(rows, -1)
    with torch.no_grad():
        hidden_RNC = net.run(net.windows(patches_RNP, at_RN), at_RN, net.cache(rows, count))
        head = net.quantiles[net.config.sizes.index(size // net.config.patch)]
        base_R = last_known(patches_RNP[:, -1]).to(net.dtype)
        out_RQH: Tensor = head(hidden_RNC[:, -1], base_R)
    return out_RQH, rows * count


def pack_reader(reader: Reader, dtype: torch.dtype, outputs: int | None = None) -> LinearMap:
    """A `Reader` whose two first maps are one. outputs: how many of its first are wanted, all if None."""
    width = outputs or reader.straight.out_features
    weight = torch.cat((reader.straight.weight[:width], reader.up.weight))
    bias = torch.cat((reader.straight.bias[:width], reader.up.bias))
    first = pack_linear(weight, bias, dtype)
    down = pack_linear(reader.down.weight[:width], reader.down.bias[:width], dtype)

    def read(x_NI: Tensor) -> Tensor:
        both = first(x_NI)
        return torch.add(both[:, :width], down(F.silu(both[:, width:])))

    return read


def _longer(x_SMC: Tensor, slots: int) -> Tensor:
    """The same with zeros behind it."""
    out = x_SMC.new_zeros(x_SMC.shape[0], slots, x_SMC.shape[2])
    out[:, : x_SMC.shape[1]] = x_SMC
    return out
