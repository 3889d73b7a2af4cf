"""House models of pictures: what loads which, variants that share their weights, usual targets and partners."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from backend.entries import (
    COARSE,
    EAGLE,
    PAINTERS,
    PORTRAITS,
    SCALES,
    STUDENT,
    VERIFIER,
    WEAK,
    builds,
)
from backend.errors import UserError
from backend.protocols import CoarseSession, DistilledSession, Model

REFINED = re.compile(r"@refine=([0-9]{1,3}(?:\.[0-9]{1,4})?)$", re.ASCII)
GUIDANCE = re.compile(
    r"@cfg=([0-9]{1,3}(?:\.[0-9]{1,4})?)(?:-(constant|linear|cosine))?(?:-first([0-9]{1,2}))?$", re.ASCII
)
PAINTER = "house/portraits"
OURS = frozenset({*PORTRAITS, *PAINTERS, *SCALES, VERIFIER, EAGLE})
TARGETS: dict[type, str] = {DistilledSession: STUDENT, CoarseSession: COARSE}  # the model to use where none is named


@dataclass(frozen=True)
class Shelf:
    """Where weights are, how they are run, and how to get a model that another one shares weights with."""

    folder: Path
    dtype: torch.dtype
    device: torch.device
    get: Callable[[str], Model]

    def weights(self, model_id: str) -> Path:
        """The file of a model. Raises UserError where there is none."""
        path = self.folder / f"{model_id}.safetensors"
        if not path.exists():
            raise UserError(f"{model_id} is not in assets/house; build it with: {builds(model_id)}")
        return path


def load(model_id: str, shelf: Shelf) -> Model:
    """One of OURS. Raises UserError where its weights are not there."""
    path = shelf.folder / f"{model_id}.safetensors"
    if model_id == WEAK:
        return _load_weak(shelf)
    if model_id in PORTRAITS:
        return _load_raster(model_id, shelf)
    if model_id == EAGLE:
        return _load_eagle(shelf)
    if model_id in PAINTERS and PAINTERS[model_id][1] == "grid":
        return _load_masked(model_id, shelf)
    if model_id == VERIFIER:
        return _load_verifier(shelf)
    if model_id == STUDENT:
        from backend.models.student import load_student

        return load_student(STUDENT, path, shelf.dtype, shelf.device)
    if model_id == COARSE:
        from backend.models.coarse import load_coarse

        return load_coarse(COARSE, path, shelf.dtype, shelf.device)
    from backend.models.scales import load_scales

    return load_scales(model_id, path, shelf.dtype, shelf.device)


def _load_raster(model_id: str, shelf: Shelf) -> Model:
    from backend.codecs.of_models import codec_of_model
    from backend.models.house.llama import Llama
    from backend.models.house.own import load_own
    from backend.models.house.raster import Layout, Raster
    from backend.models.raster import RasterModel

    llama, codec = load_own(shelf.weights(model_id), shelf.dtype, shelf.device), codec_of_model(model_id)
    assert isinstance(llama, Llama)
    return RasterModel(model_id, Raster(llama, Layout.of(codec)), codec, llama.num_params)


def _load_masked(model_id: str, shelf: Shelf) -> Model:
    from backend.codecs.of_models import codec_of_model
    from backend.models.house.llama import Llama
    from backend.models.house.masked import Mural
    from backend.models.house.own import load_own
    from backend.models.house.raster import Layout
    from backend.models.masked import MaskedModel

    llama, codec = load_own(shelf.weights(model_id), shelf.dtype, shelf.device), codec_of_model(model_id)
    assert isinstance(llama, Llama)
    return MaskedModel(model_id, Mural(llama, Layout.of(codec)), codec, llama.num_params)


def _load_weak(shelf: Shelf) -> Model:
    from backend.models.house.reflected import read_reflection
    from backend.models.raster import RasterModel, reflected

    path = shelf.weights(WEAK)
    painter = shelf.get(PAINTER)
    assert isinstance(painter, RasterModel)
    return reflected(painter, read_reflection(path, shelf.device), WEAK)


def _load_eagle(shelf: Shelf) -> Model:
    from backend.models.raster import RasterModel
    from backend.models.raster_heads import load_painter_heads

    path = shelf.weights(EAGLE)
    painter = shelf.get(PAINTER)
    assert isinstance(painter, RasterModel)
    return load_painter_heads(EAGLE, path, painter, shelf.dtype, shelf.device)


def _load_verifier(shelf: Shelf) -> Model:
    from backend.codecs.of_models import codec_of_model
    from backend.models.verifier import load_verifier

    return load_verifier(VERIFIER, shelf.weights(VERIFIER), codec_of_model(VERIFIER), shelf.device)


def load_refined(model_id: str, base: str, shelf: Shelf) -> Model:
    """A painter with a net that stands for its guidance, beside true guidance. Raises UserError."""
    from backend.models.raster import RasterModel, refined

    omega = REFINED.search(model_id)
    if omega is None:
        raise UserError(f"{model_id!r} names no strength; write, for example, {WEAK}@refine=1.5.")
    whole = shelf.get(base)
    if not isinstance(whole, RasterModel):
        raise UserError(f"{base} has no net that stands for guidance; refine {WEAK}.")
    return refined(whole, float(omega.group(1)))


def load_guided(model_id: str, base: str, shelf: Shelf) -> Model:
    """A model of pictures under guidance. Raises UserError."""
    from backend.models import coarse, masked, raster, scales
    from backend.models.guided import Schedule

    whole, told = shelf.get(base), GUIDANCE.search(model_id)
    known = raster.RasterModel | masked.MaskedModel | scales.ScaleModel | coarse.CoarseModel
    if not isinstance(whole, known):
        raise UserError(f"{base} has no conditions to be guided by; guidance is for models of portraits.")
    if told is None:
        raise UserError(
            f"{model_id!r} names no scale of guidance; write, for example, {base}@cfg=3, with -constant, -linear or "
            "-cosine behind it and, for models of maps, how many of them are guided, such as -first6."
        )
    strength, schedule, first = float(told[1]), cast(Schedule | None, told[2]), int(told[3]) if told[3] else None
    if isinstance(whole, scales.ScaleModel):
        return scales.guided(whole, strength, schedule, first)
    if first is not None:
        raise UserError(f"{base} does not paint maps, so that no first {first} can be guided; write {base}@cfg=3.")
    if isinstance(whole, raster.RasterModel):
        return raster.guided(whole, strength, schedule)
    if schedule not in (None, "constant"):
        raise UserError(f"Guidance of {base} is the same all over a picture; write {base}@cfg=3.")
    return masked.guided(whole, strength) if isinstance(whole, masked.MaskedModel) else coarse.guided(whole, strength)
