"""Segment autoregressive: segments are the words of a frozen text model, and examples from the past can come first.

Liu et al. 2024 (2402.02370), AutoTimes: a linear map turns a segment of values into a word's vector and another one
reads the next segment off; the language model between them is not trained. The last segment is fed back. In context,
windows of other times stand in front with what came behind them: `similar` takes the ones whose shape is most like the
end of the series, `random` any. The window is scaled anew for every call. A curve without a law, and no promise that a
text model knows about series: the card has the numbers.
Show: the strip of examples in front of the series; error with 0, 1 and 2 of them, similar against random.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor

from backend.chance import Ask
from backend.gaussian import uniform
from backend.protocols import ExampleSession
from backend.registry import strategy
from backend.sampling import shorten
from backend.types import Guarantee, Knob, Step
from backend.unrolling import band_marks, filled, first_windows, level_figures, past_windows, progress, shape_distances

Choice = Literal["similar", "random"]


@strategy(paper="2402.02370", guarantee=Guarantee.LOSSY, family="feedback")
def segment_autoregressive(
    target: ExampleSession,
    ask: Ask,
    *,
    examples: Annotated[int, Knob(0, 2, "windows of the series' own past that are shown first")] = 1,
    choice: Annotated[Choice, Knob(None, None, "how they are chosen")] = "similar",
) -> Iterator[Step]:
    """Yield one step per target call: a segment of the curve, so `level 0` is 0.5.

    figures of the first step: `example e`, the step of the series at which the e-th example begins, from 0, and
    `distance e`, how far its shape is from the end of the series. Raises UserError where the past has too few windows.
    """
    horizon, start, segment = ask.left, 0, target.segment
    series_T = filled(target.series_CT)
    windows_NX = past_windows(series_T, target.example, segment)
    distance_N = shape_distances(windows_NX, series_T, segment)
    order_N = uniform((len(windows_NX),), ask.chance) if choice == "random" else distance_N
    at = first_windows(order_N.argsort(), examples, target.example, segment)
    told = {f"example {e}": float(i) for e, i in enumerate(at, 1)}
    told |= {f"distance {e}": shorten(distance_N[i]) for e, i in enumerate(at, 1)}
    note = f"{examples} examples" + "".join(f", steps {i + 1} to {i + target.example}" for i in at)
    written_H = torch.empty(0, dtype=torch.float64)
    while start < horizon:
        fresh_P: Tensor = target.recall(written_H, windows_NX[at]).cpu().double().sum(0)
        written_H = torch.cat((written_H, fresh_P))
        marks = band_marks(fresh_P[None], start, horizon)
        length = min(segment, horizon - start)
        progress(ask, length)
        start += length
        yield Step(marks, note, figures={**told, **level_figures((0.5,))})
        note, told = f"{start} of {horizon} steps", {}
