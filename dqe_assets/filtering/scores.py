"""Scores to choose samples by, from embeddings and concepts, in NumPy: each is of the whole pool at once."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

TAIL_SHARE = 0.056
"""Share of the matches that the tail has at MetaCLIP's t = 20,000."""

_COMPARED_AT_ONCE = 8_192
"""Rows of which all similarities are in memory."""

_BLOCK_ROWS = 512
_ROWS_AT_ONCE = 8_192
_LEAST_SUM = 1e-30
"""Sums of exponentials below this may have lost digits in 32 bits."""

_NEGLIGIBLE = 18.0
"""What is smaller by a factor of exp(18) makes no difference in 32 bits."""


def s_clip_loss(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    *,
    batch: int = 32_768,
    temperature: float = 0.01,
    repeats: int = 5,
    seed: int = 0,
    rows: NDArray[np.integer] | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float32]:
    """Similarity less what the contrastive loss takes off it: float32 [n], higher is better.

    s_ii - (T / 2) * mean over K random batches of [logsumexp_j(s_ij / T) + logsumexp_j(s_ji / T)], where s_ij is the
    inner product of image i and text j of the batch. A pair loses what its image has in common with other captions and
    its caption with other images, so that a caption that fits everything scores low (Wang et al. 2024, arXiv
    2405.19547, there negCLIPLoss).

    For each repeat the rows are shuffled and cut into batches of equal size, give or take one row. Memory beyond the
    embeddings is that of one batch, and of some blocks of 512 rows of its similarities: embeddings in a file that is
    mapped are never read as a whole, and 16-bit floats are widened a batch at a time.

    Args:
        images: unit vectors [n, d].
        texts: unit vectors of their captions [n, d].
        batch: rows of a batch at most, those that a model was trained with or fewer.
        temperature: T.
        repeats: K.
        seed: of the shuffles.
        rows: int64 [m], the rows to score, in the order in which they are shuffled first; by default all, as they
            stand. With the rows in the order of a hash of their uids, no score depends on how a pool is ordered.
        progress: is told of how many more rows of a repeat are done.

    Returns:
        NaN for a row that is not scored.

    Raises:
        ValueError: arrays that do not belong together, or hold something that is not finite; a batch, temperature or
            number of repeats that is not positive.
    """
    images, texts = _matrix(images, "images", rows), _matrix(texts, "texts", rows)
    if images.shape != texts.shape:
        raise ValueError(f"images are {list(images.shape)} and texts {list(texts.shape)}; expected one text an image")
    if batch < 1 or temperature <= 0 or repeats < 1:
        raise ValueError(f"batch={batch}, temperature={temperature}, repeats={repeats}: each must be positive")
    first = np.arange(len(images)) if rows is None else np.asarray(rows, np.int64)
    total, random = np.full(len(images), np.nan), np.random.default_rng(seed)
    for block in _parts(first, _ROWS_AT_ONCE):
        own = np.einsum("ij,ij->i", _wide(images[block]), _wide(texts[block]), dtype=np.float64)
        total[block] = own * (2 * repeats / temperature)
    for _ in range(repeats):
        for drawn in _parts(first[random.permutation(len(first))], batch, even=True):
            total[drawn] -= _normaliser(_wide(images[drawn]), _wide(texts[drawn]), temperature)
            progress(len(drawn))
    return (total * (temperature / 2 / repeats)).astype(np.float32)


