"""The optimiser's loop of the portraits' models: Muon for matrices, AdamW for embeddings and norms, one cosine.

It resumes from the checkpoint of its job, and several trainers average their gradients at every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from backend.train.tales import SAVED_EVERY, TaleJob, average_gradients, save_checkpoint

SHOWN_EVERY = 50  # steps
WARM = 30  # steps until the rate is full

Batch = tuple[Tensor, ...]


def optimise(
    job: TaleJob,
    model: nn.Module,
    rank: int,
    batches: Callable[[int], Iterator[Batch]],
    loss_of: Callable[..., Tensor],
) -> None:
    """Train in place, together with the other trainers; resumes from the checkpoint, if there is one.

    Args:
        batches: the batches of this trainer from a step on. loss_of: the loss of a batch, its tensors on the device.
    """
    total = job.recipe.steps
    parts = parts_of(model, job.recipe.rate, total)
    step = resume(job, model, parts)
    began, first, losses = time.monotonic(), step, []
    source = batches(step) if step < total else iter(())
    while step < total:
        step += 1
        loss = loss_of(*(part.to(job.device) for part in next(source)))
        torch.autograd.backward(loss)
        average_gradients(model, job.recipe.trainers)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in parts:
            part.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if rank == 0 and step % SHOWN_EVERY == 0:
            speed = (time.monotonic() - began) / (step - first)
            mean = float(torch.stack(losses[-SHOWN_EVERY:]).mean())
            print(f"step {step}/{total} loss {mean:.4f} {speed:.2f} s a step", flush=True)
        if rank == 0 and (step % SAVED_EVERY == 0 or step == total):
            save_checkpoint(job, step, model, parts)


def parts_of(model: nn.Module, rate: float, total: int) -> list[Any]:
    """Both optimisers and their schedules, in the order of the checkpoint."""
    matrices = [w for name, w in model.named_parameters() if w.dim() == 2 and "embed" not in name]
    others = [w for name, w in model.named_parameters() if w.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARM) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / total)))

    return [muon, adam, *(torch.optim.lr_scheduler.LambdaLR(part, share) for part in (muon, adam))]


def resume(job: TaleJob, model: nn.Module, parts: list[Any]) -> int:
    """The step that the checkpoint was saved behind, and everything as it was then; 0 without one."""
    if not job.checkpoint.exists():
        return 0
    saved = torch.load(job.checkpoint, weights_only=True, map_location=job.device)
    model.load_state_dict(saved["model"])
    for part, state in zip(parts, saved["parts"], strict=True):
        part.load_state_dict(state)
    return int(saved["step"])
