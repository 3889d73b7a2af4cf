"""Training the judge: which texts the tasks call right, and that the head finds what separates the states."""

from __future__ import annotations

import pytest
import torch

from backend.train.smollm2_judge import choose, fit, rates, settings
from backend.train.smollm2_tasks import KINDS, SHOTS, Task, Tasks

ORDER = Task("order", "Words: sun, sunset, tree\nAny order:", " tree, sun, sunset\n", ("sun", "sunset", "tree"))
COPY = Task("copy", "Words: sun, tree\nAgain:", " sun, tree\n")


@pytest.mark.parametrize("kind", KINDS)
def test_right_answers_stay_right_all_the_way(kind: str) -> None:
    tasks = Tasks(3, 0)
    for _ in range(20):
        task = tasks.draw(kind)
        assert all(task.completable(task.answer[:i]) for i in range(len(task.answer) + 1))
        assert task.solved(task.answer)
        assert not task.solved(task.answer[:-1])
        assert not task.completable(task.answer[:3] + "#")


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("", True),
        (" ", True),
        ("sun", False),
        (" sun", True),
        (" suns", True),
        (" sunr", False),
        (" sun,", True),
        (" sunset, sun, t", True),
        (" sun, sun,", False),
        (" sun, tree\n", False),
        (" sun, tree, sunset\n", True),
        (" sun, tree, sunset\n\nWords", True),
        (" sun, tree, sunset,", False),
        (" sun, tree, sun", True),
        (" sun, tree, sun\n", False),
        ("\n", False),
    ],
)
def test_any_order_is_right(written: str, right: bool) -> None:
    assert ORDER.completable(written) is right


def test_a_copy_has_one_answer() -> None:
    assert COPY.completable(" sun, t")
    assert not COPY.completable(" tree")
    assert COPY.solved(" sun, tree\nWords: x")
    assert not COPY.solved(" sun, tree")


def test_parts_share_no_words_and_seeds_repeat() -> None:
    one, other = (set(Tasks(1, part).draw("order").words) for part in (0, 1))
    assert not one & other
    assert Tasks(5, 0).prefix("swap") == Tasks(5, 0).prefix("swap") != Tasks(6, 0).prefix("swap")
    assert Tasks(5, 0).prefix("copy").count("\n") == 3 * SHOTS


def test_the_head_finds_the_direction_that_separates() -> None:
    """Two clouds two deviations apart along one feature, on another scale than the rest: the area is Phi(sqrt 2)."""
    stream = torch.Generator().manual_seed(0)
    right_M = (torch.rand(4000, generator=stream) < 0.3).float()
    h_MC = torch.randn(4000, 6, generator=stream)
    h_MC[:, 2] = 50.0 * (h_MC[:, 2] + 2 * right_M) + 7.0
    weight_C, bias = fit(h_MC, right_M, 1.0, 1e-4)
    measured = rates(h_MC, right_M, weight_C, bias)
    assert measured["auc"] == pytest.approx(0.9214, abs=0.015)
    assert measured["wrong_tokens"] == int((right_M == 0).sum())
    strict = rates(h_MC, right_M, *fit(h_MC, right_M, 10.0, 1e-4))["false_accept_rate"]["0.5"]
    assert strict < measured["false_accept_rate"]["0.5"] / 2
    accepted = list(measured["false_accept_rate"].values())
    assert accepted == sorted(accepted, reverse=True)
    assert choose(h_MC, right_M, 1.0) in (1e-4, 1e-3, 1e-2, 1e-1)


def test_settings_are_knobs_of_the_strategy() -> None:
    from backend.registry import find

    names = [name for name, knobs in settings() if find("judge").settle(knobs)]
    assert len(names) == len(set(names)) == 12
