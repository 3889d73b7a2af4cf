"""Series as prompts of tokens, so that models and strategies of text continue numbers; see `backend.codecs.bins`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.codecs.bins import BINS, CENTRES, CONTEXT, SIZE, fill_of, paths_of, tokens_of
from backend.codecs.forecast import SeriesCodec
from backend.errors import UserError
from backend.protocols import Prompt

MOST_PATHS = 64


class SeriesTokens(SeriesCodec):
    """Prompts of series for models of tokens: what `SeriesCodec` attaches, and the context as tokens.

    Two more fields may be asked for in a mapping. "paths": how many futures are to be written at once, 1 by default; a
    strategy for several texts gets the context that many times, and the budget is that of all of them together.
    "fill": whether gaps of the context are written too, by models that can; the budget counts them.

    There is no end token: a horizon is a budget.
    """

    size = SIZE

    def __init__(self) -> None:
        super().__init__(CONTEXT)
        self.vocabulary = f"series, {BINS} bins of arcsinh"

    def encode(self, raw: Any) -> Prompt:
        """The context of a series, see `SeriesCodec.encode`. `extras` holds "fill" too, and "texts" of several paths.

        Raises UserError for whatever cannot be continued.
        """
        fill, paths = fill_of(raw), paths_of(raw)
        if type(fill) is not bool:
            raise UserError(f"The field 'fill' of a series prompt must be true or false, but {fill!r} was given.")
        if type(paths) is not int or not 1 <= paths <= MOST_PATHS:
            raise UserError(f"A series prompt can ask for 1 to {MOST_PATHS} paths, but {paths!r} was given.")
        if fill and paths > 1:
            raise UserError(f"Gaps are filled along one path, but {paths} were asked for; leave out 'paths'.")
        asked = {k: v for k, v in raw.items() if k not in ("fill", "paths")} if isinstance(raw, dict) else raw
        extras = {**super().encode(asked).extras, "fill": fill}
        context = tuple(tokens_of(np.array(extras["context"])).tolist())
        if paths > 1:
            extras["texts"] = (context,) * paths
        return Prompt(context * paths, extras)

    def decode(self, canvas: Sequence[int]) -> str:
        """The values of tokens in spreads from the median; `backend.series.forecasts` has them in units."""
        return " ".join(map(self.piece, canvas))

    def piece(self, token: int) -> str:
        """The centre of a token's bin in spreads from the median, such as "+1.37"."""
        return f"{np.sinh(CENTRES[token]):+.3g}" if 0 <= token < BINS else "missing"
