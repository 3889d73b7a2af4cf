"""A linear autoregression that is fitted to each series when its session opens: no weights are stored.

Triebe et al. 2019 (1911.12436), AR-Net: mean squared error plus strength * mean_i R(w_i) with
R(w) = 2 / (1 + exp(-c |w|^(1/c))) - 1, which presses small weights to 0 and leaves large ones nearly alone. R is
concave in |w|, so its tangents bound it: every round solves a weighted lasso in closed steps (alternating directions on
one factorised matrix), with the strength ramped up over the first half of the rounds. Nothing is random.

Shape letters: T context, n rows of the regression, p lags, A steps at once, S paths, R rows, K drafted patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.classical import LEAST_SIGMA
from backend.codecs.forecast import SeriesCodec
from backend.errors import UserError
from backend.meter import Meter
from backend.protocols import Lags, LagsSession, PatchLaw, PathSession, Prompt
from backend.types import Sampling
from backend.unrolling import filled

CONTEXT = 1024  # most values that are fitted to
USUAL_LAGS, USUAL_SHARE = 24, 0.1
STRENGTH, CURVE = 0.02, 3.0  # of the penalty: its factor and c
ROUNDS, TURNS = 10, 40  # tangents, and steps of alternating directions in each
RIDGE = 1e-6  # of the mean variance of the lags


def fit_lags(y_T: Tensor, lags: int, share: float, ahead: int = 1) -> Lags:
    """Fit p lags to a series, NaN where a value is missing. See `LagsSession.fit`."""
    plain_T = filled(y_T[None])
    if len(plain_T) < 2 * lags + ahead + 1:
        raise UserError(
            f"A fit of {lags} lags and {ahead} steps at once needs {2 * lags + ahead + 1} values, but the series has "
            f"{len(plain_T)}; take fewer lags."
        )
    windows_nL = plain_T.unfold(0, lags + ahead, 1)
    seen_n = torch.isfinite(y_T.double()).unfold(0, lags + ahead, 1)[:, lags:].all(1)
    windows_nL = windows_nL[seen_n] if int(seen_n.sum()) > lags + 1 else windows_nL  # else filled gaps count as seen
    past_np, goal_nA = windows_nL[:, :lags].flip(1), windows_nL[:, lags:]
    past_p, goal_A = past_np.mean(0), goal_nA.mean(0)
    x_np, g_nA = past_np - past_p, goal_nA - goal_A
    q_pp, c_pA = x_np.T @ x_np / len(x_np), x_np.T @ g_nA / len(x_np)
    q_pp = q_pp + RIDGE * q_pp.diagonal().mean().clamp_min(1e-12) * torch.eye(lags, dtype=q_pp.dtype)
    weights_pA = torch.linalg.solve(q_pp, c_pA)
    if share < 1.0:
        weights_pA = _sparse(q_pp, c_pA, weights_pA, g_nA - x_np @ weights_pA, share)
    rest_nA = g_nA - x_np @ weights_pA
    return Lags(weights_pA.T.contiguous(), goal_A - past_p @ weights_pA, _factor(rest_nA, weights_pA))


def penalty_slope(weights: Tensor) -> Tensor:
    """R'(|w|); large where a weight is next to 0."""
    root = weights.abs().clamp_min(1e-9) ** (1 / CURVE)
    return 0.5 / root ** (CURVE - 1) / (CURVE * root / 2).cosh() ** 2


def _sparse(q_pp: Tensor, c_pA: Tensor, start_pA: Tensor, rest_nA: Tensor, share: float) -> Tensor:
    """Weights that minimise error + penalty, from those of least squares. Errors are counted in their own variance."""
    noise_A = rest_nA.square().mean(0).clamp_min(1e-12)
    strength_A = STRENGTH * (1 / share - 1) * noise_A / len(q_pp) / 2
    rho = q_pp.diagonal().mean()
    inverse_pp = torch.linalg.inv(q_pp + rho * torch.eye(len(q_pp), dtype=q_pp.dtype))
    weights_pA, dual_pA = start_pA, torch.zeros_like(start_pA)
    for k in range(1, ROUNDS + 1):
        press_pA = min(1.0, 2 * k / ROUNDS) ** 2 * strength_A * penalty_slope(weights_pA)
        for _ in range(TURNS):
            smooth_pA = inverse_pp @ (c_pA + rho * (weights_pA - dual_pA))
            moved_pA = smooth_pA + dual_pA
            weights_pA = moved_pA.sign() * (moved_pA.abs() - press_pA / rho).clamp_min(0.0)
            dual_pA = moved_pA - weights_pA
    return _settled(q_pp, c_pA, weights_pA, press_pA)


def _settled(q_pp: Tensor, c_pA: Tensor, weights_pA: Tensor, press_pA: Tensor) -> Tensor:
    """The stationary point of the last round on the lags that are left, without what the steps have not reached."""
    out_pA = torch.zeros_like(weights_pA)
    for a in range(weights_pA.shape[1]):
        on = weights_pA[:, a].nonzero()[:, 0]
        goal = c_pA[on, a] - press_pA[on, a] * weights_pA[on, a].sign()
        out_pA[on, a] = torch.linalg.solve(q_pp[on[:, None], on], goal)
    return out_pA


