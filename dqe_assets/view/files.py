"""The samples of the view as they were written, read a shard at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.view.assets import samples_path, state_path
from dqe_assets.view.chosen import ViewError
from dqe_assets.view.state import THUMBNAIL
from dqe_assets.view.tables import THUMBNAILS
from dqe_resources.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dqe_assets.view.chosen import Chosen
    from dqe_resources.store import Store

    Pictures = Callable[[pa.Table], pa.Array]
    """Gives the column of thumbnails of some samples of one shard."""


def require_written() -> None:
    """Refuse to go on without the files of the view.

    Raises:
        ViewError: they are not there.
    """
    for path in (samples_path(), state_path()):
        if not path.is_file():
            raise ViewError(f"{path}: not there; run: dqe materialize")


def rows_of(uids: Collection[str]) -> list[dict[str, Any]]:
    """The rows of these samples, by column."""
    import pyarrow.parquet as pq

    wanted, found = pa.array(sorted(uids), pa.string()), []
    try:
        with pq.ParquetFile(samples_path()) as file:
            for group in range(file.num_row_groups):
                there = pc.is_in(file.read_row_group(group, ["uid"])["uid"], value_set=wanted)
                if pc.any(there).as_py():
                    found += file.read_row_group(group).filter(there).to_pylist()
    except (OSError, pa.ArrowException):
        return []
    return found


def read_state() -> dict[str, Any]:
    """What the view shows first.

    Raises:
        ViewError: the file is not as it was written.
    """
    try:
        state: dict[str, Any] = json.loads(state_path().read_bytes())
    except (OSError, ValueError) as error:
        raise ViewError(f"{state_path()}: {one_line(error)}; run: dqe materialize sample_view") from error
    return state


def read_chosen(chosen: Chosen, pictures: Pictures, kind: pa.DataType) -> pa.RecordBatchReader:
    """The chosen samples with a column of thumbnails, a shard at a time.

    Args:
        chosen: which.
        pictures: gives their thumbnails.
        kind: type of these.

    Raises:
        ViewError: the file is not as it was written.
    """
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(samples_path(), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ViewError(f"{samples_path()}: {one_line(error)}; run: dqe materialize sample_view") from error
    schema = file.schema_arrow.insert(1, pa.field(THUMBNAIL, kind))

    def batches() -> Iterator[pa.RecordBatch]:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            if chosen.uids is not None:
                table = table.filter(pc.is_in(table["uid"], value_set=chosen.uids))
            if table.num_rows:
                yield from table.add_column(1, schema.field(1), pictures(table)).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def stored_pictures(store: Store) -> Pictures:
    """Thumbnails as they are in the store: JPEG files, binary."""

    def pictures(samples: pa.Table) -> pa.Array:
        table = store.read("thumbnails", samples["shard"][0].as_py(), THUMBNAILS, [THUMBNAIL])
        return table[THUMBNAIL].combine_chunks().take(samples["row"].combine_chunks())

    return pictures
