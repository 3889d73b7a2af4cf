"""The log-likelihood of a text: from the toy's own tables, whatever strategy and temperature wrote it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from backend.quality import log_likelihood
from backend.trace import Trace
from backend.types import Fate, Mark, Request, Sampling, Step
from tests.strategies.causal.played import COLD, WARM, play
from tests.toys import ToyCatalog, causal_pair
from tests.toys_continuous import ToyForecaster


@pytest.mark.parametrize("sampling", [COLD, WARM])
@pytest.mark.parametrize("budget", [1, 7, 130])
def test_is_the_mean_log_probability_under_the_table(sampling: Sampling, budget: int) -> None:
    models = causal_pair(size=4, zeros=0.0)
    for model in models:
        model.context = 200
    trace = play("speculative", models, sampling=sampling, budget=budget)
    text = trace.replay()
    expected = [math.log(models[0].law(text[:i])[text[i]]) for i in range(len(trace.prompt), len(text))]
    got = log_likelihood(trace, ToyCatalog(models))  # type: ignore[arg-type]
    assert len(expected) == budget
    assert got == pytest.approx(sum(expected) / len(expected))


def test_says_nothing_of_empty_texts_open_slots_and_other_models() -> None:
    models = causal_pair()
    catalog = ToyCatalog([*models, ToyForecaster("toy/series")])
    empty = Trace(Request("autoregressive", "0", {"target": models[0].id}), (0,))
    hole = replace(empty, steps=(Step((Mark(2, 1, Fate.BONUS),)),))
    series = replace(hole, request=Request("autoregressive", "0", {"target": "toy/series"}))
    for trace in (empty, hole, series):
        assert log_likelihood(trace, catalog) is None  # type: ignore[arg-type]
