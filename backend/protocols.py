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
from backend.scores import Scores as Scores
from backend.types import Sampling


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
class FleetSession(Protocol):
    """Several texts on one model, each at a place of one buffer, and one call that extends any run of places.

    It extends no `CausalSession`, for it has no single text; but its texts are written left to right like those.
    """

    texts: Sequence[Sequence[int]]  # each with everything committed

    def reserve(self, places: int, room: int) -> None:
        """Make the buffer, once: `places` texts at a time, `room` tokens behind the prompt of each."""
        ...

    def admit(self, text: int, place: int) -> Scores:
        """Run a prompt into a free place: a call of its own. One row: the law of the text's next token."""
        ...

    def score(self, places: range) -> Scores:
        """One call over places that lie side by side. Row i: the law behind the text at places[i].

        Each of these texts had a token committed since its last call; places without one, and free places, are
        padding: a row that costs as much as any, and means nothing.
        """
        ...

    def commit(self, place: int, token: int) -> None:
        """Append a token to the text at this place for good."""
        ...

    def move(self, source: int, target: int) -> None:
        """Bring the text at one place to another, which is free; what the model remembers of it is copied."""
        ...

    def retire(self, place: int) -> None:
        """The text at this place is done: the place is free."""
        ...


@runtime_checkable
class TwoLevelSession(CausalSession, Protocol):
    """A text written in blocks: a global model reads whole blocks, a local one writes the next, seeing no other block.

    Blocks are counted from the start of the prompt, so the first one to be written may hold tokens already.
    """

    length: int  # tokens of a block
    kv_bytes: int  # keys and values that the calls below have read so far

    def think(self) -> int:
        """One global call over the whole blocks that it has not read yet, none if there are none.

        Returns the number of places that are open in the block behind them, 1 to `length`.
        """
        ...

    def write(self, block: Sequence[int]) -> Scores:
        """One local call: the law, one row, behind the text and these tokens, which leave a place of the block open.

        Only once `think` has read every whole block. Commits nothing.
        """
        ...

    def plain_bytes(self, length: int) -> int:
        """Keys and values that a plain model of about the same loss reads for the law behind `length` tokens.

        0 where no such model is known.
        """
        ...


@runtime_checkable
class JudgeSession(Protocol):
    """A head that reads off a target's hidden states whether the last token read is a good one."""

    def score(self, hidden_NC: Tensor | None) -> Tensor:
        """Chances [N] that the tokens are right, given the states computed with them as input; see `Scores`.

        Raises UserError where there are no states, and where they are not as wide as the head.
        """
        ...


@runtime_checkable
class HeadsSession(Protocol):
    """Draft heads: laws of the next tokens, read off the hidden states of a target.

    It scores as a `CausalSession` does, over as many drafted places as it has heads, and learns with every commit what
    the target thought when it wrote the text. Its laws are for temperature 1 whatever the request says: drafts are
    taken by rank, and `Scores.best` is what strategies read.
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


@dataclass(frozen=True)
class Exit:
    """Where a nested model was read: the next token's law p_V there, and the number of layers that ran for it.

    p_V: temperature and filters applied. sure: the largest probability at temperature 1, before filters.
    """

    p_V: Tensor
    depth: int
    sure: float


@runtime_checkable
class NestedSession(Protocol):
    """A model whose first layers are models too: it is read behind one of its exits, the sooner the surer it is."""

    tokens: Sequence[int]  # prompt and everything committed
    exits: Sequence[int]  # numbers of layers behind which it can be read, ascending; the last is the whole model

    def score(self, draft: Sequence[int] = (), thresholds: Sequence[float] = ()) -> Exit:
        """The law behind the draft, read at the first exit whose `sure` reaches its threshold. Commits nothing.

        Deeper layers run for the tokens before only when they are needed, then for all of them in one go.

        Args:
            draft: guesses that follow `tokens`. thresholds: one for each exit but the last, which always stops; with a
                threshold of 1 or more an exit is passed unread. Raises UserError for another number of them.
        """
        ...

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens for good."""
        ...


@runtime_checkable
class BlockSession(Protocol):
    """A drafter that guesses several places in one call, each without knowing what stands in the places before it."""

    tokens: Sequence[int]  # prompt and everything committed
    reach: int  # most places that it can guess

    def guess(self, length: int) -> Scores:
        """Laws of the next `length` places, row i of place i: one call. Raises UserError beyond `reach`."""
        ...

    def commit(self, tokens: Sequence[int]) -> None:
        """Append tokens for good."""
        ...


@runtime_checkable
class MaskedSession(Protocol):
    """A canvas whose slots are filled in any order."""

    canvas_L: Sequence[int]  # where to start: given tokens, -1 where unknown

    def denoise(self, canvas_L: Sequence[int]) -> Tensor:
        """p_LV: the law of every slot given the known ones (-1 = unknown); known slots get one-hot rows."""
        ...


@runtime_checkable
class GridSession(MaskedSession, Protocol):
    """A masked session that knows where its slots lie: canvas_L is a grid, row by row."""

    grid: tuple[int, int]  # (height, width); height * width slots


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
class FlexibleSession(ScaleSession, Protocol):
    """A scale session that can leave sizes out, since each of its maps is the whole picture and not a residual."""

    def plan(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Write these of the sizes instead of all, in the same order. Only before anything is scored or committed.

        Raises UserError for a size that the model does not offer.
        """
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
    FleetSession: "fleet",
    TwoLevelSession: "two-level",
    HeadsSession: "heads",
    JudgeSession: "judge",
    NestedSession: "nested",
    BlockSession: "block",
    MaskedSession: "masked",
    GridSession: "grid",
    ScaleSession: "scale",
    FlexibleSession: "flexible",
    ContinuousSession: "continuous",
    DenoiserSession: "diffusion",
    ForecastSession: "forecast",
}
PROTOCOLS: tuple[type, ...] = tuple(PROTOCOL_NAMES)
KINDRED: Mapping[type, type] = {FleetSession: CausalSession}  # write what another does, without extending it


def base(protocol: type) -> type:
    """The protocol that this one extends, or itself: a `SkippingSession` is a `CausalSession` that can do more.

    Strategies whose targets have the same base share a folder, a tab and their contract tests.
    """
    return KINDRED.get(protocol) or next(p for p in reversed(protocol.__mro__) if p in PROTOCOL_NAMES)


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
