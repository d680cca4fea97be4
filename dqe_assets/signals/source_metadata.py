"""What sources say of their rows besides URL and caption, as signals."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.schema import UID, Column, table_schema
from dqe_assets.core.work import with_facts
from dqe_assets.signals.settings import is_name
from dqe_resources.sources.metadata_types import as_type, merged
from dqe_resources.sources.protocol import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dqe_resources.sources.metadata_types import MetadataType
    from dqe_resources.sources.protocol import Source

SOURCE_METADATA = "signals/source_metadata"

TYPES: Mapping[MetadataType, pa.DataType] = {"number": pa.float64(), "text": pa.string(), "boolean": pa.bool_()}


@dataclass(frozen=True)
class MetadataSignals:
    """The values of ``source_metadata`` that are signals.

    Attributes:
        types: type of each, by its name.
        left_out: the others, and why.
    """

    types: Mapping[str, MetadataType] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def arrow_types(self) -> dict[str, pa.DataType]:
        """The same types, as Arrow has them."""
        return {name: TYPES[kind] for name, kind in self.types.items()}


def metadata_signals(
    sources: Sequence[Source], is_taken: Callable[[str], bool], stored: Callable[[], Mapping[str, MetadataType]]
) -> MetadataSignals:
    """The signals of some sources.

    A column of ``metadata_columns`` whose name is none, or is taken, stays in ``source_metadata`` alone; one of
    ``metadata_types`` is kept here, and refused with the other names of signals.

    Args:
        sources: the sources.
        is_taken: whether a name means something else.
        stored: the types that the store has, which hold where a source is away.
    """
    asked = {name for source in sources for name in source.metadata_types}
    found = merged(map(_types_of(stored), sources))
    left_out = {
        name: "it is no name" if not is_name(name) else "samples or filters have that name"
        for name in found
        if name not in asked and (not is_name(name) or is_taken(name))
    }
    return MetadataSignals({name: kind for name, kind in found.items() if name not in left_out}, left_out)


def _types_of(stored: Callable[[], Mapping[str, MetadataType]]) -> Callable[[Source], Mapping[str, MetadataType]]:
    def types(source: Source) -> Mapping[str, MetadataType]:
        try:
            return source.typed_metadata()
        except SourceError:
            return {**stored(), **source.metadata_types}

    return types


def source_metadata_schema(types: Mapping[str, MetadataType]) -> pa.Schema:
    """The schema of ``signals/source_metadata``: a row for each row of ``raw_samples``, in their order."""
    return table_schema(
        [UID, *(Column(name, TYPES[kind], f"{name} as the source says") for name, kind in types.items())]
    )


def typed_metadata(samples: pa.Table, signals: MetadataSignals) -> pa.Table:
    """What the sources say of some samples.

    Args:
        samples: uid and source_metadata of ``raw_samples``.
        signals: what is wanted of them.

    Returns:
        Columns of ``source_metadata_schema``; a value of another type is null. The facts count these in ``wrong``, and
        have the ``first`` of each.
    """
    values: dict[str, list[Any]] = {name: [] for name in signals.types}
    wrong: dict[str, int] = {}
    first: dict[str, str] = {}
    for uid, text in zip(samples["uid"].to_pylist(), samples["source_metadata"].to_pylist(), strict=True):
        record = json.loads(text) if text else {}
        for name, kind in signals.types.items():
            value = None
            try:
                value = as_type(record.get(name), kind)
            except ValueError:
                wrong[name] = wrong.get(name, 0) + 1
                first.setdefault(name, f"{record[name]!r:.80} of {uid}")
            values[name].append(value)
    schema = source_metadata_schema(signals.types)
    columns = [pa.array(values[name], TYPES[kind]) for name, kind in signals.types.items()]
    made = pa.table([samples["uid"], *columns], schema=schema)
    return with_facts(
        made,
        {"types": dict(signals.types), "wrong": wrong, "first": first, "columns_left_out": dict(signals.left_out)},
    )
