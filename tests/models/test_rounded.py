"""Weights of few bits: near the weights they came from, and read by a map of names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.models.house.rounded import GROUP, SHAPE, STEP, from_bytes, in_bits, in_bytes


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
    assert (stored["map.weight"].dtype, stored["map.weight"].dim()) == (torch.uint8, 1)
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


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 27, 64, 192])
def test_six_bits_hold_every_whole_number_exactly(columns: int) -> None:
    """Weights that are whole steps, the largest of each group among them, come back bit for bit."""
    stream = torch.Generator().manual_seed(columns)
    groups = max(1, columns // GROUP)
    whole_OI = torch.randint(-31, 32, (200, columns), generator=stream).unflatten(1, (groups, -1))
    whole_OI[:, :, 0] = 31
    step_OG1 = 2.0 ** torch.randint(-12, 3, (200, groups, 1), generator=stream)
    weight_OI = (whole_OI * step_OG1).flatten(1)
    stored = in_bits({"map.weight": weight_OI})
    assert stored["map.weight" + SHAPE].tolist() == [200, columns]
    assert stored["map.weight" + STEP].shape == (200, groups)
    assert torch.equal(from_bytes(stored)["map.weight"], weight_OI)


def test_six_bits_come_back_within_half_a_step_and_the_rest_unchanged() -> None:
    stream = torch.Generator().manual_seed(0)
    state = {
        "map.weight": torch.randn(5, 7, generator=stream) * torch.logspace(-9, 2, 5)[:, None],
        "wide.weight": torch.randn(3, 3 * GROUP, generator=stream) * torch.logspace(-2, 2, 3).repeat_interleave(GROUP),
        "zero.weight": torch.zeros(2, 3),
        "norm.weight": torch.randn(7, generator=stream),
    }
    stored = in_bits(state)
    back = from_bytes(stored)
    assert {name: w.shape for name, w in back.items()} == {name: w.shape for name, w in state.items()}
    for name, groups in (("map.weight", 1), ("wide.weight", 3)):
        step_OG1 = stored[name + STEP].float()[..., None]
        exact_OGI, back_OGI = (x[name].unflatten(1, (groups, -1)) for x in (state, back))
        assert torch.allclose(step_OG1, exact_OGI.abs().amax(dim=2, keepdim=True) / 31, rtol=2**-8, atol=0)
        assert bool(((back_OGI - exact_OGI).abs() <= 0.501 * step_OG1).all())
    assert torch.equal(back["zero.weight"], state["zero.weight"])
    assert torch.equal(back["norm.weight"], state["norm.weight"])


@pytest.mark.parametrize(("bits", "most"), [(4, 0.49), (5, 0.62), (5.5, 0.68), (6, 0.74), (7, 0.86), (8, 0.99)])
def test_fewer_bits_take_fewer_bytes(tmp_path: Path, bits: float, most: float) -> None:
    """Of bell-shaped weights a file holds less than their bits: `most` of a byte each, steps included."""
    state = {"map.weight": torch.randn(512, 512, generator=torch.Generator().manual_seed(0))}
    save_file(in_bits(state, bits), tmp_path / "few.safetensors")
    share = 0.0625 if bits == 8 else 0.03125  # of steps
    assert (tmp_path / "few.safetensors").stat().st_size < (most + share) * 512 * 512
    back = from_bytes(load_file(tmp_path / "few.safetensors"))["map.weight"]
    assert torch.equal(back, from_bytes(in_bits(state, bits))["map.weight"])


def test_some_matrices_may_take_more_bits() -> None:
    state = {name: torch.randn(9, 8, generator=torch.Generator().manual_seed(0)) for name in ("a", "b")}
    mixed = from_bytes(in_bits(state, finer=("a",), finer_bits=7))
    assert torch.equal(mixed["a"], from_bytes(in_bits(state, 7))["a"])
    assert torch.equal(mixed["b"], from_bytes(in_bits(state, 6))["b"])
    for bits in (3, 5.25):
        with pytest.raises(ValueError, match=f"4 to 8 bits, in halves, not in {bits}"):
            in_bits(state, bits)
