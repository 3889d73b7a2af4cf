"""Sessions that fill a canvas in any order, or write token maps coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from backend.scores import Scores


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

    def score(self) -> Tensor:
        """p_NV of the N = h * w slots of the current scale, each given all coarser scales and none of this one."""
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
class PictureJudgeSession(Protocol):
    """Tells how well pictures show what the prompt asks for. What steers decoding so must not measure it."""

    def judge(self, canvases: Sequence[Sequence[int]]) -> list[float]:
        """For each canvas a chance from 0 to 1: the geometric mean over what the prompt asks for. One call, N rows.

        Open slots (-1) are shown as cells that nobody has painted.
        """
        ...


@runtime_checkable
class RedrawingSession(ScaleSession, Protocol):
    """A scale session that can tell tokens of the current scale from others of it, so that some can be drawn again."""

    def redraw(self, partial_N: Sequence[int]) -> Tensor:
        """p_NV of the slots of the current scale given its known tokens (-1 = unknown); known slots are one-hot."""
        ...


@runtime_checkable
class DistilledSession(Protocol):
    """A student of a scale session that tells all its maps at once from the noise that its teacher draws them by."""

    sizes: Sequence[tuple[int, int]]  # (height, width) of every scale
    dims: int  # D, numbers of noise a slot

    def predict(self, noise_LD: Tensor, known: Sequence[int] = ()) -> Tensor:
        """p_NV of the slots behind the known ones, which fill the first scales: what the noise leads the teacher to.

        noise_LD: standard normal, of every slot; that of known ones is not looked at.
        """
        ...


@runtime_checkable
class CoarseSession(Protocol):
    """A picture written twice: the group of every slot's code left to right, then the codes within the groups.

    Groups are scored and committed as a `CausalSession` does it with tokens; `refine` is called apart, and counted
    under the part "fine".
    """

    groups: Sequence[int]  # of the slots written so far, those that were given first
    given: Sequence[int]  # codes of the slots that were given
    members: Sequence[int]  # by code, its group
    medoids: Sequence[int]  # by group, the code in its middle, which stands for it until slots are refined

    def score(self, draft: Sequence[int] = ()) -> Scores:
        """Laws of groups, [N, M], after nothing and after each drafted group. Commits nothing."""
        ...

    def commit(self, groups: Sequence[int]) -> None:
        """Append groups for good."""
        ...

    def refine(self, known_N: Sequence[int]) -> Tensor:
        """p_NV of the N slots written so far, given all their groups and the known codes: one call.

        known_N: codes, -1 where unknown. Known slots get one-hot rows, others chances for codes of their group only.
        """
        ...
