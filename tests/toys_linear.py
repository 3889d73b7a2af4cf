"""Exact point forecasters in float64: a recursion that feeds itself, and a writer of segments that shows its parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.meter import Meter
from backend.protocols import ExampleSession, LoopSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCodec

CODEC = ToyCodec("series", "series", least=0)
SERIES = (0.3, 1.2, -0.4, 0.8, 1.9, 0.1, -0.7, 0.6, 1.4, 0.2, -1.1, 0.5, 1.0, 0.4, -0.2, 0.9)


class ToyLoop(Toy):
    """An autoregression of the last three values about a level, as the powers of its companion matrix."""

    def __init__(
        self, model_id: str = "toy/loop", weights: Sequence[float] = (1.1, -0.5, 0.3), level: float = 0.5
    ) -> None:
        super().__init__(model_id, LoopSession, CODEC, 512)
        self.weights_p, self.level = torch.tensor(weights, dtype=torch.float64), level

    def truth(self, horizon: int) -> list[float]:
        """The forecast by the definition of the autoregression."""
        values = [x - self.level for x in SERIES]
        for _ in range(horizon):
            values.append(sum(float(w) * values[-1 - i] for i, w in enumerate(self.weights_p)))
        return [x + self.level for x in values[len(SERIES) :]]

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyLoopSession:
        return ToyLoopSession(self, meter)


class ToyLoopSession(Counting):
    """A loop session: a state is the next value and the two before it, nearest first."""

    def __init__(self, model: ToyLoop, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = torch.tensor([SERIES], dtype=torch.float64)
        self.season = 4
        shift = torch.eye(3, dtype=torch.float64)[:2]
        self._matrix = torch.cat((model.weights_p[None], shift))
        self.poles_Z = torch.linalg.eigvals(self._matrix)
        self._level = model.level

    def listen(self) -> Tensor:
        """See `LoopSession.listen`."""
        self.charge(self.series_CT.shape[1])
        return self._matrix @ (self.series_CT[0, -3:].flip(0) - self._level)

    def advance(self, states_ND: Tensor, steps: int) -> Tensor:
        """See `LoopSession.advance`."""
        assert steps & (steps - 1) == 0, f"{steps} is no power of 2"
        self.charge(len(states_ND))
        return states_ND @ torch.linalg.matrix_power(self._matrix, steps).T

    def read(self, states_ND: Tensor) -> Tensor:
        """See `LoopSession.read`."""
        return states_ND[:, 0] + self._level


class ToySegments(Toy):
    """Repeats the values a segment ago, half of them in each of two parts, the second one with an offset.

    The offset is a tenth of the mean of all that it looks back on; with examples, the mean of their answers is added.
    """

    def __init__(self, model_id: str = "toy/segments", protocol: type = ExampleSession, segment: int = 2) -> None:
        super().__init__(model_id, protocol, CODEC, 512)
        self.segment, self.lookback, self.example = segment, 4 * segment, 3 * segment

    def truth(self, horizon: int, answers: Sequence[float] = ()) -> list[float]:
        """The forecast by its definition."""
        values = list(SERIES)
        while len(values) < len(SERIES) + horizon:
            window = values[-self.lookback :]
            offset = 0.1 * sum(window) / len(window) + (sum(answers) / len(answers) if answers else 0.0)
            values += [x + offset for x in values[-self.segment :]]
        return values[len(SERIES) : len(SERIES) + horizon]

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToySegmentsSession:
        return ToySegmentsSession(self, meter)


class ToySegmentsSession(Counting):
    """An example session. `shown` holds the examples of every call."""

    def __init__(self, model: ToySegments, meter: Meter) -> None:
        super().__init__(meter)
        self.series_CT = torch.tensor([SERIES], dtype=torch.float64)
        self.season, self.segment, self.lookback, self.example = 4, model.segment, model.lookback, model.example
        self.shown: list[Tensor] = []

    def follow(self, written_H: Tensor) -> Tensor:
        """See `SegmentSession.follow`."""
        return self.recall(written_H, torch.empty(0, self.example, dtype=torch.float64))

    def recall(self, written_H: Tensor, examples_EX: Tensor) -> Tensor:
        """See `ExampleSession.recall`."""
        assert examples_EX.shape[1:] == (self.example,)
        assert torch.isfinite(examples_EX).all()
        window_T = torch.cat((self.series_CT[0], written_H))[-self.lookback :]
        self.charge(len(examples_EX) * self.example // self.segment + self.lookback // self.segment)
        self.shown.append(examples_EX)
        offset = 0.1 * window_T.mean()
        if len(examples_EX):
            offset = offset + examples_EX[:, -self.segment :].mean()
        half_P = window_T[-self.segment :] / 2
        return torch.stack((half_P, half_P + offset))
