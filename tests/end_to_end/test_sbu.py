from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from tests import sbu_mirror
from tests.stages import handed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from dqe_assets.core.work import CheckResult

ROWS = 300


@pytest.fixture
def mirror(sbu: Path, data: Path) -> Iterator[dict[str, Any]]:
    """The settings to fetch rows of SBU through a mirror that has nine of its photos."""
    sbu_mirror.write_official_files(sbu_mirror.rows_of(sbu, ROWS), data)
    with sbu_mirror.serve(sbu / "images") as address:
        yield sbu_mirror.settings(address)


def make(data: Path, settings: dict[str, Any]) -> tuple[pa.Table, dict[str, CheckResult]]:
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    loaded = load_settings()
    work = raw_samples.work(loaded.opened_store, "sbu-00000", [])
    results = raw_samples.make(work, handed(loaded, raw_samples))[2]
    return loaded.opened_store.read("raw_samples", "sbu-00000", RAW_SAMPLES), results


def test_real_rows_of_sbu_end_with_their_photo_or_the_reason(sbu: Path, data: Path, mirror: dict[str, Any]) -> None:
    expected = sbu_mirror.rows_of(sbu, ROWS)
    photos = {path.name: path.read_bytes() for path in (sbu / "images").iterdir()}
    table, results = make(data, mirror)
    assert all(result.passed for result in results.values())
    assert table["url"].to_pylist() == expected["image_url"].to_pylist()
    assert [text.split() for text in table["caption"].to_pylist()] == [
        text.split() for text in expected["original_caption"].to_pylist()
    ]
    found = 0
    for row, name in zip(table.to_pylist(), expected["image_name"].to_pylist(), strict=True):
        assert row["image_name"].partition(":")[0] == name
        if name in photos:
            assert (row["status"], row["image"]["bytes"], row["attempts"]) == ("ok", photos[name], 1)
            found += 1
        else:
            assert (row["reason"], row["http_status"], row["attempts"]) == ("http_404", 404, 1)
    assert found == len(photos) == 9


def test_so_many_dead_links_stop_the_shard_unless_they_are_expected(data: Path, mirror: dict[str, Any]) -> None:
    mirror["sources"][0]["min_success_rate"] = 0.5
    mirror["fetching"]["canary_rows"] = 0
    table, results = make(data, mirror)
    assert table.num_rows == ROWS
    assert not results["success_rate"].passed
    assert "9 of 300 rows have an image (3.0%, at least 50% required)" in results["success_rate"].description
    assert "http_404" in results["success_rate"].description
    assert "flickr.com" in results["success_rate"].description
