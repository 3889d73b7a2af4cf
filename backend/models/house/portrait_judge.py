"""A judge of portraits: reads the attributes off a picture, so that prompts can be held against what was painted.

Two measures come from it. The accuracy of a prompt counts, attribute by attribute, only what the prompt asked for. The
house distance is the Frechet distance between pictures of two kinds in the features that the judge reads them from:
|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), as in Heusel et al. 2017 (1706.08500) but in our own
features, so that its numbers stand beside none of theirs.

Letters: B pictures, A attributes, F features, K values of an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend.codecs.atlas import Ints, Pixels
from backend.codecs.styles import PIXEL, STYLES
from backend.errors import UserError
from backend.models.house import rounded

AT_ONCE = 512  # pictures a call
WIDTHS = (32, 64, 96, 128)  # channels of the three convolutions, then features
SIDE = 16
Features = NDArray[np.float64]


class PortraitJudge(nn.Module):
    """Three convolutions, a layer of features, and one classifier an attribute.

    Args:
        widths: channels of the convolutions, the last two of which halve the sides, and the number of features.
        style: of the pictures. Those of 64 pixels are read as 16x16 cells of 4x4, whose pixels are channels.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, style: str = PIXEL) -> None:
        super().__init__()
        first, second, third, features = self.widths = tuple(widths)
        self.style, self.side, self.vocabulary = style, STYLES[style].side, STYLES[style].vocabulary
        self.fold = self.side // SIDE
        self.first = nn.Conv2d(3 * self.fold**2, first, 3, padding=1)
        self.second = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.third = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.features = nn.Linear(third * (SIDE // 4) ** 2, features)
        self.values = nn.Linear(features, sum(map(len, self.vocabulary.values())))
        for layer in (self.first, self.second, self.third, self.features):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # torch's own start lets the signal fade
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def read(self, pixels_BHWC: Tensor) -> Tensor:
        """Features [B, F] of pictures [B, S, S, 3] of numbers from 0 to 255; differentiable."""
        x = F.pixel_unshuffle((pixels_BHWC.float() / 127.5 - 1).permute(0, 3, 1, 2), self.fold)
        for layer in (self.first, self.second, self.third):
            x = F.gelu(layer(x))
        return F.gelu(self.features(x.flatten(1)))

    def forward(self, pixels_BHWC: Tensor) -> list[Tensor]:
        """Logits [B, K] of the values of every attribute, in the order of the vocabulary."""
        sizes = [len(values) for values in self.vocabulary.values()]
        return list(self.values(self.read(pixels_BHWC)).split(sizes, dim=1))

    @torch.inference_mode()
    def attributes(self, pixels: Pixels) -> Ints:
        """The likeliest codes [B, A] of pictures [B, S, S, 3], none of them 0."""
        rows = [torch.stack([x.argmax(-1) + 1 for x in self(part)], 1) for part in self._parts(pixels)]
        read: Ints = torch.cat(rows).cpu().numpy()
        return read

    @torch.inference_mode()
    def features_of(self, pixels: Pixels) -> Features:
        """Features [B, F] of pictures [B, S, S, 3], for `fd_house`."""
        read: Features = torch.cat([self.read(part) for part in self._parts(pixels)]).double().cpu().numpy()
        return read

    def _parts(self, pixels: Pixels) -> list[Tensor]:
        if pixels.ndim != 4 or pixels.shape[1:] != (self.side, self.side, 3) or not len(pixels):
            wanted = f"[B, {self.side}, {self.side}, 3]"
            raise ValueError(f"the judge reads pictures {wanted}, B at least 1, not {pixels.shape}")
        whole = torch.from_numpy(np.array(pixels)).to(self.values.weight.device)
        return list(torch.split(whole, AT_ONCE))


def accuracy(judge: PortraitJudge, pixels: Pixels, conditions_BA: Ints) -> dict[str, float]:
    """By attribute, the share of pictures that have the value asked for, among those where one was asked for.

    Args:
        pixels: [B, S, S, 3]. conditions_BA: codes, 0 where nothing was asked.

    Returns:
        Attributes that no prompt asked for are missing; "all" is the share over all values asked for, and is missing
        where there are none.
    """
    names = tuple(judge.vocabulary)
    if conditions_BA.shape != (len(pixels), len(names)):
        raise ValueError(f"{len(pixels)} pictures need conditions [{len(pixels)}, {len(names)}]")
    asked_BA, right_BA = conditions_BA > 0, judge.attributes(pixels) == conditions_BA
    found = {name: float(right_BA[asked_BA[:, i], i].mean()) for i, name in enumerate(names) if asked_BA[:, i].any()}
    return found | ({"all": float(right_BA[asked_BA].mean())} if found else {})


def fd_house(features_a: Features, features_b: Features) -> float:
    """The house distance of two sets of features [B, F], two pictures each at least. Not FID: see above.

    It is smaller for larger sets, so only distances of sets of the same sizes can be compared.
    """
    if (
        features_a.ndim != 2
        or features_a.shape[1:] != features_b.shape[1:]
        or min(len(features_a), len(features_b)) < 2
    ):
        raise ValueError(f"two sets [B, F] of two or more are needed, not {features_a.shape} and {features_b.shape}")
    apart_F = features_a.mean(0) - features_b.mean(0)
    c_a, c_b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (features_a, features_b))
    root = _root(c_a)
    shared = np.linalg.eigvalsh(root @ c_b @ root).clip(min=0)  # symmetric, so its root's trace is the sum of roots
    return float(apart_F @ apart_F + np.trace(c_a) + np.trace(c_b) - 2 * np.sqrt(shared).sum())


def _root(matrix: Features) -> Features:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(matrix)
    root: Features = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def save_judge(path: Path, judge: PortraitJudge, bits: int = 8) -> None:
    """Write a judge, its weights as matrices of so many bits; see `rounded`."""
    plain = {name: weight.detach().float().cpu() for name, weight in judge.state_dict().items()}
    state = rounded.in_bits({name: w.flatten(1) if w.dim() > 1 else w for name, w in plain.items()}, bits)
    save_file(state, path, metadata={"widths": json.dumps(judge.widths), "style": judge.style})


def read_judge(path: Path, device: torch.device | str = "cpu") -> PortraitJudge:
    """The judge of a file of `save_judge`, in float32. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(f"{path.name} is not in {path.parent}; train it with python -m backend.train.portraits.judge.")
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        stored = rounded.from_bytes({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    judge = PortraitJudge(json.loads(metadata["widths"]), metadata.get("style", PIXEL)).to(device)
    judge.load_state_dict({name: stored[name].float().reshape(w.shape) for name, w in judge.state_dict().items()})
    return judge.eval()


def judge_of(style: str, folder: Path) -> PortraitJudge | None:
    """The judge of a style in a folder; None where it is not built."""
    path = folder / f"{judge_name(style)}.safetensors"
    return read_judge(path) if path.is_file() else None


def judge_name(style: str) -> str:
    """What the file of a style's judge is called."""
    return "portrait-judge" if style == PIXEL else f"{style}-judge"
