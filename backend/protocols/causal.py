"""Sessions that write sequences left to right, and those of their helpers: drafters, heads, judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from backend.scores import Scores


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
class PictureSession(CausalSession, Protocol):
    """A picture written row by row, in codes of which it is known how much they look alike."""

    grid: tuple[int, int]  # (height, width); slot i of the canvas is row i // width, column i % width

    def neighbours(self, token: int) -> tuple[Tensor, Tensor]:
        """The other codes, the most alike first, of equally like ones the smaller, and how far each looks from this.

        Returns:
            codes_N, far_N: N = V - 1; a distance of 0 is no difference, 1 the largest between any two codes.
        """
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
