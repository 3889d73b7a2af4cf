"""A toy fleet: several texts of one table, at places of one buffer, that checks how it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from backend.codecs.text import TextCodec
from backend.meter import Meter
from backend.models.causal import CausalModel
from backend.protocols import FleetSession, Prompt, Scores
from backend.types import Sampling
from tests.models.test_llama import make
from tests.toys import Counting, ToyCausal, ToyCodec


def tiny_llama(end: Sequence[int] = ()) -> CausalModel:
    """Random weights in float64; "w5 w17" are tokens 5 and 17."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    llama = make("llama")[0].pack(torch.float64)
    return CausalModel("tiny/lean", llama, TextCodec(tokenizer, end=end), llama.num_params)


class FleetCodec(ToyCodec):
    """{"texts": ["0 1", "2"]} are several prompts, a string is one."""

    def encode(self, raw: Any) -> Prompt:
        """The tokens of the digits."""
        if isinstance(raw, str):
            return super().encode(raw)
        texts = tuple(super(FleetCodec, self).encode(text).tokens for text in raw["texts"])
        return Prompt(tuple(token for text in texts for token in text), {"texts": texts})


class ToyFleet(ToyCausal):
    """A table that is played by `FleetSession`s."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.protocol = FleetSession
        self.speaks = frozenset({FleetSession})
        self.codec = FleetCodec(**asdict(self.codec))

    def make(self, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        return ToyFleetSession(self, prompt.texts, sampling, meter, room)


class ToyFleetSession(Counting):
    """A fleet session on the table. `places` and `moves` tell what was done to it."""

    def __init__(
        self, model: ToyFleet, texts: Sequence[Sequence[int]], sampling: Sampling, meter: Meter, room: int
    ) -> None:
        super().__init__(meter)
        self.texts: list[list[int]] = [list(text) for text in texts]
        self.places: list[int | None] = []
        self.moves: list[tuple[int, int]] = []
        self.admitted: list[tuple[int, int]] = []  # text, place
        self._prompts = [len(text) for text in texts]
        self._model = model
        self._sampling = sampling
        self._room = room
        self._share = 0
        self._evaluated: dict[int, int] = {}  # by place: tokens of its text that have been run

    @property
    def tokens(self) -> list[int]:
        """The canvas: all prompts, then the slots of each text, -1 where open."""
        canvas = [token for text, num in zip(self.texts, self._prompts, strict=True) for token in text[:num]]
        for text, num in zip(self.texts, self._prompts, strict=True):
            new = text[num:]
            canvas += [*new, *[-1] * (self._share - len(new))]
        while canvas and canvas[-1] < 0:
            canvas.pop()
        return canvas

    def reserve(self, places: int, room: int) -> None:
        """See `FleetSession.reserve`."""
        assert not self.places, "the buffer is made once"
        assert room * len(self.texts) <= self._room, "more room than the session was opened for"
        self.places, self._share = [None] * places, room

    def admit(self, text: int, place: int) -> Scores:
        """See `FleetSession.admit`."""
        assert self.places[place] is None, f"place {place} is taken"
        assert len(self.texts[text]) == self._prompts[text], "the text was there before"
        self.places[place], self._evaluated[place] = text, self._prompts[text]
        self.admitted.append((text, place))
        self.charge(self._prompts[text])
        return self._scores([place])

    def score(self, places: range | None = None) -> Scores:
        """See `FleetSession.score`. Without places: the law behind the first text, for tests, free of charge."""
        if places is None:
            return Scores(self._model.row(self.texts[0], self._sampling)[None])
        assert places.step == 1
        assert places
        for place in places:
            text = self.places[place]
            if text is not None and self._evaluated[place] < len(self.texts[text]):
                self._evaluated[place] += 1
                assert self._evaluated[place] == len(self.texts[text]), "more than one token was not run yet"
        self.charge(len(places))
        return self._scores(places)

    def commit(self, place: int, token: int) -> None:
        """See `FleetSession.commit`."""
        text = self.places[place]
        assert text is not None
        assert self._evaluated[place] == len(self.texts[text]), "the last token was not run yet"
        self.texts[text].append(token)
        assert len(self.texts[text]) <= self._prompts[text] + self._share, "more tokens than there is room for"

    def move(self, source: int, target: int) -> None:
        """See `FleetSession.move`."""
        assert self.places[target] is None
        assert self.places[source] is not None
        self.places[target], self.places[source] = self.places[source], None
        self._evaluated[target] = self._evaluated.pop(source)
        self.moves.append((source, target))

    def retire(self, place: int) -> None:
        """See `FleetSession.retire`."""
        assert self.places[place] is not None
        self.places[place] = None
        del self._evaluated[place]

    def _scores(self, places: Sequence[int]) -> Scores:
        """Rows of padding are NaN: nothing may depend on them."""
        rows = []
        for place in places:
            text = self.places[place]
            done = text is None or self._evaluated[place] < len(self.texts[text])
            law = None if done or text is None else self._model.row(self.texts[text], self._sampling)
            rows.append(torch.full((self._model.size,), torch.nan, dtype=torch.float64) if law is None else law)
        return Scores(torch.stack(rows))
