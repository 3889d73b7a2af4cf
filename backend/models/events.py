"""Point processes over events in continuous time: paths that are judged event by event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backend.codecs.events import EventCodec
from backend.errors import UserError
from backend.events import Events, tempered
from backend.meter import Meter
from backend.models.house.event_rows import EventStrands, FrozenEvents
from backend.models.house.events import read_events
from backend.protocols import EventLaw, EventSession, Prompt
from backend.types import Sampling

ROOM = 1 << 20  # events that can be written; only the history is limited


class HouseEventSession:
    """An `EventSession` on a house model."""

    def __init__(self, model: EventModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.gaps_T = torch.tensor(prompt.extras["gaps"], dtype=torch.float64)
        self.kinds_T = torch.tensor(prompt.extras["kinds"])
        self.num_kinds: int = prompt.extras["num_kinds"]
        self.until: float = prompt.extras["until"]
        self._model, self._temperature, self._meter = model, sampling.temperature, meter
        self._strands: EventStrands | None = None

    @property
    def lengths(self) -> Sequence[int]:
        """See `EventSession.lengths`."""
        return () if self._strands is None else self._strands.lengths

    def fork(self, paths: int) -> None:
        """See `EventSession.fork`."""
        assert self._strands is None, "forked twice"
        history = Events(self.gaps_T, self.kinds_T)
        self._strands = EventStrands(self._model.net, history, self.num_kinds, paths)

    def score(
        self, gaps_RK: Tensor | None = None, kinds_RK: Tensor | None = None, rows: Sequence[int] | None = None
    ) -> EventLaw:
        """See `EventSession.score`. Raises UserError if the model returns no numbers."""
        draft = None if gaps_RK is None or kinds_RK is None else Events(gaps_RK, kinds_RK)
        with self._meter.call(0):
            law, ran = self._forked().laws(draft, self._rows(rows))
            if not math.isfinite(float(law.mean_NM.abs().max())):
                raise UserError(
                    f"{self._model.id} returned numbers that are no law of events (NaN or infinity); pick another "
                    "model, or a longer history."
                )
        self._meter.rows += ran
        return tempered(law, self._temperature)

    def commit(
        self, gaps_RK: Tensor, kinds_RK: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None
    ) -> None:
        """See `EventSession.commit`."""
        self._forked().commit(Events(gaps_RK, kinds_RK), counts, self._rows(rows))

    def _forked(self) -> EventStrands:
        assert self._strands is not None, "not forked"
        return self._strands

    def _rows(self, rows: Sequence[int] | None) -> Sequence[int]:
        return range(len(self.lengths)) if rows is None else rows


class EventModel:
    """Loaded weights of a point process. Shared by all sessions, never written."""

    def __init__(self, model_id: str, net: FrozenEvents) -> None:
        self.id = model_id
        self.net = net
        self.codec = EventCodec(net.config.kinds)
        self.num_params = net.num_params
        self.context = ROOM
        self.speaks: frozenset[type] = frozenset({EventSession})

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session on a prompt of `EventCodec`."""
        assert protocol in self.speaks, protocol
        return HouseEventSession(self, prompt, sampling, meter)


def load_events(
    model_id: str, path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> EventModel:
    """A model of a file of `house.events.save_events`. Raises UserError if there is no such file."""
    return EventModel(model_id, FrozenEvents(read_events(path, device), dtype))
