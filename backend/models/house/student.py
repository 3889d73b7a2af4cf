"""A student of the maps of pictures: what its teacher paints map by map, told in one call from the noise behind it.

The teacher is a `Scales`; a flow turns noise and the teacher's laws into tokens (`backend.flows`), so each picture of
the teacher is a function of noise. The student is the teacher's net with another input. Rows of known maps are the
teacher's. A row of a map that is not known reads what the teacher's row would read if the known maps were all, and the
noise of its cell; a vector of each layer tells such rows apart. They see conditions, coarser maps and themselves, not
their neighbours: given coarser maps, a token is a function of its own noise (Liu et al. 2024, 2412.17153, section 4).

Codes of a map are moved and scaled to mean 0 and variance 1 before the flow, where noise is as wide as they are.

Letters: A attributes, K maps, N cells of a map, L cells of all maps, V codes, D numbers of a code, B batch, T rows,
C features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from backend.codecs.pyramid import Pyramid, shipped
from backend.errors import UserError
from backend.flows import carried
from backend.models.house import rounded
from backend.models.house.layers import wide
from backend.models.house.scales import CHOICES, Map, ScaleCache, Scales, ScalesConfig, View, block_mask, views_of

DIMS = 3  # D: codes are colours, or differences of colours


class Student(Scales):
    """Weights of a student; those of its teacher have the teacher's names."""

    def __init__(self, config: ScalesConfig, pyramid: Pyramid) -> None:
        super().__init__(config, pyramid)
        assert config.kind != "flat", "maps that can be left out have no one way from noise"
        assert not config.markov, "a student of maps that see coarser ones"
        assert not config.adaln, "a student whose attributes have rows alone"
        self.noise_in, self.noise_out = nn.Linear(DIMS, config.dim), nn.Linear(config.dim, config.dim, bias=False)
        self.embed_noisy = nn.Parameter(torch.zeros(config.num_layers, config.dim))

    def told(self, conditions_BA: Tensor, noise_BLD: Tensor, known_BM: Tensor) -> Tensor:
        """Logits [B, L - M, V] of the slots behind the known ones, which fill the first maps; differentiable."""
        starts, numbers = self.pyramid.starts, range(len(self.pyramid.sizes))
        entry = starts.index(known_BM.shape[1])
        maps = self.totals(F.pad(known_BM, (0, starts[-1] - starts[entry])), range(entry + 1))
        sofar = maps.pop()[1]
        noisy: list[Map] = [(at, sofar) for at in numbers[entry:]]
        entered = [self._entry(at, total, len(conditions_BA)) for at, total in [*maps, *noisy]]
        for at in numbers[entry:]:
            entered[at] = entered[at] + self._noise(noise_BLD[:, starts[at] : starts[at + 1]])
        features_BTC = self._run(conditions_BA, entered, len(CHOICES) + starts[entry])
        spans = [slice(starts[at] - starts[entry], starts[at + 1] - starts[entry]) for at in numbers[entry:]]
        read = zip(numbers[entry:], spans, strict=True)
        return torch.cat([self.logits(features_BTC[:, span], at) for at, span in read], dim=1)

    def _noise(self, noise_BND: Tensor) -> Tensor:
        """What rows read of their noise."""
        read: Tensor = self.noise_out(F.gelu(self.noise_in(noise_BND.to(self.embed_start.dtype))))
        return read

    def _run(self, conditions_BA: Tensor, entered: Sequence[Tensor], first: int) -> Tensor:
        """Features of the rows from `first` on, which have noise, all others known."""
        counts, hidden = [rows.shape[1] for rows in entered], len(CHOICES)
        h_BTC = torch.cat([self._asked(conditions_BA), *entered], dim=1)
        turn_T1P = self._turned(range(len(entered)), hidden, wide(h_BTC.dtype)).to(h_BTC.device)
        views = noisy_views(hidden, counts, first, h_BTC.device)
        noisy_T1 = (torch.arange(h_BTC.shape[1], device=h_BTC.device) >= first)[:, None].to(h_BTC.dtype)
        for layer, block in enumerate(self.blocks):
            h_BTC = block(h_BTC + noisy_T1 * self.embed_noisy[layer], turn_T1P, views)
        features_BTC: Tensor = self.norm(h_BTC[:, first:])
        return features_BTC


