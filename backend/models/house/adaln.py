"""What attributes say to the branches of a block, where they do more than stand in rows of their own (adaLN).

Letters: B batch, T rows of a pass, C features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BRANCHES = 2  # of a block: attention, then the net
ASKED = 3 * BRANCHES  # vectors of a block


@dataclass(frozen=True)
class Asked:
    """What the attributes say to a branch: of its input a scale and a shift, of its output a gate. [B, 1, C] each."""

    scale: Tensor
    shift: Tensor
    gate: Tensor

    def entering(self, x_BTC: Tensor) -> Tensor:
        """What the branch reads."""
        return torch.addcmul(self.shift, x_BTC, 1 + self.scale)

    def leaving(self, x_BTC: Tensor) -> Tensor:
        """What it adds."""
        return x_BTC * (1 + self.gate)


class Unasked:
    """Stands for `Asked` where attributes have rows alone."""

    def entering(self, x_BTC: Tensor) -> Tensor:
        """What the branch reads."""
        return x_BTC

    def leaving(self, x_BTC: Tensor) -> Tensor:
        """What it adds."""
        return x_BTC


UNASKED = (Unasked(),) * BRANCHES
