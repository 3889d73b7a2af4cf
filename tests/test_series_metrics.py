"""Measures of forecasts against hand values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.series import metrics

PAST = np.array([1.0, 2.0, 3.0, 5.0, 4.0, 7.0])
TRUTH = np.array([2.0, np.nan, 8.0])


def test_mase_by_hand() -> None:
    assert metrics.seasonal_error(PAST, 2) == (2 + 3 + 1 + 2) / 4
    assert metrics.mase(TRUTH, np.array([3.0, 9.0, 5.0]), PAST, 2) == (1 + 3) / 2 / 2.0
    assert metrics.mase(TRUTH, TRUTH, PAST, 6) is None  # shorter than a season
    assert metrics.mase(TRUTH, TRUTH, np.ones(9), 2) is None  # nothing to scale by


def test_pinball_by_hand() -> None:
    loss_QH = metrics.pinball(np.array([1.0, 4.0]), np.array([[2.0, 2.0], [2.0, 2.0]]), (0.1, 0.5))
    assert loss_QH == pytest.approx(np.array([[2 * 1 * 0.9, 2 * 2 * 0.1], [1.0, 2.0]]))


def test_wql_by_hand_weighs_all_series_together() -> None:
    truths = [np.array([1.0, 3.0]), np.array([6.0])]
    quantiles = [np.array([[1.0, 1.0], [2.0, 3.0]]), np.array([[4.0], [6.0]])]
    low = (0 + 2 * 2 * 0.1 + 2 * 2 * 0.1) / 3  # level 0.1
    middle = (1 + 0 + 0) / 3  # level 0.5
    assert metrics.wql(truths, quantiles, (0.1, 0.5)) == pytest.approx((low + middle) / 2 / (10 / 3))
    with pytest.raises(ValueError, match="all 0"):
        metrics.wql([np.zeros(2)], [np.zeros((1, 2))], (0.5,))


def test_smape_and_coverage_by_hand() -> None:
    assert metrics.smape(np.array([1.0, 0.0, np.nan]), np.array([3.0, 0.0, 1.0])) == pytest.approx(2 * 2 / 4 / 2)
    assert metrics.coverage(TRUTH, np.array([0.0, 0.0, 0.0]), np.array([2.0, 9.0, 7.0])) == 0.5


def test_crps_of_samples_is_the_sum_over_all_pairs() -> None:
    x_S, y = np.random.default_rng(0).normal(size=40), 0.3
    pairs = np.abs(x_S[:, None] - x_S[None]).mean()
    assert float(metrics.crps(y, x_S)) == pytest.approx(np.abs(x_S - y).mean() - pairs / 2)


@pytest.mark.parametrize("y", [-1.0, 0.0, 2.0])
def test_crps_of_many_normal_samples_is_the_closed_form(y: float) -> None:
    """sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), Gneiting and Raftery 2007."""
    x_S = 1.5 * np.random.default_rng(1).normal(size=100_000)
    z = y / 1.5
    phi = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    exact = 1.5 * (z * math.erf(z / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi))
    assert float(metrics.crps(y, x_S)) == pytest.approx(exact, abs=1e-2)


def test_crps_is_about_the_mean_pinball_of_many_levels() -> None:
    x_S, levels = np.random.default_rng(2).normal(size=20_000), np.arange(0.005, 1, 0.01)
    loss = metrics.pinball(np.array([0.7]), np.quantile(x_S, levels)[:, None], levels.tolist()).mean()
    assert float(metrics.crps(0.7, x_S)) == pytest.approx(loss, abs=2e-3)


def test_joint_scores_tell_coherent_paths_from_shuffled_ones() -> None:
    """Same marginals, other sums: only CRPS of the sum and the energy score see it."""
    stream = np.random.default_rng(3)
    walks = stream.normal(size=(330, 12)).cumsum(axis=1)
    truths, paths = walks[:30], walks[30:]
    mixed = np.stack([stream.permutation(column) for column in paths.T], axis=1)
    good = [metrics.score(y, paths, (), np.arange(5.0), 1) for y in truths]
    bad = [metrics.score(y, mixed, (), np.arange(5.0), 1) for y in truths]
    assert [a.wql for a in good] == pytest.approx([b.wql for b in bad])
    assert np.mean([a.crps_of_sum for a in good]) < 0.9 * np.mean([b.crps_of_sum for b in bad])  # type: ignore[arg-type]


def test_energy_of_one_step_is_crps_and_gaps_leave_joint_scores_undefined() -> None:
    x_S1 = np.random.default_rng(4).normal(size=(30, 1))
    assert metrics.energy(np.array([0.2]), x_S1) == pytest.approx(float(metrics.crps(0.2, x_S1[:, 0])))
    assert metrics.crps_of_sum(TRUTH, np.zeros((4, 3))) is None
    assert metrics.energy(TRUTH, np.zeros((4, 3))) is None


def test_ranks_of_a_calibrated_forecast_are_uniform() -> None:
    stream = np.random.default_rng(5)
    shares = metrics.ranks(stream.normal(size=2_000), stream.normal(size=(99, 2_000)))
    assert np.histogram(shares, 10, (0, 1))[0] == pytest.approx(np.full(10, 200), abs=60)
    assert np.isnan(metrics.ranks(TRUTH, np.zeros((4, 3)))[1])


def test_scores_of_quantiles_have_no_joint_ones() -> None:
    levels = (0.1, 0.5, 0.9)
    got = metrics.score(TRUTH, np.array([[1.0] * 3, [2.0] * 3, [7.0] * 3]), levels, PAST, 2)
    assert (got.mase, got.coverage80, got.crps_of_sum, got.energy) == (1.5, 0.5, None, None)
    with pytest.raises(ValueError, match=r"0\.1 is not in"):
        metrics.score(TRUTH, np.zeros((1, 3)), (0.5,), PAST, 2)


def test_skill() -> None:
    assert metrics.skill([1.0, 4.0], [2.0, 2.0]) == pytest.approx(0.0)
    assert metrics.skill([1e9], [1.0]) == pytest.approx(1 - 100)  # cut, as one broken series must not decide
