"""Collaborative decoding: the law of the hand-over, the same picture where both models are one, who was called."""

from __future__ import annotations

import pytest

from backend.errors import UserError
from tests.exact import total_variation
from tests.toys import ToyScale
from tests.toys_image import one_by_one, paint, painted_law

SIZES = ((1, 1), (1, 2), (2, 2))


def pair(seed: int = 5) -> list[ToyScale]:
    return [ToyScale("toy/large", seed, SIZES), ToyScale("toy/small", seed + 50, SIZES)]


@pytest.mark.parametrize("drafts", [0, 1, 2, 3, 9])
def test_a_model_that_refines_itself_paints_what_next_scale_paints(drafts: int) -> None:
    toy, twin = ToyScale("toy/one", 9, SIZES), ToyScale("toy/two", 9, SIZES)
    for seed in range(25):
        both = paint("collaborative", [toy, twin], seed=seed, drafts=drafts)
        plain = paint("next_scale", [toy], seed=seed)
        assert [step.marks for step in both.steps] == [step.marks for step in plain.steps]


@pytest.mark.parametrize("drafts", [0, 1, 2, 3])
def test_the_law_is_the_targets_then_the_refiners_given_that(drafts: int) -> None:
    large, small = pair()
    expected = one_by_one(large, dict.fromkeys(range(drafts, 3), small))
    assert total_variation(painted_law("collaborative", [large, small], drafts=drafts), expected) < 1e-12


def test_the_earlier_the_hand_over_the_farther_from_the_target() -> None:
    large, small = pair()
    lost = [
        total_variation(painted_law("collaborative", [large, small], drafts=drafts), one_by_one(large))
        for drafts in (0, 1, 2, 3)
    ]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 1e-12


def test_each_model_is_called_for_its_scales_only() -> None:
    models = pair()
    trace = paint("collaborative", models, drafts=2)
    assert [(s.calls["target"], s.calls["refiner"]) for s in trace.steps] == [(1, 0), (1, 0), (0, 1)]
    assert [step.figures["refined"] for step in trace.steps] == [0.0, 0.0, 1.0]
    assert models[0].sessions[-1].written == models[1].sessions[-1].written == trace.replay()
    assert trace.summary().num_draft_calls == 1


def test_models_of_other_scales_are_refused() -> None:
    with pytest.raises(UserError, match="1x1, 1x2, 2x2 against 1x1, 2x2"):
        paint("collaborative", [pair()[0], ToyScale("toy/other", sizes=((1, 1), (2, 2)))], budget=5)
