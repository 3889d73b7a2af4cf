"""Self-speculation: a twin that is the target itself keeps everything; the threshold follows the acceptance."""

from tests.strategies.causal.played import play
from tests.toys import ToyCausal


def threshold(note: str) -> float:
    return float(note.split()[-1])


def test_a_perfect_twin_keeps_everything() -> None:
    target = ToyCausal("toy/a", seed=5)
    trace = play("self_speculative", [target, ToyCausal("toy/b", seed=5)], budget=16, gamma=3, threshold=0.0)
    assert trace.summary().alpha == 1.0


def test_threshold_rises_on_failure_and_never_leaves_its_range() -> None:
    bad = ToyCausal("toy/bad", size=3, fixed=[0.05, 0.05, 0.9])
    good = ToyCausal("toy/good", size=3, fixed=[0.9, 0.05, 0.05])
    trace = play("self_speculative", [good, bad], budget=40, gamma=8, threshold=0.95)
    values = [threshold(step.note) for step in trace.steps]
    assert values[-1] > values[0]
    assert all(0 <= v <= 1 for v in values)
