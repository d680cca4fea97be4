"""The least-squares problem of fitting the law to measured curves: its parameters, bounds, starts and solutions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from dqe_assets.scaling.law import accumulated, effective_samples, epochs_begun, positive
from dqe_assets.scaling.least_squares import least_squares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.scaling.law import Array

Law = Literal["utility", "data"]

MOST_FITTED_EPOCHS = 10_000

BOUNDS = {"a": (1e-4, 1e3), "b": (1e-4, 3.0), "tau": (0.05, 1000.0)}
"""Where a fit looks: scale, utility (without its sign), half-life in epochs. ``d`` lies below the lowest error."""

_STARTS, _SCOUTING_STEPS, _FINALISTS = 24, 12, 3


class Curve:
    """The measured points of one pool, and what a half-life makes of their samples."""

    def __init__(self, samples_seen: Array, error: Array, size: float, unit: float, law: Law) -> None:
        self.samples_seen, self.error, self.size, self.unit, self.law = samples_seen, error, size, unit, law
        self.epochs = epochs_begun(samples_seen, size)
        if self.epochs > MOST_FITTED_EPOCHS:
            raise ValueError(f"{self.epochs:,} epochs are more than a fit can take ({MOST_FITTED_EPOCHS:,})")

    @property
    def repeats(self) -> bool:
        """Whether any sample was seen twice, so that the points say something of a half-life."""
        return self.epochs > 1

    def log_samples(self, log_tau: Array) -> tuple[Array, Array]:
        """What the law raises to the power ``b``, as a logarithm, and its derivative by ln tau, both [m, n]."""
        decay = np.log(2) * np.arange(self.epochs) / np.exp(log_tau)[:, None]
        weights = np.exp(-decay)
        if self.law == "utility":
            unit, ones = self.unit, weights * decay
            return (
                accumulated(weights, self.samples_seen, self.size, unit),
                accumulated(ones, self.samples_seen, self.size, unit),
            )
        counted = effective_samples(weights, self.samples_seen, self.size)
        return np.log(counted / self.unit), effective_samples(weights * decay, self.samples_seen, self.size) / counted


class Problem:
    """The joint least-squares problem, in the parameters ln a, d, then ln -b and ln tau of each pool."""

    def __init__(self, curves: Sequence[Curve], a: float | None, d: float | None) -> None:
        self.curves = curves
        self.errors = np.concatenate([curve.error for curve in curves])
        self.points = len(self.errors)
        self.owner = np.repeat(np.arange(len(curves)), [len(curve.error) for curve in curves])
        highest_d = float(self.errors.min()) * (1 - 1e-6)
        if a is not None:
            positive("a", a)
        if d is not None and not 0 <= d <= highest_d:
            raise ValueError(f"d is {d:g}, it must be below the lowest error, {self.errors.min():g}, and not below 0")
        known_tau = [np.log(BOUNDS["tau"]) if curve.repeats else np.log(BOUNDS["tau"])[[1, 1]] for curve in curves]
        bounds = np.array(
            [
                np.log(BOUNDS["a"]) if a is None else np.log([a, a]),
                (0.0, highest_d) if d is None else (d, d),
                *(np.log(BOUNDS["b"]) for _ in curves),
                *known_tau,
            ]
        )
        self.low, self.high = bounds[:, 0].copy(), bounds[:, 1].copy()
        self.unknowns = int((self.low < self.high).sum())

    def __call__(self, parameters: Array) -> tuple[Array, Array]:
        """Predicted errors [m, n] and their derivatives [m, n, k]."""
        pools = len(self.curves)
        prediction = np.empty((len(parameters), self.points))
        derivative = np.zeros((len(parameters), self.points, parameters.shape[1]))
        derivative[:, :, 1] = 1.0
        for place, curve in enumerate(self.curves):
            mine = self.owner == place
            log_samples, by_log_tau = curve.log_samples(parameters[:, 2 + pools + place])
            b = -np.exp(parameters[:, 2 + place, None])
            removable = np.exp(np.minimum(parameters[:, 0, None] + b * log_samples, 50.0))
            prediction[:, mine] = removable + parameters[:, 1, None]
            derivative[:, mine, 0] = removable
            derivative[:, mine, 2 + place] = removable * b * log_samples
            derivative[:, mine, 2 + pools + place] = removable * b * by_log_tau
        return prediction, derivative

    def starts(self) -> Array:
        """The best starts of a grid over d, a and tau, with b by linear regression of the logarithm, [m, k]."""
        pools = len(self.curves)
        d = np.unique(np.linspace(self.low[1], self.high[1] * 0.97, 13) if self.low[1] < self.high[1] else self.low[1])
        log_a = np.unique(np.linspace(max(self.low[0], -4.0), min(self.high[0], 2.0), 25))
        if self.low[0] == self.high[0]:
            log_a = self.low[:1]
        grid = np.stack(np.meshgrid(log_a, d, indexing="ij"), axis=-1).reshape(-1, 2)
        cost = np.zeros(len(grid))
        chosen = np.zeros((len(grid), 2 * pools))
        for place, curve in enumerate(self.curves):
            log_tau = np.linspace(math.log(0.3), math.log(100.0), 24) if curve.repeats else self.high[-1:]
            log_samples, _ = curve.log_samples(log_tau)
            above = np.maximum(curve.error - grid[:, 1, None], 1e-9)
            target = np.log(above) - grid[:, :1]
            # Least squares of the error itself, to first order: a logarithm weighs by what it is the logarithm of.
            weight = above**2
            cross = (weight * target) @ log_samples.T
            power = weight @ (log_samples**2).T
            b = np.clip(-cross / np.maximum(power, 1e-12), *BOUNDS["b"])
            loss = (weight * target**2).sum(axis=1)[:, None] + 2 * b * cross + b**2 * power
            best = np.argmin(loss, axis=1)
            rows = np.arange(len(grid))
            cost += loss[rows, best]
            chosen[:, place] = np.log(b[rows, best])
            chosen[:, pools + place] = log_tau[best]
        few = np.argsort(cost, kind="stable")[:_STARTS]
        return np.concatenate([grid[few], chosen[few]], axis=1)

    def solved(self) -> tuple[Array, float]:
        """The parameters with the least sum of squares, and that sum: all starts some way, then the best to the end."""
        found, costs = least_squares(self, self.errors, self.starts(), self.low, self.high, _SCOUTING_STEPS)
        few = np.argsort(costs, kind="stable")[:_FINALISTS]
        found, costs = least_squares(self, self.errors, found[few], self.low, self.high)
        best = int(np.argmin(costs))
        return found[best], float(costs[best])

    def resample(self, estimate: Array, cost: float, count: int, random: np.random.Generator) -> Array:
        """The parameters fitted to errors drawn around the estimate, [count, k]."""
        if not count:
            return np.empty((0, len(estimate)))
        freedom = self.points - self.unknowns
        fit = self(estimate[None])[0]
        relative = float((((fit - self.errors) / fit) ** 2).sum())
        spread = np.maximum(math.sqrt(cost / freedom), math.sqrt(relative / freedom) * fit)
        scale = np.sqrt(freedom / random.chisquare(freedom, (count, 1)))
        drawn = fit + scale * spread * random.standard_normal((count, self.points))
        fitted, _ = least_squares(self, drawn, np.repeat(estimate[None], count, axis=0), self.low, self.high)
        for place, curve in enumerate(self.curves):
            if not curve.repeats:
                # Nothing is known of this half-life, and what is predicted from it must show that.
                fitted[:, 2 + len(self.curves) + place] = random.uniform(
                    math.log(BOUNDS["tau"][0]), math.log(BOUNDS["tau"][1]), count
                )
        return fitted


def law_parameters(parameters: Array) -> Array:
    """(a, b, tau, d) from (ln a, ln -b, ln tau, d), [..., 4]."""
    return np.stack(
        [np.exp(parameters[:, 0]), -np.exp(parameters[:, 1]), np.exp(parameters[:, 2]), parameters[:, 3]], axis=1
    )
