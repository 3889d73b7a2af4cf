"""A toy that writes in blocks of two: a table behind a global call that must have read every whole block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.meter import Meter
from backend.protocols import CausalSession, Prompt, Scores, TwoLevelSession
from backend.types import Sampling
from tests.toys import Counting, ToyCausal, ToyCausalSession

LENGTH = 2


class ToyTwoLevel(ToyCausal):
    """A table behind a session with two levels."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.protocol = TwoLevelSession
        self.speaks = frozenset({CausalSession, TwoLevelSession})

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyTwoLevelSession:
        return ToyTwoLevelSession(self, prompt.tokens, sampling, meter, room)


class ToyTwoLevelSession(ToyCausalSession):
    """A causal session with two levels; a byte is a row that a call reads. `local` counts the local calls."""

    length = LENGTH

    def __init__(self, model: ToyTwoLevel, prompt: Sequence[int], sampling: Sampling, meter: Meter, room: int) -> None:
        super().__init__(model, prompt, sampling, meter, room)
        self.kv_bytes = 0
        self.local = Counting(meter.part("tokens"))
        self.thought = 0  # global rows so far: one for the start of the text, one a block

    def think(self) -> int:
        """See `TwoLevelSession.think`."""
        rows = len(self.tokens) // LENGTH + 1
        if self.thought < rows:
            self.charge(rows - self.thought)
            self.thought = rows
            self.kv_bytes += rows
        return LENGTH - len(self.tokens) % LENGTH

    def write(self, block: Sequence[int]) -> Scores:
        """See `TwoLevelSession.write`."""
        inside = len(self.tokens) % LENGTH + len(block)
        assert inside < LENGTH, "the block is full"
        assert self.thought == len(self.tokens) // LENGTH + 1, "a whole block was not read"
        self.local.charge(1)
        self.kv_bytes += 1 + inside
        text = (*self.tokens, *block)
        return Scores(self._model.row(text, self._sampling)[None], self._model.law(text).log()[None])

    def plain_bytes(self, length: int) -> int:
        """See `TwoLevelSession.plain_bytes`."""
        return length
