"""How far filters and scores agree with what people decided, with 95 % intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

TIMES = 1000
"""Draws of a bootstrap."""

_Z = 1.959964
_AT_ONCE = 1 << 22


class Estimate(NamedTuple):
    """A figure with the ends of its 95 % interval; all NaN if there is nothing to say."""

    value: float
    low: float
    high: float


NOTHING = Estimate(np.nan, np.nan, np.nan)


def proportion(is_hit: NDArray[np.bool_], weights: Numbers) -> Estimate:
    """The weighted share of hits, with the interval of Wilson (1927).

    With unequal weights the interval is that of as many samples as weigh alike and say as much (Kish 1965).

    Args:
        is_hit: [n].
        weights: how many samples each stands for, above 0, [n].
    """
    if not len(is_hit):
        return NOTHING
    total = weights.sum()
    share, n = float(weights[is_hit].sum() / total), float(total**2 / (weights**2).sum())
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Estimate(share, max(float(middle - half), 0.0), min(float(middle + half), 1.0))


def precision_and_recall(
    passes: NDArray[np.bool_], is_kept: NDArray[np.bool_], weights: Numbers
) -> tuple[Estimate, Estimate]:
    """How much of what a filter lets through people keep, and how much of what people keep it lets through.

    Args:
        passes: which samples the filter lets through, [n].
        is_kept: which of them people keep, [n]; they drop the others.
        weights: how many samples each stands for, [n].
    """
    return proportion(is_kept[passes], weights[passes]), proportion(passes[is_kept], weights[is_kept])


def auc_and_precision(
    values: Numbers, is_kept: NDArray[np.bool_], weights: Numbers, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """How well a score tells what people keep from what they drop.

    Args:
        values: the score, finite, [n]; higher is better.
        is_kept: which samples people keep, [n]; they drop the others.
        weights: how many samples each stands for, [n].
        seed: of the bootstrap.

    Returns:
        The area under the ROC curve (the probability that of a kept and a dropped sample the kept one has the higher
        score, ties counted half), and the average precision; each with the interval of a Bayesian bootstrap of
        ``TIMES`` draws (Rubin 1981). NaN where people have not decided both ways.
    """
    if is_kept.all() or not is_kept.any():
        return NOTHING, NOTHING
    order = np.argsort(-values, kind="stable")
    values, is_kept, weights = values[order], is_kept[order], weights[order]
    # Of equal scores none comes first: they are counted together.
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    found = _both(np.ones((1, len(weights))), ends, is_kept, weights)
    rng, rows = np.random.default_rng(seed), max(_AT_ONCE // len(weights), 1)
    drawn = np.concatenate(
        [
            _both(rng.standard_exponential((min(rows, TIMES - start), len(weights))), ends, is_kept, weights)
            for start in range(0, TIMES, rows)
        ]
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    auc, precision = (Estimate(float(found[0, n]), float(low[n]), float(high[n])) for n in range(2))
    return auc, precision


def _both(times: Numbers, ends: NDArray[np.int64], is_kept: NDArray[np.bool_], weights: Numbers) -> Numbers:
    """The area and the average precision, where each sample counts so many times: [draws, 2].

    Args:
        times: [draws, n].
        ends: where the last of each different score stands.
        is_kept: [n], from the highest score on.
        weights: [n].
    """
    weighed = times * weights
    kept, dropped = (np.cumsum(weighed * kind, axis=1)[:, ends] for kind in (is_kept, ~is_kept))
    gained = np.diff(kept, axis=1, prepend=0)
    auc = ((kept - gained / 2) * np.diff(dropped, axis=1, prepend=0)).sum(axis=1) / (kept[:, -1] * dropped[:, -1])
    precision = (gained * kept / (kept + dropped)).sum(axis=1) / kept[:, -1]
    return np.stack([auc, precision], axis=1)
