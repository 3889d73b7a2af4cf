"""The fleet session: several texts on one lean forward, each at a place of one buffer of keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.meter import Meter
from backend.models.house.fleet import FleetCache, forward_fleet
from backend.models.house.llama import Llama
from backend.models.session import check_numbers
from backend.protocols import Scores
from backend.sampling import distribution
from backend.types import Sampling


class Fleet:
    """A `FleetSession` over our lean forward."""

    def __init__(
        self,
        backbone: Llama,
        model_id: str,
        vocab_size: int,
        texts: Sequence[Sequence[int]],
        sampling: Sampling,
        meter: Meter,
    ) -> None:
        """Open the session. model_id: for messages. vocab_size: V of the laws, as in `TrieSession`."""
        self.texts: list[list[int]] = [list(text) for text in texts]
        self._backbone = backbone
        self._id = model_id
        self._vocab_size = vocab_size
        self._sampling = sampling
        self._meter = meter
        self._cache = FleetCache(backbone, 0, 0)
        self._at: list[int | None] = []  # by place: the text that is there

    def reserve(self, places: int, room: int) -> None:
        """See `FleetSession.reserve`."""
        self._cache = FleetCache(self._backbone, places, max(map(len, self.texts)) + room)
        self._at = [None] * places

    def admit(self, text: int, place: int) -> Scores:
        """See `FleetSession.admit`."""
        assert self._at[place] is None, f"place {place} is taken"
        self._at[place], tokens = text, self.texts[text]
        device = self._backbone.device
        with self._meter.call(len(tokens)):
            raw_1V, _ = self._backbone.forward_rows(
                torch.tensor(tokens, device=device),
                torch.arange(len(tokens), device=device),
                self._cache.at(place),
                last=1,
            )
        return self._judge(raw_1V, [tokens])

    def score(self, places: range) -> Scores:
        """See `FleetSession.score`."""
        texts = [self.texts[text] if (text := self._at[place]) is not None else [] for place in places]
        lengths = self._cache.lengths[places.start : places.stop]
        live = [len(text) > length for text, length in zip(texts, lengths, strict=True)]
        ids = [text[length] if lives else 0 for text, length, lives in zip(texts, lengths, live, strict=True)]
        with self._meter.call(len(places)):
            if len(places) == 1:  # the lean forward is quickest with one row
                raw_AV, _ = self._backbone.forward_rows(
                    torch.tensor(ids, device=self._backbone.device),
                    torch.tensor(lengths, device=self._backbone.device),
                    self._cache.at(places[0]),
                )
            else:
                raw_AV = forward_fleet(self._backbone, ids, self._cache, places.start, live)
        return self._judge(raw_AV, texts)

    def commit(self, place: int, token: int) -> None:
        """See `FleetSession.commit`."""
        text = self._at[place]
        assert text is not None, f"no text is at place {place}"
        self.texts[text].append(token)

    def move(self, source: int, target: int) -> None:
        """See `FleetSession.move`."""
        assert self._at[target] is None, f"place {target} is taken"
        self._cache.move(source, target)
        self._at[target], self._at[source] = self._at[source], None

    def retire(self, place: int) -> None:
        """See `FleetSession.retire`."""
        self._cache.lengths[place] = 0
        self._at[place] = None

    def _judge(self, raw_AV: Tensor, texts: Sequence[Sequence[int]]) -> Scores:
        raw_AV = raw_AV[:, : self._vocab_size]
        check_numbers(raw_AV, self._id)
        return Scores(distribution(raw_AV, self._sampling, texts), raw_AV)
