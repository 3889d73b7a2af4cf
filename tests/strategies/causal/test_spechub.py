"""SpecHub: a special case of greedy multi-draft with two drafts, by another rule."""

import pytest

from backend.types import Fate
from tests.exact import total_variation
from tests.strategies.causal.first_step import expected_kept, first_law, flat
from tests.strategies.causal.played import COLD, play
from tests.strategies.causal.test_spectr import told
from tests.toys import causal_pair

P, Q = [0.4, 0.3, 0.2, 0.1], [0.1, 0.5, 0.3, 0.1]


def test_known_acceptance() -> None:
    pair = flat("toy/p", P), flat("toy/q", Q)
    assert expected_kept("spechub", pair, 2, gamma=1) == pytest.approx(0.8, abs=1e-9)
    assert expected_kept("spechub", pair, 3, gamma=2) == pytest.approx(0.8 * 1.7, abs=1e-9)


def test_keeps_what_greedy_multi_draft_keeps_with_two_drafts() -> None:
    for seed in range(4):
        pair = causal_pair(size=4, seed=seed, zeros=0.1)
        ours = expected_kept("spechub", pair, 3, gamma=2)
        assert ours == pytest.approx(expected_kept("greedy_multi_draft", pair, 3, drafts=2, gamma=2), abs=1e-9)


def test_first_tokens_have_the_targets_law() -> None:
    for seed in range(4):
        pair = causal_pair(size=3, seed=seed, zeros=0.2 * (seed > 0))
        got, truth = first_law("spechub", pair, 3, gamma=2)
        assert total_variation(got, truth) < 1e-9


def test_temperature_zero_leaves_one_draft() -> None:
    for seed in range(8):
        pair = causal_pair(size=5, seed=seed)
        ours = play("spechub", pair, sampling=COLD, gamma=3)
        assert told(ours) == told(play("speculative", pair, sampling=COLD, gamma=3))


def test_one_of_the_two_drafts_starts_with_the_hub() -> None:
    target, draft = causal_pair(size=6, seed=5, zeros=0.0)
    for seed in range(5):
        trace = play("spechub", [target, draft], budget=12, seed=seed, gamma=2)
        text = list(trace.prompt)
        for step in trace.steps[:-1]:
            guesses = [m for m in step.marks if m.fate in (Fate.KEPT, Fate.REJECTED, Fate.UNREAD)]
            roots = {m.token for m in guesses if m.parent is None}
            assert len(roots) == 2
            assert int(draft.law(text).argmax()) in roots
            text += [m.token for m in sorted(step.marks, key=lambda m: m.slot) if m.fate.commits]