def _factor(rest_nA: Tensor, weights_pA: Tensor) -> Tensor:
    """Cholesky factor of the residuals' covariance; pulled to its diagonal where it has few rows for its size."""
    rows, ahead = rest_nA.shape
    free = max(rows - 1 - float((weights_pA != 0).sum(0).double().mean()), rows / 4)
    cover_AA = rest_nA.T @ rest_nA / free
    pull = ahead / (ahead + rows) if ahead > 1 else 0.0
    own_A = cover_AA.diagonal().clamp_min(LEAST_SIGMA**2)
    pulled_AA = (1 - pull) * cover_AA + torch.diag(own_A - (1 - pull) * cover_AA.diagonal())
    tril_AA: Tensor = torch.linalg.cholesky(pulled_AA)
    return tril_AA


class SeriesLags:
    """A `LagsSession`: one fit of the observed series, and paths behind it."""

    def __init__(self, prompt: Prompt, sampling: Sampling, meter: Meter) -> None:
        self.series_CT = torch.tensor([prompt.extras["context"]], dtype=torch.float64)
        self.season: int = prompt.extras["season"]
        self.lengths: list[int] = []
        self._temperature, self._meter = sampling.temperature, meter
        self._written_ST = torch.empty(0, 0)
        self.fitted = self.fit(0, USUAL_SHARE)

    @property
    def patch(self) -> int:
        """P: steps that the fitted maps give at once."""
        return len(self.fitted.constant_A)

    def fit(self, lags: int, share: float, ahead: int = 1) -> Lags:
        """See `LagsSession.fit`. 0 lags: one more than a season and 24 at least, a third of a short series at most."""
        assert not self.lengths, "fitted after the fork"
        lags = lags or max(1, min(max(USUAL_LAGS, self.season + 1), (self.series_CT.shape[1] - ahead) // 3))
        with self._meter.part("fit").call(1):
            self.fitted = fit_lags(self.series_CT[0], lags, share, ahead)
        return self.fitted

    def fork(self, paths: int) -> None:
        """See `PathSession.fork`."""
        assert not self.lengths, "forked twice"
        self.lengths = [0] * paths
        reach = self.fitted.weights_Ap.shape[1]
        self._written_ST = filled(self.series_CT)[-reach:].expand(paths, -1)

    def score(self, draft_RKP: Tensor | None = None, rows: Sequence[int] | None = None) -> PatchLaw:
        """See `PathSession.score`."""
        rows = range(len(self.lengths)) if rows is None else rows
        lags, patch = self.fitted.weights_Ap.shape[1], self.patch
        ends_R = torch.tensor([lags + self.lengths[row] * patch for row in rows])
        tails_RT = self._written_ST[torch.tensor(rows)[:, None], ends_R[:, None] - lags + torch.arange(lags)]
        if draft_RKP is not None:
            tails_RT = torch.cat((tails_RT, draft_RKP.detach().cpu().double().flatten(1)), 1)
        with self._meter.call(len(tails_RT) * (1 + (tails_RT.shape[1] - lags) // patch)):
            past_RKp = tails_RT.unfold(1, lags, patch).flip(2)
            mean_RKP = past_RKp @ self.fitted.weights_Ap.T + self.fitted.constant_A
            tril_PP = self.fitted.tril_AA * self._temperature
        return PatchLaw(mean_RKP, tril_PP.expand(*mean_RKP.shape, -1))

    def commit(self, patches_RKP: Tensor, counts: Sequence[int], rows: Sequence[int] | None = None) -> None:
        """See `PathSession.commit`."""
        rows = range(len(self.lengths)) if rows is None else rows
        lags, patch = self.fitted.weights_Ap.shape[1], self.patch
        values_RT = patches_RKP.detach().cpu().double().flatten(1)
        need = lags + patch * max(self.lengths[row] + count for row, count in zip(rows, counts, strict=True))
        if need > self._written_ST.shape[1]:
            more = max(need, 2 * self._written_ST.shape[1]) - self._written_ST.shape[1]
            self._written_ST = torch.nn.functional.pad(self._written_ST, (0, more))
        for r, (row, count) in enumerate(zip(rows, counts, strict=True)):
            start = lags + self.lengths[row] * patch
            self._written_ST[row, start : start + count * patch] = values_RT[r, : count * patch]
            self.lengths[row] += count


class LagsModel:
    """The model without weights: every session fits its own."""

    speaks: frozenset[type] = frozenset({PathSession, LagsSession})

    def __init__(self, model_id: str) -> None:
        self.id = model_id
        self.codec = SeriesCodec(CONTEXT, bent=False)
        self.num_params = 0
        self.context = 1 << 20  # steps that can be written; only the fit looks back

    def open(self, protocol: type, prompt: Prompt, sampling: Sampling, meter: Meter, room: int) -> SeriesLags:
        """A session, fitted to the prompt's series. Raises UserError where it is too short."""
        assert protocol in self.speaks, protocol
        return SeriesLags(prompt, sampling, meter)
