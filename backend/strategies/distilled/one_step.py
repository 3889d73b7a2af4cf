"""One step: a student tells the whole picture from noise in one call, which its teacher paints scale by scale.

Liu et al. 2024 (2412.17153), Distilled Decoding. A flow turns the noise of each slot into the token that the teacher
draws there (`backend.flows`), so that the teacher's picture is a function of the noise, and the student has learned it.
A second call, from the entry scale on, keeps the tokens of the scales before it and tells the rest once more from them
and the noise it had. The student's most probable tokens are taken: all chance is in the noise.
Show: one or two calls beside the teacher's one a scale, from the same seed; guesses that the second call changes.
"""

from collections.abc import Iterator
from typing import Annotated

from backend.chance import Ask
from backend.protocols import DistilledSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Fate, Guarantee, Knob, Step
from backend.unmasking import filled, kept_until


@strategy(paper="2412.17153", guarantee=Guarantee.LOSSY, family="distilled")
def one_step(
    target: DistilledSession,
    ask: Ask,
    *,
    entry: Annotated[int, Knob(0, 64, "scale from which a second call tells again; 0: one call for all")] = 0,
) -> Iterator[Step]:
    """Yield one step a call: the tokens that stay, and those behind them as guesses.

    Scales that the budget cannot hold are told but not kept.
    figures: `changed`, how many guesses of the call before are others now; `confidence`, the mean p of what is told.
    """
    stops = kept_until(target.sizes, entry, ask.left)
    noise_LD = ask.chance.noise((sum(height * width for height, width in target.sizes), target.dims))
    kept: list[int] = []
    before: list[int] = []
    for stop in stops:
        p_NV = target.predict(noise_LD, kept).to("cpu")
        told = p_NV.argmax(dim=-1).tolist()
        start, count, last = len(kept), stop - len(kept), stops[-1]
        marks = filled(range(start, stop), told[:count], p_NV[:count])
        guessed = filled(range(stop, last), told[count : last - start], p_NV[count : last - start], Fate.GUESS)
        figures = {
            "changed": float(sum(a != b for a, b in zip(before[start:], told, strict=False))),
            "confidence": shorten(p_NV.amax(dim=-1).mean()),
        }
        kept, before = kept + ask.take(told[:count]), kept + told
        note = f"{count} slots stay, {len(guessed)} are guesses"
        yield Step((*marks, *guessed), note, tuple(before[:last]), figures=figures)
