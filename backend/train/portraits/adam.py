"""The optimiser's loop of small convolutional nets: AdamW, a warm start and one cosine; it resumes where it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

SAVED_EVERY = 100  # steps
SHOWN_EVERY = 50
WARM = 30  # steps until the rate is full


class Recipe(Protocol):
    """steps: of the optimiser. rate: peak learning rate."""

    @property
    def steps(self) -> int: ...

    @property
    def rate(self) -> float: ...


def descend(
    model: nn.Module,
    recipe: Recipe,
    checkpoint: Path,
    batches: Callable[[int], Iterator[tuple[Tensor, ...]]],
    loss_of: Callable[..., Tensor],
) -> None:
    """Train in place; resumes from the checkpoint, if there is one.

    Args:
        batches: from a step on. loss_of: the loss of a batch, its tensors on the model's device.
    """
    device, total = next(model.parameters()).device, recipe.steps
    adam = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total)))
    )
    parts: dict[str, Any] = {"model": model, "adam": adam, "rate": rate}
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        step = int(saved["step"])
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    source = batches(step)
    while step < total:
        step += 1
        loss = loss_of(*(part.to(device) for part in next(source)))
        torch.autograd.backward(loss)
        adam.step()
        rate.step()
        adam.zero_grad(set_to_none=True)
        if step % SHOWN_EVERY == 0:
            print(f"step {step}/{total} loss {loss.item():.4f}", flush=True)
        if step % SAVED_EVERY == 0 or step == total:
            scratch = checkpoint.with_suffix(".part")
            torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, scratch)
            scratch.rename(checkpoint)
