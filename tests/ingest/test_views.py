from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dqe_assets.ingest.outcomes import host_of
from dqe_assets.ingest.plots import fetch_outcomes
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.ingest.views import HOST_OF_URL
from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
from dqe_assets.report.tables import MATERIALISATIONS
from tests.report.make_store import RELATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FETCHED_AT = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)

ROWS = [
    # shard, url, reason, attempts, seconds
    ("web-00000", "http://Good.example/1.jpg", "ok", 1, 0.1),
    ("web-00000", "https://good.example:8443/2.jpg", "ok", 3, 0.3),
    ("web-00000", "http://good.example/3.jpg", "http_404", 1, 0.2),
    ("web-00000", "http://bad.example/1.jpg", "timeout", 4, 9.0),
    ("web-00000", "http://bad.example/2.jpg", "timeout", 4, 7.0),
    ("web-00000", "http://bad.example/0.jpg", "dns", 1, None),
    ("web-00001", "http://bad.example/4.jpg", "http_404", 1, 1.0),
    ("web-00001", None, "bad_row", None, None),
]


def raw_samples(rows: list[tuple[str, str | None, str, int | None, float | None]]) -> pa.Table:
    records: list[dict[str, Any]] = [
        {
            "uid": f"{number:032x}",
            "source": "web",
            "shard": shard,
            "row": number,
            "image_name": f"{number}.jpg",
            "url": url,
            "status": "ok" if reason == "ok" else "failed",
            "reason": reason,
            "attempts": attempts,
            "seconds": seconds,
            "fetched_at": FETCHED_AT if attempts else None,
            "source_metadata": '{"score": 0.25}',
        }
        for number, (shard, url, reason, attempts, seconds) in enumerate(rows)
    ]
    return pa.Table.from_pylist(records, RAW_SAMPLES)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path: Path = tmp_path_factory.mktemp("store") / "raw_samples.parquet"
    pq.write_table(raw_samples(ROWS), path)
    with duckdb.connect() as connection:
        assets = {"raw_samples": [path]}
        build_warehouse(connection, WarehouseInputs(RELATIONS, assets, MATERIALISATIONS.empty_table(), (), "none"))
        yield connection


def test_failures_say_which_reasons_at_which_hosts_how_many_of_each_shard_and_how_long(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    found = warehouse.execute(
        'SELECT shard, reason, host, "rows", share, median_seconds, retries, example_url FROM failures_by_host'
    ).fetchall()
    assert found[0] == ("web-00000", "timeout", "bad.example", 2, 2 / 6, 8.0, 6, "http://bad.example/1.jpg")
    assert {row[:4]: row[4] for row in found[1:]} == {
        ("web-00000", "dns", "bad.example", 1): 1 / 6,
        ("web-00000", "http_404", "good.example", 1): 1 / 6,
        ("web-00001", "bad_row", None, 1): 1 / 2,
        ("web-00001", "http_404", "bad.example", 1): 1 / 2,
    }


def test_hosts_are_ordered_by_what_failed(warehouse: duckdb.DuckDBPyConnection) -> None:
    (bad, good) = warehouse.execute("FROM hosts").fetchall()
    assert bad[:5] == ("bad.example", 4, 0, 4, 0.0)
    assert bad[7:] == (6, "timeout")
    assert good[:6] == ("good.example", 3, 2, 1, 2 / 3, pytest.approx(0.2))
    assert good[6:] == (pytest.approx(0.29), 2, "http_404")


def test_samples_and_failures_carry_the_ledger(warehouse: duckdb.DuckDBPyConnection) -> None:
    columns = "host, attempts, seconds, fetched_at"
    for table in ("samples", "failures"):
        found = warehouse.execute(f"SELECT {columns} FROM {table} WHERE url = 'http://bad.example/1.jpg'").fetchall()
        assert found == [("bad.example", 4, 9.0, FETCHED_AT.replace(tzinfo=None))]
    score = warehouse.execute("SELECT sum((source_metadata->>'score')::DOUBLE) FROM samples").fetchall()
    assert score == [(len(ROWS) / 4,)]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Static.Flickr.com/43/x.jpg", "static.flickr.com"),
        ("HTTPS://a.example:8443/x?y=http://b.example/", "a.example"),
        ("http://user:p@ss@a.example/x", "a.example"),
        ("http://[2001:DB8::1]:80/x", "2001:db8::1"),
        ("http://a.example?q", "a.example"),
        ("http://a.example#f@b.example", "a.example"),
        ("ftp://a.example/x", "a.example"),
        ("data:image/png;base64,AAAA", None),
        ("//a.example/x", None),
        ("no url", None),
        ("http:///x", None),
        ("", None),
    ],
)
def test_the_host_is_the_one_that_the_url_names(url: str, host: str | None) -> None:
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT {HOST_OF_URL} FROM (SELECT ? AS url)", [url]).fetchall() == [(host,)]
    if not url.startswith("//"):
        assert (host_of(url) or None) == host


def drawn(rows: list[tuple[str, str | None, str, int | None, float | None]]) -> Image.Image:
    return Image.open(io.BytesIO(fetch_outcomes(raw_samples(rows))))


def test_a_bar_for_each_of_the_worst_hosts_and_one_for_all() -> None:
    many = [("s-0", f"http://h{n}.example/", "ok" if n % 3 else "dns", 1, 1.0) for n in range(60)]
    one = drawn([row for row in many if row[1] == "http://h3.example/"])
    assert one.height < drawn(many[:4]).height < drawn(many).height < 800
    assert drawn(many).width == one.width
    assert fetch_outcomes(raw_samples(many)) == fetch_outcomes(raw_samples(many))


def test_hostile_names_and_no_names_are_drawn() -> None:
    drawn([("s-0", f"http://{'$x_{^' * 20}{n}/", "http_" + "9" * n, 1, 1.0) for n in range(1, 12)])
    drawn([("s-0", None, "bad_row", None, None)])
    drawn([])
