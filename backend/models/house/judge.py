"""A linear judge: one weight for each feature of the target's last hidden state, and a bias, in a logistic function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import JudgeSession, Prompt
from backend.types import Sampling

if TYPE_CHECKING:
    from backend.codecs.text import TextCodec


class LinearJudge:
    """A judge of the hidden states of one target. Shared by all sessions, never written.

    Args:
        weight_C: float32. bias: scalar, float32. Both move to `device`.
    """

    speaks: frozenset[type] = frozenset({JudgeSession})
    context = 1 << 20  # it reads one state at a time

    def __init__(self, model_id: str, weight_C: Tensor, bias: Tensor, codec: TextCodec, device: torch.device) -> None:
        self.id = model_id
        self.codec = codec
        self.weight_C = weight_C.float().to(device)
        self.bias = bias.float().to(device)
        self.num_params = len(weight_C) + 1

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> LinearJudgeSession:
        """A session; the prompt does not matter to it."""
        assert protocol in self.speaks, protocol
        return LinearJudgeSession(self, meter)


class LinearJudgeSession:
    """A `JudgeSession` over a linear judge."""

    def __init__(self, model: LinearJudge, meter: Meter) -> None:
        self._model = model
        self._meter = meter

    @torch.inference_mode()
    def score(self, hidden_NC: Tensor | None) -> Tensor:
        """See `JudgeSession.score`."""
        model, width = self._model, 0 if hidden_NC is None else hidden_NC.shape[1]
        if hidden_NC is None or width != len(model.weight_C):
            shown = f"hidden states of {width} numbers" if width else "no hidden states"
            raise UserError(
                f"{model.id} reads hidden states of {len(model.weight_C)} numbers, but this target shows {shown}; "
                "pick the target that it was trained on, or another rule than 'judge'."
            )
        with self._meter.call(len(hidden_NC)):
            return torch.sigmoid(hidden_NC.to(model.weight_C) @ model.weight_C + model.bias)


def save_judge(path: Path, weight_C: Tensor, bias: Tensor) -> None:
    """Write a judge: `weight_C` and `bias`, float32."""
    save_file({"weight_C": weight_C.float().contiguous(), "bias": bias.float().reshape(())}, path)


def load_judge(model_id: str, path: Path, codec: TextCodec, device: torch.device) -> LinearJudge:
    """The judge in a file of `save_judge`. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"{path.name} is not in assets/house: train it with python -m backend.train.smollm2_judge.")
    state = load_file(path)
    return LinearJudge(model_id, state["weight_C"], state["bias"], codec, device)
