"""What a model and a codec must offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backend.meter import Meter
from backend.types import Sampling


@dataclass(frozen=True)
class Prompt:
    """What a session starts from: tokens of the canvas that are given, and whatever else the codec attached."""

    tokens: tuple[int, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[tuple[int, ...], ...]:
        """The texts to continue, each for itself, which together are `tokens`: one, unless the codec named more."""
        return self.extras.get("texts") or (self.tokens,)


class Codec(Protocol):
    """The only code that knows the modality: raw input <-> canvas."""

    @property
    def modality(self) -> str:
        """ "text", "image", ..."""
        ...

    @property
    def vocabulary(self) -> str:
        """Fingerprint: two models share tokens if and only if it is equal."""
        ...

    @property
    def end(self) -> frozenset[int]:
        """Tokens that end a sequence."""
        ...

    def encode(self, raw: Any) -> Prompt:
        """The prompt of a raw input. Raises UserError where the input cannot be used."""
        ...

    def decode(self, canvas: Sequence[int]) -> Any:
        """The media of a canvas: a string, an image, ..."""
        ...

    def piece(self, token: int) -> str:
        """One token as a person may read it, for token views."""
        ...


class Model(Protocol):
    """Loaded weights: shared by all sessions, read-only."""

    @property
    def id(self) -> str:
        """As the catalog knows it."""
        ...

    @property
    def speaks(self) -> frozenset[type]:
        """The session protocols it can open."""
        ...

    @property
    def codec(self) -> Codec:
        """Its modality."""
        ...

    @property
    def num_params(self) -> int:
        """Number of weights."""
        ...

    @property
    def context(self) -> int:
        """Most slots that a canvas can have."""
        ...

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> Any:
        """A session of the protocol. room: most slots that will be committed."""
        ...
