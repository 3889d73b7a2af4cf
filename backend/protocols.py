"""What strategies and models agree on: one session protocol a kind of model, and what a model and a codec must offer.

Shape letters: N slots scored in a call, V vocabulary, L canvas length, D value dimensions, C channels or features,
T context length of a series, H horizon, S paths or quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.peaks import peaks
from backend.types import Sampling


@dataclass(frozen=True)
class Scores:
    """What a causal session says about a draft: row 0 is the next token's law, row i + 1 the law after draft[i].

    p_NV: float, rows sum to 1, temperature and filters applied. raw_NV: logits before them, where the model has any.
    hidden_NC: the last hidden state the row was read from, for drafters that start there. passed_MC: the same of the
    M committed tokens that this call ran in front of row 0, such as a prompt's; None where it ran none.
    """

    p_NV: Tensor
    raw_NV: Tensor | None = None
    hidden_NC: Tensor | None = None
    passed_MC: Tensor | None = None

    def trail(self, path: Sequence[int], count: int) -> Tensor:
        """Hidden states from which the last tokens of the text were read, for `HeadsSession.commit`, [M + count, C].

        path: the guesses that were accepted, as indices in the draft. count: tokens that were committed after them and
        with them, at most len(path) + 1. Raises UserError for a model that shows no hidden states.
        """
        if self.hidden_NC is None or not self.hidden_NC.shape[1]:
            raise UserError("Draft heads read the target's hidden states, but this target shows none; pick another.")
        read_NC = self.hidden_NC[[0, *(i + 1 for i in path)][:count]]
        return read_NC if self.passed_MC is None else torch.cat((self.passed_MC, read_NC))

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
class SkippingSession(CausalSession, Protocol):
    """A causal session that can leave out feed-forward nets for a token."""

    num_layers: int

    def skim(self, similarity: float, region: range) -> tuple[Scores, tuple[float, ...]]:
        """The law of the next token, read with as few feed-forward nets as the last committed token allows.

        Layer by layer of the region, the first whose net turns the hidden state h by so little that
        cos(h, h + net(h)) >= similarity is the last net of the region to run. Attention always runs. Tokens in front
        of the last one that were never run, such as a prompt's, are run whole, and the last one with them.

        Args:
            region: layers whose nets may be left out, as numbers from 0 in steps of 1.

        Returns:
            One row of scores, and the cosines of the region's nets that ran, in order; the nets behind them were
            skipped. Empty where nothing of the region was measured: a whole run, or a row that was there already.
        """
        ...


@runtime_checkable
class MixingSession(CausalSession, Protocol):
    """A causal session that can read several tokens at once, as one mixture."""

    def blend(self, tokens: Sequence[int], weights: Sequence[float]) -> Scores:
        """The law after a mixture: one row whose input is the weighted sum of the tokens' embeddings.

        The first mixture stands behind the text, each further one behind the last; the next commit drops them all.
        `raw_NV` is always there. A text that was not run yet is run first, in a call of its own.
        """
        ...


@runtime_checkable
class JudgeSession(Protocol):
    """A head that reads off a target's hidden states whether the last token read is a good one."""

    def score(self, hidden_NC: Tensor) -> Tensor:
        """Chances [N] that the tokens are right, given the states computed with them as input; see `Scores`.

        Raises UserError where the states are not as wide as the head.
        """
        ...


@runtime_checkable
class HeadsSession(Protocol):
    """Draft heads: laws of the next tokens, read off the hidden states of a target.

    It scores as a `CausalSession` does, over as many drafted places as it has heads, and learns with every commit what
    the target thought when it wrote the text.
    """

    tokens: Sequence[int]  # prompt and everything committed
    reach: int  # places behind the text that it has laws for; a draft is shorter
    odds: Sequence[Sequence[float]]  # measured: [k][r] is how often the r-th best guess for place k was right

    def score(self, draft: Sequence[int] = (), parents: Sequence[int] | None = None) -> Scores:
        """Laws after nothing and after each drafted token, no deeper than `reach` places; see `CausalSession`."""
        ...

    def commit(self, tokens: Sequence[int], hidden_NC: Tensor) -> None:
        """Append tokens for good.

        hidden_NC: the target's hidden states from which the last N tokens of the text were read, these included; see
        `Scores.trail`. With the first commit it reaches back into the prompt.
        """
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


PROTOCOL_NAMES: Mapping[type, str] = {
    CausalSession: "causal",
    SkippingSession: "skipping",
    MixingSession: "mixing",
    HeadsSession: "heads",
    JudgeSession: "judge",
    MaskedSession: "masked",
    ScaleSession: "scale",
    ContinuousSession: "continuous",
    DenoiserSession: "diffusion",
    ForecastSession: "forecast",
}
PROTOCOLS: tuple[type, ...] = tuple(PROTOCOL_NAMES)


def base(protocol: type) -> type:
    """The protocol that this one extends, or itself: a `SkippingSession` is a `CausalSession` that can do more.

    Strategies whose targets have the same base share a folder, a tab and their contract tests.
    """
    return next(p for p in reversed(protocol.__mro__) if p in PROTOCOL_NAMES)


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
