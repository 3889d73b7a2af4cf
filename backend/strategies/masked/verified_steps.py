"""Verified steps: several pictures of one prompt grow side by side, and a judge drops those that go wrong.

After PARM, Guo et al. 2025 (2501.13926), in our own terms: each candidate is filled as by `confidence`. Once a share of
the calls is done a verifier sees every candidate as it would be if all its draws stayed, and says whether it can still
become what was asked for; those that cannot are given up there, which saves their calls, or are painted on. At the end
the verifier sees the finished ones, and of those with a yes the best is the picture; if none has, the most promising.
The verifier steers, so it must never be the judge that measures. One candidate is plain `confidence`.
Show: the board of candidates by calls with thumbnails, verdicts and scores; calls of all candidates beside those saved.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from backend.chance import Ask
from backend.protocols import MaskedSession, PictureJudgeSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Mark, Step
from backend.unmasking import chances, choose, draw, open_slots, remaining


@dataclass
class Candidate:
    """One picture under way.

    shown: its canvas with all draws of the last call. p: the chance of each token that stays. promise, score: what the
    verifier said midway and of the finished picture; passed: whether the first was a yes.
    """

    number: int
    canvas: list[int]
    slots: list[int]
    shown: list[int] = field(default_factory=list)
    p: dict[int, float] = field(default_factory=dict)
    promise: float = 1.0
    passed: bool = True
    score: float = 0.0

    def grow(self, target: MaskedSession, ask: Ask, turn: int, left: int, heat: float) -> None:
        """One call: draw every open slot, and keep the draws of largest confidence, so that `left` stay open."""
        noise = turn * len(self.canvas)
        p_NV = target.denoise(self.canvas)[self.slots]
        tokens = draw(p_NV, [slot + noise for slot in self.slots], ask.chance)
        p = chances(p_NV, tokens)
        self.shown = list(self.canvas)
        for slot, token in zip(self.slots, tokens, strict=True):
            self.shown[slot] = token
        for n in choose([math.log(x) for x in p], len(self.slots) - left, heat, ask.chance):
            self.canvas[self.slots[n]] = tokens[n]
            self.p[self.slots[n]] = p[n]
        self.slots = [slot for slot in self.slots if self.canvas[slot] < 0]


@strategy(paper="2501.13926", guarantee=Guarantee.LOSSY, family="verifier")
def verified_steps(
    target: MaskedSession,
    verifier: PictureJudgeSession,
    ask: Ask,
    *,
    candidates: Annotated[int, Knob(1, 16, "pictures that are begun")] = 4,
    steps: Annotated[int, Knob(1, 256, "calls for each whole canvas")] = 12,
    temperature: Annotated[float, Knob(0.0, 10.0, "Gumbel noise on the confidence at first; falls to 0")] = 1.0,
    judge_at: Annotated[float, Knob(0.0, 1.0, "share of the calls after which candidates are judged")] = 0.5,
    least: Annotated[float, Knob(0.0, 1.0, "from this chance on the verifier's answer counts as yes")] = 0.5,
    prune: Annotated[bool, Knob(None, None, "give candidates up at a no; the best is never given up")] = True,
) -> Iterator[Step]:
    """Yield one step per call of a candidate, all guesses; one for the verdicts; one in which a picture is written.

    figures: `candidate` and `turn`, from 0, and `filled`, the share of its slots that are known; with the verdicts
    `promise_N` and `passed_N` for candidate N; in the last step `chosen`, `score_N`, and `saved`, calls given up.
    """
    slots = open_slots(target.canvas_L, ask.left)
    alive = [Candidate(n, list(target.canvas_L), list(slots)) for n in range(candidates)]
    plan = remaining(len(slots), steps, "cosine")
    judged_in = max(math.ceil(judge_at * len(plan)), 1) - 1
    saved = 0
    for turn, left in enumerate(plan):
        for one in alive:
            one.grow(target, ask, turn + one.number * len(plan), left, temperature * (1 - (turn + 1) / len(plan)))
            filled = 1 - one.canvas.count(-1) / len(one.canvas)
            figures = {"candidate": float(one.number), "turn": float(turn), "filled": filled}
            marks = tuple(Mark(slot, one.shown[slot], Fate.GUESS) for slot in slots)
            yield Step(marks, f"candidate {one.number + 1}, call {turn + 1}", tuple(one.shown), figures=figures)
        if turn == judged_in and candidates > 1:
            figures = judge_midway(alive, verifier, least)
            fine = [one for one in alive if one.passed] or [max(alive, key=lambda one: one.promise)]
            yield Step((), f"{len(fine)} of {len(alive)} may become what was asked for", figures=figures)
            if prune:
                saved, alive = (len(alive) - len(fine)) * (len(plan) - turn - 1), fine
    figures = judge_finished(alive, verifier) if len(alive) > 1 else {}
    best = max(alive, key=lambda one: (one.passed, one.score if one.passed else one.promise, -one.number))
    tokens = ask.take([best.canvas[slot] for slot in slots])
    marks = tuple(Mark(s, token, Fate.BONUS, shorten(best.p[s])) for s, token in zip(slots, tokens, strict=False))
    figures |= {"chosen": float(best.number), "saved": float(saved)}
    yield Step(marks, f"candidate {best.number + 1} is the picture", tuple(best.canvas), figures=figures)


def judge_midway(alive: list[Candidate], verifier: PictureJudgeSession, least: float) -> dict[str, float]:
    """Ask once whether the candidates can become what was asked for; returns what was said."""
    figures: dict[str, float] = {}
    for one, chance in zip(alive, verifier.judge([one.shown for one in alive]), strict=True):
        one.promise, one.passed = chance, chance >= least
        figures |= {f"promise_{one.number}": shorten(chance), f"passed_{one.number}": float(one.passed)}
    return figures


def judge_finished(alive: list[Candidate], verifier: PictureJudgeSession) -> dict[str, float]:
    """Ask how well the finished candidates show it; returns what was said."""
    for one, chance in zip(alive, verifier.judge([one.canvas for one in alive]), strict=True):
        one.score = chance
    return {f"score_{one.number}": shorten(one.score) for one in alive}
