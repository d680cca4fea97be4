from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from tests.conftest import dqe

if TYPE_CHECKING:
    from pathlib import Path


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_report_prints_every_section(finished: Path) -> None:
    done = dqe(finished, "report")
    assert done.returncode == 0, done.stderr
    for title in ("Samples", "Failures", "Captions", "Preference", "Duplicates", "Concepts", "Shards"):
        assert title in lines(done.stdout)
    assert "This preference proves nothing" in " ".join(done.stdout.split())
    assert lines(done.stdout)[-1].startswith("Next: dqe sql")


def test_status_says_that_all_is_current(finished: Path) -> None:
    done = dqe(finished, "status")
    assert done.returncode == 0, done.stderr
    assert "All is current" in done.stdout


def test_sql_is_csv_when_piped(finished: Path) -> None:
    done = dqe(finished, "sql", "SELECT status, count(*) AS n FROM samples GROUP BY ALL ORDER BY ALL")
    found = {row["status"]: int(row["n"]) for row in rows(done.stdout)}
    assert set(found) == {"ok", "failed"}
    assert sum(found.values()) == 256


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY samples TO '/tmp/out.csv'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "DROP TABLE samples",
        "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
        "SELEC 1",
        "SELECT nothing FROM samples",
    ],
)
def test_sql_refuses_what_is_not_a_query_of_the_warehouse_in_one_line(finished: Path, query: str) -> None:
    done = dqe(finished, "sql", query)
    assert done.returncode == 1
    assert len(lines(done.stderr)) == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_every_table_and_column_says_what_it_is(finished: Path) -> None:
    named = "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL OR comment = ''"
    assert rows(dqe(finished, "sql", named).stdout) == []
    unsaid = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND coalesce(comment, '') = ''"
    assert rows(dqe(finished, "sql", unsaid).stdout) == []
    tables = {row["table_name"] for row in rows(dqe(finished, "sql", "SELECT table_name FROM duckdb_tables()").stdout)}
    wanted = "samples shards captioners caption_preference duplicates failures materialisations"
    assert set(wanted.split()) <= tables


def test_search_by_text_finds_what_the_photos_show(finished: Path) -> None:
    for text, name in (("a cat", "chelsea"), ("red motorcycle in a garage", "motorcycle"), ("a puppy", "puppy")):
        done = dqe(finished, "search", text, "--limit", "3")
        assert done.returncode == 0, done.stderr
        found = [line for line in lines(done.stdout) if line.startswith("│ 0.")]
        assert len(found) == 3
        assert all(f" {name}_" in line for line in found), done.stdout


def test_search_by_image_and_by_condition(finished: Path, tmp_path: Path) -> None:
    table = pq.read_table(finished / "store" / "raw_samples" / "sample-00000.parquet")
    row = next(row for row in table.to_pylist() if row["status"] == "ok" and row["truth"]["photo"] == "coffee")
    (tmp_path / "query.jpg").write_bytes(row["image"]["bytes"])
    found = dqe(finished, "search", "--image", str(tmp_path / "query.jpg"), "--limit", "1")
    assert "coffee" in found.stdout
    assert "1.000" in found.stdout
    none = dqe(finished, "search", "a cat", "--where", "source=elsewhere")
    assert none.returncode == 0
    assert "Nothing found" in none.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "give a text"),
        (["search", "a cat", "--image", "x.jpg"], "one of the three"),
        (["search", "--image", "/no/such.jpg"], "there is no file"),
        (["search", "a cat", "--in", "caption"], "there are no vectors 'caption'; there are: image, original, labels"),
        (["search", "a cat", "--where", "colour=red"], "colour"),
        (["get", "nobody.jpg"], "no sample is named nobody.jpg; near it:"),
        (["explain", "nobody.jpg"], "no sample is named nobody.jpg; near it:"),
        (["materialize", "raw_sample"], "no asset raw_sample; there are: raw_samples"),
        (["materialize", "--shard", "sample-00009"], "no shard sample-00009; there are: sample-00000"),
    ],
)
def test_mistakes_are_one_clear_line(finished: Path, arguments: list[str], message: str) -> None:
    done = dqe(finished, *arguments)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(lines(done.stderr)) == 1


def test_get_shows_a_sample_with_its_captions_and_explain_how_they_came_to_be(finished: Path) -> None:
    done = dqe(finished, "get", "chelsea_03.jpg")
    assert done.returncode == 0, done.stderr
    for word in ("top_label", "Captions", "original", "labels", "Best caption", "highest similarity"):
        assert word in done.stdout
    assert lines(done.stdout)[-1] == "Next: dqe explain chelsea_03.jpg"
    done = dqe(finished, "explain", "chelsea_03.jpg")
    assert done.returncode == 0, done.stderr
    for word in ("top_label", "Captions", "Duplicates", "Filters", "best_30", "Subsets", "fingerprint", "filter_masks"):
        assert word in done.stdout


def test_gallery_says_where_it_is(finished: Path) -> None:
    assert lines(dqe(finished, "gallery").stdout) == [str(finished / "gallery.html")]


@pytest.mark.parametrize(
    "command",
    [["report"], ["gallery"], ["sql", "SELECT 1"], ["get", "x.jpg"], ["explain", "x.jpg"], ["search", "a cat"]],
)
def test_before_anything_is_made_each_command_says_what_to_do(data: Path, command: list[str]) -> None:
    done = dqe(data, *command)
    assert done.returncode in {1, 2}
    assert len(lines(done.stderr)) == 1
    assert "dqe materialize" in done.stderr


def test_sync_registers_shards_and_says_so(data: Path) -> None:
    assert "4 shards; 4 added, 0 removed" in dqe(data, "sync").stdout
    assert "4 shards; 0 added, 0 removed" in dqe(data, "sync").stdout
    (data / "dqe.yaml").write_text("sources: [{kind: sample, shard_size: 128}]\n")
    assert "2 shards; 0 added, 2 removed" in dqe(data, "sync").stdout


def test_wrong_settings_are_one_line_with_the_key(data: Path) -> None:
    (data / "dqe.yaml").write_text("sources: [{kind: smaple}]\n")
    for command in ("sync", "status", "materialize", "report"):
        done = dqe(data, command)
        assert done.returncode == 1
        assert "sources.0: kind 'smaple' is not known" in done.stderr
        assert len(lines(done.stderr)) == 1


def test_a_file_where_the_store_should_be_is_one_clear_line(data: Path) -> None:
    (data / "store").write_text("a file in the way")
    done = dqe(data, "materialize", "raw_samples", "--shard", "sample-00000")
    assert done.returncode == 1
    assert "store/raw_samples/sample-00000.parquet: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_the_demo_twice_repeats_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "store").rglob("*") if path.is_file()}
    done = dqe(finished, "demo")
    assert done.returncode == 0, done.stderr
    assert "0 partitions made or checked" in done.stdout
    assert lines(done.stdout)[-1].startswith("Next: make ui, ")
    assert {path: path.stat().st_mtime_ns for path in before} == before
