from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dqe_resources import progress
from dqe_resources.sources import listing
from dqe_resources.sources.protocol import Source, SourceError
from dqe_resources.sources.sbu import SbuSource
from dqe_resources.sources.text_lists import LONGEST_LINE
from dqe_resources.sources.urls import UrlsSource

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.sources.rows import SourceRow

ROWS = [
    ("http://a.example/1.jpg", "a cat, on a mat"),
    ("http://b.example/deep/2.png?size=3", 'he said "hi"'),
    ("http://c.example/", "Première\nligne"),
    ("http://a.example/1.jpg", "another caption"),
]


def all_rows(source: Source) -> list[SourceRow]:
    return [row for shard in source.shards() for row in source.rows(shard.index)]


def pairs(source: Source) -> list[tuple[str | None, str | None]]:
    return [(row.url, row.caption) for row in all_rows(source)]


def urls(path: Path, **values: Any) -> UrlsSource:
    return UrlsSource.model_validate({"name": "web", "path": path, **values})


def csv_text(rows: list[tuple[str, ...]], header: tuple[str, ...] = ("url", "caption"), **options: Any) -> str:
    text = io.StringIO()
    csv.writer(text, **options).writerows([header, *rows])
    return text.getvalue()


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A list in the form that the end of its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(zip(("url", "caption"), zip(*rows, strict=True), strict=True))), path)
        return path
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        text = csv_text(rows, delimiter="\t" if ".tsv" in name else ",")
    else:
        text = "".join(json.dumps({"url": url, "caption": caption}) + "\n" for url, caption in rows)
    data = text.encode()
    with pa.output_stream(str(path), compression={".gz": "gzip", ".zst": "zstd"}.get(path.suffix)) as file:
        file.write(data)
    return path


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.zst", "a.jsonl", "a.jsonl.gz", "a.ndjson", "a.parquet", "A.CSV"]
)
def test_every_kind_of_list_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    source = urls(write(tmp_path / name, ROWS), shard_size=3, quoted=True)
    assert pairs(source) == ROWS
    assert [shard.rows for shard in source.shards()] == [3, 1]
    keys = [row.key for row in all_rows(source)]
    assert keys == [row.key for row in all_rows(urls(write(tmp_path / "other.csv", ROWS)))]
    assert [key.partition(":")[0] for key in keys] == ["1.jpg", "2.png", "c.example", "1.jpg"]
    assert {row.image for row in all_rows(source)} == {None}


def test_folders_and_patterns_take_their_files_in_order(tmp_path: Path) -> None:
    write(tmp_path / "in" / "b.jsonl", ROWS[2:])
    write(tmp_path / "in" / "a.csv.gz", ROWS[:2])
    write(tmp_path / "in" / "deep" / "c.parquet", ROWS[:1])
    (tmp_path / "in" / "README.md").write_text("not a list")
    assert pairs(urls(tmp_path / "in", shard_size=2)) == [*ROWS, ROWS[0]]
    assert pairs(urls(tmp_path / "in" / "?.*", shard_size=2)) == ROWS
    assert pairs(urls(tmp_path / "in" / "**" / "*.parquet")) == ROWS[:1]
    with pytest.raises(ValidationError, match=r"there is nothing at .*\*\.tsv: give the path of .* or a pattern"):
        urls(tmp_path / "in" / "*.tsv")
    with pytest.raises(SourceError, match=r"README\.md: unknown kind of list; expected a name that ends in \.parquet"):
        all_rows(urls(tmp_path / "in" / "README.md"))


