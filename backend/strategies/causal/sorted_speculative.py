"""Sorted speculative decoding: one draft with an exit behind each layer leaves early where it is sure of its guess.

S2D, Kavehzadeh et al. 2024 (2407.01955). The draft was trained so that its first layers are drafts too. For each guess
it stops at the first exit whose best token is likely enough at temperature 1, else at its last layer; layers that a
guess left out are caught up only when a later one needs them. The guess is drawn from the law of the exit that stopped
and judged by it, and nothing but the draft's own numbers decides where to stop, so the output is exact. The same draft
serves every target with its tokenizer, cut-down twins too.
Show: drafted tokens by the depth they left at; one draft beside several targets.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import CausalSession, Exit, NestedSession
from backend.registry import strategy
from backend.sampling import accept_chain, judged, residual
from backend.types import Guarantee, Knob, Step


@strategy(paper="2407.01955", guarantee=Guarantee.LOSSLESS, family="draft model")
def sorted_speculative(
    target: CausalSession,
    nested_draft: NestedSession,
    ask: Ask,
    *,
    gamma: Annotated[int, Knob(1, 12, "tokens drafted before each target call")] = 4,
    tau_1: Annotated[float, Knob(0.0, 1.0, "confidence that the first exit needs; 1 never stops there")] = 0.5,
    tau_2: Annotated[float, Knob(0.0, 1.0, "confidence that the second exit needs; 1 never stops there")] = 0.5,
) -> Iterator[Step]:
    """Yield one step per target call: the judged draft, then one fixed or bonus token."""
    while ask.open:
        slot = len(target.tokens)
        x: list[int] = []
        exits: list[Exit] = []
        for _ in range(min(gamma, ask.left - 1)):
            exits.append(nested_draft.score(x, (tau_1, tau_2)))
            x.append(ask.chance.pick(exits[-1].p_V))
        q = [taken.p_V for taken in exits]  # of the sub-model that stopped, each time
        scores = target.score(x)
        p = scores.p_NV
        n = accept_chain(p, q, x, ask.chance)
        last = ask.chance.pick(p[n] if n == len(x) else residual(p[n], q[n]))
        kept = ask.take([*x[:n], last])
        target.commit(kept)
        nested_draft.commit(kept)
        depths = [taken.depth for taken in exits]
        figures = {f"exit {depth}": float(count) for depth, count in sorted(Counter(depths).items())}
        note = f"left behind layer {', '.join(map(str, depths))}" if depths else ""
        yield Step(judged(slot, x, n, kept, scores, q), note, figures=figures)
