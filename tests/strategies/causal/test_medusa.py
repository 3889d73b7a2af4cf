"""Medusa, Hydra and EAGLE: the text of plain decoding, calls saved where heads are right, and what heads are told."""

from __future__ import annotations

import pytest

from backend.errors import UserError
from backend.registry import find
from backend.run import record
from backend.trace import Trace
from backend.types import Fate, Guarantee, Request, Sampling
from tests.strategies.causal.played import COLD, WARM, counting, play
from tests.toys import ToyCatalog, ToyCausal, causal_pair
from tests.toys_heads import ToyHeads

STRATEGIES = ("medusa", "hydra", "eagle")


def play_heads(
    strategy: str,
    target: ToyCausal,
    sampling: Sampling,
    budget: int = 12,
    seed: int = 0,
    right: bool = False,
    **knobs: object,
) -> Trace:
    """A run with toy heads; `right`: their laws are the target's own."""
    heads = ToyHeads("toy/heads", target, seed=seed)
    if right:
        heads.table = target
    catalog = ToyCatalog([target, heads], dict.fromkeys(find(strategy).roles, heads.id))
    return record(Request(strategy, "0 1 2 0", {}, knobs, sampling, budget, seed), catalog)  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_prints_what_plain_decoding_prints(strategy: str) -> None:
    for seed in range(25):
        target = causal_pair(size=5, seed=seed)[0]
        ours = play_heads(strategy, target, WARM, seed=seed)
        assert ours.replay() == play("autoregressive", [target], sampling=WARM, seed=seed).replay(), f"seed {seed}"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_heads_that_are_right_save_calls(strategy: str) -> None:
    """Three places ahead: four tokens a call after the first call, which reads the prompt."""
    trace = play_heads(strategy, counting(), COLD, budget=13, right=True)
    assert [sum(mark.fate.commits for mark in step.marks) for step in trace.steps] == [1, 4, 4, 4]
    assert [step.calls["target"] for step in trace.steps] == [1, 1, 1, 1]
    assert trace.summary().mean_acceptance_length == 13 / 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_first_step_only_reads_the_prompt(strategy: str) -> None:
    first = play_heads(strategy, causal_pair(seed=2)[0], WARM).steps[0]
    assert [mark.fate for mark in first.marks] == [Fate.BONUS]
    assert sum(first.calls.values()) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nodes_bound_the_tree(strategy: str) -> None:
    target = causal_pair(size=5, seed=4)[0]
    for nodes in (1, 4, 7):
        trace = play_heads(strategy, target, WARM, nodes=nodes)
        drafted = [sum(m.fate in (Fate.KEPT, Fate.REJECTED, Fate.UNREAD) for m in step.marks) for step in trace.steps]
        assert max(drafted) == nodes
        assert all(m.q is not None for step in trace.steps for m in step.marks if m.fate is Fate.REJECTED)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_typical_acceptance_is_called_lossy_and_greedy_at_temperature_zero(strategy: str) -> None:
    found = find(strategy)
    assert found.promises({}) is Guarantee.LOSSLESS
    assert found.promises({"rule": "typical"}) is Guarantee.LOSSY
    target = causal_pair(size=5, seed=6)[0]
    plain = play("autoregressive", [target], sampling=COLD)
    assert play_heads(strategy, target, COLD, rule="typical").replay() == plain.replay()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_knobs_out_of_range_are_refused(strategy: str) -> None:
    target = causal_pair()[0]
    for knobs in ({"nodes": 65}, {"nodes": 0}, {"epsilon": 1.5}, {"rule": "greedy"}):
        with pytest.raises(UserError, match=next(iter(knobs))):
            play_heads(strategy, target, COLD, **knobs)
