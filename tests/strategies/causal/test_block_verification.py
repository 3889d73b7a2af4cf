"""Block verification: never fewer kept tokens than token by token, and the same at temperature 0."""

import pytest

from tests.strategies.causal.played import COLD, play
from tests.toys import ToyCausal, causal_pair


def flat(name: str, p: list[float]) -> ToyCausal:
    return ToyCausal(name, size=len(p), fixed=p)


def test_keeps_more_than_token_verification_where_the_paper_says() -> None:
    """p = (1/3, 2/3), q = (2/3, 1/3), gamma 2: 11/9 against 10/9 kept tokens a call."""
    pair = [flat("toy/p", [1 / 3, 2 / 3]), flat("toy/q", [2 / 3, 1 / 3])]
    kept = {}
    for strategy in ("speculative", "block_verification"):
        num = calls = 0
        for seed in range(40):
            summary = play(strategy, pair, budget=60, seed=seed, gamma=2, prompt="0").summary()
            num, calls = num + summary.new_slots, calls + summary.num_target_calls
        kept[strategy] = num / calls - 1
    assert kept["speculative"] == pytest.approx(10 / 9, rel=0.06)
    assert kept["block_verification"] == pytest.approx(11 / 9, rel=0.06)


def test_temperature_zero_is_token_verification() -> None:
    for seed in range(20):
        models = causal_pair(size=4, seed=seed)
        block, token = (play(s, models, sampling=COLD, gamma=3) for s in ("block_verification", "speculative"))
        assert [s.marks for s in block.steps] == [s.marks for s in token.steps]
