"""A frozen point process that writes many paths of one history at once: each has a length and a cache of its own.

Events stand at slots: those of the history first, then those of a path, then guesses. A row of a call is one path; all
rows run the same number of events, which end at different slots, so a row with less to do runs some again.

Letters: S paths, R rows, T events run in a call, X slots, C features, H heads, D numbers of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backend.events import Events
from backend.models.house.events import EventNet, read_law, told, turns
from backend.models.house.forecaster_rows import Cache, pack_reader, through
from backend.models.house.layers import LinearMap, norm_floor, pack_linear, wide
from backend.models.house.llama import Block
from backend.protocols import EventLaw

SPARE = 32  # slots of a new cache behind those that are asked for


class FrozenEvents:
    """The weights of a point process as decoding runs them. Shared by all sessions, never written."""

    def __init__(self, model: EventNet, dtype: torch.dtype = torch.float32) -> None:
        def fold(linear: nn.Linear, norm: nn.Module | None) -> LinearMap:
            return pack_linear(linear.weight, linear.bias, dtype, norm.scale() if norm is not None else None)  # type: ignore[operator]

        self.config, self.dtype, self.speed_P = model.config, dtype, model.speed_P
        self.device = model.speed_P.device
        self.num_params = model.num_params
        self.read, self.law = pack_reader(model.read, dtype), pack_reader(model.law, dtype)
        self.layers = tuple(block.kernels(fold) for block in model.blocks if isinstance(block, Block))
        self.norm_scale_C = model.norm.scale().to(wide(dtype))
        self.floor = norm_floor(self.config.dim, self.config.llama.norm_eps, self.speed_P.to(dtype))
        self.centre_M = model.centre_M.detach().to(dtype)

    def laws(self, h_RKC: Tensor, num_kinds: int) -> EventLaw:
        """Laws behind events with these features, in float64 on the CPU, of the kinds that there are."""
        out = self.law(h_RKC.flatten(0, 1)).view(*h_RKC.shape[:2], -1)
        size_R = torch.full((len(out),), num_kinds, device=out.device)
        law = read_law(out, self.centre_M, size_R, self.config)
        parts = (law.log_weight_NM, law.mean_NM, law.spread_NM, law.log_kind_NMV[..., :num_kinds])
        weight, mean, spread, kind = (x.cpu().double() for x in parts)
        return EventLaw(weight.log_softmax(-1), mean, spread, kind.log_softmax(-1))

    def run(
        self, events: Events, time_RT: Tensor, at_RT: Tensor, cache: Cache, rows_R: Tensor | None, num_kinds: int
    ) -> Tensor:
        """Features [R, T, C] of events at these slots and times.

        rows_R: their paths, all if None. Keys and values go into the cache, which must hold the slots in front.
        """
        config = self.config
        rows, count = at_RT.shape
        size_R = torch.full((rows,), num_kinds, device=at_RT.device)
        h_NC = self.read(told(events.gap_N.to(self.dtype), events.kind_N, size_R, config.kinds).flatten(0, 1))
        turn_N1P = turns(time_RT, at_RT, self.speed_P).flatten(0, 1).to(self._complex())
        end, low = int(at_RT.max()) + 1, max(0, int(at_RT.min()) + 1 - config.window)
        back_RTX = at_RT[..., None] - torch.arange(low, end, device=at_RT.device)
        unseen_RTX = (back_RTX < 0) | (back_RTX >= config.window)
        seen_R1TX = h_NC.new_zeros(unseen_RTX.shape).masked_fill_(unseen_RTX, -torch.inf)[:, None]
        return through(self, h_NC, turn_N1P, seen_R1TX, cache.at(at_RT, rows_R), low).view(rows, count, -1)

    def cache(self, slots: int) -> Cache:
        """An empty cache of one seat."""
        return Cache(self.config, len(self.layers), 1, slots, self.floor.to(self.dtype))

    def _complex(self) -> torch.dtype:
        return torch.complex128 if self.dtype == torch.float64 else torch.complex64


class EventStrands:
    """S paths behind one history: their events, and what was computed of them.

    An event is computed once: guesses that come back, or are committed as they were, are found in the cache.
    """

    def __init__(self, net: FrozenEvents, history: Events, num_kinds: int, paths: int) -> None:
        """history: events [T], the first gap NaN. num_kinds: of the process."""
        self._net, self._num_kinds = net, num_kinds
        self.start = len(history.gap_N)  # slot of the first event of a path
        self.lengths = [0] * paths
        device = net.device
        gaps_T = history.gap_N.double().to(device)
        self._gaps_SX = _longer(gaps_T.expand(paths, -1), self.start + SPARE)
        self._kinds_SX = _longer(history.kind_N.to(device).expand(paths, -1), self.start + SPARE)
        self._times_SX = _longer(gaps_T.nan_to_num().cumsum(0).expand(paths, -1), self.start + SPARE)
        self._hidden_SXC = torch.empty(0)
        self._done_S = torch.zeros(paths, dtype=torch.long, device=device)  # slots that are computed
        self._cache: Cache | None = None

    @torch.no_grad()
    def laws(self, draft: Events | None, rows: Sequence[int]) -> tuple[EventLaw, int]:
        """Laws [R, K + 1] behind these rows and every drafted event [R, K], and how many events were run."""
        ran = self._begin() if self._cache is None else 0
        drafted = 0 if draft is None else draft.gap_N.shape[1]
        row_R, first_R = self._at(rows)
        self._reserve(int(first_R.max()) + drafted)
        if draft is not None and drafted:
            self._write(draft, row_R, first_R, torch.full_like(first_R, drafted))
        left = int((first_R + drafted - self._done_S[row_R]).max())
        if left > 0:
            ran += self._compute(row_R, first_R + drafted, left)
        at_RK = first_R[:, None] - 1 + torch.arange(drafted + 1, device=row_R.device)
        return self._net.laws(self._hidden_SXC[row_R[:, None], at_RK], self._num_kinds), ran

    def commit(self, events: Events, counts: Sequence[int], rows: Sequence[int]) -> None:
        """Append the first counts[r] events of row r."""
        most = max(counts, default=0)
        row_R, first_R = self._at(rows)
        self._reserve(int(first_R.max()) + most)
        count_R = torch.tensor(counts, device=row_R.device)
        if most:
            self._write(events[:, :most], row_R, first_R, count_R)
        self._done_S[row_R] = torch.minimum(self._done_S[row_R], first_R + count_R)
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count

    def _at(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """These rows, and the slot behind each of their paths."""
        device = self._done_S.device
        first_R = self.start + torch.tensor([self.lengths[row] for row in rows], device=device)
        return torch.tensor(rows, device=device), first_R

    def _begin(self) -> int:
        """Read the history once, for all paths."""
        net, (paths, slots) = self._net, self._gaps_SX.shape
        self._cache = net.cache(self.start)
        at_1T = torch.arange(self.start, device=net.device)[None]
        history = Events(self._gaps_SX[:1, : self.start], self._kinds_SX[:1, : self.start])
        hidden_1TC = net.run(history, self._times_SX[:1, : self.start], at_1T, self._cache, None, self._num_kinds)
        self._cache.widen(paths, slots)
        self._hidden_SXC = _longer(hidden_1TC.expand(paths, -1, -1), slots)
        self._done_S.fill_(self.start)
        return self.start

    def _reserve(self, slots: int) -> None:
        if slots > self._gaps_SX.shape[1]:
            slots += SPARE
            names = ("_gaps_SX", "_kinds_SX", "_times_SX") + (("_hidden_SXC",) if self._cache is not None else ())
            for name in names:
                setattr(self, name, _longer(getattr(self, name), slots))
            if self._cache is not None:
                self._cache.widen(len(self.lengths), slots)

    def _write(self, given: Events, row_R: Tensor, first_R: Tensor, count_R: Tensor) -> None:
        """Write the first count_R events behind the paths; what was computed of others there is forgotten."""
        gaps_RK, kinds_RK = given.gap_N.to(self._gaps_SX), given.kind_N.to(self._kinds_SX)
        at_RK = first_R[:, None] + torch.arange(gaps_RK.shape[1], device=row_R.device)
        where = (row_R[:, None], at_RK)
        meant_RK = at_RK < (first_R + count_R)[:, None]
        same_RK = (self._gaps_SX[where] == gaps_RK) & (self._kinds_SX[where] == kinds_RK)
        run_R = (same_RK | ~meant_RK).long().cumprod(1).sum(1)
        self._done_S[row_R] = torch.minimum(self._done_S[row_R], first_R + run_R)
        times_RK = self._times_SX[row_R, first_R - 1][:, None] + gaps_RK.cumsum(1)
        for held, fresh in ((self._gaps_SX, gaps_RK), (self._kinds_SX, kinds_RK), (self._times_SX, times_RK)):
            held[where] = torch.where(meant_RK, fresh, held[where])

    def _compute(self, row_R: Tensor, end_R: Tensor, count: int) -> int:
        """Run the `count` events in front of these slots."""
        assert self._cache is not None
        at_RT = end_R[:, None] + torch.arange(-count, 0, device=row_R.device)
        whole = len(row_R) == len(self.lengths) and bool((row_R == torch.arange(len(row_R), device=row_R.device)).all())
        where = (row_R[:, None], at_RT)
        events = Events(self._gaps_SX[where], self._kinds_SX[where])
        rows = None if whole else row_R
        hidden_RTC = self._net.run(events, self._times_SX[where], at_RT, self._cache, rows, self._num_kinds)
        self._hidden_SXC[where] = hidden_RTC
        self._done_S[row_R] = end_R
        return at_RT.numel()


def _longer(x_SX: Tensor, slots: int) -> Tensor:
    """The same with zeros behind it, along dimension 1."""
    out = x_SX.new_zeros(x_SX.shape[0], slots, *x_SX.shape[2:])
    out[:, : x_SX.shape[1]] = x_SX
    return out
