"""The view as a folder that needs nothing else: for a colleague, or a host of static files."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.view.chosen import ViewError
from dqe_assets.view.files import read_chosen, read_state, stored_pictures
from dqe_assets.view.server import POLICY, properties, static_folder
from dqe_resources.errors import UsageError
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from dqe_assets.view.chosen import Chosen
    from dqe_resources.store import Store

_METADATA = "data/metadata.json"
_SAMPLES = "data/dataset.parquet"
_HEAD = "<head>"
# A page that is opened from a file has no origin, and frames are told of in a header alone.
_POLICY = POLICY.partition("; frame-ancestors")[0]


def export_view(
    folder: Path, chosen: Chosen, store: Store, progress: Callable[[int, int], None] = lambda _, __: None
) -> int:
    """Write the page, the samples with their thumbnails in one Parquet file, and what is shown first.

    The page is written last: a folder without ``index.html`` is not complete, and the same command completes it.

    Args:
        folder: new, empty, or one that was exported before.
        chosen: the samples.
        store: where their thumbnails are.
        progress: told of the samples done and of all.

    Returns:
        The size of the samples in bytes.

    Raises:
        UsageError: the folder holds something else.
        ViewError: what was written for the view is damaged.
        StorageError: thumbnails are missing, or the folder cannot be written.
    """
    import pyarrow.parquet as pq

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _METADATA).is_file():
        raise UsageError(f"{folder}: there is something else in it; give a folder that is new, or empty")
    (folder / "index.html").unlink(missing_ok=True)
    samples = read_chosen(chosen, stored_pictures(store), pa.binary())
    metadata = {
        "props": properties(samples.schema, read_state()),
        "isStatic": True,
        "database": {"type": "wasm", "load": True},
    }
    replace_file(folder / _METADATA, lambda target: target.write(json.dumps(metadata).encode()))

    def write(target: BinaryIO) -> None:
        done = 0
        with pq.ParquetWriter(
            target, samples.schema, compression="zstd", use_dictionary=_dictionaries(samples)
        ) as writer:
            for batch in samples:
                writer.write_batch(batch, row_group_size=max(1, batch.num_rows))
                done += batch.num_rows
                progress(done, chosen.shown)

    replace_file(folder / _SAMPLES, write)
    for path in sorted(static_folder().rglob("*")):
        target = folder / path.relative_to(static_folder())
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.name != "index.html":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    page = (static_folder() / "index.html").read_text(encoding="utf-8")
    if _HEAD not in page:
        raise ViewError("the installed version of embedding-atlas has another page; run: pip install '.[view]'")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    guarded = page.replace(_HEAD, f'{_HEAD}\n    {policy}\n    <meta name="referrer" content="no-referrer">', 1)
    replace_file(folder / "index.html", lambda target: target.write(guarded.encode()))
    return (folder / _SAMPLES).stat().st_size


def _dictionaries(samples: pa.RecordBatchReader) -> list[str]:
    """The columns in which values come again: no two pictures are equal."""
    return [column.name for column in samples.schema if pa.types.is_string(column.type)]
