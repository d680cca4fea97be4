"""What people look at in a browser: a thumbnail of each image, and all that is known of each sample."""

from __future__ import annotations

import json
import shutil
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.checks import complete, unique, without_faults
from dqe_assets.core.signals import signals_of
from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.search.kept_map import INPUTS, draw, kept_map
from dqe_assets.search.neighbours import nearest
from dqe_assets.view import metadata
from dqe_assets.view.samples import NEIGHBOURS, read_samples
from dqe_assets.view.state import initial_state
from dqe_assets.view.tables import THUMBNAILS
from dqe_assets.view.thumbnails import thumbnails as small_copies
from dqe_resources.cache import data_directory
from dqe_resources.store import is_as_written, replace_file, what_is_written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from dqe_assets.core.signals import Signal
    from dqe_assets.core.work import Batches
    from dqe_assets.search.kept_map import Drawn
    from dqe_resources.store import Stamp
    from dqe_resources.warehouse import Warehouse

_NEIGHBOURS = 8
"""Neighbours of a sample."""

ROWS_AT_ONCE = 128
"""Rows of a row group of thumbnails: one is read to show one of them."""


def samples_path() -> Path:
    """Where the samples of the view are written."""
    return data_directory() / "view" / "samples.parquet"


def state_path() -> Path:
    """Where what the view shows first is written."""
    return data_directory() / "view" / "state.json"


@stage(
    kinds={"parquet"},
    code_version="1",
    schema=THUMBNAILS,
    inputs=["raw_samples"],
    checks=[unique("uid"), complete(), without_faults()],
    metadata=metadata.thumbnails,
)
def thumbnails(work: Work) -> Batches:
    """A small copy of each image, made once, for the pages that show samples."""
    meter = work.meter(work.read("raw_samples", ["uid"]).num_rows)
    for batch in small_copies(work.batches("raw_samples", ["uid", "image"], ROWS_AT_ONCE)):
        yield batch
        meter.advance(batch.num_rows)


def _rows_complete(_: Work, output: Manifest, warehouse: Warehouse) -> CheckResult:
    with warehouse.connect() as connection:
        expected = (connection.execute("SELECT count(*) FROM samples").fetchone() or (0,))[0]
    return CheckResult(
        output.rows == expected,
        f"{output.rows:,} samples are in the view, {expected:,} in the warehouse",
        {"found": output.rows, "expected": expected},
    )


def sample_view_of(stages: Sequence[Stage]) -> Stage:
    """The asset ``sample_view``, with the signals of these stages."""
    signals = signals_of(stages)

    @stage(
        kinds={"parquet"},
        code_version="1",
        inputs=["thumbnails", *INPUTS],
        unpartitioned_inputs=["warehouse", "collection_map"],
        partitioned=False,
        resources={"samples": "map.samples"},
        checks=[Check("rows_complete", "Every sample of the warehouse is in the view.", _rows_complete)],
        metadata=metadata.sample_view,
        signature=lambda _: sorted(signals),
        is_valid=_is_written,
    )
    def sample_view(work: Work, warehouse: Warehouse, samples: int) -> Manifest:
        """What `dqe view` opens: all that is known of each sample, and which charts and columns are shown first.

        The pictures stay in `thumbnails`, where the view reads those that it shows: another shard costs what its facts
        cost.
        """
        # Of the map that was just made: only what is not kept of it is read again.
        neighbours = _neighbours(draw(work, samples, kept_map().drawn))
        samples_path().parent.mkdir(parents=True, exist_ok=True)
        spill = Path(tempfile.mkdtemp(prefix=".spill-", dir=samples_path().parent))
        try:
            with warehouse.connect() as connection:
                tables = (_with_neighbours(table, neighbours) for table in read_samples(connection, spill))
                written = write_view(tables, signals)
        finally:
            shutil.rmtree(spill, ignore_errors=True)
        return written

    return sample_view


def _is_written(_: Work, stamp: Stamp) -> bool:
    return is_as_written(samples_path(), stamp.facts) and is_as_written(state_path(), stamp.facts["state"])


def write_view(tables: Iterator[pa.Table], signals: Mapping[str, Signal]) -> Manifest:
    """Write the samples, a row group for each shard, and then the state."""
    import pyarrow.parquet as pq

    rows = 0
    first = next(tables)
    schema, filled = first.schema, set[str]()

    def write(target: BinaryIO) -> None:
        nonlocal rows
        with pq.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in chain([first], tables):
                writer.write_table(table, row_group_size=max(1, table.num_rows))
                rows += table.num_rows
                filled.update(name for name in schema.names if table[name].null_count < table.num_rows)

    replace_file(samples_path(), write)
    empty = [name for name in schema.names if name not in filled]
    state = json.dumps(initial_state(schema, empty, signals), indent=1).encode()
    replace_file(state_path(), lambda target: target.write(state))
    return Manifest(
        rows,
        {
            "path": str(samples_path()),
            "columns": schema.names,
            "empty": empty,
            **what_is_written(samples_path()),
            "state": what_is_written(state_path()),
        },
    )


def _neighbours(drawn: Drawn) -> pa.Table:
    """Uid and neighbours of the samples on the map: of a large store they are a sample, as the map is."""
    uids = drawn.samples["uid"].combine_chunks()
    rows, distances = nearest(drawn.vectors, _NEIGHBOURS)
    ends = pa.array(np.arange(len(uids) + 1, dtype=np.int32) * rows.shape[1])
    lists = [uids.take(pa.array(rows.reshape(-1))), pa.array(distances.reshape(-1))]
    columns = [pa.ListArray.from_arrays(ends, values) for values in lists]
    return pa.table({"uid": uids, "neighbours": pa.StructArray.from_arrays(columns, fields=list(NEIGHBOURS))})


def _with_neighbours(table: pa.Table, neighbours: pa.Table) -> pa.Table:
    places = pc.index_in(table["uid"], value_set=neighbours["uid"])
    return table.append_column(pa.field("neighbours", NEIGHBOURS), neighbours["neighbours"].take(places))
