"""The forecaster over patches: its laws, what its sessions remember, and that nothing looks ahead."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backend.codecs.series_scale import Scale
from backend.errors import UserError
from backend.meter import Meter
from backend.models.forecaster import ForecasterModel, PatchSession, load_forecaster
from backend.models.house.forecaster import (
    LEVELS,
    Forecaster,
    ForecasterConfig,
    Laws,
    read_forecaster,
    save_forecaster,
)
from backend.models.house.forecaster_rows import Frozen
from backend.protocols import BandSession, LookaheadSession, PathSession, Prompt, ReorderingPathSession
from backend.types import Sampling

P = 4
CONFIG = ForecasterConfig(P, 16, 2, 2, 24, context=48, reach=2)


def network(seed: int = 0, config: ForecasterConfig = CONFIG) -> Forecaster:
    torch.manual_seed(seed)
    model = Forecaster(config).double().eval()
    for weight in model.parameters():  # heads begin near 0, where mistakes would not show
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.25)
    return model


MODEL = ForecasterModel("test", Frozen(network(), torch.float64))


def series(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def opened(length: int = 18, temperature: float = 1.0, model: ForecasterModel = MODEL) -> PatchSession:
    scale = Scale(0.0, 1.0)
    extras = {"context": tuple(series(length).tolist()), "scale": scale, "season": 3, "series": None}
    session = model.open(PathSession, Prompt(extras=extras), Sampling(temperature=temperature), Meter(), 1)
    assert isinstance(session, PatchSession)
    return session


def patches(rows: int, count: int, seed: int = 1) -> Tensor:
    return series(rows * count * P, seed).view(rows, count, P)


def laws_of(model: Forecaster, values_T: Tensor) -> Laws:
    """The laws behind the last patch of a series, computed from the start by the training path."""
    front = -len(values_T) % P
    padded = torch.cat((torch.full((front,), math.nan, dtype=torch.float64), values_T))
    with torch.no_grad():
        # the training path computes its normed features in float32
        h_1NC, base_1N = model(padded.view(1, -1, P))
        return model.laws(h_1NC[:, -1].to(padded.dtype), base_1N[:, -1])


# ------------------------------------------------------------------------------------------------------------ the laws
def random_laws(seed: int) -> Laws:
    draw = [series(3 * P, seed + i).view(3, P) for i in range(2)]
    return Laws(draw[0], 0.5 * draw[1], torch.tanh(series(3, seed + 9)))


def normal(laws: Laws) -> torch.distributions.MultivariateNormal:
    law = laws.patch_law()
    return torch.distributions.MultivariateNormal(law.mean_NP, scale_tril=law.tril_NPP)


def test_the_density_is_that_of_the_patch_law() -> None:
    laws, x = random_laws(1), series(3 * P, 5).view(3, P)
    assert torch.allclose(-laws.negative_log_density(x).sum(-1), normal(laws).log_prob(x), atol=1e-9)


def test_values_that_are_missing_cost_nothing_and_outliers_cost_linearly() -> None:
    laws = Laws(torch.zeros(1, P), torch.zeros(1, P), torch.zeros(1))
    cost = laws.negative_log_density(torch.tensor([[0.0, math.nan, 20.0, 40.0]]), bound=5.0)[0]
    assert math.isnan(float(cost[1]))
    assert float(cost[3] - cost[2]) == pytest.approx(5 * 20)


def test_divergence_in_closed_form() -> None:
    p, q = random_laws(1), random_laws(20)
    assert torch.allclose(p.divergence(q), torch.distributions.kl_divergence(normal(p), normal(q)), atol=1e-9)
    assert torch.allclose(p.divergence(p), torch.zeros(3, dtype=torch.float64), atol=1e-12)


# ------------------------------------------------------------------------------------------------------ path sessions
@pytest.mark.parametrize("length", [3, 16, 18])
def test_a_session_agrees_with_the_network(length: int) -> None:
    session, model = opened(length), network()
    session.fork(2)
    x_2KP = patches(2, 2)
    near, far = session.look(x_2KP)
    for row in range(2):
        for k in range(3):
            told = torch.cat((series(length), x_2KP[row, :k].flatten()))
            law = laws_of(model, told).patch_law()
            assert torch.allclose(near[row, k].mean_NP, law.mean_NP[0, 0], atol=1e-5)
            assert torch.allclose(near[row, k].tril_NPP, law.tril_NPP[0, 0], atol=1e-5)
            assert torch.allclose(far[row, k].mean_NP, law.mean_NP[0, 1:], atol=1e-5)
    assert near.mean_NP.dtype == torch.float64


def test_no_law_looks_ahead() -> None:
    """Perturbing patch j leaves the laws in front of it as they were, to the last bit."""
    x_1KP = patches(1, 4)
    other_1KP = x_1KP.clone()
    other_1KP[0, 2] += 1.0
    found = []
    for draft_1KP in (x_1KP, other_1KP):
        session = opened()
        session.fork(1)
        found.append(session.score(draft_1KP))
    assert torch.equal(found[0].mean_NP[:, :3], found[1].mean_NP[:, :3])
    assert torch.equal(found[0].tril_NPP[:, :3], found[1].tril_NPP[:, :3])
    assert not torch.equal(found[0].mean_NP[:, 3:], found[1].mean_NP[:, 3:])


def test_ragged_paths_agree_with_single_ones() -> None:
    """Paths of different lengths, guesses that are kept in part, rows left out: as if each path were alone."""
    session, alone = opened(), [opened() for _ in range(3)]
    session.fork(3)
    for one in alone:
        one.fork(1)
    script = [
        ([0, 1, 2], [2, 0, 1], 2),
        ([0, 2], [1, 3], 3),
        ([0, 1, 2], [0, 3, 1], 3),
        ([1], [2], 2),
        ([2, 1], [1, 1], 1),
    ]
    for turn, (rows, counts, drafted) in enumerate(script):
        x_RKP = patches(len(rows), drafted, seed=10 + turn)
        law = session.score(x_RKP, rows)
        kept_RKP = torch.cat((x_RKP, patches(len(rows), 1, seed=50 + turn)), 1)
        kept_RKP[:, 0] += 0.25 * (turn == 1)  # a correction in place of the first guess
        session.commit(kept_RKP, counts, rows)
        for r, row in enumerate(rows):
            single = alone[row].score(x_RKP[r : r + 1])
            assert torch.allclose(law[r].mean_NP, single[0].mean_NP, atol=1e-9)
            assert torch.allclose(law[r].tril_NPP, single[0].tril_NPP, atol=1e-9)
            alone[row].commit(kept_RKP[r : r + 1], [counts[r]])
    assert list(session.lengths) == [alone[row].lengths[0] for row in range(3)]


def test_what_was_computed_is_not_computed_again() -> None:
    session = opened(16)
    session.fork(2)
    session.score()
    assert session._meter.rows == 4  # the context once, for both paths
    x_2KP = patches(2, 3)
    session.score(x_2KP[:, :1])
    session.score(x_2KP)
    assert session._meter.rows == 4 + 2 + 4
    session.commit(x_2KP, [3, 3])
    session.score()
    assert session._meter.rows == 4 + 2 + 4
    assert session._meter.calls == 4


def test_many_patches_outgrow_the_first_cache() -> None:
    session, model = opened(), network()
    session.fork(1)
    x_1KP = patches(1, 40)
    law = session.score(x_1KP)
    want = laws_of(model, torch.cat((series(18), x_1KP.flatten()))).patch_law()
    assert torch.allclose(law[0, 40].mean_NP, want.mean_NP[0, 0], atol=1e-5)


def test_temperature_scales_the_factor() -> None:
    hot, cold = opened(temperature=1.0), opened(temperature=0.0)
    for session in (hot, cold):
        session.fork(1)
    assert torch.equal(hot.score().mean_NP, cold.score().mean_NP)
    assert not cold.score().tril_NPP.any()


def test_paths_can_be_copied_over_one_another() -> None:
    session, one = opened(), opened()
    session.fork(3)
    one.fork(1)
    x_3KP = patches(3, 2)
    session.score(x_3KP)
    session.commit(x_3KP, [2, 2, 2])
    session.keep([1, 1, 0])
    one.commit(x_3KP[1:2], [2])
    law = session.score()
    assert torch.equal(law[0].mean_NP, law[1].mean_NP)
    assert torch.allclose(law[0].mean_NP, one.score()[0].mean_NP, atol=1e-9)


def test_numbers_that_are_none_are_refused() -> None:
    broken = network()
    torch.nn.init.constant_(broken.norm.weight, math.nan)
    session = opened(model=ForecasterModel("test", Frozen(broken, torch.float64)))
    session.fork(1)
    with pytest.raises(UserError, match="no forecast"):
        session.score()


# ---------------------------------------------------------------------------------------------------------------- bands
def test_bands_are_quantiles_of_every_head() -> None:
    session = opened(18)
    assert session.sizes == [P, 2 * P, 4 * P, 8 * P]
    for size in session.sizes:
        band_1QH = session.predict(size)
        assert band_1QH.shape == (1, len(LEVELS), size)
        assert bool((band_1QH.diff(dim=1) > 0).all())


def test_a_future_is_read_like_the_past() -> None:
    longer = torch.cat((series(18), patches(1, 2).flatten()))
    extras = {"context": tuple(longer.tolist()), "scale": Scale(0.0, 1.0), "season": 3, "series": None}
    whole = MODEL.open(BandSession, Prompt(extras=extras), Sampling(), Meter(), 1)
    futures_RH = torch.stack((patches(1, 2).flatten(), series(2 * P, 7)))
    found = opened(18).predict(P, futures_RH)
    assert torch.allclose(found[0], whole.predict(P)[0], atol=1e-9)
    assert not torch.allclose(found[0], found[1])


# ------------------------------------------------------------------------------------------------------------ the files
def test_files_come_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = network().float()
    save_forecaster(tmp_path / "a.safetensors", model)
    again = read_forecaster(tmp_path / "a.safetensors")
    assert again.config == CONFIG
    x = series(24).float().view(1, 6, P)
    with torch.no_grad():
        assert torch.allclose(model(x)[0], again(x)[0], atol=0.1)
    loaded = load_forecaster("test", tmp_path / "a.safetensors", "cpu")
    assert {PathSession, LookaheadSession, BandSession, ReorderingPathSession} == loaded.speaks
    with pytest.raises(UserError, match="There is no forecaster"):
        read_forecaster(tmp_path / "b.safetensors")


def test_a_drafter_speaks_of_paths_only() -> None:
    draft = ForecasterModel("draft", Frozen(network(config=ForecasterConfig(P, 16, 1, 2, 24, reach=0, sizes=()))))
    assert draft.speaks == {PathSession, ReorderingPathSession}
    session = opened(model=draft)
    session.fork(2)
    assert session.score(patches(2, 1)).mean_NP.shape == (2, 2, P)
