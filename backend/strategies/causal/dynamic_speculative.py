"""Dynamic draft length: speculative sampling that drafts on while the drafter is sure and its drafts are kept.

The length grows by 2 after a draft that was kept whole and shrinks by 1 otherwise; a draft also ends where the
drafter's best token falls below a confidence that is refitted to what was kept so far (assisted generation in
transformers: least false alarms + 3 x misses). Only the drafter's own numbers end a draft, so the law stays exact.
Show: draft length by step with the confidence line; fewer wasted drafts.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from torch import Tensor

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import accept_chain, judged, residual
from backend.types import Guarantee, Knob, Step

MIN_SEEN = 6  # judged tokens before the confidence is refitted
MISS_COST = 3.0  # a token not drafted that would have been kept, against one drafted in vain
MEMORY = 200  # judged tokens that the fit looks at


@strategy(paper="2211.17192", guarantee=Guarantee.LOSSLESS, family="draft model")
def dynamic_speculative(
    target: CausalSession,
    draft: CausalSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 20, "tokens drafted before the first target call")] = 4,
    longest: Annotated[int, Knob(1, 20, "most tokens drafted before a target call")] = 10,
    confidence: Annotated[float, Knob(0.0, 1.0, "a draft ends where its best token is less likely than this")] = 0.4,
    refit: Annotated[bool, Knob(None, None, "fit the confidence to what was kept so far")] = True,
) -> Iterator[Step]:
    """Yield one step per target call: the judged draft, then one fixed or bonus token."""
    length = gamma
    seen: list[tuple[float, bool]] = []  # (confidence, kept) of judged tokens
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        q: list[Tensor] = []
        sure: list[float] = []
        while len(x) < min(length, longest, ask.left - 1):
            ahead = draft.score(x)
            top = ahead.options(len(x), 1)[0][1]
            if top < confidence:
                break
            q.append(ahead.p_NV[-1])
            x.append(ask.chance.pick(q[-1]))
            sure.append(top)
        scores = target.score(x)
        p = scores.p_NV
        n = accept_chain(p, q, x, ask.chance)
        last = ask.chance.pick(p[n] if n == len(x) else residual(p[n], q[n]))
        kept = ask.take([*x[:n], last])
        target.commit(kept)
        draft.commit(kept)
        yield Step(judged(slot, x, n, kept, scores, q), note=f"up to {length} ahead, confidence {confidence:.2f}")
        length = min(length + 2, longest) if n == len(x) else max(length - 1, 1)
        seen = [*seen, *((s, i < n) for i, s in enumerate(sure[: n + 1]))][-MEMORY:]
        if refit and len(seen) >= MIN_SEEN:
            confidence = _fit(seen, confidence)


def _fit(seen: Sequence[tuple[float, bool]], before: float) -> float:
    """The confidence with the least false alarms + 3 x misses on judged tokens; unchanged if all had one outcome."""
    kept = [s for s, stayed in seen if stayed]
    lost = [s for s, stayed in seen if not stayed]
    if not kept or not lost:
        return before

    def cost(line: float) -> float:
        return sum(s >= line for s in lost) / len(lost) + MISS_COST * sum(s < line for s in kept) / len(kept)

    return min(sorted({s for s, _ in seen}), key=cost)
