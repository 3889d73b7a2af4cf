"""Greedy multi-draft: the known answers, one draft is speculative sampling, behind the first slot every draft is."""

import pytest

from backend.couplings import best_greedy
from backend.types import Fate
from tests.exact import total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, flat
from tests.strategies.causal.played import COLD, WARM, play
from tests.strategies.causal.test_spectr import told
from tests.toys import causal_pair

P, Q = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]


def test_one_draft_is_speculative_sampling() -> None:
    for seed in range(8):
        pair = causal_pair(size=5, seed=seed)
        ours = play("greedy_multi_draft", pair, seed=seed, drafts=1, gamma=3)
        assert told(ours) == told(play("speculative", pair, sampling=WARM, seed=seed, gamma=3))


def test_temperature_zero_leaves_one_draft() -> None:
    for seed in range(8):
        pair = causal_pair(size=5, seed=seed)
        ours = play("greedy_multi_draft", pair, sampling=COLD, drafts=4, gamma=3)
        assert told(ours) == told(play("speculative", pair, sampling=COLD, gamma=3))


@pytest.mark.parametrize(("drafts", "acceptance"), [(1, 0.7), (2, 0.8), (3, 1.0)])
@pytest.mark.parametrize("gamma", [1, 2])
def test_known_acceptance(drafts: int, acceptance: float, gamma: int) -> None:
    """The best possible at the first slot, then 7/10 a slot as for a single draft."""
    pair = flat("toy/p", P), flat("toy/q", Q)
    kept = expected_kept("greedy_multi_draft", pair, gamma + 1, drafts=drafts, gamma=gamma)
    assert kept == pytest.approx(acceptance * sum(0.7**i for i in range(gamma)), abs=1e-9)


def test_keeps_the_best_possible_of_its_drafts() -> None:
    for seed in range(4):
        pair = causal_pair(size=5, seed=seed, zeros=0.1)
        p_V, q_V = (model.law((0,)) for model in pair)
        for drafts in (1, 2, 3, 4):
            kept = expected_kept("greedy_multi_draft", pair, 2, drafts=drafts, gamma=1)
            assert kept == pytest.approx(best_greedy(p_V, q_V, drafts), abs=1e-9)


@pytest.mark.parametrize("drafts", [2, 3])
def test_first_tokens_have_the_targets_law(drafts: int) -> None:
    for seed in range(3):
        pair = causal_pair(size=3, seed=seed, zeros=0.2 * (seed > 0))
        got, truth = first_law("greedy_multi_draft", pair, 3, drafts=drafts, gamma=2)
        assert total_variation(got, truth) < 1e-9


def test_drafts_start_with_the_likeliest_tokens() -> None:
    target, draft = causal_pair(size=6, seed=5, zeros=0.0)
    for seed in range(5):
        trace = play("greedy_multi_draft", [target, draft], budget=12, seed=seed, drafts=4, gamma=2)
        text = list(trace.prompt)
        for step in trace.steps[:-1]:
            guesses = [m for m in step.marks if m.fate in (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)]
            roots = [m.token for m in guesses if m.parent is None]
            assert len(roots) == len(set(roots)) == 4
            assert roots[:3] == draft.law(text).topk(3).indices.tolist()
            new = sorted((m for m in step.marks if m.fate.commits), key=lambda m: m.slot)
            text += [m.token for m in new]
            assert step.figures["rule"] == step.figures["optimum"] >= step.figures["single"]
            if guesses[3].fate is Fate.KEPT:
                assert [m.fate for m in guesses[:3]] == [Fate.UNREAD] * 3, "the sampled draft is judged first"
