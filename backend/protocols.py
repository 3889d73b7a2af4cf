"""What strategies and models agree on: one session protocol a kind of model, and what a model and a codec must offer.

Shape letters: N slots scored in a call, V vocabulary, L canvas length, D value dimensions, C channels or features,
T context length of a series, H horizon, S paths or quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from backend.meter import Meter
from backend.peaks import peaks
from backend.types import Sampling


@dataclass(frozen=True)
class Scores:
    """What a causal session says about a draft: row 0 is the next token's law, row i + 1 the law after draft[i].

    p_NV: float, rows sum to 1, temperature and filters applied. raw_NV: logits before them, where the model has any.
    hidden_NC: the last hidden state the row was read from, for drafters that start there.
    """

    p_NV: Tensor
    raw_NV: Tensor | None = None
    hidden_NC: Tensor | None = None

    def options(self, row: int, count: int = 4) -> tuple[tuple[int, float], ...]:
        """The `count` most likely tokens of a row at temperature 1, before filters, with their probabilities."""
        if self.raw_NV is None:
            p_1T, at_1T = peaks(self.p_NV[row][None], count)
        else:
            raw_1V = self.raw_NV[row][None]
            at_1T = peaks(raw_1V, count)[1]
            p_1T = raw_1V.softmax(dim=1).gather(1, at_1T)
        return tuple(zip(at_1T[0].tolist(), (round(p, 6) for p in p_1T[0].tolist()), strict=True))


@runtime_checkable
class CausalSession(Protocol):
    """One sequence written left to right."""

    tokens: Sequence[int]  # prompt and everything committed

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """Laws after nothing and after each drafted token: N = len(draft) + 1 rows. Commits nothing.

        Args:
            draft: guesses that follow `tokens`. parents: for a tree, the index in `draft` of each guess's parent
                (-1: it follows `tokens` directly), always smaller than its own index; None means a chain.
        """
        ...

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens for good. Work done on them in earlier scores is kept, the rest is dropped."""
        ...


@runtime_checkable
class MaskedSession(Protocol):
    """A canvas whose slots are filled in any order."""

    canvas_L: Sequence[int]  # where to start: given tokens, -1 where unknown

    def denoise(self, canvas_L: Sequence[int]) -> Tensor:
        """p_LV: the law of every slot given the known ones (-1 = unknown); known slots get one-hot rows."""
        ...


@runtime_checkable
class ScaleSession(Protocol):
    """Token maps written coarse to fine."""

    sizes: Sequence[tuple[int, int]]  # (height, width) of every scale
    at: int  # the scale being written; len(sizes) when done

    def score(self, partial_N: Sequence[int] | None = None) -> Tensor:
        """p_NV of the N = h * w slots of the current scale; partial_N: its known tokens, -1 where unknown."""
        ...

    def commit(self, tokens_N: Sequence[int]) -> None:
        """Write the current scale and move to the next."""
        ...


@runtime_checkable
class ContinuousSession(Protocol):
    """Slots that hold vectors, drawn by a small denoising head on top of a backbone."""

    num_slots: int
    dims: int

    def condition(self, slots: Sequence[int]) -> Tensor:
        """z_NC for these slots given everything committed: a backbone call."""
        ...

    def head(self, x_ND: Tensor, t: float, z_NC: Tensor) -> Tensor:
        """The head's prediction of the clean x at noise level t in [0, 1]: a head call."""
        ...

    def commit(self, slots: Sequence[int], x_ND: Tensor) -> None:
        """Write the vectors of these slots."""
        ...


class Schedule(Protocol):
    """x_t = alpha(t) x_0 + sigma(t) noise, t from 1 (noise) to 0 (data); `predicts` says what a denoiser returns."""

    predicts: Literal["eps", "v", "x0", "flow"]

    def alpha(self, t: float) -> float: ...

    def sigma(self, t: float) -> float: ...


@runtime_checkable
class DenoiserSession(Protocol):
    """A whole sample denoised at once."""

    shape: tuple[int, ...]
    schedule: Schedule

    def predict(self, x: Tensor, t: float) -> Tensor:
        """The model's prediction (see schedule.predicts) at x_t, same shape as x."""
        ...


@dataclass(frozen=True)
class Band:
    """A forecast of H steps: values_SH are quantiles at `levels` (S of them), or S sample paths if levels is empty."""

    values_SH: Tensor
    levels: tuple[float, ...] = ()


@runtime_checkable
class ForecastSession(Protocol):
    """A series and a model that continues it."""

    series_CT: Tensor

    def predict(self, horizon: int) -> Band:
        """The next `horizon` values of the first channel."""
        ...

    def extend(self, values_CH: Tensor) -> None:
        """Append values as if they had been observed."""
        ...


PROTOCOLS: tuple[type, ...] = (
    CausalSession,
    MaskedSession,
    ScaleSession,
    ContinuousSession,
    DenoiserSession,
    ForecastSession,
)
PROTOCOL_NAMES: Mapping[type, str] = dict(
    zip(PROTOCOLS, ("causal", "masked", "scale", "continuous", "diffusion", "forecast"), strict=True)
)


@dataclass(frozen=True)
class Prompt:
    """What a session starts from: tokens of the canvas that are given, and whatever else the codec attached."""

    tokens: tuple[int, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


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
