"""FFN skipping: when nets are skipped, which, and what is told about it."""

from __future__ import annotations

from typing import Any

import pytest

from backend.trace import Trace
from tests.strategies.causal import played
from tests.strategies.causal.played import COLD, WARM
from tests.toys import ToyCausal
from tests.toys_skipping import NUM_LAYERS, ToySkipping


def play(seed: int = 1, **options: Any) -> Trace:
    return played.play("ffn_skip", [ToySkipping(seed=seed, size=5, zeros=0.0)], seed=seed, **options)


@pytest.mark.parametrize("sampling", [WARM, COLD], ids=["warm", "cold"])
@pytest.mark.parametrize("off", [{"similarity": 1.0}, {"warmup": 12}, {"first": 5, "last": 3}, {"first": 4, "last": 3}])
def test_without_skipping_it_is_plain_decoding(off: dict[str, float], sampling: Any) -> None:
    """1 is never reached; everything is warm-up; no layer, or one, stands between the ends."""
    for seed in range(10):
        plain = played.play("autoregressive", [ToyCausal(seed=seed, size=5, zeros=0.0)], seed=seed, sampling=sampling)
        ours = play(seed, sampling=sampling, **{"warmup": 0, **off})
        assert ours.written() == plain.written()
        assert all(step.figures == {"skipped": 0} for step in ours.steps)
        assert all(mark.p is not None for step in ours.steps for mark in step.marks)


def test_the_net_that_passes_is_the_last_of_the_region() -> None:
    """Against the toy's own cosines, token by token; the first token belongs to the prompt's run, which skips none."""
    toy = ToySkipping(seed=3, size=5, zeros=0.0)
    trace = played.play("ffn_skip", [toy], similarity=0.99, warmup=0, first=2, last=1, seed=3)
    skipped_any = 0
    for number, step in enumerate(trace.steps):
        text = tuple(trace.replay(number))
        cosines = [toy.cosine(text, layer) for layer in range(2, NUM_LAYERS - 1)]
        passed = next((i for i, cosine in enumerate(cosines) if cosine >= 0.99), len(cosines))
        skipped = list(range(2 + passed + 1, NUM_LAYERS - 1)) if number else []
        assert step.figures["skipped"] == len(skipped) / NUM_LAYERS
        if skipped:
            skipped_any += 1
            assert step.figures["first_skipped"] == skipped[0]
            assert step.figures["last_skipped"] == skipped[-1]
            assert step.figures["cosine"] == pytest.approx(cosines[passed], abs=1e-5)
            assert step.note == f"nets {skipped[0]} to {skipped[-1]} skipped"
    assert skipped_any > 3


def test_warmup_runs_all_nets() -> None:
    trace = play(similarity=0.95, warmup=5, first=1, last=1)
    shares = [step.figures["skipped"] for step in trace.steps]
    assert shares[:5] == [0] * 5
    assert max(shares[5:]) > 0


def test_behind_a_skipped_net_the_probability_is_not_the_target_s() -> None:
    """Keys and values of a row that skipped stay, so no later law is the whole model's."""
    trace = play(similarity=0.95, warmup=3, first=1, last=1)
    start = next(i for i, step in enumerate(trace.steps) if step.figures["skipped"])
    for i, step in enumerate(trace.steps):
        (mark,) = step.marks
        assert (mark.p is None, mark.q is None) == (i >= start, i < start)


def test_one_call_of_one_row_a_token() -> None:
    trace = play(similarity=0.95, warmup=0, first=0, last=0)
    assert [step.calls["target"] for step in trace.steps] == [1] * 12
    assert [step.rows["target"] for step in trace.steps] == [4, *[1] * 11]
