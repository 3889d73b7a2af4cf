"""Train the state space model house/series-space: `python -m backend.train.forecast.space`.

The loss has three parts of equal weight, as in Zhang et al. 2023 (2303.09489): the error of the closed loop over the
horizon, that of the next value at every step of the past from true inputs, and that of the next input of the decoder.
Errors are squared up to one spread of the past and linear beyond. The recipe takes 4 minutes on two CPU cores; `--tiny`
trains a small model of made-up walks in seconds. Measures itself and writes its card at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.meter import Meter
from backend.models.house.state_space import SpaceConfig, StateSpace, save_space
from backend.models.series_space import SpaceModel, load_series_space
from backend.protocols import LoopSession
from backend.train.forecast.points import (
    Job,
    Recipe,
    asked,
    curve,
    held_losses,
    held_values,
    huber,
    measured,
    trained,
    write_card,
)
from backend.types import Sampling

NAME = "series-space"
HORIZON = 64
RECIPES = {
    "cpu": Recipe(1800, 48, 3e-3, 192, HORIZON),
    "cuda": Recipe(8000, 512, 3e-3, 192, HORIZON, 0.999),
}
TINY = Recipe(30, 16, 5e-3, 48, 12, 0.9)
WHAT = "Companion state space model that continues a series by the powers of one matrix."


def parts(model: StateSpace, y_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three parts of the loss: closed loop, next value, next input."""
    lag = model.config.lag
    past_BL, known_BL = held_values(y_BT[:, :lag])
    level_B1 = (past_BL * known_BL).sum(1, keepdim=True) / known_BL.sum(1, keepdim=True).clamp_min(1)
    z_BCL = model.inputs(past_BL - level_B1, known_BL.to(past_BL.dtype))
    closed = huber(model.unrolled(model.state(z_BCL), y_BT.shape[1] - lag), y_BT[:, lag:] - level_B1)
    seen_BL, next_BCL = model.taught(z_BCL)
    opened = huber(seen_BL, y_BT[:, 1 : lag + 1] - level_B1)
    away = (next_BCL[..., :-1] - z_BCL[..., 1:].detach()).square().mean((1, 2))
    size = z_BCL.detach().square().mean((1, 2)).clamp_min(1e-6)
    return closed, opened, (away / size).mean()


def loss_of(model: nn.Module, y_BT: Tensor, stream: np.random.Generator) -> Tensor:
    """Their sum, over windows that have a scale."""
    assert isinstance(model, StateSpace)
    return torch.stack(parts(model, y_BT[torch.isfinite(y_BT).any(1)])).sum()


def agreement(model: SpaceModel, cases: Sequence[Any], horizon: int = 512) -> float:
    """The largest difference of the curve by doubling from that by steps, in shares of the largest value of each."""
    worst = 0.0
    for case in cases:
        y = [float(x) if np.isfinite(x) else None for x in case.past_T]
        session = model.open(LoopSession, model.codec.encode({"y": y}), Sampling(), Meter(), horizon)
        doubled_HD = looped_HD = session.listen()[None]
        while len(doubled_HD) < horizon:
            doubled_HD = torch.cat((doubled_HD, session.advance(doubled_HD, len(doubled_HD))))
        while len(looped_HD) < horizon:
            looped_HD = torch.cat((looped_HD, session.advance(looped_HD[-1:], 1)))
        one_H, other_H = session.read(doubled_HD[:horizon]), session.read(looped_HD)
        worst = max(worst, float((one_H - other_H).abs().max() / other_H.abs().max()))
    return worst


def build(job: Job, config: SpaceConfig) -> SpaceModel:
    """Train, or go on, and write the weights."""
    return load_series_space(f"house/{job.name}", trained(job, lambda: StateSpace(config), loss_of, save_space))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    job = asked(__doc__ or "", NAME, RECIPES, TINY, argv)
    tiny = job.recipe.past != RECIPES["cpu"].past
    config = SpaceConfig(48, 8, 16, 1) if tiny else SpaceConfig()
    model = build(job, config)
    print(f"{model.num_params} weights, largest eigenvalue {float(model.poles_Z[0].abs()):.5f}", flush=True)
    if tiny:
        return
    from backend.train.forecast.held_out import groups

    cases = groups(job.data)
    held_out = measured(cases, lambda c: curve(model, "closed_loop", c.past_T, c.season, len(c.truth_H)))
    net = model.net.float()
    found = held_losses(job, lambda y_BT: parts(net, y_BT[torch.isfinite(y_BT).any(1)]))
    some = [case for group in cases.values() for case in group[:1]]
    told = {
        "held_out_loss": dict(zip(("closed_loop", "next_value", "next_input"), found, strict=True)),
        "held_out": held_out,
        "about_held_out": "MASE of the closed loop beside that of seasonal naive, up to 80 cases of a group. It has no "
        "law: a point forecast.",
        "largest_eigenvalue": round(float(model.poles_Z[0].abs()), 6),
        "doubling_against_loop_at_512_steps": agreement(load_series_space(model.id, job.weights), some),
    }
    write_card(job, model.num_params, config, WHAT, told)


if __name__ == "__main__":
    main()