def _normaliser(images: NDArray[np.float32], texts: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """logsumexp_j(s_ij / T) + logsumexp_j(s_ji / T) of a batch, [rows]."""
    from threadpoolctl import threadpool_limits

    scaled, across = images * np.float32(1 / temperature), np.ascontiguousarray(texts.T)
    of_image, of_text = np.empty(len(images)), np.full(len(images), -np.inf)
    bound = np.full(len(images), -np.inf)
    ones = np.ones(len(images), np.float32)

    def block(start: int) -> tuple[float, NDArray[np.floating], NDArray[np.floating]]:
        logits = scaled[start : start + _BLOCK_ROWS] @ across
        largest = logits.max()
        logits -= largest
        np.exp(logits, out=logits)
        return float(largest), logits @ ones, ones[: len(logits)] @ logits

    starts = range(0, len(images), _BLOCK_ROWS)
    with threadpool_limits(1, "blas"), np.errstate(divide="ignore"):  # the blocks run side by side
        for start, (largest, by_row, by_column) in zip(
            starts, ordered_map(block, starts, ahead=os.cpu_count() or 1), strict=True
        ):
            rows = slice(start, start + len(by_row))
            of_image[rows] = np.log(by_row.astype(np.float64)) + largest
            of_image[rows][by_row < _LEAST_SUM] = np.nan
            of_text = np.logaddexp(of_text, np.log(by_column.astype(np.float64)) + largest)
            np.maximum(bound, math.log(_LEAST_SUM) + largest, out=bound, where=by_column < _LEAST_SUM)
    # One shift for a block loses what lies far below its largest similarity.
    of_text[of_text < bound + _NEGLIGIBLE] = np.nan
    _exactly(of_image, scaled, texts)
    _exactly(of_text, texts, scaled)
    return of_image + of_text


def _exactly(found: NDArray[np.float64], own: NDArray[np.float32], others: NDArray[np.float32]) -> None:
    """Fill what is NaN: the logsumexp of the inner products of a row and all others."""
    lost = np.flatnonzero(np.isnan(found))
    for start in range(0, len(lost), _BLOCK_ROWS):
        rows = lost[start : start + _BLOCK_ROWS]
        found[rows] = np.logaddexp.reduce((own[rows] @ others.T).astype(np.float64), axis=1)


def normsim(images: NDArray[np.floating], targets: NDArray[np.floating], p: float = 2) -> NDArray[np.float32]:
    """How near images are to those of a task: float32 [n] (NormSim, Wang et al. 2024, arXiv 2405.19547).

    For p = 2 it is f' S f, where f is the image and S the sum of t t' over the targets t: the sum of all squared
    similarities. For p = infinity it is the largest similarity.

    Args:
        images: unit vectors [n, d].
        targets: unit vectors [m, d], such as those of the images that a model will be evaluated on.
        p: 2 or infinity.

    Raises:
        ValueError: another p; no target; arrays of different widths, or with something that is not finite.
    """
    images, targets = _matrix(images, "images"), _matrix(targets, "targets")
    if not len(targets) or images.shape[1] != targets.shape[1]:
        raise ValueError(f"images are {list(images.shape)} and targets {list(targets.shape)}; expected [n, d], [m, d]")
    if p == 2:
        return _quadratic(images, _second_moment(targets))
    if p != math.inf:
        raise ValueError(f"p={p}: expected 2 or infinity")
    found = np.full(len(images), -np.inf, np.float32)
    for start in range(0, len(images), _ROWS_AT_ONCE):
        rows = _wide(images[start : start + _ROWS_AT_ONCE])
        for other in range(0, len(targets), _ROWS_AT_ONCE):
            best = (rows @ _wide(targets[other : other + _ROWS_AT_ONCE]).T).max(axis=1)
            found[start : start + _ROWS_AT_ONCE] = np.maximum(found[start : start + _ROWS_AT_ONCE], best)
    return found


def normsim_d(
    images: NDArray[np.floating],
    scores: NDArray[np.floating],
    *,
    start: float = 0.3,
    share: float = 0.2,
    steps: int = 10,
) -> NDArray[np.float32]:
    """``normsim`` without targets: how near images are to what the pool's best samples have in common, float32 [n].

    NormSim-2-D of Wang et al. 2024 (arXiv 2405.19547): S is the mean of f f' over the best samples by a score, such as
    ``s_clip_loss``. Of these, those with the least f' S f are taken away in equal steps, S computed anew after each,
    until a share of the pool is left. The result is f' S f with the last S, for all samples.

    Args:
        images: unit vectors [n, d].
        scores: [n], higher is better. A row whose score is NaN is no part of the pool, and has none here.
        start: the share of the scored samples that S is computed from at first, 0 to 1.
        share: the share at the end, at most ``start``.
        steps: in how many steps samples are taken away.

    Raises:
        ValueError: arrays that do not belong together, or hold something that is not finite; shares that are not
            0 < share <= start <= 1; steps not positive.
    """
    pool = np.flatnonzero(~np.isnan(scores))
    images = _matrix(images, "images", pool)
    if np.shape(scores) != (len(images),):
        raise ValueError(f"images are {list(images.shape)} and scores {list(np.shape(scores))}; expected [n, d], [n]")
    if not 0 < share <= start <= 1 or steps < 1:
        raise ValueError(f"start={start}, share={share}, steps={steps}: expected 0 < share <= start <= 1, steps >= 1")
    found = np.full(len(images), np.nan, np.float32)
    if len(pool):
        left = _highest(pool, np.asarray(scores)[pool], max(1, round(start * len(pool))))
        sizes = np.linspace(len(left), max(1, round(share * len(pool))), steps + 1).round().astype(int)[1:]
        moment = _second_moment(images, left)
        for size in sizes.tolist():
            kept = _highest(left, _quadratic(images, moment / len(left), left), size)
            moment -= _second_moment(images, np.setdiff1d(left, kept, assume_unique=True))
            left = kept
        found[pool] = _quadratic(images, moment / len(left), pool)
    return found


def _highest(rows: NDArray[np.int64], scores: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """The rows with the highest of their scores, ascending."""
    return np.sort(rows[np.argsort(-scores, kind="stable")[:count]])


def _second_moment(vectors: NDArray[np.floating], rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """The sum of v v' over rows: [d, d]."""
    summed = np.zeros((vectors.shape[1],) * 2)
    for block in _parts(np.arange(len(vectors)) if rows is None else rows, _ROWS_AT_ONCE):
        some = _wide(vectors[block])
        summed += some.T @ some
    return summed


def _quadratic(
    vectors: NDArray[np.floating], matrix: NDArray[np.float64], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """The product v' M v of each row v: float32 [rows]."""
    rows = np.arange(len(vectors)) if rows is None else rows
    found = np.empty(len(rows), np.float32)
    done = 0
    for block in _parts(rows, _ROWS_AT_ONCE):
        some = _wide(vectors[block])
        found[done : done + len(some)] = np.einsum("ij,ij->i", some @ matrix.astype(np.float32), some)
        done += len(some)
    return found


def _parts(rows: NDArray[np.int64], size: int, *, even: bool = False) -> list[NDArray[np.int64]]:
    """The rows in pieces of at most ``size``; ``even`` ones differ by one at most."""
    if even:
        return np.array_split(rows, max(1, math.ceil(len(rows) / size)))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _wide(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows, np.float32)


def mix(columns: Mapping[str, NDArray[np.floating]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The weighted sum of several scores, each brought to mean 0 and standard deviation 1 first: float64 [n].

    As M-FLYT mixes signals (Shechter and Carmon 2025, arXiv 2503.08805). A score that is the same for all rows adds
    nothing. A row that lacks one of the scores (NaN) has none.

    Args:
        columns: scores [n], by name; those that have no weight are not read.
        weights: by the same names.

    Raises:
        ValueError: no weight, one that is not finite, or one whose column is not there; columns of different lengths,
            or with something infinite.
    """
    missing = sorted(set(weights) - set(columns))
    if missing or not weights:
        raise ValueError(f"no column for the weights {', '.join(missing)}" if missing else "no weights")
    wide = {name: np.asarray(columns[name], np.float64) for name in weights}
    if len({values.shape for values in wide.values()}) > 1 or next(iter(wide.values())).ndim != 1:
        raise ValueError(f"columns of {', '.join(f'{name}: {list(one.shape)}' for name, one in wide.items())}")
    total = np.zeros(len(next(iter(wide.values()))))
    for name, values in wide.items():
        if not math.isfinite(weights[name]) or np.isinf(values).any():
            raise ValueError(f"{name}: the weight {weights[name]} or a score is not finite")
        total += weights[name] * _standardised(values)
    return total


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    there = values[~np.isnan(values)]
    if not len(there):
        return values
    centred, spread = values - there.mean(), there.std()
    # What is the same everywhere but for rounding has no spread.
    return centred / spread if spread > 1e-12 * np.abs(there).max() else centred * 0


def soft_cap(
    scores: NDArray[np.floating], n: int, rho: float = 0.15, draw: int = 100_000, seed: int = 0
) -> NDArray[np.int64]:
    """Rows to train on, drawn by their scores, with repeats: int64 [n], in the order in which they were drawn.

    Soft cap sampling (Shechter and Carmon 2025, arXiv 2503.08805): ``draw`` rows are drawn without replacement, with
    probabilities in proportion to exp(score); ``rho`` is subtracted from their scores; and so on until there are n.

    Args:
        scores: [n]. A row whose score is NaN or minus infinity is never drawn.
        n: how many rows to draw.
        rho: what each draw takes off a row's score, at least 0.
        draw: rows drawn at a time, at most as many as can be drawn at all.
        seed: of the draws.

    Raises:
        ValueError: no row can be drawn; a score of plus infinity; n or rho negative; draw not positive.
    """
    if n < 0 or rho < 0 or draw < 1:
        raise ValueError(f"n={n}, rho={rho}, draw={draw}: expected n and rho of at least 0, draw of at least 1")
    rows = np.flatnonzero(~np.isnan(scores) & (np.asarray(scores) != -np.inf))
    left = np.asarray(scores, np.float64)[rows]
    if np.isinf(left).any():
        raise ValueError(f"row {rows[np.flatnonzero(np.isinf(left))[0]]}: the score is infinite")
    if n and not len(rows):
        raise ValueError("no row has a score: none can be drawn")
    random, drawn = np.random.default_rng(seed), np.empty(n, np.int64)
    done = 0
    while done < n:
        count = min(draw, len(rows), n - done)
        # The largest of scores with Gumbel noise are a draw without replacement (Kool et al. 2019, arXiv 1903.06059).
        noisy = left + random.gumbel(size=len(left))
        chosen = np.sort(np.argpartition(-noisy, count - 1)[:count])
        drawn[done : done + count] = rows[chosen]
        left[chosen] -= rho
        done += count
    return drawn


def balanced_probabilities(
    hits: Sequence[Sequence[int]] | pa.Array | pa.ChunkedArray, counts: NDArray[np.integer | np.floating], t: float
) -> NDArray[np.float64]:
    """With which probability each sample is kept so that no concept has many more than t: float64 [n].

    MetaCLIP (Xu et al. 2024, arXiv 2309.16671): a concept is kept with p_e = min(1, t / count_e), and a sample with
    1 - prod over its concepts of (1 - p_e). A sample without a concept is not kept. A concept counts once a sample.

    Args:
        hits: for each sample the numbers of its concepts, from 0: lists, or an Arrow array of lists.
        counts: how many samples have each concept [concepts].
        t: how many samples of a concept are wanted, at least 0.

    Raises:
        ValueError: t negative; the number of a concept that has no count, with the sample's row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not t >= 0:
        raise ValueError(f"t={t}: expected at least 0")
    lists = hits if isinstance(hits, pa.Array | pa.ChunkedArray) else pa.array(map(list, hits), pa.list_(pa.int64()))
    samples = np.asarray(pc.list_parent_indices(lists), np.int64)
    concepts = np.asarray(pc.list_flatten(lists), np.int64)
    outside = np.flatnonzero((concepts < 0) | (concepts >= len(counts)))
    if len(outside):
        row, number = int(samples[outside[0]]), int(concepts[outside[0]])
        raise ValueError(f"row {row}: concept {number}; there are counts of {len(counts)} concepts")
    pairs = np.unique(samples * max(len(counts), 1) + concepts)
    samples, concepts = np.divmod(pairs, max(len(counts), 1))
    kept = np.minimum(1, t / np.maximum(np.asarray(counts, np.float64), min(t, 1) or 1))
    with np.errstate(divide="ignore"):
        logs = np.log1p(-kept)[concepts]
    return -np.expm1(np.bincount(samples, logs, len(lists)))


def farthest_first(vectors: NDArray[np.floating], count: int) -> NDArray[np.float32]:
    """How far each row was from all before it, in the order in which always the farthest comes next: float32 [n].

    The greedy algorithm for k-center, whose largest distance is at most twice the least possible (Gonzalez 1985,
    "Clustering to minimize the maximum intercluster distance"). The first row is the first; of equal ones the earlier
    comes first. But for equal ones, the k rows with the largest of these numbers are the first k of the order.

    Args:
        vectors: unit vectors [n, d].
        count: how many rows to put in order at most.

    Returns:
        1 - the cosine of the row and the nearest before it; infinity for the first; minus infinity for a row that
        does not come among so many.

    Raises:
        ValueError: something that is not finite, or not [n, d]; a negative count.
    """
    rows = _matrix(vectors, "vectors")
    if count < 0:
        raise ValueError(f"count={count}: expected at least 0")
    found = np.full(len(rows), -np.inf, np.float32)
    nearest = np.full(len(rows), np.inf, np.float32)
    among = 1 - rows @ rows.T if len(rows) <= _COMPARED_AT_ONCE else None
    for _ in range(min(count, len(rows))):
        farthest = int(np.argmax(nearest))
        # A row that equals one before it may be below 0 by rounding: it still comes.
        found[farthest] = max(nearest[farthest], 0)
        np.minimum(nearest, 1 - rows @ rows[farthest] if among is None else among[farthest], out=nearest)
        nearest[farthest] = -np.inf
    return found


def tail_threshold(counts: NDArray[np.integer], share: float = TAIL_SHARE) -> int:
    """The t at which the concepts that at most t samples show have nearest to this share of all matches.

    MetaCLIP 2 (Chuang et al. 2025, arXiv 2507.22062) finds the t of each language so, from the share that t = 20,000
    leaves to the tail in English; in MetaCLIP (arXiv 2309.16671) that is 5.6 % of the matches.

    Args:
        counts: how many samples show each concept [concepts].
        share: 0 to 1.

    Returns:
        One of the counts that are not 0; of two that are as near the smaller. 1 if there is none.
    """
    shown = np.sort(np.asarray(counts, np.int64))
    shown = shown[shown > 0]
    if not len(shown):
        return 1
    last = np.flatnonzero(np.diff(shown, append=shown[-1] + 1))
    return int(shown[last[np.argmin(np.abs(np.cumsum(shown)[last] / shown.sum() - share))]])


def tail_share(counts: NDArray[np.integer], t: float | NDArray[np.floating]) -> float:
    """The share of all matches that are of concepts which at most t samples show: 0 to 1; 0 if there are no matches.

    Args:
        counts: how many samples show each concept [concepts].
        t: one for all concepts, or for each its own [concepts].
    """
    found = np.asarray(counts, np.int64)
    return float(found[found <= t].sum() / max(found.sum(), 1))


def _matrix(array: NDArray[np.floating], name: str, rows: NDArray[np.integer] | None = None) -> NDArray[np.floating]:
    """The array as it is, if it is [n, d] and finite in these rows, by default in all."""
    found = np.asanyarray(array)
    if found.ndim != 2:
        raise ValueError(f"{name} are {list(found.shape)}; expected [n, d]")
    for some in _parts(np.arange(len(found)) if rows is None else np.asarray(rows, np.int64), _ROWS_AT_ONCE):
        is_finite = np.isfinite(found[some]).all(axis=1)
        if not is_finite.all():
            raise ValueError(f"{name}: row {some[~is_finite][0]} is not finite")
    return found