def test_columns_may_have_any_name_and_what_is_asked_for_is_kept(tmp_path: Path) -> None:
    table = pa.table({"TEXT": ["x"], "URL": ["http://a/1"], "punsafe": [float("nan")], "sizes": [[1, 2]], "id": [7]})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"url_column": "URL", "caption_column": "TEXT"}
    (row,) = all_rows(urls(tmp_path, **columns, key_column="id", metadata_columns=["punsafe", "sizes"]))
    assert (row.key, row.url, row.caption) == ("7", "http://a/1", "x")
    assert json.loads(row.metadata or "") == {"punsafe": None, "sizes": [1, 2]}
    (plain,) = all_rows(urls(tmp_path, **columns))
    assert plain.key.startswith("1:")
    assert plain.metadata is None


def test_files_without_a_header_are_given_one(tmp_path: Path) -> None:
    (tmp_path / "cc3m.tsv").write_text('"a quote that stays\thttp://a/1.jpg\nx\thttp://a/2.jpg\n')
    source = urls(tmp_path / "cc3m.tsv", column_names=["caption", "url"])
    assert pairs(source) == [("http://a/1.jpg", '"a quote that stays'), ("http://a/2.jpg", "x")]


def test_equal_rows_have_keys_of_their_own_that_depend_on_nothing_else(tmp_path: Path) -> None:
    repeated = [ROWS[0], ROWS[1], ROWS[0], ROWS[3], ROWS[0]]
    write(tmp_path / "in" / "a.csv", repeated[:2])
    write(tmp_path / "in" / "b.csv", repeated[2:])
    keys = [row.key for row in all_rows(urls(tmp_path / "in"))]
    assert len(set(keys)) == 5
    assert keys[2] == f"{keys[0]}#2"
    assert keys[4] == f"{keys[0]}#3"
    for shard_size in (1, 2, 3):
        assert [row.key for row in all_rows(urls(tmp_path / "in", shard_size=shard_size))] == keys
    reordered = all_rows(urls(write(tmp_path / "c.csv", repeated[::-1])))
    assert {row.key for row in reordered} == set(keys)


def test_equal_keys_of_a_key_column_are_numbered(tmp_path: Path) -> None:
    text = csv_text([("http://a/1", "x", "k"), ("http://a/2", "y", "k")], ("url", "caption", "id"))
    (tmp_path / "a.csv").write_text(text)
    first, second = all_rows(urls(tmp_path / "a.csv", key_column="id"))
    assert first.key == "k"
    assert second.key.startswith("k:")
    assert second.key.endswith("#2")


def test_digests_are_of_the_rows_and_not_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ROWS)
    source = urls(path, shard_size=2)
    before = [shard.digest for shard in source.shards()]
    write(path, [*ROWS, ("http://z/1", "new")])
    os.utime(path, ns=(1, 1))
    after = [shard.digest for shard in source.shards()]
    assert after[:2] == before
    assert len(after) == 3
    write(path, [ROWS[0], ("http://b.example/other", "x"), *ROWS[2:]])
    os.utime(path, ns=(2, 2))
    changed = [shard.digest for shard in source.shards()]
    assert changed[0] != before[0]
    assert changed[1] == before[1]


