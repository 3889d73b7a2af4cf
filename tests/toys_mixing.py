"""A toy that reads mixtures of tokens: its law is the mixture of the laws that its table has after each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from backend.meter import Meter
from backend.protocols import CausalSession, MixingSession, Prompt, Scores
from backend.types import Sampling
from tests.toys import ToyCausal, ToyCausalSession


class ToyMixing(ToyCausal):
    """A table behind a session that can blend. Of a mixture further back it remembers the heaviest token."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.protocol = MixingSession
        self.speaks = frozenset({CausalSession, MixingSession})

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToyMixingSession:
        return ToyMixingSession(self, prompt.tokens, sampling, meter, room)


class ToyMixingSession(ToyCausalSession):
    """A causal session with mixtures behind the text; `blended` holds the heaviest token of each."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.blended: list[int] = []

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """See `CausalSession.score`; with logits, as real sessions have them."""
        scores = super().score(draft, parents)
        assert scores.hidden_NC is not None
        return replace(scores, raw_NV=scores.hidden_NC.log())

    def blend(self, tokens: Sequence[int], weights: Sequence[float]) -> Scores:
        """See `MixingSession.blend`."""
        assert len(tokens) == len(weights) > 0
        if tuple(self.tokens) not in self._known:
            self.score()
        self.charge(1)
        text = (*self.tokens, *self.blended)
        laws_KV = torch.stack([self._model.law((*text, token)) for token in tokens])
        share_K = torch.tensor(weights, dtype=torch.float64)
        law_V = (share_K / share_K.sum()) @ laws_KV
        self.blended.append(tokens[int(share_K.argmax())])
        row_V = law_V  # laws of mixtures have no table row to be filtered
        return Scores(row_V[None], row_V[None].log())

    def commit(self, tokens: Sequence[int]) -> None:
        """See `CausalSession.commit`."""
        self.blended.clear()
        super().commit(tokens)
