"""Judging numbers: the law of kept and corrected patches is the target's, as often as the closed forms say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backend import gaussian
from backend.chance import Seeded
from backend.protocols import EchoLaw, PatchLaw

SAMPLES = 20_000
LEFT = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
WIDE = torch.tensor([[0.8, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.2, 0.4, 0.9]], dtype=torch.float64)
NARROW = torch.tensor([[0.5, 0.0, 0.0], [-0.1, 0.6, 0.0], [0.1, 0.2, 0.7]], dtype=torch.float64)


def laws(mean_P: Tensor, tril_PP: Tensor, rows: int = SAMPLES) -> PatchLaw:
    """The same law in every row."""
    return PatchLaw(mean_P.expand(rows, -1), tril_PP.expand(rows, -1, -1))


def output(p: PatchLaw, q: PatchLaw, seed: int = 0) -> tuple[Tensor, Tensor]:
    """What one round of judging writes for every row, and which rows kept their draft."""
    chance = Seeded(seed)
    x_RP = gaussian.placed(q, chance.noise(q.mean_NP.shape))
    both = gaussian.stacked([p, p])
    counts, _, _ = gaussian.judge(both, gaussian.stacked([q]), x_RP[:, None], torch.zeros(len(x_RP), 2, 3), chance)
    kept_R = torch.tensor(counts) == 1
    out_RP = x_RP.clone()
    out_RP[~kept_R] = gaussian.correct(p[~kept_R], q[~kept_R], x_RP[~kept_R], chance)
    return out_RP, kept_R


def check_standard_normal(z_RD: Tensor) -> None:
    """Mean, covariance, fourth moment and distribution function of every coordinate, within 5 standard errors."""
    count = len(z_RD)
    error = 5 / math.sqrt(count)
    assert float(z_RD.mean(0).abs().max()) < error
    assert float((z_RD.T @ z_RD / count - torch.eye(z_RD.shape[1])).abs().max()) < error * math.sqrt(2)
    assert float((z_RD**4).mean(0).sub(3).abs().max()) < error * math.sqrt(96)
    at_R = torch.arange(1, count + 1, dtype=torch.float64) / count
    for z_R in z_RD.T:
        assert float((torch.special.ndtr(z_R.double().sort().values) - at_R).abs().max()) < 2.3 / math.sqrt(count)


# ------------------------------------------------------------------------------------------------------ parts of it
def test_placing_and_whitening_are_inverse_and_densities_agree_with_torch() -> None:
    law = laws(LEFT, WIDE, 50)
    z_RP = Seeded(1).noise((50, 3)).double()
    x_RP = gaussian.placed(law, z_RP)
    assert torch.allclose(gaussian.whitened(law, x_RP), z_RP)
    other = torch.distributions.MultivariateNormal(LEFT, scale_tril=WIDE)
    assert torch.allclose(gaussian.log_density(law, x_RP), other.log_prob(x_RP))


def echoes(seed: int, rows: int = 7) -> EchoLaw:
    draw = [Seeded(seed + i).noise((rows, 2, 5)).double() for i in range(2)]
    return EchoLaw(draw[0], draw[1].exp(), torch.tanh(draw[1][..., 0]))


def test_autoregressive_noise_is_a_law_like_any_other() -> None:
    p, q = echoes(1), echoes(9)
    dense_p, dense_q = (PatchLaw(law.mean_NP, law.tril_NPP) for law in (p, q))
    z_RKP = Seeded(4).noise((7, 2, 5)).double()
    x_RKP = gaussian.placed(q, z_RKP)
    assert torch.allclose(x_RKP, gaussian.placed(dense_q, z_RKP), atol=1e-12)
    assert torch.allclose(gaussian.whitened(q, x_RKP), z_RKP, atol=1e-9)
    assert torch.allclose(gaussian.log_ratio(p, q, x_RKP), gaussian.log_ratio(dense_p, dense_q, x_RKP), atol=1e-8)
    assert torch.allclose(gaussian.distance(p, q), gaussian.distance(dense_p, dense_q), atol=1e-9)
    both, dense = gaussian.stacked([p[:, 0], q[:, 1]]), gaussian.stacked([dense_p[:, 0], dense_q[:, 1]])
    assert isinstance(both, EchoLaw)
    assert torch.equal(both.tril_NPP, dense.tril_NPP)
    mixed = gaussian.replaced(p, torch.tensor([2, 5]), q[[2, 5]])
    assert torch.equal(mixed.tril_NPP[2], q.tril_NPP[2])
    assert torch.equal(mixed.tril_NPP[3], p.tril_NPP[3])


def test_autoregressive_noise_is_judged_as_its_factors_are() -> None:
    """The same numbers from the same chance: kept, thinned, reflected where the covariances are one, and at a point."""
    q = echoes(3, rows=400)
    laws_p = (
        EchoLaw(q.mean_NP + 0.2, 1.3 * q.scale_NP, 0.9 * q.rho_N),
        EchoLaw(q.mean_NP + 0.2, q.scale_NP, q.rho_N),
        EchoLaw(q.mean_NP, 0.0 * q.scale_NP, q.rho_N),
    )
    noise_RKP = Seeded(1).noise((400, 2, 5))
    x_RKP = gaussian.placed(q[:, :1], noise_RKP[:, :1])
    for p in laws_p:
        found = gaussian.judge(p, q[:, :1], x_RKP, noise_RKP, Seeded(5))
        dense = [PatchLaw(law.mean_NP, law.tril_NPP) for law in (p, q[:, :1])]
        known = gaussian.judge(*dense, x_RKP, noise_RKP, Seeded(5))
        assert found.counts == known.counts
        assert torch.allclose(found.last_RP, known.last_RP, atol=1e-8)


@pytest.mark.parametrize("shift", [0.2, 1.0, 2.5])
def test_acceptance_of_equal_covariances_is_the_bell_curve(shift: float) -> None:
    """2 Phi(-D / 2): measured, and equal to 1 - TV by quadrature in one dimension."""
    p, q = laws(LEFT + shift * WIDE[:, 0], WIDE), laws(LEFT, WIDE)
    distance = gaussian.distance(p, q)[:1]
    assert float(distance) == pytest.approx(shift)
    bell = float(gaussian.overlap(distance))
    grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    density = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    moved = torch.exp(-((grid - shift) ** 2) / 2) / math.sqrt(2 * math.pi)
    assert float(torch.trapezoid(torch.minimum(density, moved), grid)) == pytest.approx(bell, abs=1e-6)
    _, kept_R = output(p, q)
    assert float(kept_R.double().mean()) == pytest.approx(bell, abs=5 * math.sqrt(bell * (1 - bell) / SAMPLES))


def test_acceptance_of_unequal_spreads_is_one_minus_total_variation() -> None:
    grid = torch.linspace(-9, 9, 40_001, dtype=torch.float64)
    p_G = torch.exp(-(grid**2) / (2 * 0.49)) / (0.7 * math.sqrt(2 * math.pi))
    q_G = torch.exp(-((grid - 0.05) ** 2) / (2 * 0.04)) / (0.2 * math.sqrt(2 * math.pi))
    exact = float(torch.trapezoid(torch.minimum(p_G, q_G), grid))
    one = torch.ones(1, 1, dtype=torch.float64)
    p, q = laws(torch.zeros(1).double(), 0.7 * one), laws(torch.full((1,), 0.05).double(), 0.2 * one)
    chance = Seeded(3)
    x_RP = gaussian.placed(q, chance.noise((SAMPLES, 1)))
    counts = gaussian.accept_patches(gaussian.stacked([p, p]), gaussian.stacked([q]), x_RP[:, None], chance)
    assert sum(counts) / SAMPLES == pytest.approx(exact, abs=0.018)


# ---------------------------------------------------------------------------------------------------------- the law
@pytest.mark.parametrize(
    ("mean_P", "tril_PP"),
    [(LEFT + 0.4, WIDE), (LEFT + 0.4, NARROW), (LEFT, 0.3 * WIDE), (LEFT - 2.0, WIDE), (LEFT, 1.7 * WIDE)],
    ids=["reflected", "thinned", "narrow draft", "far draft", "wide draft"],
)
def test_law_is_exact(mean_P: Tensor, tril_PP: Tensor) -> None:
    p, q = laws(LEFT, WIDE), laws(mean_P, tril_PP)
    out_RP, kept_R = output(p, q)
    assert 0 < int(kept_R.sum()) < SAMPLES
    check_standard_normal(gaussian.whitened(p, out_RP))


def test_reflection_and_thinning_leave_the_same_law() -> None:
    """Corrected patches alone: both ways, compared coordinate by coordinate."""
    p, q = laws(LEFT, WIDE), laws(LEFT + 0.6, WIDE)
    chance = Seeded(5)
    x_RP = gaussian.placed(q, chance.noise((SAMPLES, 3)))
    counts = gaussian.accept_patches(gaussian.stacked([p, p]), gaussian.stacked([q]), x_RP[:, None], chance)
    no = torch.tensor(counts) == 0
    reflected = gaussian.correct(p[no], q[no], x_RP[no], chance)
    nearly = PatchLaw(q.mean_NP, q.tril_NPP * (1 + 1e-9))  # another covariance to the code, the same law
    thinned = gaussian.correct(p[no], nearly[no], x_RP[no], chance)
    count = len(reflected)
    assert (reflected.mean(0) - thinned.mean(0)).abs().max() < 6 * WIDE.norm() / math.sqrt(count)
    for a_R, b_R in zip(reflected.T, thinned.T, strict=True):
        _, tag = torch.cat((a_R, b_R)).sort()
        gap = torch.where(tag < count, 1.0 / count, -1.0 / count).cumsum(0).abs().max()
        assert float(gap) < 2.3 * math.sqrt(2 / count)


def test_drawing_from_the_target_after_a_rejection_would_be_seen() -> None:
    """The trap: p in place of what is left of p pulls the output towards q, and these checks find it."""
    p, q = laws(LEFT, WIDE), laws(LEFT + 0.4, NARROW)
    out_RP, kept_R = output(p, q)
    wrong_RP = torch.where(kept_R[:, None], out_RP, gaussian.placed(p, Seeded(9).noise((SAMPLES, 3))))
    with pytest.raises(AssertionError):
        check_standard_normal(gaussian.whitened(p, wrong_RP))


def test_leaving_out_the_constants_would_be_seen() -> None:
    """The other trap: without log s the rule keeps 99 % of a narrow draft, and the output is as narrow."""
    x_R = 0.2 * Seeded(2).noise((SAMPLES,)).double()
    without = (-(x_R**2) / (2 * 0.49) + x_R**2 / (2 * 0.04)).clamp_max(0).exp().mean()
    assert float(without) == pytest.approx(0.993, abs=0.01)


# ------------------------------------------------------------------------------------------------------------- edges
def test_an_equal_draft_is_always_kept_and_chains_stop_at_the_first_no() -> None:
    p = laws(LEFT, WIDE, 100)
    x_RP = gaussian.placed(p, Seeded(0).noise((100, 3)))
    three = gaussian.stacked([p, p, p])
    far = gaussian.stacked([p, laws(LEFT - 1e3, WIDE, 100)])
    draft = torch.stack((x_RP, x_RP), 1)
    assert gaussian.accept_patches(three, gaussian.stacked([p, p]), draft, Seeded(1)) == [2] * 100
    assert gaussian.accept_patches(three, far[:, [1, 0]], draft - 1e3, Seeded(1)) == [0] * 100
    assert gaussian.accept_patches(three, gaussian.stacked([p, p])[:, :0], draft[:, :0], Seeded(1)) == [0] * 100


def test_temperature_zero_writes_the_target_means() -> None:
    """Point masses: a draft stays only where it is the target's own patch, and the mean stands for any other."""
    none = torch.zeros_like(WIDE)
    p, q = laws(LEFT, none, 2), PatchLaw(torch.stack((LEFT, LEFT + 1)), none.expand(2, -1, -1))
    counts, last_RP, ratio_RK = gaussian.judge(
        gaussian.stacked([p, p]), gaussian.stacked([q]), q.mean_NP[:, None], torch.randn(2, 2, 3), Seeded(0)
    )
    assert counts == [1, 0]
    assert ratio_RK.tolist() == [[0.0], [-math.inf]]
    assert torch.equal(last_RP, p.mean_NP)
    _, other, _ = gaussian.judge(
        gaussian.stacked([p, p]), gaussian.stacked([laws(LEFT, WIDE, 2)]), LEFT.expand(2, 1, 3), torch.randn(2, 2, 3),
        Seeded(0),
    )  # fmt: skip
    assert torch.equal(other, p.mean_NP)


def test_thinning_ends_where_nothing_is_left_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "MOST_TRIES", 64)
    p = laws(LEFT, WIDE, 3)
    nearly = PatchLaw(p.mean_NP, p.tril_NPP * (1 + 1e-15))
    assert gaussian.correct(p, nearly, p.mean_NP, Seeded(0)).isfinite().all()


def test_far_values_are_judged_as_they_are() -> None:
    """No clamp in front of the ratio: at 1000 deviations the logarithm is the quadratic, and the draft is refused."""
    one_11 = torch.ones(1, 1, dtype=torch.float64)
    p, q = laws(torch.zeros(1).double(), one_11, 1), laws(torch.full((1,), 10.0).double(), 50 * one_11, 1)
    x_11 = torch.tensor([[1000.0]], dtype=torch.float64)
    exact = -0.5 * 1000.0**2 + 0.5 * (990.0 / 50) ** 2 + math.log(50)
    assert float(gaussian.log_ratio(p, q, x_11)) == pytest.approx(exact)
    both = gaussian.stacked([p, p])
    assert gaussian.accept_patches(both, gaussian.stacked([q]), x_11[:, None], Seeded(0)) == [0]