def test_metadata_counts_into_the_digest_and_not_into_the_key(tmp_path: Path) -> None:
    digests, keys = [], []
    for score in ("0.1", "0.2"):
        (tmp_path / "a.csv").write_text(csv_text([("http://a/1", "x", score)], ("url", "caption", "score")))
        source = urls(tmp_path / "a.csv", metadata_columns=["score"])
        digests.append(source.shard("web-00000").digest)
        keys.append(all_rows(source)[0].key)
    assert len(set(digests)) == 2
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("lines", "fault", "kept"),
    [
        (b"http://x/1,a,b\n", "line 3: 3 fields, expected 2 (url, caption)", {"line": "http://x/1,a,b"}),
        (b"http://x/1\n", "line 3: 1 field, expected 2", {"line": "http://x/1"}),
        (b'http://x/1,"a"b\n', "line 3: ',' expected after '\"'", {"line": 'http://x/1,"a"b'}),
        (b'http://x/1,"never closed\n', "line 3: a quote that is not closed", {"line": 'http://x/1,"never closed'}),
        (
            b"http://x/1,caf\xe9\n",
            "column 'caption' is not in UTF-8, expected text",
            {"url": "http://x/1", "caption": "caf\\udce9"},
        ),
        (b" ,no url\n", "line 3: column 'url' is empty", None),
        (b"http://x/1," + b"x" * 200_000 + b"\n", "line 3: field larger than field limit (131072)", ...),
    ],
)
def test_what_is_wrong_in_a_line_stays_with_it(tmp_path: Path, lines: bytes, fault: str, kept: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfurl,caption\r\nhttp://a/1,first\r\n" + lines + b"\r\nhttp://a/2,last\r\n")
    first, wrong, last = all_rows(urls(path))
    assert [(row.url, row.caption, row.fault) for row in (first, last)] == [
        ("http://a/1", "first", None),
        ("http://a/2", "last", None),
    ]
    assert wrong.url is None
    assert fault in (wrong.fault or "")
    assert str(path) in (wrong.fault or "")
    if kept is not ...:
        assert (json.loads(wrong.metadata) if wrong.metadata else None) == kept


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json}", "line 2: not JSON (Expecting property name"),
        (b'["no object"]', "line 2: expected an object, found list"),
        (b'{"url": 5, "caption": "x"}', "line 2: column 'url' is int, expected text"),
        (b'{"url": "http://a", "caption": ["x", 5]}', "line 2: column 'caption' is a list of something else than"),
        (b'{"url": "http://a", "caption": NaN}', "line 2: column 'caption' is float, expected text"),
        (b'{"url": "http://a", "caption": "x", "caption": "y"}', 'line 2: key "caption" comes 2 times'),
        (b'{"url": "http://a", "n": ' + b"1" * 5000 + b"}", "line 2: not JSON (Exceeds the limit"),
        (b'{"url": "http://a", "caption": "\\ud800"}', "column 'caption' is not in UTF-8, expected text"),
        (b'{"url": "http://a", "caption": "caf\xe9"}', "column 'caption' is not in UTF-8, expected text"),
        (b'{"caption": "x"}', "line 2: column 'url' is empty"),
        (b"[" * 100_000, "line 2: not JSON"),
    ],
)
def test_what_is_wrong_in_a_json_line_stays_with_it(tmp_path: Path, line: bytes, fault: str) -> None:
    good = b'{"url": "http://a/1", "caption": null}\n'
    (tmp_path / "a.jsonl").write_bytes(good + line + b"\n\n" + good)
    first, wrong, last = all_rows(urls(tmp_path / "a.jsonl"))
    assert (first.fault, first.caption, last.fault, wrong.url) == (None, None, None, None)
    assert fault in (wrong.fault or "")


def test_a_quote_that_is_not_closed_costs_one_row_and_not_the_rest(tmp_path: Path) -> None:
    rows = "".join(f'http://a/{i},"caption {i}"\n' for i in range(3000))
    (tmp_path / "a.csv").write_text('url,caption\nhttp://b/1,"open\n' + rows)
    found = all_rows(urls(tmp_path / "a.csv"))
    assert len(found) == 3001
    assert [row.fault is None for row in found].count(False) == 1
    assert "line 2: a quote that is not closed" in (found[0].fault or "")


