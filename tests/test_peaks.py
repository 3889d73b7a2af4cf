"""The quick search for the largest numbers of wide rows finds what torch finds."""

from __future__ import annotations

import pytest
import torch

from backend.peaks import BLOCK, WIDE, peak, peaks

WIDTHS = (1, 97, WIDE, WIDE + 1, 12 * WIDE)


def rows(width: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 4, 16, BLOCK])
def test_peaks_equal_topk(width: int, count: int) -> None:
    rows_NV = rows(width)
    values_NT, at_NT = peaks(rows_NV, count)
    expected = rows_NV.topk(min(count, width), dim=1)
    assert torch.equal(values_NT, expected.values)
    assert torch.equal(at_NT, expected.indices)


def test_peaks_may_all_lie_in_one_block() -> None:
    row_1V = torch.zeros(1, WIDE)
    row_1V[0, 200:216] = torch.arange(16.0) + 1
    values_1T, at_1T = peaks(row_1V, 16)
    assert values_1T[0].tolist() == list(range(16, 0, -1))
    assert at_1T[0].tolist() == list(range(215, 199, -1))


@pytest.mark.parametrize("width", WIDTHS)
def test_peak_is_the_first_of_equals(width: int) -> None:
    rows_NV = rows(width).round()  # many equal numbers
    assert torch.equal(peak(rows_NV), rows_NV.argmax(1))


def test_rows_of_nothing_possible_are_searched_too() -> None:
    row_1V = torch.full((1, WIDE), float("-inf"))
    row_1V[0, 77] = 1.0
    assert peak(row_1V).tolist() == [77]
    values_1T, at_1T = peaks(row_1V, 4)
    assert (values_1T[0, 0].item(), at_1T[0, 0].item()) == (1.0, 77)
    assert torch.isneginf(values_1T[0, 1:]).all()
