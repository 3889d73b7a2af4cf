"""Weights of one byte: near the weights they came from, and read by a map of names alone."""

from __future__ import annotations

import torch

from backend.models.house.rounded import GROUP, STEP, from_bytes, in_bytes


def test_matrices_come_back_within_half_a_step_and_the_rest_unchanged() -> None:
    stream = torch.Generator().manual_seed(0)
    state = {
        "map.weight": torch.randn(5, 7, generator=stream) * torch.logspace(-4, 2, 5)[:, None],
        "wide.weight": torch.randn(3, 3 * GROUP, generator=stream) * torch.logspace(-2, 2, 3).repeat_interleave(GROUP),
        "zero.weight": torch.zeros(2, 3),
        "norm.weight": torch.randn(7, generator=stream),
    }
    stored = in_bytes(state)
    back = from_bytes(stored)
    assert set(back) == set(state)
    assert stored["map.weight"].dtype is torch.int8
    steps_O = state["map.weight"].abs().amax(dim=1) / 127
    assert bool(((back["map.weight"] - state["map.weight"]).abs() <= 0.501 * steps_O[:, None]).all())
    wide = state["wide.weight"].unflatten(1, (3, GROUP))
    steps_OG1 = wide.abs().amax(dim=2, keepdim=True) / 127
    assert stored["wide.weight" + STEP].shape == (3, 3)
    assert bool(((back["wide.weight"].unflatten(1, (3, GROUP)) - wide).abs() <= 0.501 * steps_OG1).all())
    assert torch.equal(back["zero.weight"], state["zero.weight"])
    assert torch.equal(back["norm.weight"], state["norm.weight"])


def test_one_step_a_row_is_read_too() -> None:
    stored = {
        "map.weight": torch.tensor([[1, -2], [3, 4]], dtype=torch.int8),
        "map.weight" + STEP: torch.tensor([0.5, 2]),
    }
    assert from_bytes(stored)["map.weight"].tolist() == [[0.5, -1.0], [6.0, 8.0]]


def test_a_state_without_bytes_comes_back_as_it_is() -> None:
    state = {"map.weight": torch.ones(2, 2, dtype=torch.float16)}
    assert from_bytes(state)["map.weight"] is state["map.weight"]
