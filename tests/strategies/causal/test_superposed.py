"""Superposed decoding: known answers of each part, plain greedy decoding for one draft, and the calls it takes."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from backend.meter import Meter
from backend.protocols import Prompt, Scores
from backend.strategies.causal.superposed import ORDERS, STORED, UNSUPPORTED, Draft, extend, likeliest, mixture, ngrams
from backend.trace import Trace
from backend.types import Fate, Sampling
from tests.strategies.causal import played
from tests.strategies.causal.played import COLD
from tests.toys import ToyCausal
from tests.toys_mixing import ToyMixing


def play(seed: int = 1, **options: Any) -> Trace:
    target = ToyMixing(seed=seed, size=5, zeros=0.0)
    return played.play("superposed", [target, ToyCausal("toy/store", seed=9, size=5)], seed=seed, **options)


def store_of(p: list[float]) -> Any:
    toy = ToyCausal("toy/store", size=len(p), fixed=p)
    return toy.make(Prompt((0,)), Sampling(temperature=1.0), Meter(), 8)


@pytest.mark.parametrize("knobs", [{"m": 1}, {"m": 5, "length": 3}, {"m": 2, "length": 32, "temp": 1.0}])
def test_one_draft_without_n_grams_is_greedy(knobs: dict[str, float]) -> None:
    for seed in range(30):
        plain = played.play("autoregressive", [ToyCausal(seed=seed, size=5, zeros=0.0)], sampling=COLD)
        assert play(seed, k=1, a=0.0, **knobs).written() == plain.written()


def test_one_draft_ends_where_greedy_decoding_ends() -> None:
    """With the same calls: nothing is written behind an end token that is the best."""
    ended = 0
    for seed in range(30):
        end = frozenset({2})
        plain = played.play("autoregressive", [ToyCausal(seed=seed, zeros=0.0, end=end)], sampling=COLD)
        models = [ToyMixing(seed=seed, zeros=0.0, end=end), ToyCausal("toy/store", seed=9, end=end)]
        ours = played.play("superposed", models, k=1, a=0.0)
        assert ours.written() == plain.written()
        assert ours.summary().num_target_calls == plain.summary().num_target_calls
        ended += plain.end == "end token"
    assert ended > 5


def test_k_drafts_cost_the_calls_of_one() -> None:
    """12 tokens in two rounds of 6, three drafts alive all the time: 12 calls, where three passes take 36."""
    trace = play(k=3, length=6, budget=12)
    assert sum(step.calls["target"] for step in trace.steps) == 12
    assert [len(step.marks) and sum(m.fate is Fate.BONUS for m in step.marks) for step in trace.steps] == [0] * 6 + [
        6,
        *[0] * 6,
        6,
    ]
    for step in trace.steps[1:6]:
        last = max(mark.slot for mark in step.marks)
        assert sum(mark.slot == last for mark in step.marks) == 3


def test_the_committed_draft_was_on_the_canvas() -> None:
    trace = play(k=3, length=4, budget=4)
    shown, committed = trace.steps[-2].marks, trace.steps[-1].marks
    paths = []
    for i, mark in enumerate(shown):
        if mark.slot == committed[-1].slot:
            path, at = [], i
            while True:
                path.insert(0, shown[at].token)
                if (up := shown[at].parent) is None:
                    break
                at = up
            paths.append(path)
    assert len(paths) == 3
    assert [mark.token for mark in committed] in paths


def test_weights_are_the_softmax_of_the_scores() -> None:
    assert mixture([Draft((1,), log(0.6)), Draft((2,), log(0.2))]) == pytest.approx([0.75, 0.25])
    trace = play(k=3, length=6, budget=6)
    for step in trace.steps[1:6]:
        weights = [value for name, value in step.figures.items() if name.startswith("weight")]
        assert sum(weights) == pytest.approx(1.0, abs=2e-4)
        assert weights == sorted(weights, reverse=True)


def test_likeliest_tokens_are_sharpened_and_renormalised() -> None:
    scores = Scores(torch.tensor([[0.5, 0.25, 0.25, 0.0]]), torch.tensor([[2.0, 1.0, -9.0, 0.0]]))
    logs = likeliest(scores, 2, 0.5)
    assert list(logs) == [0, 1]
    assert logs[0] - logs[1] == pytest.approx(2.0)
    assert sum(2.718281828459045**x for x in logs.values()) == pytest.approx(1.0)
    assert list(likeliest(Scores(torch.tensor([[0.5, 0.5, 0.0]])), 3, 1.0)) == [0, 1]  # nothing impossible


def test_n_grams_count_what_followed_each_ending() -> None:
    """Behind 1 came 2 twice and 3 once; behind 9 1 came 2 alone; longer endings never stood there before."""
    shares = ngrams([9, 1, 2, 5, 1, 3, 9, 1, 2, 9, 1], {2: 0.0, 3: 0.5, 4: 0.0})
    assert shares == pytest.approx({2: ORDERS[2] * 2 / 3 + ORDERS[3], 3: ORDERS[2] / 3 + STORED * 0.5, 4: 0.0})
    assert ngrams([7], {1: 0.0}) == {1: 0.0}


def test_tokens_that_no_n_gram_knows_fall_out() -> None:
    logs = {0: log(0.7), 1: log(0.2), 2: log(0.1)}
    grown = extend([4], [Draft((2,), -1.0)], logs, store_of([0.0, 0.75, 0.25]), 0.5)
    assert [draft.tokens for draft in grown] == [(2, 1), (2, 2)]
    assert grown[0].score == pytest.approx(-1 + 0.5 * log(0.2) + 0.5 * log(STORED * 0.75))


def test_a_draft_without_support_is_pushed_back() -> None:
    grown = extend([4], [Draft((2,), -1.0)], {0: log(0.7), 1: log(0.3)}, store_of([0.0, 0.0, 1.0]), 0.5)
    assert [draft.tokens for draft in grown] == [(2, 0), (2, 1)]
    assert grown[0].score == pytest.approx(-1 + 0.5 * log(0.7) + UNSUPPORTED)


def test_without_n_grams_the_best_sums_win() -> None:
    drafts = [Draft((1,), log(0.6)), Draft((2,), log(0.4))]
    grown = extend([0], drafts, {0: log(0.9), 1: log(0.1)}, store_of([1.0, 0.0]), 0.0)
    assert [draft.tokens for draft in grown] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert grown[0].score == pytest.approx(log(0.54))


def test_a_text_that_ends_is_not_written_on() -> None:
    """Token 2 ends the text: drafts that reach it stop, and the best of all is committed up to it."""
    for seed in range(20):
        target = ToyMixing(seed=seed, size=3, zeros=0.0, end=frozenset({2}))
        trace = played.play("superposed", [target, ToyCausal("toy/store", seed=9, end=frozenset({2}))], budget=9, k=2)
        assert 2 not in trace.written()[:-1]
