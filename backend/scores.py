"""What a causal session says about a draft, row by row. Letters as in `protocols`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import UserError
from backend.peaks import peaks


@dataclass(frozen=True)
class Scores:
    """What a causal session says about a draft: row 0 is the next token's law, row i + 1 the law after draft[i].

    p_NV: float, rows sum to 1, temperature and filters applied. raw_NV: logits before them, where the model has any.
    hidden_NC: the last hidden state the row was read from, for drafters that start there. passed_MC: the same of the
    M committed tokens that this call ran in front of row 0, such as a prompt's; None where it ran none. ids_K: tokens
    of the columns of raw_NV and of p_NV, where these have K columns; None where columns are all tokens in their order.
    """

    p_NV: Tensor
    raw_NV: Tensor | None = None
    hidden_NC: Tensor | None = None
    passed_MC: Tensor | None = None
    ids_K: Tensor | None = None

    def best(self, count: int) -> tuple[list[list[int]], list[list[float]]]:
        """The `count` most likely tokens of every row and their probabilities, largest first."""
        p_NT, at_NT = peaks(self.p_NV, count)
        return self._tokens(at_NT, self.p_NV).tolist(), p_NT.tolist()

    def _tokens(self, at_NT: Tensor, columns_NV: Tensor) -> Tensor:
        narrow = self.ids_K is not None and columns_NV.shape[1] == len(self.ids_K)
        return self.ids_K[at_NT] if narrow and self.ids_K is not None else at_NT

    def trail(self, path: Sequence[int], count: int) -> Tensor:
        """Hidden states from which the last tokens of the text were read, for `HeadsSession.commit`, [M + count, C].

        path: the guesses that were accepted, as indices in the draft. count: tokens that were committed after them and
        with them, at most len(path) + 1. Raises UserError for a model that shows no hidden states.
        """
        if self.hidden_NC is None or not self.hidden_NC.shape[1]:
            raise UserError("Draft heads read the target's hidden states, but this target shows none; pick another.")
        read_NC = self.hidden_NC[[0, *(i + 1 for i in path)][:count]]
        return read_NC if self.passed_MC is None else torch.cat((self.passed_MC, read_NC))

    def plain(self, row: int) -> Tensor:
        """The law of a row at temperature 1 and before filters, as wide as its p_NV."""
        p_V = self.p_NV[row]
        if self.raw_NV is None:
            return p_V
        plain_K = self.raw_NV[row].softmax(dim=0)
        if self.ids_K is None or len(plain_K) == len(p_V):
            return plain_K
        return torch.zeros_like(p_V).scatter_(0, self.ids_K, plain_K)

    def options(self, row: int, count: int = 4) -> tuple[tuple[int, float], ...]:
        """The `count` most likely tokens of a row at temperature 1, before filters, with their probabilities."""
        if self.raw_NV is None:
            p_1T, at_1T = peaks(self.p_NV[row][None], count)
        else:
            raw_1V = self.raw_NV[row][None]
            at_1T = peaks(raw_1V, count)[1]
            p_1T = raw_1V.softmax(dim=1).gather(1, at_1T)
            at_1T = self._tokens(at_1T, raw_1V)
        return tuple(zip(at_1T[0].tolist(), (round(p, 6) for p in p_1T[0].tolist()), strict=True))
