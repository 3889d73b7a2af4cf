"""Classifier-free guidance as a backbone: what is asked for and nothing asked for, two sequences in one call.

Ho and Salimans 2022 (2207.12598). From the logits given the conditions, l_c, and with all of them left open, l_u, the
guided ones are l = l_u + s (l_c - l_u), before temperature and filters: convention A, s = 1 without guidance. Others
write l = (1 + t) l_c - t l_u: convention B, t = s - 1, t = 0 without guidance.

Both sequences have the same tokens behind their conditions, so they share one session: they lie interleaved in one
cache, each sees itself only, and a token costs two rows of one call.

The scale may be the same all over a picture or grow from none at its start to S at its end: "constant" is that of
LlamaGen and Janus, "linear" that of Tian et al. 2024 (2404.02905) over maps, "cosine" starts slowly and ends so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.models.session import Backbone, Cache

STRONGEST = 20.0
Schedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Guidance:
    """How strongly a picture is guided, from its first part to its last.

    Args:
        scale: S of convention A, reached at the end; 1 is none. schedule: how it is reached, see above.
        first: maps under guidance, for models of maps; those behind it have none. None: all.
    """

    scale: float
    schedule: Schedule = "constant"
    first: int | None = None

    def at(self, share: float) -> float:
        """The scale s at a share of the picture, from 0 to 1.

        >>> [Guidance(3.0, "linear").at(share) for share in (0.0, 0.5, 1.0)]
        [1.0, 2.0, 3.0]
        """
        if self.schedule == "constant":
            return self.scale
        grown = share if self.schedule == "linear" else (1 - math.cos(math.pi * share)) / 2
        return 1 + (self.scale - 1) * grown


def check_scale(scale: float, model_id: str, already: bool) -> None:
    """Raise UserError for a scale of guidance that is not offered, and for a model that is guided already."""
    if not math.isfinite(scale) or not 0 <= scale <= STRONGEST:
        raise UserError(f"Guidance must lie between 0 and {STRONGEST:g}, with 1 for none, but {scale:g} was asked for.")
    if already:
        raise UserError(f"{model_id} is guided already; name one scale, such as {model_id.partition('@')[0]}@cfg=3.")


class PairCache:
    """Two sequences of like length in the cache of one: slot i of both are its slots 2 i and 2 i + 1."""

    def __init__(self, whole: Cache) -> None:
        self.whole = whole

    @property
    def length(self) -> int:
        """Slots in use, of either."""
        return self.whole.length // 2

    def truncate(self, length: int) -> None:
        """See `Cache.truncate`."""
        self.whole.truncate(2 * length)

    def keep(self, slots: Sequence[int]) -> None:
        """See `Cache.keep`."""
        self.whole.keep([2 * slot + side for slot in slots for side in (0, 1)])


class PairMeter(Meter):
    """Counts for another meter, two rows a token."""

    def __init__(self, whole: Meter) -> None:
        super().__init__()
        self._whole = whole

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """See `Meter.call`."""
        with self._whole.call(2 * rows):
            yield

    def part(self, name: str) -> Meter:
        """See `Meter.part`."""
        return PairMeter(self._whole.part(name))


class Guided:
    """A backbone whose logits are guided; hidden states are those of the sequence with conditions.

    Args:
        backbone: what it runs. opened_V: by token, what stands in its place in the sequence with nothing asked.
        scale: S of convention A; 1 gives the conditional logits exactly, 0 the open ones.
        scale_T: s by the position of the row that is read, [T]; the scale itself everywhere by default.
    """

    def __init__(self, backbone: Backbone, opened_V: Tensor, scale: float, scale_T: Tensor | None = None) -> None:
        self.backbone = backbone
        self.scale = scale
        self.scale_T = None if scale_T is None else scale_T.to(backbone.device)
        self.vocab_size = backbone.vocab_size
        self.context = backbone.context
        self.device = backbone.device
        self._opened_V = opened_V.to(backbone.device)
        self._same_22 = torch.eye(2, dtype=torch.bool, device=backbone.device)

    def open_cache(self, capacity: int) -> PairCache:
        """An empty cache for both sequences, of at most `capacity` slots each."""
        return PairCache(self.backbone.open_cache(2 * capacity))

    @torch.inference_mode()
    def forward_rows(
        self,
        ids_N: Tensor,
        positions_N: Tensor,
        cache: PairCache,
        visible_NS: Tensor | None = None,
        last: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Backbone.forward_rows`; one call of the backbone with 2 N rows."""
        rows, start = len(ids_N), cache.length
        if visible_NS is None:
            visible_NS = torch.ones(rows, start + rows, dtype=torch.bool, device=self.device).tril(start)
        both_N2 = torch.stack((ids_N, self._opened_V[ids_N]), dim=1)
        apart_N2S2 = visible_NS[:, None, :, None] & self._same_22[None, :, None, :]
        raw_MV, hidden_MC = self.backbone.forward_rows(
            both_N2.flatten(),
            positions_N.repeat_interleave(2),
            cache.whole,
            apart_N2S2.reshape(2 * rows, -1),
            last=None if last is None else 2 * last,
        )
        if self.scale_T is None:
            return torch.lerp(raw_MV[1::2], raw_MV[::2], self.scale), hidden_MC[::2]
        scale_M1 = self.scale_T[positions_N][-(len(raw_MV) // 2) :, None].to(raw_MV.dtype)
        return torch.lerp(raw_MV[1::2], raw_MV[::2], scale_M1), hidden_MC[::2]