def test_a_line_without_end_is_cut_and_costs_its_row_alone(tmp_path: Path) -> None:
    endless = "x" * (2 * LONGEST_LINE + 5)
    line = json.dumps({"url": "http://a/2", "caption": endless})
    good = json.dumps({"url": "http://a/1", "caption": "c"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    fields = ",".join(["x" * 100_000] * 30)
    (tmp_path / "b.csv").write_text(f"url,caption\nhttp://a/1,c\nhttp://a/2,{fields}\nhttp://a/1,c\n")
    for name, found in (
        ("a.jsonl", "line 2: in a line of more than 1,048,576"),
        ("b.csv", "fields, expected 2 (url, caption)"),
    ):
        first, wrong, last = all_rows(urls(tmp_path / name))
        assert (first.caption, last.caption) == ("c", "c")
        assert found in (wrong.fault or "")
    first, wrong, last = all_rows(sbu(tmp_path, "http://a/1\nhttp://a/2\nhttp://a/3", f"c\n{endless}\nc"))
    assert (first.caption, wrong.caption, last.url) == ("c", None, "http://a/3")
    assert "line 2: column 'caption' is in a line of more than" in (wrong.fault or "")


def test_what_is_read_once_and_takes_long_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_REPORT_ROWS", 3)
    source = urls(write(tmp_path / "a.csv", ROWS))
    for passes in (2, 0):
        steps: list[progress.Step] = []
        with progress.listen(steps.append):
            assert list(source.shards())
        assert [step.outcome for step in steps if step.outcome] == ["4 rows read", "4 rows read"][:passes]
        assert [step.done for step in steps if not step.outcome] == [3, 3][:passes]


def test_texts_are_kept_as_they_are(tmp_path: Path) -> None:
    captions = ["nul\0inside", "  spaces  ", "tab\tinside", "日本語", "\u2028separator", "", "cr\rlf\r\ninside"]
    rows = [(f"http://a/{i}", caption) for i, caption in enumerate(captions)]
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        assert pairs(urls(write(tmp_path / name, rows))) == rows


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.from_regex(r"http://[a-z]{1,3}/[!-~]{0,5}", fullmatch=True), st.text(max_size=8)), min_size=1
    ),
    st.integers(1, 5),
)
def test_what_a_csv_writer_wrote_is_read(tmp_path: Path, rows: list[tuple[str, str]], shard_size: int) -> None:
    (tmp_path / "a.csv").write_text(csv_text(rows), encoding="utf-8", errors="surrogatepass", newline="")
    found = all_rows(urls(tmp_path / "a.csv", shard_size=shard_size))
    assert len(found) == len(rows)
    assert len({row.key for row in found}) == len(rows)
    for row, pair in zip(found, rows, strict=True):
        assert (row.url, row.caption) == pair or row.fault


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", r"a\.csv: empty; expected a first line with the names of the columns"),
        (
            "a.csv",
            b"link;text\n",
            r"a\.csv: no column 'url'; there are: link;text; its fields are divided by ';', expected ','",
        ),
        ("a.tsv", b"url,caption\n", r"a\.tsv: no column 'url'; there are: url,caption; .* by ',', expected '\\t'"),
        ("a.csv", b"link\n", r"a\.csv: no column 'url'; there are: link$"),
        ("a.csv", b"c," * 50_000, r"a\.csv: no column 'url'; there are: [c, ]{200} … [c, ]{200}$"),
        ("a.csv", b"url,caption,url\n", r"a\.csv: 2 columns 'url'; there are: url, caption, url"),
        ("a.csv", b'"url,caption\nx,y\n', r"a\.csv: a quote that is not closed .*expected a first line with the names"),
        ("a.csv", "url,caption\n".encode("utf-16"), r"a\.csv: is UTF-16, expected UTF-8"),
        ("a.csv", b"x" * (3 << 20), r"a\.csv: field larger than field limit \(131072\); expected a first line"),
        ("a.csv.gz", b"no gzip", r"a\.csv\.gz, after line 0: damaged or cut off"),
        (
            "a.csv.gz",
            gzip.compress(os.urandom(60_000).hex().encode())[:30_000],
            r"gz, after line 0: damaged or cut off",
        ),
        ("a.jsonl", b'{"link": "x"}\n', r"a\.jsonl: no column 'url'; there are: link"),
        ("a.parquet", b"PAR1 but no", r"a\.parquet: not a Parquet file"),
        ("a.txt", b"http://a", r"a\.txt: unknown kind of list"),
    ],
)
def test_what_is_wrong_with_a_whole_file_is_an_error(
    tmp_path: Path, data_folder: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        all_rows(urls(tmp_path / name))
    assert not list(data_folder.rglob("*.parquet"))


def test_a_gzip_that_ends_early_says_after_which_line(tmp_path: Path) -> None:
    text = csv_text([(f"http://a/{i}", os.urandom(20).hex()) for i in range(20_000)])
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:-50_000])
    with pytest.raises(SourceError, match=r"a\.csv\.gz, after line \d\d,\d\d\d: damaged or cut off \(Truncated"):
        all_rows(urls(tmp_path / "a.csv.gz"))


