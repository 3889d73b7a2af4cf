"""SpecTr: one draft is speculative sampling, more are kept as often as K-SEQ says, in whole drafts and slot by slot."""

import itertools

import pytest
import torch

from backend.couplings import best_independent, k_seq, overlap
from backend.types import Fate
from tests.exact import total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, flat
from tests.strategies.causal.played import COLD, WARM, play
from tests.toys import ToyCausal, causal_pair

P, Q = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]
LEVELS = ("token", "sequence")
GUESSED = (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)


def told(trace) -> list[list[tuple]]:
    return [[(m.slot, m.token, m.fate, m.p, m.q) for m in step.marks] for step in trace.steps]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sampling", [WARM, COLD])
def test_one_draft_is_speculative_sampling(level: str, sampling) -> None:
    """The same decisions from the same random numbers."""
    for seed in range(8):
        pair = causal_pair(size=5, seed=seed)
        ours = play("spectr", pair, sampling=sampling, seed=seed, drafts=1, gamma=3, level=level)
        assert told(ours) == told(play("speculative", pair, sampling=sampling, seed=seed, gamma=3))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("drafts", "acceptance"), [(1, 0.7), (2, 0.75), (3, 0.793950)])
def test_known_acceptance_of_one_slot(level: str, drafts: int, acceptance: float) -> None:
    pair = flat("toy/p", P), flat("toy/q", Q)
    kept = expected_kept("spectr", pair, 2, drafts=drafts, gamma=1, level=level)
    assert kept == pytest.approx(acceptance, abs=1e-6)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("size", "drafts"), [(3, 2), (2, 3)])
def test_first_tokens_have_the_targets_law(level: str, size: int, drafts: int) -> None:
    """Two slots of several drafts and the token behind them, every branch enumerated."""
    pair = causal_pair(size=size, seed=size)
    got, truth = first_law("spectr", pair, 3, drafts=drafts, gamma=2, level=level)
    assert total_variation(got, truth) < 1e-9


def test_more_drafts_keep_more_and_never_more_than_is_possible() -> None:
    for seed in range(2):
        pair = causal_pair(size=3, seed=seed, zeros=0.0)
        p_V, q_V = (model.law((0,)) for model in pair)
        kept = [expected_kept("spectr", pair, 2, drafts=k, gamma=1) for k in (1, 2, 3)]
        assert kept[0] == pytest.approx(overlap(p_V, q_V), abs=1e-9)
        assert all(a <= b + 1e-9 for a, b in itertools.pairwise(kept))
        assert all(x <= best_independent(p_V, q_V, k) + 1e-9 for k, x in enumerate(kept, 1))


def test_the_rule_knows_how_many_drafts_are_left() -> None:
    """Context-free two-draft trees of two slots: a slot judged with k drafts keeps with that k's acceptance."""
    p_V, q_V = (torch.tensor(x, dtype=torch.float64) for x in ([0.7, 0.3], [0.4, 0.6]))
    pair = flat("toy/p", p_V.tolist()), flat("toy/q", q_V.tolist())
    one, two = (expected_kept("spectr", pair, 2, drafts=k, gamma=1) for k in (1, 2))
    claim_V = k_seq(p_V, q_V, 2) * q_V
    passes_V = (p_V / claim_V).clamp_max(1.0)
    both_V = q_V**2 * (1 - (1 - passes_V) ** 2)  # both drafts are this token, and one of them passes its trial
    deeper = float(((torch.minimum(p_V, claim_V) - both_V) * one + both_V * two).sum())
    assert expected_kept("spectr", pair, 3, drafts=2, gamma=2) == pytest.approx(two + deeper, abs=1e-9)


def test_drafts_behind_the_one_that_stays_were_never_judged() -> None:
    """Two drafts: where the first stays, the second is unread; where the second stays, the first was refused."""
    seen = set()
    for seed in range(20):
        trace = play("spectr", causal_pair(size=5, seed=seed, zeros=0.0), budget=12, seed=seed, drafts=2, gamma=1)
        seen |= {tuple(m.fate for m in s.marks if m.fate in GUESSED) for s in trace.steps}
    kept, refused, unread = GUESSED
    assert seen == {(), (kept,), (refused,), (kept, unread), (refused, kept), (refused, refused)}


def test_trees_and_figures() -> None:
    """All drafts of a step are in its marks, with their fates; the first slot's acceptance is told."""
    for level, seed in itertools.product(LEVELS, range(5)):
        trace = play("spectr", causal_pair(size=5, seed=seed), budget=12, seed=seed, drafts=3, gamma=2, level=level)
        for step in trace.steps:
            nodes = [m for m in step.marks if m.fate in GUESSED]
            assert len(nodes) <= 3 * 2
            assert all(m.q is not None and m.p is not None for m in nodes)
            if level == "token":
                assert len({m.parent for m in nodes}) <= 2, "candidates hang from the text and from the first draft"
            if nodes:
                assert step.note == f"{len(nodes)} guesses"
                assert 0 <= step.figures["single"] <= step.figures["rule"] <= step.figures["optimum"] + 1e-9 <= 1 + 2e-9


def test_temperature_zero_drafts_one_chain() -> None:
    target = ToyCausal("toy/a", seed=3, size=5)
    trace = play("spectr", [target, ToyCausal("toy/b", seed=3, size=5)], sampling=COLD, budget=10, drafts=4, gamma=4)
    assert [len(step.marks) for step in trace.steps] == [5, 5]
    assert trace.summary().alpha == 1.0
