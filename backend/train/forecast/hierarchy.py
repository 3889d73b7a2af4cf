"""Train house/series-hierarchy, four stages coarse to fine: `python -m backend.train.forecast.hierarchy`.

Every token says the next segment; the loss is the error of the sum of all stages, squared up to one deviation of the
window and linear beyond, half of it at the two last segments, which lie behind what the scale was taken from: that is
the place where forecasts are made. The recipe takes 5 minutes on two CPU cores; `--tiny` trains a small model of
made-up walks in seconds. Measures itself and writes its card at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from backend.models.house.hierarchy import Hierarchy, HierarchyConfig, save_hierarchy
from backend.models.series_hierarchy import HierarchyModel, load_series_hierarchy
from backend.train.forecast.points import (
    LARGEST,
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

NAME = "series-hierarchy"
_sizes = HierarchyConfig()
PAST, FUTURE = _sizes.segment * _sizes.segments, 2 * _sizes.segment
RECIPES = {
    "cpu": Recipe(4000, 64, 2e-3, PAST, FUTURE),
    "cuda": Recipe(12_000, 512, 2e-3, PAST, FUTURE, 0.999),
}
TINY_SIZES = HierarchyConfig(8, 4, 16, 1, 2, 24)
TINY = Recipe(30, 16, 4e-3, 32, 16, 0.9)
WHAT = "Four causal transformers over pooled views of a series, whose sum is its next segment."


def errors(model: Hierarchy, y_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The loss inside the past, and behind it."""
    segment = model.config.segment
    past = y_BT.shape[1] - 2 * segment
    y_BT = y_BT[torch.isfinite(y_BT[:, :past]).sum(1) >= 4]
    value_BT, known_BT = held_values(y_BT)
    share_BT = known_BT[:, :past] / known_BT[:, :past].sum(1, keepdim=True)
    location_B1 = (value_BT[:, :past] * share_BT).sum(1, keepdim=True)
    spread_B1 = ((value_BT[:, :past] - location_B1).square() * share_BT).sum(1, keepdim=True).sqrt().clamp_min(1e-3)
    z_BT = (value_BT - location_B1) / spread_B1
    z_BT = z_BT.clamp(-2 * LARGEST, 2 * LARGEST)
    found_BNP = model(z_BT[:, :-segment], known_BT[:, :-segment].to(z_BT.dtype)).sum(1)
    wanted_BT = torch.where(known_BT & (z_BT.abs() <= LARGEST), z_BT, torch.nan)[:, segment:]
    wanted_BNP = wanted_BT.reshape(len(z_BT), -1, segment)
    return huber(found_BNP[:, :-2], wanted_BNP[:, :-2]), huber(found_BNP[:, -2:], wanted_BNP[:, -2:])


def loss_of(model: nn.Module, y_BT: Tensor, stream: np.random.Generator) -> Tensor:
    """The mean of both."""
    assert isinstance(model, Hierarchy)
    return torch.stack(errors(model, y_BT)).mean()


def build(job: Job, config: HierarchyConfig) -> HierarchyModel:
    """Train, or go on, and write the weights."""
    weights = trained(job, lambda: Hierarchy(config), loss_of, save_hierarchy)
    return load_series_hierarchy(f"house/{job.name}", weights)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    job = asked(__doc__ or "", NAME, RECIPES, TINY, argv)
    tiny = job.recipe.past != PAST
    config = TINY_SIZES if tiny else _sizes
    model = build(job, config)
    print(f"{model.num_params} weights", flush=True)
    if tiny:
        return
    from backend.train.forecast.held_out import groups

    inside, behind = held_losses(job, lambda y_BT: errors(model.net, y_BT))
    told = {
        "held_out_loss": {"inside": inside, "behind": behind},
        "held_out": measured(
            groups(job.data), lambda c: curve(model, "any_horizon", c.past_T, c.season, len(c.truth_H))
        ),
        "about_held_out": "MASE of any_horizon beside that of seasonal naive, up to 80 cases of a group. It has no "
        "law: a point forecast.",
    }
    write_card(job, model.num_params, config, WHAT, told)


if __name__ == "__main__":
    main()
