"""Shared noise: the drafter changes the speed, never the text."""

import pytest

from tests.strategies.causal.played import play, same_text
from tests.toys import ToyCausal


def test_prints_what_plain_decoding_prints() -> None:
    same_text("shared_noise", gamma=3)


def test_acceptance_is_the_one_of_the_coupling() -> None:
    """sum_i 1 / sum_j max(p_j / p_i, q_j / q_i) on a context-free pair."""
    p, q = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]
    alpha = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in range(4)) for i in range(4))
    pair = [ToyCausal("toy/p", size=4, fixed=p), ToyCausal("toy/q", size=4, fixed=q)]
    kept = judged = 0
    for seed in range(60):
        summary = play("shared_noise", pair, budget=40, seed=seed, gamma=1, prompt="0").summary()
        kept += summary.acceptance_histogram.get(1, 0)
        judged += summary.num_steps - (summary.new_slots < 2)
    assert kept / judged == pytest.approx(alpha, rel=0.08)
