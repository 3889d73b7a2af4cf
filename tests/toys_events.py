"""Exact point processes in float64: every conditional law is known, and without `bend` so is the law of counts.

The next gap is one of two log-normal laws, each with a law of its own over the kinds. With `bend` both depend on the
last gap and the last kind in a crooked way; without, the gaps are those of a renewal process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from backend import events
from backend.events import Events
from backend.meter import Meter
from backend.protocols import EventLaw, EventSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec

CODEC = ToyCodec("events", "events", least=0)
HISTORY = ((1.0, 0), (0.4, 1), (0.7, 0), (1.3, 1))  # gaps and kinds
KINDS = 3


class ToyEvents(Toy):
    """A target or drafter of events.

    Args:
        centre: mean of the log of a gap. spread: of it. lean: how much later parts of the mixture prefer later kinds.
        until: end of time.
    """

    def __init__(
        self,
        model_id: str = "toy/events",
        *,
        centre: float = -0.3,
        spread: float = 0.6,
        lean: float = 0.8,
        bend: float = 0.0,
        until: float = 4.0,
    ) -> None:
        super().__init__(model_id, EventSession, CODEC, 512)
        self.centre, self.spread, self.lean, self.bend, self.until = centre, spread, lean, bend, until

    def law(self, gap_N: Tensor, kind_N: Tensor) -> EventLaw:
        """Laws behind events with these last gaps and kinds."""
        tilt_N = self.bend * (torch.tanh(gap_N.log()) + 0.5 * (kind_N - 1))
        weight_NM = torch.stack((0.4 + tilt_N, -0.2 - tilt_N), -1).log_softmax(-1)
        mean_NM = self.centre + torch.stack((-0.7 + tilt_N, 0.6 - 0.5 * tilt_N), -1)
        spread_NM = self.spread * (1 + 0.3 * torch.stack((torch.sigmoid(tilt_N) - 0.5, tilt_N * 0), -1))
        part_MV = torch.tensor([[1.0, 0.3, 0.0], [-0.3, 0.2, 0.6]], dtype=torch.float64) * self.lean
        kind_NMV = part_MV + tilt_N[..., None, None] * torch.arange(KINDS)
        return EventLaw(weight_NM, mean_NM, spread_NM, kind_NMV.log_softmax(-1))

    def start(self) -> tuple[Tensor, Tensor]:
        """The last gap and kind of the history."""
        gap, kind = HISTORY[-1]
        return torch.tensor(gap, dtype=torch.float64), torch.tensor(kind)

    def counts(self, most: int, steps: int = 4000) -> list[float]:
        """P(0 events until the end), P(1), ..., P(most or more); bend must be 0. Sums of gaps by convolution."""
        assert not self.bend
        step = self.until / steps
        gap_T = (torch.arange(steps, dtype=torch.float64) + 0.5) * step
        law = self.law(*(x.expand(steps) for x in self.start()))
        density_T = events.log_time_density(law, gap_T).exp()
        sum_T, reached = density_T, [1.0]
        for _ in range(most):
            reached.append(float(sum_T.sum()) * step)
            whole_T = torch.fft.irfft(torch.fft.rfft(sum_T, 2 * steps) * torch.fft.rfft(density_T, 2 * steps))
            middle_T = torch.cat((torch.zeros(1, dtype=torch.float64), whole_T[: steps - 1]))
            sum_T = 0.5 * (whole_T[:steps] + middle_T) * step
        return [a - b for a, b in zip(reached, [*reached[1:], 0.0], strict=True)]

    def uniform_of(self, gaps_SN: Tensor, kinds_SN: Tensor, seed: int = 0) -> Tensor:
        """The uniform numbers [S, 2 N] that these events were made of, if the law is exact: times, then kinds."""
        gap, kind = self.start()
        before = torch.cat((gap.expand(len(gaps_SN), 1), gaps_SN[:, :-1]), 1)
        before_kind = torch.cat((kind.expand(len(kinds_SN), 1), kinds_SN[:, :-1]), 1)
        law = self.law(before, before_kind)
        time_N = events.log_time_density(law, gaps_SN)
        kinds = [torch.full_like(kinds_SN, k) for k in range(KINDS)]
        share_NV = torch.stack([(events.log_density(law, Events(gaps_SN, k)) - time_N).exp() for k in kinds], -1)
        own_N = share_NV.gather(-1, kinds_SN[..., None])[..., 0]
        below_N = share_NV.cumsum(-1).gather(-1, kinds_SN[..., None])[..., 0] - own_N
        noise = torch.rand(own_N.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return torch.cat((events.elapsed(law, gaps_SN), below_N + noise * own_N), 1)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyEventSession:
        return ToyEventSession(self, sampling.temperature, meter)


class ToyEventSession(Counting):
    """An event session. `written` holds every path as the session has it: gaps and kinds."""

    def __init__(self, model: ToyEvents, temperature: float, meter: Meter) -> None:
        super().__init__(meter)
        self.gaps_T = torch.tensor([math.nan, *(gap for gap, _ in HISTORY[1:])], dtype=torch.float64)
        self.kinds_T = torch.tensor([kind for _, kind in HISTORY])
        self.num_kinds, self.until = KINDS, model.until
        self.lengths: list[int] = []
        self.drafts: list[tuple[int, ...]] = []  # shapes of all calls
        self._model, self._temperature = model, temperature
        self.written: list[Events] = []

    def fork(self, paths: int) -> None:
        """See `EventSession.fork`."""
        assert not self.lengths, "forked twice"
        self.lengths = [0] * paths
        self.written = [Events.none(1)[0]] * paths

    def score(
        self, gaps_RK: Tensor | None = None, kinds_RK: Tensor | None = None, rows: Sequence[int] | None = None
    ) -> EventLaw:
        """See `EventSession.score`."""
        rows = range(len(self.lengths)) if rows is None else rows
        last = [self._last(row) for row in rows]
        gaps, kinds = (torch.stack(x)[:, None] for x in zip(*last, strict=True))
        if gaps_RK is not None and kinds_RK is not None:
            gaps, kinds = torch.cat((gaps, gaps_RK), 1), torch.cat((kinds, kinds_RK), 1)
        self.charge(gaps.numel())
        self.drafts.append(tuple(gaps.shape))
        return events.tempered(self._model.law(gaps, kinds), self._temperature)

    def commit(
        self, gaps_RK: Tensor, kinds_RK: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None
    ) -> None:
        """See `EventSession.commit`."""
        for r, row in enumerate(range(len(self.lengths)) if rows is None else rows):
            assert 0 <= counts[r] <= gaps_RK.shape[1]
            own = self.written[row]
            gaps = torch.cat((own.gap_N, gaps_RK[r, : counts[r]]))
            self.written[row] = Events(gaps, torch.cat((own.kind_N, kinds_RK[r, : counts[r]])))
            self.lengths[row] += counts[r]

    def _last(self, row: int) -> tuple[Tensor, Tensor]:
        own = self.written[row]
        return (own.gap_N[-1], own.kind_N[-1]) if len(own.gap_N) else self._model.start()


def toys_for(roles: dict[str, type], bend: float = 0.4, until: float = math.inf) -> dict[str, ToyEvents]:
    """A toy for every role; a drafter is earlier, narrower and leans otherwise."""
    return {
        role: ToyEvents(
            f"toy/{role}", centre=-0.3 - 0.3 * i, spread=0.6 - 0.1 * i, lean=0.8 - 1.2 * i,
            bend=bend if i == 0 else 0.1, until=until,
        )
        for i, role in enumerate(roles)
    }  # fmt: skip
