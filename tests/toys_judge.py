"""A toy judge: it trusts a token as far as the target is sure of what comes behind it."""

from __future__ import annotations

from torch import Tensor

from backend.meter import Meter
from backend.protocols import JudgeSession, Prompt
from backend.types import Sampling
from tests.toys import Counting, Toy, ToyCausal


class ToyJudge(Toy):
    """A judge of a table's hidden states, which are its laws: the chance is the likeliest token's."""

    def __init__(self, model_id: str, target: ToyCausal) -> None:
        super().__init__(model_id, JudgeSession, target.codec, target.context)
        self.size = target.size

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyJudgeSession:
        return ToyJudgeSession(self, meter)


class ToyJudgeSession(Counting):
    """A judge session; every score is a call of as many rows as there are states."""

    def __init__(self, model: ToyJudge, meter: Meter) -> None:
        super().__init__(meter)
        self._model = model

    def score(self, hidden_NC: Tensor | None) -> Tensor:
        """See `JudgeSession.score`."""
        assert hidden_NC is not None
        assert hidden_NC.shape[1] == self._model.size
        self.charge(len(hidden_NC))
        return hidden_NC.amax(dim=1)
