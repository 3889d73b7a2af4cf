"""Jacobi decoding: a window of guessed tokens is recomputed all at once until its beginning no longer changes.

Santilli et al. 2023 (2305.10427). Every call turns the window into what the target says given the old guesses; the
prefix that came back unchanged is final. Draws use the noise of their slot, so sampling has a fixed point too, and it
is the text that plain decoding prints with the same seed.
Show: the grid of iterations by position; text gains little, which is why n-gram pools and trained heads exist.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Annotated, Literal

from backend.chance import Ask
from backend.protocols import CausalSession
from backend.registry import strategy
from backend.sampling import guesses, judged
from backend.types import Guarantee, Knob, Step


@strategy(paper="2305.10427", guarantee=Guarantee.LOSSLESS, family="parallel")
def jacobi(
    target: CausalSession,
    ask: Ask,
    *,
    window: Annotated[int, Knob(1, 32, "tokens recomputed in every call")] = 8,
    start: Annotated[Literal["prompt", "repeat"], Knob(None, None, "first guesses: prompt tokens, or the last one")] = (
        "prompt"
    ),
) -> Iterator[Step]:
    """Yield one step per target call: the guesses that came back unchanged, the next token, and the new window."""
    prompt = cycle(list(target.tokens))
    x = list(islice(prompt, window)) if start == "prompt" else [target.tokens[-1]] * window
    while ask.open:
        slot = len(target.tokens)
        x = x[: ask.left - 1]
        scores = target.score(x)
        y = [ask.chance.pick(p_V, slot + i) for i, p_V in enumerate(scores.p_NV)]
        n = next((i for i, guess in enumerate(x) if guess != y[i]), len(x))
        kept = ask.take(y[: n + 1])
        target.commit(kept)
        marks = judged(slot, x, n, kept, scores)
        fresh = window - len(y[n + 1 :])
        x = [*y[n + 1 :], *(islice(prompt, fresh) if start == "prompt" else [y[-1]] * fresh)]
        yield Step((*marks, *guesses(slot + len(kept), x[: ask.left - 1] if ask.open else ())))
