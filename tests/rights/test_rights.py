"""The rights of rows: from the source's columns, from its setting, and from the image files."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dqe_assets.filtering.pool import PoolError
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.orchestration.settings import load_settings
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from pathlib import Path

SHARD = "photos-00000"


def save(path: Path, seed: int, notice: str | None = None) -> None:
    exif = Image.Exif()
    if notice:
        exif[0x8298] = notice
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)


def made(folder: Path, **source: Any) -> list[dict[str, Any]]:
    """The rights of a folder's rows, by the order of their names."""
    of_photos = {"kind": "folder", "name": "photos", "path": "photos", "min_success_rate": 0.0, **source}
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [of_photos]}))
    settings = load_settings()
    for name in ("raw_samples", "rights"):
        stage = stage_named(settings, name)
        _, _, results = stage.make(stage.work(settings.opened_store, SHARD, []), handed(settings, stage))
        assert all(result.passed for result in results.values()), results
    return table_of(settings, "rights", SHARD).to_pylist()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (name, notice) in enumerate({"a": None, "b": "(c) Ada", "c": "(c) Bob"}.items()):
        save(folder / f"{name}.jpg", seed, notice)
    rows = [
        {"file_name": "a.jpg", "text": "one", "licence": "CC-BY-4.0", "by": "Ada"},
        {"file_name": "b.jpg", "text": "two", "licence": " ", "by": {"name": "Bob"}},
        {"file_name": "c.jpg", "text": "three"},
        {"file_name": "gone.jpg", "text": "four", "licence": "CC0"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_a_row_has_the_licence_of_its_column_and_else_of_its_source(photos: Path) -> None:
    rows = made(photos, license="own", license_column="licence", attribution_column="by")
    assert [row["license"] for row in rows] == ["CC-BY-4.0", "own", "own", "CC0"]
    assert [row["attribution"] for row in rows] == ["Ada", '{"name": "Bob"}', None, None]
    assert [row["notice"] for row in rows] == [None, "(c) Ada", "(c) Bob", None]
    assert [row["c2pa"] for row in rows] == [False, False, False, None]
    # The licence of the source is said again, and nothing is read from the source for it.
    settings = load_settings()
    before = settings.opened_store.get("raw_samples", SHARD)
    again = made(photos, license="other", license_column="licence", attribution_column="by")
    assert [row["license"] for row in again] == ["CC-BY-4.0", "other", "other", "CC0"]
    after = load_settings().opened_store.get("raw_samples", SHARD)
    assert before is not None
    assert after is not None
    assert before.written_at == after.written_at


def test_a_licence_column_of_a_list_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    (tmp_path / "list.csv").write_text("url,caption,licence\nhttp://a/1,x,CC0\n")
    source = {"kind": "urls", "name": "web", "path": "list.csv", "license_column": "licence"}
    (tmp_path / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    (web,) = load_settings().sources
    assert json.loads(next(web.rows(0)).metadata or "") == {"licence": "CC0"}
    assert web.typed_metadata() == {}, "it is no column of samples of its own"


def test_rights_are_columns_of_the_pool(photos: Path) -> None:
    made(photos, license="own")
    pool = StorePool(load_settings().opened_store, (SHARD,))
    (batch,) = pool.parts[0].batches(["rights_license", "rights_notice", "rights_c2pa"])
    assert batch.to_pylist()[1] == {"rights_license": "own", "rights_notice": "(c) Ada", "rights_c2pa": False}
    with pytest.raises(PoolError):
        next(pool.parts[0].batches(["rights_uid"]))


def test_a_filter_can_name_them(photos: Path) -> None:
    settings = yaml.safe_load((photos / "dqe.yaml").read_text()) if (photos / "dqe.yaml").exists() else {}
    source = {"kind": "folder", "name": "photos", "path": "photos"}
    filters = {"free": "rights_license in ['CC0', 'CC-BY-4.0'] & rights_c2pa == False"}
    (photos / "dqe.yaml").write_text(yaml.safe_dump({**settings, "sources": [source], "filters": filters}))
    assert "rights" in stage_named(load_settings(), "filter_masks").inputs


def test_what_a_file_says_outlives_that_it_is_made_smaller(photos: Path) -> None:
    settings = {"sources": [{"kind": "folder", "name": "photos", "path": "photos"}], "images": {"longest_side": 16}}
    (photos / "dqe.yaml").write_text(yaml.safe_dump(settings))
    loaded = load_settings()
    for name in ("raw_samples", "rights"):
        stage = stage_named(loaded, name)
        stage.make(stage.work(loaded.opened_store, SHARD, []), handed(loaded, stage))
    rows = table_of(loaded, "rights", SHARD).to_pylist()
    assert [row["notice"] for row in rows] == [None, "(c) Ada", "(c) Bob", None]
    data = table_of(loaded, "raw_samples", SHARD)["image"].to_pylist()[1]["bytes"]
    with Image.open(io.BytesIO(data)) as image:
        assert max(image.size) == 16


def test_a_licence_column_of_a_table_with_images_is_kept(photos: Path) -> None:
    images = [(photos / "photos" / f"{name}.jpg").read_bytes() for name in "ab"]
    table = pa.table({"image": images, "caption": ["one", "two"], "licence": ["CC0", None]})
    pq.write_table(table, photos / "pairs.parquet")
    rows = made(photos, kind="parquet", path="pairs.parquet", license="own", license_column="licence")
    assert [(row["license"], row["notice"]) for row in rows] == [("CC0", None), ("own", "(c) Ada")]
