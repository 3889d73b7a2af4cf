"""Judge decoding: without trust it is speculative sampling, draw for draw; with trust it keeps what the judge likes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from typing import Any

import pytest
import torch

from backend.chance import Seeded
from backend.run import record
from backend.strategies.causal.judge import accept_trusted, divergence
from backend.trace import Trace
from backend.types import Fate, Request, Sampling
from tests.strategies.causal.played import COLD, WARM, counting
from tests.toys import Toy, ToyCatalog, ToyCausal, causal_pair
from tests.toys_judge import ToyJudge


def play(strategy: str, models: Sequence[Toy], sampling: Sampling = WARM, seed: int = 0, **knobs: Any) -> Trace:
    ids = {"target": models[0].id, "draft": models[1].id} | ({"judge": models[2].id} if strategy == "judge" else {})
    request = Request(strategy, "0 1 2 0", ids, knobs, sampling, budget=14, seed=seed)
    return record(request, ToyCatalog(list(models)))  # type: ignore[arg-type]


def trio(seed: int = 1, size: int = 5) -> list[Toy]:
    target, draft = causal_pair(size=size, seed=seed)
    return [target, draft, ToyJudge("toy/judge", target)]


@pytest.mark.parametrize(
    "off", [{"rule": "standard"}, {"rule": "judge", "delta": 1.0}, {"rule": "divergence", "threshold": 0.0}]
)
@pytest.mark.parametrize("sampling", [WARM, COLD], ids=["warm", "cold"])
def test_without_trust_it_is_speculative_sampling(off: dict[str, Any], sampling: Sampling) -> None:
    """The same seed gives the same draws, so the same marks in every step."""
    for seed in range(25):
        ours = play("judge", trio(seed), sampling, seed, gamma=4, **off)
        theirs = play("speculative", trio(seed), sampling, seed, gamma=4)
        assert [step.marks for step in ours.steps] == [step.marks for step in theirs.steps]
        assert all(step.figures["kept_alone"] == 0 for step in ours.steps)


def test_what_only_the_judge_keeps_is_told() -> None:
    """The target counts up, the draft always says 0: wrong everywhere but at 0, and the judge is sure of everything."""
    target = counting(6)
    draft = ToyCausal("toy/stuck", size=6, fixed=[1.0, 0, 0, 0, 0, 0])
    trace = play("judge", [target, draft, ToyJudge("toy/judge", target)], COLD, gamma=3, delta=0.9)
    assert trace.written() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1]
    first = trace.steps[0]
    assert [mark.fate for mark in first.marks] == [Fate.KEPT, Fate.KEPT, Fate.KEPT, Fate.BONUS]
    assert [mark.p for mark in first.marks] == [0.0, 0.0, 0.0, 1.0]
    assert first.figures == {"kept": 3, "kept_alone": 3} | {
        f"{x} {i}": 1 for i in (1, 2, 3) for x in ("judge", "alone")
    }
    assert first.note == "3 of 3 kept by the judge alone"
    assert [step.calls["judge"] for step in trace.steps] == [1, 1, 1, 1]


def test_lower_delta_keeps_more() -> None:
    kept = []
    for delta in (1.0, 0.6, 0.3):
        traces = [play("judge", trio(seed), seed=seed, gamma=6, delta=delta) for seed in range(20)]
        kept.append(sum(trace.summary().alpha or 0 for trace in traces))
    assert kept == sorted(kept)
    assert kept[0] < kept[2]


def test_equal_laws_do_not_diverge() -> None:
    target = ToyCausal("toy/a", seed=3)
    models = [target, ToyCausal("toy/b", seed=3), ToyJudge("toy/judge", target)]
    trace = play("judge", models, rule="divergence", gamma=4, threshold=0.01)
    assert trace.summary().alpha == 1.0
    assert all(step.figures["kept_alone"] == 0 for step in trace.steps)
    assert {x for step in trace.steps for name, x in step.figures.items() if name.startswith("divergence")} == {0.0}
    assert sum(step.calls["judge"] for step in trace.steps) == 0


def test_divergence_of_known_laws() -> None:
    half, quarter = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.5, 0.25])
    assert divergence(half, quarter) == pytest.approx(0.5 * log(2))
    assert divergence(quarter, half) == inf
    assert divergence(half, half) == 0


def test_the_first_rejected_and_untrusted_guess_ends_the_draft() -> None:
    p_NV = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    q = [torch.tensor([0.0, 1.0])] * 4
    assert accept_trusted(p_NV, q, [1, 1, 1, 1], [True, True, False, True], Seeded(0)) == (2, [0, 1])
    assert accept_trusted(p_NV, q, [], [], Seeded(0)) == (0, [])
