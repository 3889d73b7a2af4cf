"""The way from noise to codes: a flow that turns Gaussian noise into a token of a given law, without any chance.

Liu et al. 2024 (2412.17153), Distilled Decoding: of codes c_j with chances p_j, the flow of x_t = (1 - t) noise + t c
carries a standard normal vector at t = 0 to a code at t = 1, each as often as p says. So the token is a function of the
noise, and all tokens of a model together are one of all their noise, which another model can learn.

Letters: N tokens, V codes, D numbers of a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

END = 1e-3  # 1 - t where the flow stops; the nearest code is the token


def velocity(x_ND: Tensor, t: float, codes: Tensor, log_p_NV: Tensor) -> Tensor:
    """dx/dt [N, D] at time t < 1: (E[c | x_t = x] - x) / (1 - t).

    The code that x belongs to has the law w_j ~ p_j exp(-|x - t c_j|^2 / (2 (1 - t)^2)).

    Args:
        codes: [V, D] of all tokens, or [N, V, D] of each.
    """
    left = 1 - t
    near_NV = t * _products(x_ND, codes) - t * t / 2 * (codes**2).sum(dim=-1)  # |x|^2 is the same for every code
    w_NV = torch.softmax(log_p_NV + near_NV / left**2, dim=-1)
    mean_ND = w_NV @ codes if codes.dim() == 2 else torch.einsum("nv,nvd->nd", w_NV, codes)
    return (mean_ND - x_ND) / left


def carried(noise_ND: Tensor, codes: Tensor, p_NV: Tensor, steps: int = 50) -> Tensor:
    """The tokens [N] that standard normal noise is carried to, by Euler's method; never one of chance 0.

    Args:
        codes: as in `velocity`; the map is smoothest where they lie about as wide apart as the noise.
        steps: of the method. On five codes the law of the tokens is off by about 0.03 with 10 and 0.01 with 50.
    """
    log_p_NV = p_NV.log()
    x_ND, last = noise_ND.to(p_NV.dtype), 1 - END
    for i in range(steps):
        x_ND = x_ND + last / steps * velocity(x_ND, last * i / steps, codes, log_p_NV)
    far_NV = (codes**2).sum(dim=-1) - 2 * _products(x_ND, codes)
    return far_NV.masked_fill(p_NV <= 0, torch.inf).argmin(dim=-1)


def _products(x_ND: Tensor, codes: Tensor) -> Tensor:
    return x_ND @ codes.T if codes.dim() == 2 else torch.einsum("nd,nvd->nv", x_ND, codes)
