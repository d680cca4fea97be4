from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from dqe_assets.search.tables import SEARCH_HITS
from tests.conftest import ROOT, dqe, environment

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_report_prints_every_section(finished: Path) -> None:
    done = dqe(finished, "report")
    assert done.returncode == 0, done.stderr
    first = done.stdout.strip().splitlines()[:10]
    assert first[0] == "256 rows of 1 source in 4 shards; 234 have a readable image (91.4%)."
    assert first[3] == "That proves nothing: the scorer shares its image backbone with labels."
    assert [line.strip().startswith("dqe sql ") for line in first[4:]] == [False, True] * 3
    for title in ("Samples", "Failures", "Captions", "Preference", "Duplicates", "Concepts", "Shards"):
        assert title in lines(done.stdout)
    assert "This preference proves nothing" in " ".join(done.stdout.split())
    assert lines(done.stdout)[-1].startswith("Next: dqe sql")
    full = lines(dqe(finished, "report", "--full").stdout)
    assert set(lines(done.stdout)) < set(full)


def test_report_says_so_of_a_warehouse_of_another_version(data: Path) -> None:
    with duckdb.connect(str(data / "warehouse.duckdb")) as connection:
        connection.execute("CREATE TABLE samples (uid VARCHAR)")
    done = dqe(data, "report")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the warehouse was made by another version, or for other settings (")
    assert done.stderr.endswith("run: dqe materialize warehouse\n")


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
        found = [line for line in lines(done.stdout) if line.startswith(" 0.")]
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
        (["search", "a cat", "--image", "x.jpg"], "one of these three"),
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
    assert done.returncode == 2
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


SHOWN = (["report"], ["status"], ["get", "chelsea_03.jpg"], ["explain", "chelsea_03.jpg"], ["search", "a cat"])


@pytest.mark.parametrize("command", SHOWN)
def test_in_80_columns_no_line_is_longer_and_no_word_of_a_heading_is_broken(finished: Path, command: list[str]) -> None:
    wide = in_columns(400, finished, *command)
    words = {word for line in headings(wide) for word in line.split()}
    assert words
    narrow = in_columns(80, finished, *command)
    assert max(map(cell_len, narrow)) <= 80
    found = {word for line in headings(narrow) for word in line.split()}
    assert found <= words, "a broken word would be none of the whole ones"


def in_columns(width: int, data: Path, *command: str) -> list[str]:
    """What a command prints in a terminal of that width."""
    done = subprocess.run(
        [sys.executable, "-m", "dqe_assets.cli", *command],
        env={**environment(data), "COLUMNS": str(width)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def headings(lines: list[str]) -> list[str]:
    """The lines of the headings: those between an empty line and a rule."""
    found: list[str] = []
    for place, line in enumerate(lines):
        if line.strip() and not line.replace("─", "").strip():
            above = place - 1
            while lines[above].strip():
                found.append(lines[above])
                above -= 1
    return found


def document(data: Path, *command: str) -> dict[str, Any]:
    """What a command says with --json: all of its standard output is one document."""
    done = dqe(data, *command, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return found


def test_status_as_json_counts_the_partitions(finished: Path) -> None:
    found = document(finished, "status")
    assert (found["shards"], found["is_current"]) == (4, True)
    none = dict.fromkeys(("stale", "missing", "failed", "torn", "unknown"), 0)
    assert found["assets"][0] == {"asset": "raw_samples", "current": 4, **none}
    assert {"warehouse", "synthetic_captions/labels"} <= {row["asset"] for row in found["assets"]}


def test_report_as_json_has_every_section_with_numbers_as_numbers(finished: Path) -> None:
    found = document(finished, "report")
    assert found["summary"]["lines"] == dqe(finished, "report").stdout.strip().splitlines()[:10]
    assert (found["summary"]["rows"], found["summary"]["readable"]) == (256, 234)
    sections = {one["title"]: one for one in found["sections"]}
    assert {"Samples", "Failures", "Captions", "Preference", "Duplicates", "Concepts", "Shards"} <= set(sections)
    (samples,) = sections["Samples"]["rows"]
    assert (samples["rows"], samples["ok"], samples["success"]) == (256, 234, 234 / 256)
    captions = {row["source"]: row for row in sections["Captions"]["rows"]}
    assert captions["original"]["gain"] is None
    assert captions["labels"]["gain"] == pytest.approx(
        captions["labels"]["similarity"] - captions["original"]["similarity"], abs=0.1
    )


def test_get_and_explain_as_json_keep_values_as_they_are(finished: Path) -> None:
    record, captions, best = document(finished, "get", "chelsea_03.jpg")["sections"]
    (sample,) = record["rows"]
    assert (sample["width"], sample["is_duplicate"], sample["url"]) == (394, True, None)
    assert {row["caption_source"] for row in captions["rows"]} == {"original", "labels"}
    assert best["rows"][0]["caption_source"] == "labels"
    sections = {one["title"]: one["rows"] for one in document(finished, "explain", "chelsea_03.jpg")["sections"]}
    (origin,) = [row for row in sections["Where it is from"] if row["asset"] == "image_features"]
    assert datetime.fromisoformat(origin["materialised_at"]).tzinfo is not None


def test_search_as_json_gives_the_hits(finished: Path) -> None:
    hits = document(finished, "search", "a cat", "--limit", "3")["hits"]
    assert len(hits) == 3
    assert all(hit["image_name"].startswith("chelsea_") and 0 < hit["score"] < 1 for hit in hits)
    assert document(finished, "search", "a cat", "--where", "source=elsewhere") == {"hits": []}


def test_concepts_as_json_have_null_where_no_number_of_samples_is_enough(finished: Path) -> None:
    known, unknown = document(finished, "concepts", "tabby", "fly agaric")["concepts"]
    assert (known["concept"], known["known"], known["shown"]) == ("tabby", True, True)
    assert {row["item"]: row["samples"] for row in known["counts"]} == {"original": 4, "labels": 2, "image": 0}
    assert (unknown["known"], unknown["absent_words"]) == (False, ["fly", "agaric"])
    assert all(row["predicted_accuracy"] < 1 for row in known["plan"])


def test_recommend_as_json_has_the_answer_and_its_origin(finished: Path) -> None:
    found = document(finished, "recommend", "--samples-seen", "32M")
    assert (found["is_current"], found["warnings"]) == (True, [])
    (metric,) = [one for one in found["metrics"] if one["metric"] == "imagenet1k"]
    assert metric["is_made_up"]
    assert metric["answer"][0].startswith("For 32M samples seen, train on")
    (best,) = [row for row in metric["recommendations"] if row["is_best"]]
    assert best["samples_seen"] == 32_000_000


def test_filter_as_json_is_what_the_manifest_says(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "basic.npy"
    found = document(finished, "filter", "store", "--expr", "basic", "--out", str(out))
    assert found["file"] == str(out)
    assert found["manifest"] == json.loads((tmp_path / "basic.json").read_text())
    assert found["samples"] == found["manifest"]["uids"]


def test_a_mistake_leaves_standard_output_empty_with_json_too(finished: Path) -> None:
    done = dqe(finished, "get", "nobody.jpg", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(lines(done.stderr)) == 1


def test_help_says_what_exit_codes_mean_and_version_which_one_it_is(data: Path) -> None:
    text = " ".join(dqe(data, "--help").stdout.split())
    assert (
        "Exit codes: 0 done; 1 something failed, or is not there yet; 2 the command line or dqe.yaml is wrong" in text
    )
    assert dqe(data, "--version").stdout == f"{version('data-quality-engine')}\n"
    assert dqe(data, "no-such-command").returncode == 2


HEAVY = ("dagster", "duckdb", "fsspec", "matplotlib", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic", "torch")


def test_help_imports_no_heavy_library() -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from dqe_assets.cli.app import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print(*sorted(set(sys.modules) & set({HEAVY})))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("dqe materialize image_", ["image_features", "image_text"]),
        ("dqe materialize synthetic_captions/", ["synthetic_captions/labels"]),
        ("dqe materialize --shard sample-00001", ["sample-00001"]),
        ("dqe rep", ["report"]),
    ],
)
def test_the_shell_completes_commands_assets_and_shards(finished: Path, words: str, completed: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from dqe_assets.cli.app import app; app(prog_name='dqe')"],
        cwd=ROOT,
        env={
            **environment(finished),
            "_DQE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == completed, done.stderr


def test_search_help_names_every_key_of_a_hit(data: Path) -> None:
    text = " ".join(dqe(data, "search", "--help").stdout.replace("│", " ").split())
    (keys,) = re.findall(r"hits, each with (.*?)\.", text)
    assert set(re.split(r", | and ", keys)) == set(SEARCH_HITS.names)


def test_materialising_some_does_not_say_that_all_is_current(data: Path) -> None:
    command = ("materialize", "raw_samples", "--shard", "sample-00000")
    done = dqe(data, *command)
    assert done.returncode == 0, done.stderr
    assert "\n1 partition made, 0 were current." in done.stdout
    assert "\n0 partitions made, 1 was current." in dqe(data, *command).stdout
    assert "All is current" not in done.stdout
    assert lines(done.stdout)[-1] == "Next: dqe materialize, dqe status"


def test_gallery_says_where_it_is(finished: Path) -> None:
    assert lines(dqe(finished, "gallery").stdout) == [str(finished / "gallery.html")]


def test_in_a_new_data_folder_report_and_status_both_advise_to_materialize(data: Path) -> None:
    assert dqe(data, "report").stderr.endswith("run: dqe materialize\n")
    status = dqe(data, "status")
    assert lines(status.stdout)[-1] == "Next: dqe materialize"


@pytest.mark.parametrize(
    "command",
    [["report"], ["gallery"], ["sql", "SELECT 1"], ["get", "x.jpg"], ["explain", "x.jpg"], ["search", "a cat"]],
)
def test_before_anything_is_made_each_command_says_what_to_do(data: Path, command: list[str]) -> None:
    done = dqe(data, *command)
    assert done.returncode == 1
    assert len(lines(done.stderr)) == 1
    assert "run: dqe materialize" in done.stderr.replace("Run", "run")


def test_sync_registers_shards_and_says_so(data: Path) -> None:
    assert "4 shards; 4 added, 0 removed" in dqe(data, "sync").stdout
    assert "4 shards; 0 added, 0 removed" in dqe(data, "sync").stdout
    (data / "dqe.yaml").write_text("sources: [{kind: sample, shard_size: 128}]\n")
    assert "2 shards; 0 added, 2 removed" in dqe(data, "sync").stdout


def test_wrong_settings_are_one_line_with_the_key(data: Path) -> None:
    (data / "dqe.yaml").write_text("sources: [{kind: smaple}]\n")
    for command in ("sync", "status", "materialize", "report"):
        done = dqe(data, command)
        assert done.returncode == 2
        assert "sources.0: kind 'smaple' is not known" in done.stderr
        assert len(lines(done.stderr)) == 1


def test_a_file_where_the_store_should_be_is_one_clear_line(data: Path) -> None:
    (data / "store").write_text("a file in the way")
    done = dqe(data, "materialize", "raw_samples", "--shard", "sample-00000")
    assert done.returncode == 1
    assert "store/raw_samples/sample-00000.parquet: cannot be read" in done.stderr
    assert "StorageError" not in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_the_demo_twice_repeats_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "store").rglob("*") if path.is_file()}
    done = dqe(finished, "demo")
    assert done.returncode == 0, done.stderr
    assert "(0 partitions made" in done.stdout
    assert "256 rows of 1 source in 4 shards; 234 have a readable image (91.4%)." in lines(done.stdout)
    assert "Samples" not in lines(done.stdout), "the tables are for dqe report"
    assert lines(done.stdout)[-1].startswith("Next: dqe ui, ")
    assert {path: path.stat().st_mtime_ns for path in before} == before
