"""Bounded nonlinear least squares for many starts, or many data sets, at once.

The Levenberg-Marquardt method with Marquardt's scaling (SIAM J. Appl. Math. 11, 1963), its steps projected onto the
box of bounds (Kanzow, Yamashita and Fukushima 2004). All problems of a batch take each step together, as arrays, so
that a thousand resampled data sets cost about as much as a hundred solved one after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STEPS = 300
_TOLERANCE = 1e-11
_COSINE = 1e-6
_ROUNDING = 1e-28
_FIRST_DAMPING = 1e-2
_LEAST_DAMPING, _MOST_DAMPING = 1e-14, 1e12
_ACCEPTED, _REFUSED = 0.2, 4.0
_SETTLED = 3
_AHEAD, _TRUSTED = 0.1, 0.75


class Model(Protocol):
    """Predicts the data of each problem of a batch."""

    def __call__(self, parameters: Array) -> tuple[Array, Array]:
        """Predictions [m, n] and their derivatives [m, n, k] for parameters [m, k]."""


def least_squares(
    model: Model, data: Array, start: Array, low: Array, high: Array, steps: int = STEPS
) -> tuple[Array, Array]:
    """Minimise the sum of squares of ``model(parameters) - data`` within bounds, for each problem of a batch.

    Args:
        model: predictions and derivatives for a batch of parameters.
        data: [n], the same for all problems, or [m, n].
        start: where each problem starts, [m, k]; brought within the bounds.
        low: lowest value of each parameter, [k].
        high: highest value, [k]; a parameter whose bounds are equal is fixed.
        steps: most steps that are taken.

    Returns:
        The parameters [m, k], and the sum of squares of each problem [m].
    """
    width = start.shape[1]
    found = np.clip(start, low, high)
    prediction, derivative = model(found)
    residual = prediction - data
    cost = np.einsum("mn,mn->m", residual, residual)
    damping = np.full(len(found), _FIRST_DAMPING)
    settled = np.zeros(len(found), int)
    targets = np.broadcast_to(data, residual.shape)
    identity = np.eye(width)
    for _ in range(steps):
        live = np.flatnonzero(settled < _SETTLED)
        if not live.size:
            break
        here = found[live]
        slope = np.einsum("mnk,mn->mk", derivative[live], residual[live])
        curvature = np.swapaxes(derivative[live], 1, 2) @ derivative[live]
        held: NDArray[np.bool_] = (
            np.asarray(low == high) | ((here <= low) & (slope > 0)) | ((here >= high) & (slope < 0))
        )
        free = ~held
        slope = np.where(free, slope, 0.0)
        curvature = np.where(free[:, :, None] & free[:, None, :], curvature, 0.0)
        diagonal = np.einsum("mkk->mk", curvature)
        scale = np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300)
        scale = np.where(free, scale, 1.0)
        system = curvature + identity * (damping[live, None] * scale + held)[:, :, None]
        step = np.linalg.solve(system, -slope[:, :, None])[:, :, 0]
        ahead = here + _AHEAD * step
        bent = np.where(((ahead >= low) & (ahead <= high)).all(axis=1, keepdims=True), step, 0.0)
        step += _acceleration(model, here, bent, residual[live] + targets[live], derivative[live], system, free)
        trial = np.clip(here + step, low, high)
        prediction, trial_derivative = model(trial)
        trial_residual = prediction - targets[live]
        trial_cost = np.einsum("mn,mn->m", trial_residual, trial_residual)
        better = trial_cost < cost[live]
        gain = cost[live] - trial_cost
        still = np.where(better, gain <= _TOLERANCE * cost[live], damping[live] >= _MOST_DAMPING)
        # At a minimum no derivative has a part in the direction of the residuals.
        cosine = np.abs(slope / np.sqrt(np.where(free, scale, 1.0))).max(axis=1) / np.sqrt(cost[live] + _ROUNDING)
        settled[live] = np.where(still, settled[live] + 1, np.where(better, 0, settled[live]))
        settled[live[(cosine <= _COSINE) | (cost[live] <= _ROUNDING)]] = _SETTLED
        damping[live] = np.clip(damping[live] * np.where(better, _ACCEPTED, _REFUSED), _LEAST_DAMPING, _MOST_DAMPING)
        moved = live[better]
        found[moved], cost[moved] = trial[better], trial_cost[better]
        residual[moved], derivative[moved] = trial_residual[better], trial_derivative[better]
    return found, cost


def _acceleration(  # noqa: PLR0917
    model: Model, here: Array, step: Array, prediction: Array, derivative: Array, system: Array, free: NDArray[np.bool_]
) -> Array:
    """Half the geodesic acceleration: what bends a step along a curved valley, where it is not too large to trust.

    Transtrum and Sethna 2012 (arXiv 1201.5885): the law's parameters trade off against each other along such valleys,
    which the plain method crosses in hundreds of small steps.
    """
    ahead, _ = model(here + _AHEAD * step)
    along = np.einsum("mnk,mk->mn", derivative, step)
    second = 2 / _AHEAD * ((ahead - prediction) / _AHEAD - along)
    slope = np.where(free, np.einsum("mnk,mn->mk", derivative, second), 0.0)
    bend = np.linalg.solve(system, -slope[:, :, None])[:, :, 0]
    trusted = 2 * np.linalg.norm(bend, axis=1) <= _TRUSTED * np.linalg.norm(step, axis=1)
    return np.where(trusted[:, None] & np.isfinite(bend), bend / 2, 0.0)
