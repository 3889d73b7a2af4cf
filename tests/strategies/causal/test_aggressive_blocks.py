"""Aggressive block decoding: what passes, what is counted, and how far tolerance moves the law."""

from __future__ import annotations

import pytest
import torch

from backend.chance import Ask, Chance
from backend.meter import Meter
from backend.registry import find
from backend.strategies.causal.aggressive_blocks import passing
from backend.types import Fate, Guarantee, Step
from tests.exact import law, total_variation
from tests.strategies.causal.played import COLD, WARM, counting, play
from tests.toys import ToyCausal, causal_pair
from tests.toys_block import ToyBlock


def block_pair(seed: int = 1, size: int = 3) -> tuple[ToyCausal, ToyBlock]:
    target, _ = causal_pair(seed=seed, size=size)
    return target, ToyBlock("toy/blocks", target)


@pytest.mark.parametrize(
    ("x", "beta", "tolerance", "n"),
    [
        ([0, 0], 1, 0.0, 1),  # only the best token passes
        ([1, 0], 2, 0.49, 0),  # second best, but too far below
        ([1, 0], 2, 0.5, 1),  # and the next one is third best
        ([1, 0], 3, 3.0, 2),
        ([2, 0], 2, 3.0, 0),
        ([3, 0], 5, 3.0, 0),  # a logit of -inf never passes
        ([], 5, 3.0, 0),
    ],
)
def test_what_passes(x: list[int], beta: int, tolerance: float, n: int) -> None:
    raw_NV = torch.tensor([[2.0, 1.5, 0.0, -torch.inf], [0.0, 2.0, 1.0, -torch.inf], [0.0] * 4])
    assert passing(raw_NV, x, beta, tolerance) == n


def test_equal_tokens_share_their_rank() -> None:
    raw_NV = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert [passing(raw_NV, [token], 1, 0.0) for token in range(3)] == [1, 1, 0]


def test_a_perfect_drafter_writes_block_plus_one_tokens_a_call() -> None:
    target = counting()
    perfect = ToyBlock("toy/blocks", target)
    perfect.table = target
    trace = play("aggressive_blocks", [target, perfect], prompt="0", budget=12, block=5)
    summary = trace.summary()
    assert (summary.num_target_calls, summary.num_draft_calls) == (2, 2)
    assert trace.replay() == [i % 6 for i in range(13)]


def test_one_drafter_call_a_step_whatever_the_block() -> None:
    models = block_pair(size=5)
    for block in (1, 3, 8):
        trace = play("aggressive_blocks", models, budget=13, block=block, seed=block)
        for step in trace.steps[:-1]:
            assert step.calls == {"target": 1, "block_draft": 1}
            assert sum(mark.fate in (Fate.KEPT, Fate.REJECTED, Fate.UNREAD) for mark in step.marks) <= block


def test_exact_text_is_plain_decodings() -> None:
    """With beta 1 every draw uses the noise of its slot, so the text is the one of plain decoding with that seed."""
    for seed in range(30):
        models = block_pair(seed=seed, size=5)
        ours = play("aggressive_blocks", models, seed=seed, tolerance=3.0)
        assert ours.replay() == play("autoregressive", models, seed=seed).replay()


def test_at_temperature_0_tolerance_keeps_near_misses() -> None:
    """A drafter that always says the second best token: exact judging keeps none, GAD++ keeps all."""
    target = ToyCausal("toy/p", size=3, fixed=[0.5, 0.4, 0.1])
    second = ToyBlock("toy/blocks", ToyCausal("toy/q", size=3, fixed=[0.0, 1.0, 0.0]))
    exact = play("aggressive_blocks", [target, second], prompt="0", sampling=COLD, budget=6, block=2)
    assert exact.replay()[1:] == [0] * 6
    loose = play(
        "aggressive_blocks", [target, second], prompt="0", sampling=COLD, budget=6, block=2, beta=2, tolerance=0.3
    )
    assert loose.replay()[1:] == [1, 1, 0, 1, 1, 0]
    tight = play(
        "aggressive_blocks", [target, second], prompt="0", sampling=COLD, budget=6, block=2, beta=2, tolerance=0.2
    )
    assert tight.replay() == exact.replay()


def test_the_law_of_a_loose_step_in_closed_form() -> None:
    """Laws without context: a guess that passes is written for sure, so the law of two tokens is known."""
    p = [0.5, 0.3, 0.2]
    target = ToyCausal("toy/p", size=3, fixed=p)
    blocks = ToyBlock("toy/blocks", ToyCausal("toy/q", size=3, fixed=[0.1, 0.8, 0.1]))
    guess = int(blocks.table.law([0]).argmax())
    assert guess == 1

    def written(chance: Chance) -> tuple[int, ...]:
        sessions = [m.make(m.codec.encode("0"), WARM, Meter(), 2) for m in (target, blocks)]
        step: Step = next(
            iter(find("aggressive_blocks").run(*sessions, Ask(2, chance), block=1, beta=2, tolerance=1.0))
        )
        return tuple(mark.token for mark in step.marks if mark.fate.commits and mark.token is not None)

    assert total_variation(law(written), {(1, token): p[token] for token in range(3)}) < 1e-12


def test_the_guarantee_hangs_on_beta_alone() -> None:
    strategy = find("aggressive_blocks")
    assert strategy.promises({}) is Guarantee.LOSSLESS
    assert strategy.promises({"beta": 1, "tolerance": 3.0}) is Guarantee.LOSSLESS
    assert strategy.promises({"beta": 2, "tolerance": 0.0}) is Guarantee.LOSSY
