from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.cli.search import SNIPPET, snippet
from dqe_assets.search.collection_points import collection_points, languages
from dqe_assets.search.query import CLUSTER, CONDITIONS, Query, search_collection
from dqe_assets.search.tables import SEARCH_HITS
from tests.conftest import dqe

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings


def test_more_like_a_sample_by_uid_or_name_leaves_it_out(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        uid, name = connection.execute(
            "SELECT uid, image_name FROM samples WHERE image_name = 'chelsea_03.jpg' AND status = 'ok'"
        ).fetchone()
    hits = search_collection(opened, Query(like=uid), limit=5)
    assert uid not in {hit.uid for hit in hits}
    assert sum(hit.payload["image_name"].startswith("chelsea") for hit in hits) >= 4
    assert search_collection(opened, Query(like=name), limit=5) == hits


def test_unique_leaves_out_redundant_duplicates_and_fills_up(opened: Settings) -> None:
    plain = search_collection(opened, Query("a cat"), limit=10)
    unique = search_collection(opened, Query("a cat"), limit=10, unique=True)
    with opened.warehouse.connect() as connection:
        redundant = {uid for (uid,) in connection.execute("SELECT uid FROM samples WHERE is_duplicate").fetchall()}
    assert any(hit.uid in redundant for hit in plain)
    assert not any(hit.uid in redundant for hit in unique)
    assert len(unique) == 10
    everything = search_collection(opened, Query("a cat"), limit=1000)
    assert [hit for hit in everything if hit.uid not in redundant][:10] == unique


def test_captions_are_searched_by_text_and_by_language(opened: Settings) -> None:
    hits = search_collection(opened, Query("a cat"), using="original", where=["language=de"], limit=5)
    assert hits
    assert {hit.payload["language"] for hit in hits} == {"de"}


def test_a_duplicate_cluster_is_looked_up_in_the_warehouse(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        cluster, size = connection.execute(
            "SELECT cluster, count(*) FROM samples WHERE cluster IS NOT NULL GROUP BY cluster ORDER BY 2 DESC LIMIT 1"
        ).fetchone()
        members = connection.execute("SELECT uid FROM samples WHERE cluster = ?", [cluster]).fetchall()
    hits = search_collection(opened, Query("a cat"), where=[f"cluster={cluster}"], limit=100)
    assert {(hit.uid,) for hit in hits} == set(members)
    assert len(hits) == size > 2
    where = [f"cluster={cluster}", "language=en"]
    narrowed = search_collection(opened, Query("a cat"), where=where, limit=100)
    assert narrowed == [hit for hit in hits if hit.payload.get("language") == "en"]
    assert 0 < len(narrowed) < len(hits)
    with pytest.raises(ValueError, match="there is no duplicate cluster nobody"):
        search_collection(opened, Query("a cat"), where=["cluster=nobody"])


def test_captions_are_searched_by_what_is_wrong_with_them(opened: Settings) -> None:
    every = search_collection(opened, Query("a cat"), using="labels", limit=1000)
    clean = search_collection(opened, Query("a cat"), using="labels", where=["flagged_labels=false"], limit=1000)
    assert clean == [hit for hit in every if not hit.payload["flags_labels"]]
    assert clean
    assert search_collection(opened, Query("a cat"), where=["flags_labels=no_such_flag"]) == []


def test_a_point_has_all_that_a_search_can_be_narrowed_by() -> None:
    uids = ["a" * 32, "b" * 32, "c" * 32]
    raw = pa.table(
        {
            "uid": uids, "source": ["web"] * 3, "shard": ["web-0"] * 3, "image_name": ["1", "2", "3"],
            "url": pa.nulls(3, pa.string()), "width": [1, 2, 3], "height": [1, 2, 3], "status": ["ok", "failed", "ok"],
        }
    )  # fmt: skip
    captions = {"original": pa.array(["a cat in the garden", None, None]), "vlm": pa.array(["A cat", None, None])}
    flags = {"vlm": pa.chunked_array([pa.array([["cut_off"], None, None], pa.list_(pa.string()))])}
    items, sources = ["image", "original", "vlm"], ["original", "vlm"]
    embeddings = pa.table({"item": items * 3, "embedding": pa.array([[1.0]] * 9, pa.list_(pa.float16()))})
    scores = pa.table({"caption_source": sources * 3, "similarity": pa.array([0.5, 0.25] * 3, pa.float32())})
    points = collection_points(raw, captions, flags, embeddings, scores)
    first, second = points.to_pylist()
    assert [first["uid"], second["uid"]] == [uids[0], uids[2]]
    assert (first["flags_vlm"], first["flagged_vlm"], first["language"]) == (["cut_off"], True, "en")
    assert (second["flags_vlm"], second["flagged_vlm"], second["language"]) == (None, None, None)
    for field in CONDITIONS:
        narrowable = [name for name in points.column_names if fnmatchcase(name, field)]
        assert narrowable or field == CLUSTER, f"no point has {field}: a search narrowed by it finds nothing"


@pytest.mark.parametrize("query", [{}, {"text": "a", "like": "b"}])
def test_a_query_is_one_thing(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of these three"):
        Query(**query)


def test_no_such_sample(opened: Settings) -> None:
    with pytest.raises(ValueError, match=r"no sample .* nobody\.jpg"):
        search_collection(opened, Query(like="nobody.jpg"))


def test_save_writes_what_was_found(finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "cats.parquet"
    done = dqe(finished, "search", "a cat", "--limit", "60", "--save", str(target))
    assert done.returncode == 0, done.stderr
    assert "and 10 more" in done.stdout
    assert f"60 samples written to {target}" in done.stdout
    table = pq.read_table(target)
    assert table.schema.equals(SEARCH_HITS)
    scores = table["score"].to_pylist()
    assert len(table) == 60
    assert scores == sorted(scores, reverse=True)
    assert set(table["source"].to_pylist()) == {"sample"}
    refused = dqe(finished, "search", "a cat", "--save", str(finished / "dqe.yaml" / "x.parquet"))
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr


def test_a_snippet_is_one_short_line() -> None:
    assert snippet(None) == ""
    assert snippet("a\n b") == "a b"
    long = snippet("word " * 100)
    assert len(long) <= SNIPPET + 1
    assert long.endswith("word…")


def test_languages() -> None:
    texts = ["a black cat sleeping on the red sofa", "eine schwarze Katze schläft auf dem Sofa", None, "", "12 34"]
    assert languages(pa.chunked_array([texts])).to_pylist() == ["en", "de", None, None, None]