def test_wrong_columns_of_parquet_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": [1], "caption": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: column 'url' is int64; expected text"):
        all_rows(urls(tmp_path / "a.parquet"))
    with pytest.raises(SourceError, match=r"a\.parquet: no column 'link'; there are: url, caption"):
        all_rows(urls(tmp_path / "a.parquet", url_column="link"))


def test_parquet_texts_that_are_not_utf8_are_faults(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"url": ["http://a/1", "http://a/2"], "caption": broken}), tmp_path / "a.parquet")
    good, wrong = all_rows(urls(tmp_path / "a.parquet"))
    assert (good.caption, good.fault) == ("ok", None)
    assert "a.parquet, row 2: column 'caption' is not in UTF-8, expected text" in (wrong.fault or "")


def sbu(folder: Path, url_text: str, caption_text: str) -> SbuSource:
    (folder / "u.txt").write_text(url_text, newline="")
    (folder / "c.txt").write_text(caption_text, newline="")
    return SbuSource(name="sbu", urls=folder / "u.txt", captions=folder / "c.txt", shard_size=2)


def test_the_two_files_of_sbu_are_read_in_step(tmp_path: Path) -> None:
    source = sbu(tmp_path, "http://a/1.jpg\r\nhttp://a/2.jpg\r\n\r\nhttp://a/1.jpg", "one\n\u2028two\n\nfour\n")
    rows = all_rows(source)
    assert [row.caption for row in rows] == ["one", "\u2028two", "", "four"]
    assert [row.url for row in rows] == ["http://a/1.jpg", "http://a/2.jpg", None, "http://a/1.jpg"]
    assert "u.txt, line 3: column 'url' is empty" in (rows[2].fault or "")
    assert rows[0].key.startswith("1.jpg:")


def test_files_of_sbu_with_different_lengths_are_named_with_their_lines(tmp_path: Path) -> None:
    message = r"u\.txt has 2 lines and .*c\.txt has 3: expected one caption for each URL"
    with pytest.raises(SourceError, match=message):
        all_rows(sbu(tmp_path, "a\nb\n", "1\n2\n3"))
    with pytest.raises(SourceError, match=r"u\.txt has 3 lines and .*c\.txt has 1"):
        all_rows(sbu(tmp_path, "a\nb\nc\n", "1\n"))


MEASURE = """
import resource, sys
from dqe_resources.sources.urls import UrlsSource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = UrlsSource(name="big", path=sys.argv[1])
shards = list(source.shards())
rows = list(source.rows(len(shards) - 1))
print(sum(shard.rows for shard in shards), len(rows), rows[-1].url)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_million_rows_are_sharded_in_little_memory(tmp_path: Path) -> None:
    total = 1_000_000
    with (tmp_path / "a.csv").open("w") as file:
        file.write("url,caption\n")
        file.writelines(f"http://h{i % 97}.example/{i:07d}.jpg,a caption with the number {i}\n" for i in range(total))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "a.csv")], capture_output=True, text=True, check=True
    )
    counted, grown_kib = done.stdout.splitlines()
    assert counted == f"{total} 10000 http://h{(total - 1) % 97}.example/{total - 1:07d}.jpg"
    # As strings in memory they would take more than 200 MiB.
    assert int(grown_kib) < 140 * 1024
