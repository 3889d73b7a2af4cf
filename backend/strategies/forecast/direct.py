"""Direct: one call gives the quantiles of every step of the horizon.

Another head of the model and not a faster way to sample it: each step has its own quantiles, and nothing says how steps
move together, so sums and peaks over the horizon cannot be read off. The smallest head that covers the horizon is used.
Show: a single call in the timeline; the empty cell for the sum over the horizon.
"""

from collections.abc import Iterator

from backend.chance import Ask
from backend.protocols import BandSession
from backend.registry import strategy
from backend.types import Guarantee, Step
from backend.unrolling import band_marks, head_for, level_figures, progress


@strategy(paper="2403.07815", guarantee=Guarantee.LOSSY, family="direct")
def direct(target: BandSession, ask: Ask) -> Iterator[Step]:
    """Yield one step, the whole band. figures: the `level` of every row. Raises UserError beyond the largest head."""
    horizon = ask.left
    quantiles_LH = target.predict(head_for(target, horizon))[0].sort(0).values  # crossing quantiles trade places
    marks = band_marks(quantiles_LH, 0, horizon)
    progress(ask, horizon)
    yield Step(marks, f"{horizon} steps in one call", figures=level_figures(target.levels))
