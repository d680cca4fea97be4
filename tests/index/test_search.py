from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.index.commands import SNIPPET, snippet
from dqe_assets.index.points import languages
from dqe_assets.index.search import Query, search_collection
from dqe_assets.schemas import SEARCH_HITS
from tests.conftest import dqe

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.settings import Settings


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


@pytest.mark.parametrize("query", [{}, {"text": "a", "like": "b"}])
def test_a_query_is_one_thing(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="one of the three"):
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
