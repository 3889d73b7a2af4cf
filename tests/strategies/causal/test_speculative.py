"""Speculative sampling: known answers of the papers."""

import pytest

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.registry import find
from backend.types import Fate
from tests.exact import expected, law
from tests.strategies.causal.played import WARM, play
from tests.toys import ToyCausal, causal_pair


def flat(name: str, p: list[float]) -> ToyCausal:
    return ToyCausal(name, size=len(p), fixed=p)


@pytest.mark.parametrize("gamma", [1, 2, 3, 5])
def test_tokens_per_call_of_context_free_laws(gamma: int) -> None:
    """alpha = sum min(p, q) = 0.7, so a call writes (1 - alpha^(gamma + 1)) / (1 - alpha) tokens on average."""
    pair = [flat("toy/p", [0.4, 0.3, 0.2, 0.1]), flat("toy/q", [0.1, 0.5, 0.3, 0.1])]
    num, calls = 0, 0
    for seed in range(30):
        trace = play("speculative", pair, budget=60, seed=seed, gamma=gamma, prompt="0")
        num, calls = num + trace.summary().new_slots, calls + trace.summary().num_target_calls
    assert num / calls == pytest.approx((1 - 0.7 ** (gamma + 1)) / 0.3, rel=0.08)  # 30 x 60 tokens: sd below 3 %


def test_equal_models_keep_everything() -> None:
    target = ToyCausal("toy/a", seed=3)
    trace = play("speculative", [target, ToyCausal("toy/b", seed=3)], budget=10, gamma=4)
    assert trace.summary().alpha == 1.0
    assert trace.summary().num_target_calls == 2


def test_exact_acceptance_of_one_draft() -> None:
    """One guess, all branches: kept with probability 7/10, by enumeration."""
    p, q = flat("toy/p", [0.4, 0.3, 0.2, 0.1]), flat("toy/q", [0.1, 0.5, 0.3, 0.1])

    def kept(chance: Chance) -> int:
        sessions = [m.make(m.codec.encode("0"), WARM, Meter(), 2) for m in (p, q)]
        step = next(iter(find("speculative").run(*sessions, Ask(2, chance), gamma=1)))
        return sum(mark.fate is Fate.KEPT for mark in step.marks)

    assert expected(law(kept)) == pytest.approx(0.7, abs=1e-12)


def test_never_drafts_beyond_the_budget() -> None:
    for budget in range(1, 6):
        for step in play("speculative", causal_pair(), budget=budget, gamma=12).steps:
            assert all(mark.slot < 4 + budget for mark in step.marks)
