"""A model that tells whole pictures from noise, learned from one that paints them map by map: its sessions.

The teacher's guidance is part of what was learned, so there is none to be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from backend.codecs.image import UNKNOWN
from backend.codecs.scales import ScaleCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.models.house.scales import CHOICES
from backend.models.house.student import DIMS, Student, read_student
from backend.models.session import check_numbers
from backend.protocols import DistilledSession, Prompt
from backend.sampling import distribution
from backend.types import Sampling


class NoiseSession:
    """A `DistilledSession` on a `StudentModel`. It keeps nothing between calls."""

    dims = DIMS

    def __init__(self, model: StudentModel, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.sizes: Sequence[tuple[int, int]] = model.net.pyramid.sizes
        self._model, self._sampling, self._meter = model, sampling, meter
        self._asked_BA = torch.tensor([prompt.extras["conditions"]], device=model.net.device)

    def predict(self, noise_LD: Tensor, known: Sequence[int] = ()) -> Tensor:
        """See `DistilledSession.predict`; float32 at least. Raises UserError if the model returns no numbers."""
        net = self._model.net
        assert noise_LD.shape == (net.pyramid.length, DIMS), noise_LD.shape
        assert len(known) in net.pyramid.starts[:-1], f"{len(known)} slots are no whole maps with one left"
        known_BM = torch.tensor([list(known)], dtype=torch.long, device=net.device)
        with self._meter.call(len(CHOICES) + len(noise_LD)), torch.inference_mode():
            raw_NV = net.told(self._asked_BA, noise_LD[None].to(net.device), known_BM)[0]
        raw_NV = raw_NV.to(torch.promote_types(raw_NV.dtype, torch.float32))
        check_numbers(raw_NV, self._model.id)
        return distribution(raw_NV, self._sampling, [list(known)] * len(raw_NV))


class StudentModel:
    """Loaded weights of a student. Shared by all sessions, never written."""

    speaks: frozenset[type] = frozenset({DistilledSession})

    def __init__(self, model_id: str, net: Student, codec: ScaleCodec) -> None:
        assert codec.pyramid.fingerprint == net.pyramid.fingerprint, "a codec of other maps"
        self.id = model_id
        self.net = net
        self.codec = codec
        self.num_params = net.num_params
        self.context = codec.length

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> NoiseSession:
        """A session on a prompt of the image codec. Raises UserError where a part of a picture is given."""
        assert protocol in self.speaks, protocol
        given = sum(token != UNKNOWN for token in prompt.extras.get("canvas") or ())
        if given:
            raise UserError(
                f"{self.id} paints whole pictures, but {given} cells are given; leave the image out, or pick a model "
                "that paints a part again, such as house/portraits-masked."
            )
        return NoiseSession(self, prompt, sampling, meter)


def load_student(model_id: str, path: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> StudentModel:
    """A model of a file of `house.scales.save_scales`, its weights in dtype.

    Raises UserError if there is no such file, and if it was trained with other codes than those that ship.
    """
    net = read_student(path, device).to(dtype)
    return StudentModel(model_id, net, ScaleCodec(net.pyramid))
