"""Lists of what is to be taken down: what they can hold, what is refused, and what an entry matches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.ingest.takedowns.entries import (
    KINDS,
    Entries,
    TakedownError,
    entry_of,
    hosts_above,
    normal_host,
    normal_url,
    read_entries,
)
from dqe_assets.ingest.takedowns.matching import ROW_COLUMNS, Matcher
from dqe_assets.ingest.takedowns.memory import REMEMBERED
from dqe_assets.orchestration.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UID, SHA256, PERCEPTUAL = "0123456789abcdef" * 2, "ab" * 32, "8000000000000001"

LINES = f"""\ufeff# asked for on 2 May
http://Example.org:80/a b.jpg?x=1#top

 images.example.com
bücher.example
10.0.0.7
[2001:DB8::7]
{UID.upper()}
{SHA256}
{PERCEPTUAL}
"""

FOUND = {
    "url": {"http://example.org/a%20b.jpg?x=1"},
    "host": {"images.example.com", "xn--bcher-kva.example", "10.0.0.7", "2001:db8::7"},
    "uid": {UID},
    "sha256": {SHA256},
    "perceptual_hash": {PERCEPTUAL},
}


def found(path: Path) -> dict[str, set[str]]:
    return {kind: set(values) for kind, values in read_entries([path]).found.items()}


def test_each_line_of_text_is_what_it_looks_like(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(LINES, encoding="utf-8")
    assert found(path) == FOUND
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert found(path) == FOUND


def write_table(path: Path, columns: dict[str, list[Any]]) -> Path:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(columns), *(mark.join(str(value or "") for value in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_has_a_column_for_each_kind_and_whatever_else(tmp_path: Path, suffix: str) -> None:
    columns = {
        "url": ["http://Example.org:80/a b.jpg?x=1", None, None, None],
        "asked_by": ["one", "two", "three", "four"],
        "host": ["images.example.com", "bücher.example", "10.0.0.7", "2001:db8::7"],
        "sha256": [None, SHA256, None, None],
        "uid": [UID, None, None, None],
        "perceptual_hash": [None, None, None, PERCEPTUAL],
    }
    assert found(write_table(tmp_path / f"list{suffix}", columns)) == FOUND
    hosts = {"host": columns["host"]}
    assert found(write_table(tmp_path / f"hosts{suffix}", hosts)) == {
        **{key: set() for key in KINDS},
        "host": FOUND["host"],
    }


def test_a_perceptual_hash_can_be_the_number_that_image_features_has(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"perceptual_hash": pa.array([int(PERCEPTUAL, 16), 5], pa.uint64())}), path)
    assert found(path)["perceptual_hash"] == {PERCEPTUAL, "0000000000000005"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cat", "expected a URL"),
        (UID[:-1], "expected a URL"),
        ("example.org/a.jpg", "host"),
        ("example.org:80", "no name of a host"),
        ("*.example.org", "host"),
        ("ftp://example.org/a", "not an http or https URL"),
        ("http://", "not an http or https URL"),
        ("two words.org", "host"),
    ],
)
def test_a_line_that_is_none_of_these_is_named_with_its_file(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"example.org\n{line}\n")
    with pytest.raises(TakedownError) as error:
        read_entries([path])
    assert f"{path}, line 2: " in str(error.value)
    assert said in str(error.value)


def test_faults_of_files_are_named(tmp_path: Path) -> None:
    def fault(name: str, write: Callable[[Path], object]) -> str:
        write(tmp_path / name)
        with pytest.raises(TakedownError) as error:
            read_entries([tmp_path / name])
        assert str(tmp_path / name) in str(error.value)
        return str(error.value)

    assert "none of the columns url, host, uid" in fault("a.csv", lambda path: path.write_text("link\nhttp://a.org/\n"))
    assert "row 2, column uid" in fault("b.csv", lambda path: path.write_text(f"uid\n{UID}\nabc\n"))
    assert "UTF-8" in fault("c.txt", lambda path: path.write_bytes(b"\xff\xfe"))
    assert "cannot be read" in fault("d.parquet", lambda path: path.write_bytes(b"PAR1"))
    assert "password" not in fault("e.txt", lambda path: path.write_text("ftp://user:password@example.org/"))


def test_the_setting_is_a_list_of_files_or_has_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    (tmp_path / "one.txt").write_text("example.org\n")

    def load(value: object) -> Any:
        (tmp_path / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "sample"}], "takedowns": value}))
        return load_settings(sources_may_be_away=True).takedowns

    assert load(["one.txt"]) == load({"files": ["one.txt"]})
    assert (load(["one.txt"]).files, load(["one.txt"]).copies) == ((tmp_path / "one.txt",), False)
    assert load({"files": ["one.txt"], "copies": True}).copies
    for wrong in (["two.txt"], ["dqe.yaml"], {"file": ["one.txt"]}):
        with pytest.raises(SettingsError):
            load(wrong)


HOSTS = st.sampled_from(["a.org", "b.a.org", "ba.org", "A.ORG.", "10.0.0.7", "1.10.0.0.7", "[::1]", "b.b.a.org", "org"])
URLS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["http://", "HTTP://", "https://", " http://", "ftp://", "//", ""]),
    HOSTS,
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.sampled_from(["", "/", "/x.jpg", "/x.jpg?y", "/X.jpg", "/x\ty.jpg"]),
    st.sampled_from(["", "#z", " "]),
)
LISTED = st.one_of(
    st.builds(lambda url: ("url", normal_url(url)), URLS.filter(lambda url: "://" in url and "ftp" not in url)),
    st.builds(lambda host: ("host", normal_host(host)), HOSTS.filter(lambda host: not host.startswith("1."))),
)


@given(st.lists(LISTED, max_size=3), st.lists(st.none() | URLS, min_size=1, max_size=20))
def test_stored_rows_are_matched_as_rows_that_are_not_fetched_yet(
    listed: list[tuple[str, str]], urls: list[str | None]
) -> None:
    entries = Entries({kind: frozenset(value for of, value in listed if of == kind) for kind in KINDS})
    matcher = Matcher(entries, REMEMBERED.empty_table(), copies=False, max_distance=8, min_contrast=0.02)
    of_rows = {place: detail for place, url in enumerate(urls) if (detail := matcher.of_row(f"{place}", url))}
    columns = {**{name: [None] * len(urls) for name in ROW_COLUMNS}, "url": urls}
    rows = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    assert matcher.of_stored(rows, None) == of_rows
    redirected = rows.rename_columns([{"url": "final_url", "final_url": "url"}.get(name, name) for name in ROW_COLUMNS])
    assert matcher.of_stored(redirected.select(ROW_COLUMNS), None) == of_rows


def test_what_matches_is_what_the_documentation_says() -> None:
    assert list(hosts_above("a.b.org")) == ["a.b.org", "b.org", "org"]
    assert list(hosts_above("10.0.0.7")) == ["10.0.0.7"]
    same = {"http://a.org/x", "HTTP://A.org:80/x#y", "http://user:secret@a.org/x"}
    assert {entry_of(url) for url in same} == {("url", "http://a.org/x")}
    for other in ("https://a.org/x", "http://a.org/X", "http://a.org/x?", "http://a.org/%78", "http://www.a.org/x"):
        assert entry_of(other) != ("url", "http://a.org/x")
