"""Rules that choose among what an expression keeps, over all pools at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow as pa
from pydantic import PrivateAttr

from dqe_assets.filtering.filters.protocol import Filter, Mask
from dqe_assets.filtering.pool import UID, TablePool
from dqe_assets.filtering.select import leaf_masks, over_batches
from dqe_assets.filtering.subset import contains, parse_uids, unique_uids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from dqe_assets.filtering.filters.protocol import Selection
    from dqe_assets.filtering.pool import Pool
    from dqe_assets.filtering.select import Batch

    Batches = Callable[[], Iterator[pa.RecordBatch]]
    """Gives some rows, again each time that it is called."""


class Among(Filter):
    """A rule that chooses among what an expression, its parameter ``of``, keeps, over the whole pool.

    Where nothing is said, that is what all else keeps that the rule is joined to by ``&``. Which samples are kept does
    not depend on their order. Once it is fitted, memory holds the uids that are kept.
    """

    pool_wide: ClassVar[bool] = True
    expressions: ClassVar[frozenset[str]] = frozenset({"of"})
    if TYPE_CHECKING:
        # A field of each rule, at its place among the others.
        of: Selection | None

    _kept: NDArray[np.void] | None = PrivateAttr(None)
    _facts: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def read(self) -> tuple[str, ...]:
        """The columns by which it chooses."""
        raise NotImplementedError

    @property
    def read_apart(self) -> tuple[str, ...]:
        """Columns that it reads in another way."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """What it and the expression read; once it is fitted, the uid."""
        if self._kept is not None:
            return (UID,)
        return tuple(dict.fromkeys((UID, *self.read, *self.read_apart, *(self.of.columns if self.of else ()))))

    @property
    def may_read(self) -> tuple[str, ...]:
        """Those of the expression."""
        return self.of.may_read if self.of else ()

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """Those of the expression."""
        return tuple(dict.fromkeys(one for leaf in self.among for one in leaf.targets))

    @property
    def versions(self) -> dict[str, str]:
        """Those of the expression."""
        return {name: value for leaf in self.among for name, value in leaf.versions.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """What was found."""
        return self._facts

    @property
    def among(self) -> tuple[Filter, ...]:
        """The filters of the expression."""
        return self.of.leaves if self.of else ()

    def choosing_of(self, selection: Selection) -> Self:
        """The same rule, which chooses among what a selection keeps."""
        return self.model_copy(update={"of": selection})

    def fit(self, pools: Sequence[Pool]) -> Filter:
        """With the uids that are kept."""
        return self.fit_among(pools, {leaf.text: leaf.fit(pools) for leaf in self.among})

    def fit_among(self, pools: Sequence[Pool], fitted: Mapping[str, Filter]) -> Filter:
        """As ``Filter.fit_among``."""
        own = {leaf.text: fitted[leaf.text] for leaf in self.among}
        # A filter that is fitted may read less than before.
        inner = [column for leaf in own.values() for column in leaf.columns]
        columns = tuple(dict.fromkeys((UID, *self.read, *inner)))

        def chosen_from(batch: Batch) -> pa.RecordBatch:
            table = batch.table
            if self.of:
                table = table.filter(pa.array(self.of.mask(leaf_masks(own, table))))
            return table.select(list(dict.fromkeys((UID, *self.read))))

        return self.fitted_to(lambda: over_batches(chosen_from, pools, columns))

    def fitted_to(self, batches: Batches) -> Filter:
        """The same rule, with what it keeps of these rows: the uid, and what ``read`` names."""
        raise NotImplementedError

    def keeping(self, uids: NDArray[np.void], facts: Mapping[str, Any]) -> Self:
        """The same rule fitted: it keeps these uids, in any order."""
        fitted = self.model_copy()
        fitted._kept, fitted._facts = unique_uids(uids), dict(facts)  # noqa: SLF001 - a copy of its own
        return fitted

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Where the uid is one that is kept."""
        if self._kept is None:
            return self.fit([TablePool(table)]).mask(table)
        return contains(self._kept, parse_uids(table.column(UID)))
