"""Sessions that fill a canvas in any order, or write token maps coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


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
