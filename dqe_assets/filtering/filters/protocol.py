"""The interface of a filter."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from dqe_resources.configurable import Strict
from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from dqe_assets.filtering.english import Detector
    from dqe_assets.filtering.pool import Pool

Mask: TypeAlias = NDArray[np.bool_]
"""Which rows are kept, [n]."""

Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""Of a draw: another one keeps other samples."""


class FilterError(DataQualityError):
    """A filter cannot be applied; says which and what to do."""


@runtime_checkable
class Selection(Protocol):
    """Filters joined to one: what ``Expression`` is."""

    @property
    def text(self) -> str:
        """How it is written."""

    @property
    def leaves(self) -> tuple[Filter, ...]:
        """The filters, each once."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that they read."""

    @property
    def may_read(self) -> tuple[str, ...]:
        """Columns that they read where they are there."""

    def mask(self, masks: Mapping[str, Mask]) -> Mask:
        """Which rows are kept, [n], of what each filter keeps, by its text."""


class Call(Strict):
    """What an expression writes as a name with parameters: its fields, in the order in which they stand by position."""

    name: ClassVar[str]
    expressions: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are expressions themselves."""

    @property
    def text(self) -> str:
        """How it is written in an expression, parameters with default values left out: one text for one rule."""
        given = [
            _literal(getattr(self, name)) if field.is_required() else f"{name}={_literal(getattr(self, name))}"
            for name, field in type(self).model_fields.items()
            if field.is_required() or getattr(self, name) != field.default
        ]
        return f"{self.name}({', '.join(given)})"


class Filter(Call):
    """A rule that keeps samples.

    A filter that depends on the whole pool is fitted first: ``fit`` gives a filter that needs one row at a time.
    """

    meaning: ClassVar[str]
    """What is kept, for a person."""
    repeats: ClassVar[bool] = False
    """Whether it keeps some rows several times."""
    pool_wide: ClassVar[bool] = False
    """Whether fitting finds more than the text of the fitted filter says."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that ``mask`` reads."""
        return ()

    @property
    def may_read(self) -> tuple[str, ...]:
        """Columns that it reads where they are there; once it is fitted, those that it has found."""
        return ()

    @property
    def targets(self) -> tuple[tuple[str, str | None], ...]:
        """The names of the key ``targets`` that it needs, each with the scorer whose embeddings they must be."""
        return ()

    @property
    def detector(self) -> Detector | None:
        """The language detector that it asks about every caption or some, if it does."""
        return None

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything else that decides, apart from its parameters."""
        return self.detector.versions if self.detector else {}

    @property
    def facts(self) -> dict[str, Any]:
        """What fitting has found, such as a threshold; JSON."""
        return {}

    @property
    def among(self) -> tuple[Filter, ...]:
        """The filters among whose samples it chooses: they are fitted first."""
        return ()

    def fit_among(self, pools: Sequence[Pool], fitted: Mapping[str, Filter]) -> Filter:  # noqa: ARG002
        """As ``fit``, with those filters fitted, by the text of each before."""
        return self.fit(pools)

    def fit(self, pools: Sequence[Pool]) -> Filter:  # noqa: ARG002 - what most filters have no need of
        """The same filter, with what depends on the pools found: all of them together are taken as one."""
        return self

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows of a table are kept, [n]; a filter that is not fitted is fitted to the table."""
        raise NotImplementedError

    def times(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.int64]:
        """How often each row of a table is kept, [n]."""
        return self.mask(table).astype(np.int64)


def _literal(value: Any) -> str:
    if isinstance(value, Selection):
        return value.text
    if isinstance(value, Call):
        return value.text
    if isinstance(value, tuple):
        return f"{{{', '.join(f'{_literal(key)}: {one!r}' for key, one in value)}}}"
    is_word = isinstance(value, str) and value.isidentifier() and not keyword.iskeyword(value)
    return value if is_word else repr(value)


def as_mask(condition: pa.BooleanArray | pa.ChunkedArray, *, null: bool = False) -> Mask:
    """An Arrow condition as a mask, with what null stands for."""
    return np.asarray(pc.fill_null(condition, null))
