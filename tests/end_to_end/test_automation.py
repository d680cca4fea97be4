"""Dagster left to itself: what is added to a source is made without a click."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import make_data_folder
from tests.end_to_end.test_ui import write_photos
from tests.servers.dagster_services import dagster_dev, poll

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """
sources: [{{kind: folder, name: photos, path: {folder}, shard_size: 2}}]
captioners: [{{kind: labels, name: labels}}]
image_text: null
automation: eager
"""
# The daemon looks every 30 s: the shard, what is made for each shard and what is over all take a look each.
SECONDS = 360


def samples(data: Path) -> int:
    """Rows of the warehouse's table of samples; 0 if there is none."""
    import duckdb

    path = data / "warehouse.duckdb"
    if not path.exists():
        return 0
    with duckdb.connect(path, read_only=True) as warehouse:
        ((count,),) = warehouse.execute("SELECT count(*) FROM samples").fetchall()
    return count


def test_a_file_that_is_added_reaches_the_warehouse_and_the_gallery_without_a_click(
    tmp_path: Path, model_cache: Path
) -> None:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    photos, data = tmp_path / "photos", make_data_folder(tmp_path / "data", model_cache)
    (data / "dqe.yaml").write_text(SETTINGS.format(folder=photos))
    write_photos(photos, 2)
    with dagster_dev(data):
        poll("warehouse", lambda: samples(data) == 2, SECONDS)
        poll("gallery", (data / "gallery.html").exists, SECONDS)
        before = (data / "gallery.html").stat().st_mtime_ns
        write_photos(photos, 3)
        poll("new row in the warehouse", lambda: samples(data) == 3, SECONDS)
        poll("new gallery", lambda: (data / "gallery.html").stat().st_mtime_ns > before, SECONDS)
