"""A toy nested draft: a table for every exit, the shallow ones further from the target; it notes where it was read."""

from __future__ import annotations

from collections.abc import Sequence

from backend.meter import Meter
from backend.protocols import Exit, NestedSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCausal


class ToyNested(Toy):
    """Three exits: the last imitates the target, each one before it the exit behind it."""

    def __init__(self, model_id: str, target: ToyCausal, seed: int = 9) -> None:
        super().__init__(model_id, NestedSession, target.codec, target.context)
        self.tables: list[ToyCausal] = []
        like = target
        for depth in (3, 2, 1):
            like = ToyCausal(f"{model_id}@exit{depth}", seed + depth, target.size, target.order, like=like)
            self.tables.insert(0, like)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyNestedSession:
        return ToyNestedSession(self, prompt.tokens, sampling, meter)


class ToyNestedSession(Counting):
    """A nested session on the tables; `read` holds the depth of every answer."""

    def __init__(self, model: ToyNested, prompt: Sequence[int], sampling: Sampling, meter: Meter) -> None:
        super().__init__(meter)
        self.tokens: list[int] = list(prompt)
        self.exits = range(1, len(model.tables) + 1)
        self.read: list[int] = []
        self._model = model
        self._sampling = sampling
        self._known: set[tuple[int, ...]] = set()

    def score(self, draft: Sequence[int] = (), thresholds: Sequence[float] = ()) -> Exit:
        """See `NestedSession.score`."""
        assert len(thresholds) == len(self.exits) - 1
        text = (*self.tokens, *draft)
        if new := {text[:i] for i in range(1, len(text) + 1)} - self._known:
            self.charge(len(new))
            self._known |= new
        for depth, table, threshold in zip(self.exits, self._model.tables, [*thresholds, 0.0], strict=True):
            sure = float(table.law(text).max())
            if (sure >= threshold and threshold < 1.0) or depth == self.exits[-1]:
                self.read.append(depth)
                return Exit(table.row(text, self._sampling), depth, sure)
        raise AssertionError("the last exit always stops")

    def commit(self, tokens: Sequence[int]) -> None:
        """See `NestedSession.commit`."""
        self.tokens.extend(tokens)
        text = tuple(self.tokens)
        self._known = {path for path in self._known if path == text[: len(path)]}
