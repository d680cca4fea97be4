"""Samples drawn by their scores, the best of them several times: soft cap sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, PrivateAttr

from dqe_assets.filtering.filters.among import Among
from dqe_assets.filtering.filters.pool_scores import PoolRows, Score
from dqe_assets.filtering.filters.protocol import FilterError, Seed, Selection
from dqe_assets.filtering.pool import UID, numbers
from dqe_assets.filtering.scores import soft_cap
from dqe_assets.filtering.subset import UID_TYPE, contains, parse_uids

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_assets.filtering.filters.among import Batches
    from dqe_assets.filtering.filters.protocol import Filter
    from dqe_assets.filtering.pool import Pool

_MOST_TIMES = 20
"""How many numbers of draws are told apart."""


class SoftCap(Among):
    """Draws n samples by their scores, with repeats (soft cap sampling, Shechter and Carmon 2025, arXiv 2503.08805).

    ``draw`` samples are drawn without replacement, with probabilities in proportion to exp(score); ``rho`` is
    subtracted from their scores; and so on until there are n. A subset holds a sample as often as it was drawn. What
    stands in a pool several times is drawn as one, and each of its rows is repeated. A sample without a score is never
    drawn.

    Attributes:
        score: The score, higher is better: a column, or one that is found over the whole pool, such as
            ``mix({s_clip_loss: 1, similarity: 0.5})``. Its differences decide: of scores that differ by 1 the higher is
            drawn 2.7 times as often at first.
        n: How many draws.
        rho: What each draw takes off a sample's score.
        draw: Samples drawn at a time.
        seed: Of the draws.
        of: What to draw from; by default what all else keeps that it is joined to by ``&``.
    """

    name: ClassVar[str] = "soft_cap"
    meaning: ClassVar[str] = "samples drawn by their scores, the best of them several times"
    repeats: ClassVar[bool] = True
    score: Score
    n: Annotated[int, Field(ge=1)]
    rho: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.15
    draw: Annotated[int, Field(ge=1)] = 100_000
    seed: Seed = 0
    of: InstanceOf[Selection] | None = None

    _times: NDArray[np.int64] | None = PrivateAttr(None)
    _scored: tuple[NDArray[np.void], NDArray[np.float64]] | None = PrivateAttr(None)

    @property
    def read(self) -> tuple[str, ...]:
        """The score, if it is a column."""
        return (self.score,) if isinstance(self.score, str) else ()

    @property
    def read_apart(self) -> tuple[str, ...]:
        """What a score over the pool is computed from."""
        return () if isinstance(self.score, str) else self.score.columns

    @property
    def may_read(self) -> tuple[str, ...]:
        """Those of the expression and of the score."""
        return (*super().may_read, *(() if isinstance(self.score, str) else self.score.may_read))

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """Those of the expression and of the score."""
        return (*super().targets, *(() if isinstance(self.score, str) else self.score.named_targets))

    @property
    def versions(self) -> dict[str, str]:
        """Those of the expression and of the score."""
        return super().versions | ({} if isinstance(self.score, str) else self.score.versions)

    def fit_among(self, pools: Sequence[Pool], fitted: Mapping[str, Filter]) -> Filter:
        """As ``Filter.fit_among``; a score over the pool is that of all its rows, whatever ``of`` keeps."""
        scoring = self.model_copy()
        if not isinstance(self.score, str):
            rows = PoolRows(pools)
            scores, said = self.score.of(rows)
            scoring._scored, scoring._facts = (rows.uids[rows.order], scores[rows.order]), said  # noqa: SLF001
        return super(SoftCap, scoring).fit_among(pools, fitted)

    def fitted_to(self, batches: Batches) -> Filter:
        """With how often each sample is drawn.

        Raises:
            FilterError: no sample can be drawn, or the score is infinite or no number.
        """
        uids, scores = [np.empty(0, UID_TYPE)], [np.empty(0)]
        for batch in batches():
            uids.append(parse_uids(batch.column(UID)))
            if isinstance(self.score, str):
                scores.append(self._numbers(batch.column(self.score)))
        candidates, first = np.unique(np.concatenate(uids), return_index=True)
        values = np.concatenate(scores)[first] if self._scored is None else self._scores_of(candidates)
        try:
            drawn = soft_cap(values, self.n, self.rho, self.draw, self.seed)
        except ValueError as error:
            raise FilterError(f"{self.name}: {error}") from error
        times = np.bincount(drawn, minlength=len(candidates))
        by_times = np.bincount(np.minimum(times, _MOST_TIMES))
        facts: dict[str, Any] = {"drawn": self.n, "different": int((times > 0).sum()), "most_times": int(times.max())}
        facts["samples_by_times"] = {str(count): int(by_times[count]) for count in np.flatnonzero(by_times)}
        fitted = self.keeping(candidates[times > 0], self._facts | facts)
        fitted._times, fitted._scored = times[times > 0], None  # noqa: SLF001 - a copy of its own
        return fitted

    def times(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.int64]:
        """How often each row was drawn."""
        if self._kept is None or self._times is None:
            return super().times(table)
        uids = parse_uids(table.column(UID))
        found = np.zeros(len(uids), np.int64)
        here = contains(self._kept, uids)
        found[here] = self._times[np.searchsorted(self._kept, uids[here])]
        return found

    def _scores_of(self, uids: NDArray[np.void]) -> NDArray[np.float64]:
        known, scores = self._scored or (np.empty(0, UID_TYPE), np.empty(0))
        return scores[np.searchsorted(known, uids)]

    def _numbers(self, column: pa.Array) -> NDArray[np.float64]:
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise FilterError(f"{self.name}: column {self.score} is {column.type}; expected numbers")
        return numbers(column).astype(np.float64)
