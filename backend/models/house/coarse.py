"""Pictures written twice: groups of alike colours pixel by pixel, then the colour of every cell within its group.

Two nets in one file. The painter is a `Raster` whose codes are groups. The refiner is a `Mural` that reads a group in
the place of a code: its embedding has a row for each of them behind the mask, so that a cell may be known by its code,
known by its group, or not at all. What it says about a cell is cut to the codes of the cell's group.

Groups are k-means over the palette in CIELAB, where distances are about those that people see.

Letters: A attributes, L slots of the canvas, V codes, M groups, D channels of a colour, B sequences of a call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.codecs.atlas import Ints
from backend.errors import UserError
from backend.models.house import rounded
from backend.models.house.llama import Llama, LlamaConfig
from backend.models.house.masked import Mural, config_of, mask_of
from backend.models.house.raster import Layout

ROUNDS = 100  # of k-means, which settles earlier
PARTS = ("painter", "refiner")
WHITE = (0.95047, 1.0, 1.08883)  # D65, which sRGB is seen under
TO_XYZ = (  # of linear sRGB, IEC 61966-2-1
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


# -------------------------------------------------------------------------------------------------------------- groups
def lab(colours_VD: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIELAB coordinates (CIE 15) of sRGB colours of 8 bits a channel, both [V, 3]."""
    x_VD = colours_VD.astype(np.float64) / 255
    linear_VD = np.where(x_VD <= 0.04045, x_VD / 12.92, ((x_VD + 0.055) / 1.055) ** 2.4)
    t_VD = linear_VD @ np.asarray(TO_XYZ).T / np.asarray(WHITE)
    low = 6 / 29
    f_VD = np.where(t_VD > low**3, np.cbrt(t_VD), t_VD / (3 * low**2) + 4 / 29)
    x_V, y_V, z_V = f_VD.T
    return np.stack([116 * y_V - 16, 500 * (x_V - y_V), 200 * (y_V - z_V)], axis=1)


def grouped(colours_VD: NDArray[np.uint8], count: int) -> Ints:
    """The group of every colour, [V] from 0 to `count` - 1, none empty: k-means in CIELAB, the same every time.

    The first centre is the colour nearest to the mean, each further one the colour farthest from all centres.
    """
    x_VD = lab(colours_VD)

    def far(centres_MD: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(((x_VD[:, None] - centres_MD[None]) ** 2).sum(axis=2))

    chosen = [int(far(x_VD.mean(axis=0, keepdims=True))[:, 0].argmin())]
    while len(chosen) < count:
        chosen.append(int(far(x_VD[chosen]).min(axis=1).argmax()))
    group_V = far(x_VD[chosen]).argmin(axis=1)
    for _ in range(ROUNDS):
        centres_MD = np.stack([x_VD[group_V == group].mean(axis=0) for group in range(count)])
        moved_V = far(centres_MD).argmin(axis=1)
        if len(np.unique(moved_V)) < count or (moved_V == group_V).all():
            break
        group_V = moved_V
    return np.asarray(group_V, dtype=np.int64)


def medoids(colours_VD: NDArray[np.uint8], group_V: Sequence[int]) -> tuple[int, ...]:
    """By group, the code whose colour is nearest to the group's mean in CIELAB."""
    x_VD, of_V, out = lab(colours_VD), np.asarray(group_V), []
    for group in range(max(group_V) + 1):
        members = np.flatnonzero(of_V == group)
        far = ((x_VD[members] - x_VD[members].mean(axis=0)) ** 2).sum(axis=1)
        out.append(int(members[far.argmin()]))
    return tuple(out)


# ---------------------------------------------------------------------------------------------------------------- nets
def painter_layout(layout: Layout, groups: int) -> Layout:
    """Of the same pictures written in groups."""
    return replace(layout, num_codes=groups)


def refiner_config(layout: Layout, groups: int, dim: int, num_layers: int, num_heads: int, ffn_dim: int) -> LlamaConfig:
    """Sizes of a refiner: those of a masked model with a row of embedding for every group."""
    masked = config_of(layout, dim, num_layers, num_heads, ffn_dim)
    return replace(masked, extra_inputs=masked.extra_inputs + groups)


def read_as(layout: Layout, groups_BL: Tensor, known_BL: Tensor) -> Tensor:
    """What a refiner reads in every cell: its code where it is known, else its group, else (-1 in both) the mask."""
    told_BL = torch.where(groups_BL < 0, mask_of(layout), mask_of(layout) + 1 + groups_BL)
    return torch.where(known_BL < 0, told_BL, known_BL)


def within(raw_BLV: Tensor, groups_BL: Tensor, group_V: Tensor) -> Tensor:
    """Logits cut to the codes of each cell's group, the others -inf. Cells without a group (-1) stay as they are."""
    other_BLV = (group_V != groups_BL[..., None]) & (groups_BL >= 0)[..., None]
    return raw_BLV.masked_fill(other_BLV, -torch.inf)


@dataclass(frozen=True)
class CoarseNets:
    """Both nets of a file, and by code its group."""

    painter: Llama
    refiner: Llama
    group_V: tuple[int, ...]

    @property
    def num_groups(self) -> int:
        """M."""
        return max(self.group_V) + 1

    @property
    def num_params(self) -> int:
        """Weights of both."""
        return self.painter.num_params + self.refiner.num_params


class Refiner(Mural):
    """A frozen refiner: logits of whole canvases whose cells are known by their codes or by their groups."""

    def __init__(self, llama: Llama, layout: Layout, group_V: Sequence[int]) -> None:
        super().__init__(llama, layout, more=max(group_V) + 1)
        self.group_V = torch.tensor(group_V, device=llama.device)

    @torch.inference_mode()
    def refined(self, conditions_BA: Tensor, groups_BL: Tensor, known_BL: Tensor) -> Tensor:
        """Logits [B, L, V] of every cell, not yet cut to its group. -1 where a group or a code is unknown."""
        return self.told(conditions_BA, read_as(self.layout, groups_BL, known_BL))


# ---------------------------------------------------------------------------------------------------------------- files
def save_coarse(path: Path, nets: CoarseNets) -> None:
    """Write both unpacked nets, their matrices in six bits; see `rounded`."""
    state: dict[str, Tensor] = {"group_V": torch.tensor(nets.group_V, dtype=torch.int32)}
    for part, net in zip(PARTS, (nets.painter, nets.refiner), strict=True):
        weights = {name: weight.detach().float().cpu() for name, weight in net.state_dict().items()}
        state |= {f"{part}.{name}": weight for name, weight in rounded.in_bits(weights, 6).items()}
    configs = {
        part: json.dumps(asdict(net.config)) for part, net in zip(PARTS, (nets.painter, nets.refiner), strict=True)
    }
    save_file(state, path, metadata=configs)


def read_coarse(path: Path, device: torch.device | str = "cpu") -> CoarseNets:
    """The nets of a file of `save_coarse`, float32 and not packed. Raises UserError if there is no such file."""
    if not path.is_file():
        raise UserError(
            f"There is no {path.name} in {path.parent}; train it with: python -m backend.train.portraits.coarse"
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    nets = []
    for part in PARTS:
        net = Llama(LlamaConfig(**json.loads(metadata[part]))).to(device)
        stored = {name.removeprefix(f"{part}."): w for name, w in state.items() if name.startswith(f"{part}.")}
        net.load_state_dict(rounded.from_bytes(stored))
        nets.append(net)
    return CoarseNets(nets[0], nets[1], tuple(state["group_V"].tolist()))
