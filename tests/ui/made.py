"""Traces made by hand, whose trees and figures are known: what the views of `Look inside` must find again."""

from __future__ import annotations

from dataclasses import replace

from backend.trace import Trace
from backend.types import Fate, Mark, Request, Step

START = 3  # tokens of the prompt
PIECES = {i: f" w{i}" for i in range(200)}


def trace(steps: list[Step], strategy: str = "speculative") -> Trace:
    """A finished trace; every step takes a tenth of a second."""
    usual = {"calls": {"target": 1}, "rows": {"target": 4}, "spent": {"target": 0.08}}
    stamped = [
        replace(s, index=i, seconds=0.1, **{name: getattr(s, name) or value for name, value in usual.items()})
        for i, s in enumerate(steps)
    ]
    return Trace(Request(strategy, "x"), (0,) * START, PIECES, steps=tuple(stamped), end="budget")


def plain(num: int = 6) -> Trace:
    """One token a step."""
    return trace([Step((Mark(START + i, i, Fate.BONUS, 0.5),)) for i in range(num)], "autoregressive")


def tree() -> Trace:
    """Two guesses at the first place, the second accepted; below it three, none accepted, and the target's own."""

    def step(at: int) -> Step:
        marks = (
            Mark(at, 10, Fate.REJECTED, 0.1, 0.5),
            Mark(at, 11, Fate.KEPT, 0.8, 0.4),
            Mark(at + 1, 12, Fate.UNREAD, 0.2, 0.9, 0),
            Mark(at + 1, 13, Fate.REJECTED, 0.1, 0.5, 1),
            Mark(at + 1, 14, Fate.REJECTED, 0.1, 0.3, 1),
            Mark(at + 1, 15, Fate.REJECTED, 0.1, 0.1, 1),
            Mark(at + 1, 16, Fate.FIXED, 0.7),
        )
        figures = {"single": 0.5, "rule": 0.7, "optimum": 0.8, "own_number": float(at)}
        spent, calls = (
            {"target": 0.05, "draft": 0.02, "target.tokens": 0.01},
            {"target": 1, "draft": 3, "target.tokens": 2},
        )
        return Step(marks, "a made tree", calls=calls, rows=calls, spent=spent, figures=figures)

    return trace([step(START + 2 * i) for i in range(8)], "spectr")


def wide_tree(num: int = 120) -> Trace:
    """More guesses than a picture holds: one accepted, the rest its siblings."""
    marks = [Mark(START, i, Fate.KEPT if i == 99 else Fate.REJECTED, 0.1, 1 / (i + 1)) for i in range(num)]
    return trace([Step((*marks, Mark(START + 1, 5, Fate.BONUS, 0.5)))])


def chain() -> Trace:
    """Chains name no parents: four guesses, two kept."""
    fates = (Fate.KEPT, Fate.KEPT, Fate.REJECTED, Fate.UNREAD)

    def step(at: int) -> Step:
        return Step(
            (*(Mark(at + i, i, fate, 0.5, 0.5) for i, fate in enumerate(fates)), Mark(at + 2, 9, Fate.FIXED, 0.9))
        )

    return trace([step(START + 3 * i) for i in range(5)])


def suggestions() -> Trace:
    """Three drafts that grow twice, then the best is taken."""

    def grown(depth: int) -> tuple[Mark, ...]:
        marks: list[Mark] = []
        for draft in range(3):
            for d in range(depth):
                parent = None if d == 0 else len(marks) - 1
                marks.append(Mark(START + d, 20 + 10 * draft + d, Fate.GUESS, parent=parent))
        return tuple(marks)

    figures = {"weight 1": 0.5, "weight 2": 0.3, "weight 3": 0.2}
    taken = tuple(Mark(START + d, 30 + d, Fate.BONUS) for d in range(2))
    return trace([Step(grown(1), figures={"weight 1": 1.0}), Step(grown(2), figures=figures), Step(taken)], "jacobi")


def requests() -> Trace:
    """Three texts of three tokens, at most two at a time; the third waits two steps."""
    share, steps = 3, []
    plan = [((0, 1), 2, 1), ((0, 1), 0, 1), ((0, 1, 2), 1, 0), ((2,), 0, 0), ((2,), 0, 0)]
    written = [0, 0, 0]
    for texts, admitted, waiting in plan:
        marks = []
        for text in texts:
            marks.append(Mark(START + share * text + written[text], text, Fate.BONUS, 0.5))
            written[text] += 1
        figures = {"texts": 3, "share": share, "alive": len(texts), "admitted": admitted, "waiting": waiting}
        steps.append(
            Step(tuple(marks), figures={**figures, "freed": 0, "padding": 1 if len(texts) == 1 else 0, "moved": 0})
        )
    return trace(steps)


def skipping() -> Trace:
    """Ten layers; from the third token on the nets of layers 4 to 7 are left out."""
    steps = []
    for i in range(6):
        some = (
            {"skipped": 0.4, "first_skipped": 4, "last_skipped": 7, "cosine": 0.97 + 0.005 * i}
            if i > 1
            else {"skipped": 0.0}
        )
        steps.append(Step((Mark(START + i, i, Fate.BONUS, 0.5),), figures=some))
    return trace(steps)


def exits() -> Trace:
    """Of four guesses a step three leave behind layer 1 and one behind layer 3."""
    made = chain()
    return trace([Step(s.marks, figures={"exit 1": 3.0, "exit 3": 1.0}) for s in made.steps])
