"""A judge of portraits as a model that decoding can ask: how well does a canvas show what its prompt asks for?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from backend.codecs.image import ImageCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.portrait_judge import SIDE, PortraitJudge, read_judge
from backend.protocols import PictureJudgeSession, Prompt
from backend.types import Sampling


class PictureVerifier:
    """A `PortraitJudge` behind a codec whose pictures it can read. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({PictureJudgeSession})

    def __init__(self, model_id: str, judge: PortraitJudge, codec: ImageCodec) -> None:
        assert codec.tokenizer.side == SIDE, "the judge reads pictures of 16x16 pixels"
        self.id = model_id
        self.judge = judge
        self.codec = codec
        self.num_params = sum(weight.numel() for weight in judge.parameters())
        self.context = codec.length

    def open(
        self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int
    ) -> PictureVerifierSession:
        """A session for one prompt. Raises UserError where the prompt asks for nothing that could be checked."""
        assert protocol in self.speaks, protocol
        asked = tuple(prompt.extras["conditions"])
        if not any(asked):
            raise UserError(
                f"The prompt leaves everything open, so {self.id} has nothing to check; "
                "name what the picture should show, or pick a strategy without a verifier."
            )
        return PictureVerifierSession(self, asked, meter)


class PictureVerifierSession:
    """A `PictureJudgeSession` over the judge."""

    def __init__(self, model: PictureVerifier, asked: Sequence[int], meter: Meter) -> None:
        self._model, self._asked, self._meter = model, asked, meter

    @torch.inference_mode()
    def judge(self, canvases: Sequence[Sequence[int]]) -> list[float]:
        """See `PictureJudgeSession.judge`."""
        judge, codec = self._model.judge, self._model.codec
        step = codec.sizes[0] // SIDE
        pixels = np.stack([codec.decode(canvas)[step // 2 :: step, step // 2 :: step] for canvas in canvases])
        with self._meter.call(len(canvases)):
            values = judge(torch.from_numpy(pixels).to(judge.values.weight.device))
            log_p = [x.log_softmax(-1)[:, code - 1] for x, code in zip(values, self._asked, strict=True) if code]
            return [float(p) for p in torch.stack(log_p).mean(0).exp().tolist()]


def load_verifier(model_id: str, path: Path, codec: ImageCodec, device: torch.device) -> PictureVerifier:
    """The verifier in a file of `save_judge`. Raises UserError if there is no such file."""
    return PictureVerifier(model_id, read_judge(path, device), codec)
