"""Runs a causal strategy on toys through the real runner, for the tests beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.registry import find
from backend.run import Run
from backend.trace import Trace
from backend.types import Request, Sampling
from tests.toys import Toy, ToyCatalog, ToyCausal, causal_pair

WARM = Sampling(temperature=1.0)
COLD = Sampling(temperature=0.0)


def play(
    strategy: str,
    models: Sequence[Toy] | None = None,
    prompt: str = "0 1 2 0",
    sampling: Sampling = WARM,
    budget: int = 12,
    seed: int = 0,
    **knobs: Any,
) -> Trace:
    """The trace of a run; the first model is the target, the second plays every other role."""
    models = list(models or causal_pair())
    catalog = ToyCatalog(models, dict.fromkeys(find(strategy).roles, models[-1].id))
    run = Run(Request(strategy, prompt, {}, knobs, sampling, budget, seed), catalog)  # type: ignore[arg-type]
    for _ in run:
        pass
    return run.trace


def same_text(strategy: str, seeds: int = 60, **options: Any) -> None:
    """Assert that the strategy prints what plain decoding prints, for many seeds."""
    for seed in range(seeds):
        models = causal_pair(size=5, seed=seed)
        ours = play(strategy, models, sampling=WARM, seed=seed, **options)
        plain = play("autoregressive", models, sampling=WARM, seed=seed)
        assert ours.replay() == plain.replay(), f"seed {seed}"


def counting(size: int = 6) -> ToyCausal:
    """A target that always continues a cycle: after token t comes t + 1."""
    return ToyCausal(
        "toy/cycle", size=size, fixed=lambda text: [float(t == (text[-1] + 1) % size) for t in range(size)]
    )
