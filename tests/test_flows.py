"""The flow from noise to codes: known answers in one dimension, laws in two, what it never does."""

from __future__ import annotations

import math

import pytest
import torch

from backend.flows import END, carried, velocity

CODES_VD = torch.tensor([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.1], [-0.9, -0.7], [0.2, 0.4]], dtype=torch.float64)
P_V = torch.tensor([0.35, 0.1, 0.25, 0.05, 0.25], dtype=torch.float64)
POINTS = 4096


def even_noise(dims: int, points: int = POINTS) -> torch.Tensor:
    """Standard normal vectors that are spread evenly: their histograms have next to no noise of their own."""
    u_ND = torch.quasirandom.SobolEngine(dims, scramble=True, seed=1).draw(points, dtype=torch.float64)
    return math.sqrt(2) * torch.erfinv((2 * u_ND - 1).clamp(-1 + 1e-12, 1 - 1e-12))


def distance(tokens_N: torch.Tensor, p_V: torch.Tensor) -> float:
    found_V = torch.bincount(tokens_N, minlength=len(p_V)) / len(tokens_N)
    return float((found_V - p_V).abs().sum()) / 2


def test_the_law_is_that_of_p_and_nearer_to_it_with_more_steps() -> None:
    noise_ND, p_NV = even_noise(2), P_V.expand(POINTS, -1)
    far = {steps: distance(carried(noise_ND, CODES_VD, p_NV, steps), P_V) for steps in (3, 10, 50, 200)}
    assert far[3] > far[10] > far[50] > far[200] - 1e-3
    assert far[10] < 0.06
    assert far[50] < 0.015
    assert far[200] < 0.006


def test_on_a_line_the_order_is_kept() -> None:
    """There the flow cannot cross itself, so a token is where the noise's share of the normal law falls among p."""
    codes_VD = torch.tensor([[-1.0], [-0.2], [0.3], [1.5]], dtype=torch.float64)
    p_V = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    noise_ND = even_noise(1)
    share_N = (1 + torch.erf(noise_ND[:, 0] / math.sqrt(2))) / 2
    wanted_N = torch.searchsorted(p_V.cumsum(0), share_N, right=True)
    got_N = carried(noise_ND, codes_VD, p_V.expand(POINTS, -1), 400)
    assert float((got_N != wanted_N).double().mean()) < 0.01


def test_the_velocity_in_closed_form() -> None:
    """At the start it leads to the mean of the codes, and of one code straight to it."""
    x_ND = even_noise(2, 8)
    mean_D = P_V @ CODES_VD
    torch.testing.assert_close(velocity(x_ND, 0.0, CODES_VD, P_V.log().expand(8, -1)), mean_D - x_ND)
    one_V = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    for t in (0.0, 0.5, 0.9):
        at_ND = (1 - t) * x_ND + t * CODES_VD[1]
        v_ND = velocity(at_ND, t, CODES_VD, one_V.log().expand(8, -1))
        torch.testing.assert_close(v_ND, CODES_VD[1] - x_ND)
    t, j = 0.3, 2
    w_V = torch.stack(
        [
            p * math.exp(-float(((x_ND[j] - t * c) ** 2).sum()) / (2 * 0.7**2))
            for p, c in zip(P_V, CODES_VD, strict=True)
        ]
    )
    wanted_D = ((w_V[:, None] * CODES_VD).sum(0) / w_V.sum() - x_ND[j]) / 0.7
    torch.testing.assert_close(velocity(x_ND, t, CODES_VD, P_V.log().expand(8, -1))[j], wanted_D)


def test_codes_may_differ_from_token_to_token() -> None:
    noise_ND, p_NV = even_noise(2, 64), P_V.expand(64, -1)
    order_NV = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(i)) for i in range(64)])
    plain_N = carried(noise_ND, CODES_VD, p_NV)
    got_N = carried(noise_ND, CODES_VD[order_NV], P_V[order_NV])
    assert torch.equal(order_NV.gather(1, got_N[:, None])[:, 0], plain_N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_of_chance_0_and_nothing_by_chance(dtype: torch.dtype) -> None:
    """Codes far apart and steps up to the very end: no overflow."""
    noise_ND, codes_VD = even_noise(2, 256).to(dtype), 30 * CODES_VD.to(dtype)
    p_V = torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0], dtype=dtype)
    tokens_N = carried(noise_ND, codes_VD, p_V.expand(256, -1), 300)
    assert set(tokens_N.tolist()) == {0, 2}
    assert distance(tokens_N, p_V.double()) < 0.05
    assert torch.equal(tokens_N, carried(noise_ND, codes_VD, p_V.expand(256, -1), 300))
    sure_V = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0], dtype=dtype)
    assert carried(noise_ND, codes_VD, sure_V.expand(256, -1), 1).tolist() == [3] * 256
    assert 0 < END < 0.01
