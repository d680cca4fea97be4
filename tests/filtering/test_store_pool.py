from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dqe_assets.core.arrow import to_matrix
from dqe_assets.dedup.tables import DUPLICATE_CLUSTERS
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.tmars import tmars_mask
from dqe_assets.filtering.pool import PoolError
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.tables import MASKED_SIMILARITY

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings

SHARDS = tuple(f"sample-{index:05d}" for index in range(4))


@pytest.fixture
def pool(opened: Settings) -> StorePool:
    return StorePool(opened.opened_store, SHARDS)


def columns_of(pool: StorePool, *names: str, batch_rows: int = 1000) -> pa.Table:
    return pa.Table.from_batches([batch for part in pool.parts for batch in part.batches(names, batch_rows)])


def test_every_column_of_the_warehouses_samples_is_there_with_the_same_values(
    pool: StorePool, opened: Settings
) -> None:
    with opened.warehouse.connect() as connection:
        expected = connection.sql("FROM samples WHERE status = 'ok' ORDER BY shard, \"row\"").to_arrow_table()
    found = columns_of(pool, *expected.column_names)
    assert found.num_rows == 234
    for name in expected.column_names:
        wanted = expected[name]
        if pa.types.is_floating(wanted.type):
            np.testing.assert_allclose(found[name].to_numpy(), wanted.to_numpy(), rtol=1e-6, err_msg=name)
        else:
            assert found[name].to_pylist() == wanted.to_pylist(), name


def test_datacomps_columns_are_those_of_the_samples_that_have_an_image(pool: StorePool, opened: Settings) -> None:
    raw = pa.concat_tables(opened.opened_store.read("raw_samples", shard, RAW_SAMPLES) for shard in SHARDS)
    raw = raw.filter(pc.equal(raw["status"], "ok"))
    found = columns_of(pool, "uid", "text", "original_width", "original_height", batch_rows=17)
    assert found.column_names == ["uid", "text", "original_width", "original_height"]
    assert found["uid"].to_pylist() == raw["uid"].to_pylist()
    assert found["text"].to_pylist() == raw["caption"].to_pylist(), "as found, empty and null ones too"
    assert found["original_width"].to_pylist() == raw["width"].to_pylist()
    assert [part.rows for part in pool.parts] == [
        pc.sum(pc.equal(raw["shard"], shard)).as_py() for shard in SHARDS
    ]  # fmt: skip
    batches = [batch.num_rows for batch in pool.parts[0].batches(["uid"], 17)]
    assert max(batches) == 17


def test_representatives_are_those_of_the_clusters(pool: StorePool, opened: Settings) -> None:
    clusters = opened.opened_store.read("duplicate_clusters", None, DUPLICATE_CLUSTERS)
    for kind in ("exact", "perceptual", "semantic", "any"):
        members = clusters.filter(pc.equal(clusters["kind"], kind))
        expected = dict(zip(members["uid"].to_pylist(), members["is_representative"].to_pylist(), strict=True))
        found = columns_of(pool, "uid", f"is_representative_{kind}")
        assert found.column(1).to_pylist() == [expected.get(uid) for uid in found["uid"].to_pylist()]


def test_embeddings_are_named_for_what_they_are(pool: StorePool) -> None:
    found = columns_of(pool, "image_embedding", "image_features", "similarity")
    rows, joint = to_matrix(found["image_embedding"])
    assert len(rows) == 234
    np.testing.assert_allclose(np.linalg.norm(joint, axis=1), 1, atol=2e-3)
    assert to_matrix(found["image_features"])[1].shape == (234, 1280)


def test_tmars_keeps_the_best_half_by_the_masked_similarity(pool: StorePool, opened: Settings) -> None:
    found = columns_of(pool, "uid", "masked_similarity", "similarity", "text_area")
    stored = pa.concat_tables(
        opened.opened_store.read("masked_similarity", shard, MASKED_SIMILARITY) for shard in SHARDS
    )
    expected = dict(zip(stored["uid"].to_pylist(), stored["masked_similarity"].to_pylist(), strict=True))
    assert found["masked_similarity"].to_pylist() == [expected[uid] for uid in found["uid"].to_pylist()]
    (tmars,) = parse("tmars(0.5)").leaves
    kept = tmars.fit([pool]).mask(found)
    assert kept.sum() == 234 // 2 + 1
    scores = found["masked_similarity"].to_numpy()
    assert np.array_equal(kept, tmars_mask(scores, 0.5))
    assert np.nanmin(scores[kept]) > np.nanmax(scores[~kept])
    assert not np.array_equal(kept, tmars_mask(found["similarity"].to_numpy(), 0.5))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("clip_l14_similarity_score", "its scorer is none of DataComp's CLIPs; caption_quality chooses by"),
        ("l14_img", "it has image_embedding"),
        ("beauty", r"the store has no column beauty \(shard sample-00000\): there are: attempts, best_similarity"),
    ],
)
def test_what_the_store_has_not_is_refused_with_what_to_take_instead(
    pool: StorePool, column: str, message: str
) -> None:
    with pytest.raises(PoolError, match=message):
        columns_of(pool, column)


def test_inputs_are_named_with_what_went_into_them(pool: StorePool, opened: Settings) -> None:
    first, second = (part.files(["uid", "similarity", "is_duplicate"]) for part in pool.parts[:2])
    assert [file.path for file in first] == [
        "caption_scores/sample-00000", "duplicate_clusters/all", "raw_samples/sample-00000", "reviews/sample-00000"
    ]  # fmt: skip
    assert [file.path for file in second] == [
        "caption_scores/sample-00001", "raw_samples/sample-00001", "reviews/sample-00001"
    ]  # fmt: skip
    stored = opened.opened_store.get("caption_scores", SHARDS[0])
    assert stored is not None
    assert (first[0].bytes, first[0].digest) == (stored.bytes, f"fingerprint:{stored.stamp.fingerprint}")
