"""A toy that can leave out feed-forward nets: every net that is skipped pulls its law towards another table's."""

from __future__ import annotations

from typing import Any

from backend.meter import Meter
from backend.protocols import CausalSession, Prompt, Scores, SkippingSession
from backend.types import Sampling
from tests.toys import ToyCausal, ToyCausalSession, filtered, mix

NUM_LAYERS = 8


class ToySkipping(ToyCausal):
    """A table with layers. The cosine of a net is a number of the text and the layer; it rises with the layer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.protocol = SkippingSession
        self.speaks = frozenset({CausalSession, SkippingSession})
        self.other = ToyCausal("toy/other", seed=77, size=self.size, order=self.order)

    def cosine(self, text: tuple[int, ...], layer: int) -> float:
        """From 0.9 to just below 1."""
        share = mix(9, (*text, layer)) % 1000 / 1000
        return 1.0 - 0.1 * share ** (layer + 1)

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> ToySkippingSession:
        return ToySkippingSession(self, prompt.tokens, sampling, meter, room)


class ToySkippingSession(ToyCausalSession):
    """A causal session whose next law may come from fewer nets."""

    num_layers = NUM_LAYERS
    _model: ToySkipping

    def skim(self, similarity: float, region: range) -> tuple[Scores, tuple[float, ...]]:
        """See `SkippingSession.skim`."""
        assert region.step == 1
        assert 0 <= region.start <= region.stop <= self.num_layers
        text = tuple(self.tokens)
        if text in self._known or text[:-1] not in self._known:
            return self.score(), ()
        self.charge(1)
        self._known.add(text)
        cosines: list[float] = []
        for layer in region:
            cosines.append(self._model.cosine(text, layer))
            if cosines[-1] >= similarity:
                break
        share = (len(region) - len(cosines)) / (2 * self.num_layers)
        law_V = (1 - share) * self._model.law(text) + share * self._model.other.law(text)
        return Scores(filtered(law_V[None], self._sampling, [text]), law_V.log()[None]), tuple(cosines)