class Alone(View):
    """Rows that look at columns and each at itself, not at each other."""

    def mixed(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> Tensor:
        """Attention of these rows."""
        q_BHND = q_BHTD[:, :, self.rows] * q_BHTD.shape[-1] ** -0.5
        k_BHMD, v_BHMD = (x[:, :, : len(self.columns)] for x in (k_BHSD, v_BHSD))
        own_BHN1 = (q_BHND * k_BHSD[:, :, self.rows]).sum(dim=-1, keepdim=True)
        heat = torch.cat((q_BHND @ k_BHMD.transpose(-1, -2), own_BHN1), dim=-1).softmax(-1)
        return heat[..., :-1] @ v_BHMD + heat[..., -1:] * v_BHSD[:, :, self.rows]


def noisy_views(hidden: int, counts: Sequence[int], first: int, device: torch.device) -> list[View]:
    """What rows see: those before `first` what the teacher's see, a map behind it all coarser ones and itself alone."""
    ends = [hidden + sum(counts[: i + 1]) for i in range(len(counts))]
    known = [count for count, end in zip(counts, ends, strict=True) if end <= first]
    views = views_of(block_mask(hidden, known, 0, markov=False).to(device), first)
    for count, end in zip(counts, ends, strict=True):
        if end > first:
            views.append(Alone(slice(end - count, end), torch.arange(end - count, device=device), None))
    return views


def taught(teacher: Scales) -> Student:
    """An untrained student that begins with its teacher's weights, and reads nothing of noise yet."""
    student = Student(teacher.config, teacher.pyramid).to(teacher.device)
    left = student.load_state_dict(teacher.state_dict(), strict=False)
    assert set(left.missing_keys) == {"noise_in.weight", "noise_in.bias", "noise_out.weight", "embed_noisy"}, left
    torch.nn.init.normal_(student.noise_in.weight, std=1.0)
    torch.nn.init.normal_(student.noise_in.bias, std=0.5)
    torch.nn.init.normal_(student.noise_out.weight, std=0.5 * student.config.dim**-0.5)
    return student.requires_grad_(True)


# -------------------------------------------------------------------------------------------------- the teacher's way
def space(pyramid: Pyramid) -> Tensor:
    """Codes [K, V, D] of every map as the flow sees them: mean 0, variance 1 over the numbers of a map."""
    codes_KVD = torch.from_numpy(pyramid.codes_KVD)
    centred_KVD = codes_KVD - codes_KVD.mean(dim=1, keepdim=True)
    return centred_KVD / centred_KVD.square().mean(dim=(1, 2), keepdim=True).sqrt()


@torch.no_grad()  # no inference mode: what it makes is trained on
def trajectory(
    teacher: Scales, conditions_BA: Tensor, noise_BLD: Tensor, guidance: float, top_k: int, steps: int
) -> Tensor:
    """Tokens [B, L] that the teacher paints from this noise, temperature 1; products in bfloat16.

    Args:
        guidance: of the last map, growing from 1 at the first, as in `backend.models.scales`.
        top_k: codes of a slot that the flow looks at, the most probable ones. steps: of the flow.
    """
    codes_KVD, starts = space(teacher.pyramid).to(noise_BLD.device), teacher.pyramid.starts
    asked_BA = torch.cat((conditions_BA, torch.zeros_like(conditions_BA)))
    total: Tensor | None = None
    cache, canvas = ScaleCache(), []
    for at in range(len(teacher.pyramid.sizes)):
        both = None if total is None else torch.cat((total, total))
        with torch.autocast(noise_BLD.device.type, torch.bfloat16):
            raw_BNV = teacher.logits(teacher.features(asked_BA, [(at, both)], cache)[-1], at)
        asked_BNV, open_BNV = raw_BNV.float().chunk(2)
        strength = 1 + (guidance - 1) * at / (len(starts) - 2)
        best = torch.lerp(open_BNV, asked_BNV, strength).topk(top_k, dim=-1)
        p_MK, ids_MK = best.values.softmax(-1).flatten(0, 1), best.indices.flatten(0, 1)
        noise_MD = noise_BLD[:, starts[at] : starts[at + 1]].flatten(0, 1)
        chosen_M = carried(noise_MD, codes_KVD[at][ids_MK], p_MK, steps)
        tokens_BN = ids_MK.gather(1, chosen_M[:, None]).view(len(conditions_BA), -1)
        grown = teacher.tables.enlarged(teacher.tables.codes_KVD[at][tokens_BN], at)
        total = grown if total is None or teacher.pyramid.replaces(at) else total + grown
        canvas.append(tokens_BN)
    return torch.cat(canvas, dim=1)


# ---------------------------------------------------------------------------------------------------------------- files
def read_student(path: Path, device: torch.device | str = "cpu") -> Student:
    """The model of a file of `save_scales`, in float32.

    Raises UserError if there is no such file, and if it was trained with codes that are not those that ship.
    """
    if not path.is_file():
        raise UserError(
            f"There is no {path.name} in {path.parent}; train it with python -m backend.train.portraits.student."
        )
    with safe_open(path, framework="pt", device=str(device)) as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    config = ScalesConfig(**json.loads(metadata["config"]))
    pyramid = shipped(config.kind)
    if metadata["pyramid"] != pyramid.fingerprint:
        raise UserError(
            f"{path.name} was trained with other codes than those of assets/portraits/pyramid.npz; "
            "train it again with python -m backend.train.portraits.student."
        )
    student = Student(config, pyramid).to(device)
    student.load_state_dict(rounded.from_bytes(state))
    return student.eval().requires_grad_(False)
