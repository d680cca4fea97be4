"""The warehouse file, the SQL that people may run on it, its tables and the quality report."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_assets.score.preference import preference_report
from dqe_assets.score.tables import CAPTION_PREFERENCE
from dqe_resources.warehouse import QueryError, Warehouse, WarehouseError, WarehouseMissingError
from tests.report.make_store import CAPTIONERS, RELATIONS, SCORER, SHARDS, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.report.make_store import Store

TABLES = {
    "grounding", "vqa_scores",
    "rights", "reviews", "review_decisions",
    "samples", "captions", "shards", "captioners", "caption_preference", "duplicates", "failures", "materialisations",
    "preference_intervals", "preference_levels", "further_captions", "busy_times", "planted_truth",
    "provisional_concepts", "captions_by_shard",
    "pool_utilities", "measured_mixtures", "filter_recommendation",
    "caption_generation", "caption_accounting", "captioner_comparison",
    "filter_masks", "filters", "filter_overlap", "filter_funnel",
    "filter_planted",
    "concept_hits", "concept_frequency", "misalignment",
    "misaligned_samples", "concept_performance", "concept_performance_bins", "concept_plan", "rare_concept_retrieval",
    "rebalanced_subset", "curriculum",
    "caption_duplicates", "sample_map", "score_limits",
    "best_captions",
    "caption_judgements", "judged_sources", "judged_places", "judge_agreement",
    "refined_captions",
    "text_quality", "image_text", "sample_scores", "mixed_captions",
    "code_clusters",
    "signals", "signal_tables",
    "contamination", "reference_sets", "planted_copies",
    "training_checkpoints", "training_log",
    "evaluation", "evaluation_classes", "leaderboard", "training_curves", "concept_accuracies",
}  # fmt: skip
SECTIONS = [
    "Samples",
    "Failures",
    "Captions",
    "Preference",
    "Captioners",
    "Duplicates",
    "Repeated captions",
    "Filters",
    "Concepts",
    "Suspects",
    "Shards",
]
VIEWS = {
    "licences",
    "grounding_by_source", "kept_concepts", "scorer_agreement",
    "failures_by_host", "hosts",
    "best_originals", "best_reasons",
    "worst_captions", "most_improved", "well_aligned_unique", "failure_reasons", "duplicate_groups",
    "duplicate_kinds", "quality_by_shard", "quality_by_source", "caption_quality", "asset_sizes",
    "judge_disagreements",
    "long_captions",
    "best_filters", "caption_flags", "concept_tail", "recaptioned_concepts", "repeated_captions", "topics",
    "refining_rounds",
    "text_quality_by_source", "caption_patterns", "suspects",
    "code_cluster_sizes", "training_runs", "contamination_kinds", "planted_copies_found",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The usual store, in a folder whose name means something to a shell, to SQL and to DuckDB's globs."""
    root = tmp_path_factory.mktemp("store") / "it's [a] *store*? source=x"
    root.mkdir()
    return make_store(root)


@pytest.fixture(scope="module")
def warehouse(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A warehouse of the usual store. Nothing in these tests changes it."""
    built = Warehouse(path=tmp_path_factory.mktemp("it's") / "warehouse.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return built


@pytest.fixture
def connection(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to it."""
    opened = warehouse.connect()
    yield opened
    opened.close()


def _numbers(count: int) -> object:
    def build(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"CREATE TABLE numbers AS SELECT range AS n FROM range({count})")

    return build


def _one(connection: duckdb.DuckDBPyConnection, sql: str) -> object:
    return connection.execute(sql).fetchall()[0][0]


def _files(path: Path) -> set[str]:
    """What is next to the warehouse, apart from its lock file."""
    return {entry.name for entry in path.parent.iterdir() if entry.suffix != ".lock"}


class TestRebuild:
    """Beside the live file, then in its place."""

    def test_what_reads_much_spills_next_to_the_file_and_leaves_nothing_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("dqe_resources.warehouse.READ_MEMORY", "60MB")
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(2_000_000))
        with warehouse.reading() as connection:
            connection.execute("SET threads = 1")
            # 140 MB, in another order.
            sql = "SELECT n, md5(n::VARCHAR) || md5((n + 1)::VARCHAR) AS text FROM numbers ORDER BY text"
            rows = connection.sql(sql).to_arrow_reader(100_000)
            rows.read_next_batch()
            assert list(tmp_path.glob(".w.duckdb.spill-*/temporary/*"))
        assert _files(warehouse.path) == {"w.duckdb"}

    def test_a_reader_keeps_what_it_opened_and_the_next_sees_the_new(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(10))
        before = warehouse.connect()
        warehouse.rebuild(_numbers(20))
        assert _one(before, "SELECT count(*) FROM numbers") == 10
        assert _one(warehouse.connect(), "SELECT count(*) FROM numbers") == 20
        assert warehouse.query("SELECT count(*) AS n FROM numbers")["n"].to_pylist() == [20]
        assert _files(warehouse.path) == {"w.duckdb"}

    def test_a_reader_in_another_process_is_neither_blocked_nor_broken(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(300_000))
        script = (
            "import duckdb, sys\n"
            "c = duckdb.connect(sys.argv[1], read_only=True)\n"
            "print(c.execute('SELECT sum(n) FROM numbers').fetchall()[0][0], flush=True)\n"
            "for line in sys.stdin:\n"
            "    print(c.execute('SELECT sum(n) FROM numbers').fetchall()[0][0], flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(warehouse.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            expected = f"{300_000 * 299_999 // 2}\n"
            assert reader.stdout.readline() == expected
            for count in (5, 6, 7):
                warehouse.rebuild(_numbers(count))
                reader.stdin.write("again\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == expected
            reader.stdin.close()
            assert reader.wait(timeout=30) == 0
        assert warehouse.query("SELECT count(*) AS n FROM numbers")["n"].to_pylist() == [7]

    def test_a_failed_build_leaves_the_live_file_and_nothing_else(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(10))
        content = warehouse.path.read_bytes()

        def fail(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute("CREATE TABLE half (n INTEGER)")
            message = "no"
            raise ValueError(message)

        with pytest.raises(ValueError, match="no"):
            warehouse.rebuild(fail)
        assert warehouse.path.read_bytes() == content
        assert _files(warehouse.path) == {"w.duckdb"}

    def test_kills_at_random_moments_leave_the_live_file_whole(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(1))
        script = (
            "import sys\n"
            "from dqe_resources.warehouse import Warehouse\n"
            "print('ready', flush=True)\n"
            "for _ in range(1000):\n"
            "    Warehouse(path=sys.argv[1]).rebuild(\n"
            "        lambda c: c.execute('CREATE TABLE numbers AS SELECT range AS n FROM range(100000)')\n"
            "    )\n"
        )
        moments = random.Random(7)
        for _ in range(5):
            process = subprocess.Popen(
                [sys.executable, "-c", script, str(warehouse.path)], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0.05, 0.5))
            process.kill()
            process.communicate()
            assert warehouse.query("SELECT count(*) AS n FROM numbers")["n"].to_pylist()[0] in (1, 100_000)
        (tmp_path / ".w.duckdb.new-0123").write_bytes(b"left behind")
        (tmp_path / ".w.duckdb.new-0123.tmp").mkdir()
        warehouse.rebuild(_numbers(3))
        assert _files(warehouse.path) == {"w.duckdb"}

    def test_rebuilds_at_once_take_turns(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        threads = [threading.Thread(target=warehouse.rebuild, args=(_numbers(n),)) for n in (1000, 2000, 3000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warehouse.query("SELECT count(*) AS n FROM numbers")["n"].to_pylist()[0] in (1000, 2000, 3000)
        assert _files(warehouse.path) == {"w.duckdb"}

    def test_the_log_of_someone_who_wrote_to_the_live_file_is_not_replayed(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(_numbers(10))
        with duckdb.connect(str(warehouse.path)) as writer:
            writer.execute("PRAGMA disable_checkpoint_on_shutdown")
            writer.execute("INSERT INTO numbers VALUES (99)")
        assert (tmp_path / "w.duckdb.wal").exists()
        warehouse.rebuild(_numbers(5))
        assert warehouse.query("SELECT max(n) AS n FROM numbers")["n"].to_pylist() == [4]

    def test_an_unwritable_directory_is_one_clear_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(WarehouseError, match="cannot write the warehouse") as caught:
            Warehouse(path=tmp_path / "file" / "w.duckdb").rebuild(_numbers(1))
        assert "\n" not in str(caught.value)

    def test_a_missing_or_foreign_file_says_what_to_do(self, tmp_path: Path) -> None:
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        with pytest.raises(WarehouseMissingError, match=r"run: dqe materialize$"):
            warehouse.query("SELECT 1")
        warehouse.path.write_bytes(b"not a database " * 1000)
        with pytest.raises(WarehouseError, match="dqe materialize warehouse") as caught:
            warehouse.connect()
        assert "\n" not in str(caught.value)

    def test_it_lies_in_the_data_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DQE_DATA", str(tmp_path))
        assert Warehouse().path == tmp_path / "warehouse.duckdb"

    def test_where_the_file_lies_is_no_part_of_what_it_holds(self, tmp_path: Path) -> None:
        assert Warehouse(path=tmp_path / "a").signature() == Warehouse(path=tmp_path / "b").signature()


class TestQuery:
    """What a person's SQL may do."""

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT count(*) FROM samples",
            "FROM worst_captions LIMIT 3",
            "WITH a AS (SELECT 1 AS b) SELECT b FROM a;  -- a comment; and more",
            "DESCRIBE samples",
            "SUMMARIZE samples",
            "SHOW TABLES",
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'samples'",
            "SELECT 'a;b' AS text",
            "SELECT 1 WHERE false",
        ],
    )
    def test_reading_works(self, warehouse: Warehouse, sql: str) -> None:
        assert warehouse.query(sql).num_columns

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM read_text('{live}')",
            "SELECT * FROM read_blob('{live}')",
            "SELECT * FROM '{parquet}'",
            "SELECT * FROM read_parquet('{parquet}')",
            "SELECT * FROM parquet_metadata('{parquet}')",
            "SELECT * FROM glob('/etc/*')",
            "SELECT * FROM read_csv('https://example.com/x.csv')",
            "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
            "SELECT * FROM sniff_csv('/etc/passwd')",
            "COPY samples TO '{dir}/out.csv'",
            "COPY samples FROM '{parquet}'",
            "WITH x AS (COPY samples TO '{dir}/out.csv') SELECT * FROM x",
            "WITH x AS (COPY samples TO '{live}' (USE_TMP_FILE false)) SELECT * FROM x",
            "WITH x AS (COPY samples TO '{live}.wal' (USE_TMP_FILE false)) SELECT * FROM x",
            "WITH x AS (INSERT INTO failures SELECT * FROM failures RETURNING *) SELECT * FROM x",
            "EXPLAIN ANALYZE COPY samples TO '{live}.wal'",
            "EXPORT DATABASE '{dir}/out'",
            "IMPORT DATABASE '{dir}'",
            "ATTACH '{dir}/other.duckdb'",
            "ATTACH ':memory:' AS other",
            "DETACH warehouse",
            "INSTALL httpfs",
            "LOAD httpfs",
            "CREATE TABLE t AS SELECT 1",
            "CREATE TEMP TABLE t AS SELECT 1",
            "CREATE TABLE memory.t AS SELECT 1",
            "INSERT INTO failures SELECT * FROM failures",
            "UPDATE samples SET caption = ''",
            "DELETE FROM samples",
            "DROP TABLE samples",
            "ALTER TABLE samples ADD COLUMN x INTEGER",
            "SET enable_external_access = true",
            "RESET disabled_filesystems",
            "PRAGMA enable_profiling",
            "CALL enable_logging(storage_path = '{dir}/logs')",
            "CREATE SECRET (TYPE s3)",
            "VACUUM",
            "BEGIN",
            "SELECT 1; SELECT 2",
            "SELECT 1; DROP TABLE samples",
            "",
            "-- nothing",
            "SELEC 1",
            "SELECT missing FROM samples",
            "SELECT * FROM nowhere",
            "SELECT error('two' || chr(10) || 'lines')",
            "SELECT * FROM local_table",
        ],
    )
    def test_anything_else_is_refused_in_one_line_and_changes_nothing(
        self, warehouse: Warehouse, store: Store, tmp_path: Path, sql: str
    ) -> None:
        local_table = pa.table({"a": [1]})
        parquet = str(store.inputs.assets["caption_scores"][0]).replace("'", "''")
        live = str(warehouse.path).replace("'", "''")
        content, beside = warehouse.path.read_bytes(), _files(warehouse.path)
        with pytest.raises(QueryError) as caught:
            warehouse.query(sql.format(live=live, dir=tmp_path, parquet=parquet))
        assert local_table.num_rows
        assert str(caught.value)
        assert "\n" not in str(caught.value)
        assert warehouse.path.read_bytes() == content
        assert _files(warehouse.path) == beside
        assert not list(tmp_path.iterdir())

    def test_a_query_leaves_this_process_its_files(self, warehouse: Warehouse, tmp_path: Path) -> None:
        warehouse.query("SELECT 1")
        (tmp_path / "note.txt").write_text("still here")
        with duckdb.connect() as other:
            text = other.execute("SELECT content FROM read_text(?)", [str(tmp_path / "note.txt")]).fetchall()
        assert text == [("still here",)]

    def test_a_slow_statement_is_stopped(self, warehouse: Warehouse) -> None:
        impatient = Warehouse(path=warehouse.path, statement_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(QueryError, match=r"stopped after 0\.3 s"):
            impatient.query("SELECT count(*) FROM range(1000000000) a, range(1000000000) b")
        assert time.monotonic() - began < 10

    def test_control_c_stops_a_statement(self, warehouse: Warehouse) -> None:
        # A shell that runs the tests in the background has them ignore it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        began = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                warehouse.query("SELECT n FROM range(1000000000000) r(n) WHERE hash(n) = 1")
        finally:
            signal.signal(signal.SIGINT, before)
        assert time.monotonic() - began < 10

    def test_an_endless_result_is_refused(self, warehouse: Warehouse) -> None:
        with pytest.raises(QueryError, match="add a LIMIT"):
            warehouse.query("SELECT n FROM range(100000000000) r(n)")


class TestTables:
    """What the warehouse holds."""

    def test_every_table_view_and_column_says_what_it_is(self, connection: duckdb.DuckDBPyConnection) -> None:
        named = connection.execute(
            "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'warehouse' "
            "UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE database_name = 'warehouse' AND NOT internal"
        ).fetchall()
        assert {name for name, _ in named} == TABLES | VIEWS
        assert all(comment for _, comment in named)
        columns = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = 'warehouse'"
        ).fetchall()
        assert {table for table, _, _ in columns} >= TABLES | VIEWS
        assert [(table, name) for table, name, comment in columns if table in TABLES | VIEWS and not comment] == []
        meanings = {(table, name): comment for table, name, comment in columns}
        assert meanings["samples", "colourfulness"] == "Hasler and Süsstrunk 2003, from pixels in 0 to 255"
        assert meanings["samples", "width"].endswith("[pixels]")

    def test_samples_hold_every_raw_row_with_what_was_measured(
        self, connection: duckdb.DuckDBPyConnection, store: Store
    ) -> None:
        raw = pa.concat_tables([pq.ParquetFile(file).read() for file in store.inputs.assets["raw_samples"]])
        samples = connection.sql("FROM samples").to_arrow_table()
        assert samples["uid"].to_pylist() == raw["uid"].to_pylist()
        assert samples["caption"].to_pylist() == raw["caption"].to_pylist()
        features = {
            row["uid"]: row
            for file in store.inputs.assets["image_features"]
            for row in pq.ParquetFile(file).read().to_pylist()
        }
        similarities: dict[str, dict[str, float]] = {}
        for file in store.inputs.assets["caption_scores"]:
            for row in pq.ParquetFile(file).read().to_pylist():
                if row["similarity"] is not None:
                    similarities.setdefault(row["uid"], {})[row["caption_source"]] = row["similarity"]
        for sample in samples.to_pylist():
            measured = features[sample["uid"]]
            assert sample["sharpness"] == measured["sharpness"]
            assert sample["top_label_probability"] == (measured["label_probabilities"] or [None])[0]
            scores = similarities.get(sample["uid"], {})
            assert sample["original_similarity"] == scores.get("original")
            assert sample["best_similarity"] == max(scores.values(), default=None)
            assert scores.get(sample["best_source"]) == sample["best_similarity"]

    def test_only_the_ones_to_drop_are_duplicates(self, connection: duckdb.DuckDBPyConnection) -> None:
        rows = connection.execute(
            'SELECT "row", is_duplicate, cluster FROM samples WHERE cluster IS NOT NULL ORDER BY shard, "row"'
        ).fetchall()
        assert [(row, duplicate) for row, duplicate, _ in rows] == [(0, False), (1, True), (2, True)] * SHARDS
        assert _one(connection, "SELECT sum(duplicates) FROM shards") == 2 * SHARDS
        kinds = connection.execute("SELECT kind, groups, samples, redundant FROM duplicate_kinds").fetchall()
        assert kinds == [("exact", 3, 6, 3), ("perceptual", 3, 9, 6), ("any", 3, 9, 6)]

    def test_captioners_are_compared_with_the_originals(self, connection: duckdb.DuckDBPyConnection) -> None:
        wide = connection.sql(
            "PIVOT captions ON caption_source IN ('original', 'labels', 'vlm') USING any_value(similarity) GROUP BY uid"
        ).to_arrow_table()
        original = np.array(wide["original"].to_pylist(), float)
        for name, independent in (("labels", False), ("vlm", True)):
            gains = np.array(wide[name].to_pylist(), float) - original
            gains = gains[np.isfinite(gains)]
            row = connection.sql(f"FROM captioners WHERE name = '{name}'").to_arrow_table().to_pylist()[0]
            assert row["captions"] == 108
            assert row["errors"] == SHARDS
            assert row["mean_gain"] == pytest.approx(gains.mean())
            assert row["share_better_than_original"] == pytest.approx((gains > 0).mean())
            assert row["independent"] is independent
            assert row["scorer"] == SCORER
        assert _one(connection, "SELECT count(*) FROM captions WHERE finish_reason = 'length'") == 2 * SHARDS

    def test_preference_counts_strictly_above_and_says_what_proves_nothing(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, shards=1)
        probabilities = np.array([0.7, 0.8, 0.9, 0.71, 0.81, 0.91, 0.5], np.float32)
        n = len(probabilities)
        pairs = pa.table(
            {
                "uid": pq.read_table(store.inputs.assets["raw_samples"][0])["uid"].to_pylist()[:n] * 2,
                "source_a": ["original"] * 2 * n,
                "source_b": ["labels"] * n + ["vlm"] * n,
                "probability_a": np.concatenate([probabilities, 1 - probabilities]),
                "probability_b": np.concatenate([1 - probabilities, probabilities]),
                "independent": [False] * n + [True] * n,
                "scorer": [SCORER] * 2 * n,
            },
            schema=CAPTION_PREFERENCE,
        )
        pq.write_table(pairs, store.inputs.assets["caption_preference"][0])
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
        shared, apart = warehouse.query("SELECT * FROM caption_preference").to_pylist()
        assert [shared[f"a_above_{percent}"] for percent in (70, 80, 90)] == [5, 3, 1]
        assert [apart[f"b_above_{percent}"] for percent in (70, 80, 90)] == [5, 3, 1]
        assert shared["n"] == n
        intervals = warehouse.query("SELECT * FROM preference_intervals").to_pylist()
        original = {("original", "labels"): (probabilities, 1 - probabilities)}
        original["original", "vlm"] = original["original", "labels"][::-1]
        expected = [asdict(one) | {"scorer": SCORER} for one in preference_report(original)]
        assert [{**row, "ratio": pytest.approx(row["ratio"])} for row in intervals] == expected
        assert [row["against"] for row in intervals] == [None] * 6 + ["original"] * 3
        assert "proves nothing" in shared["note"]
        assert "labels (tf_efficientnet_lite0.in1k)" in shared["note"]
        assert "vlm" not in shared["note"]
        assert apart["note"] is None

    def test_failures_and_shards_add_up(self, connection: duckdb.DuckDBPyConnection) -> None:
        assert _one(connection, "SELECT count(*) FROM failures") == 3 * SHARDS
        assert _one(connection, "SELECT sum(samples) FROM failure_reasons") == 3 * SHARDS
        shards = connection.execute('SELECT "rows", ok, failed, success_rate FROM shards').fetchall()
        assert shards == [(40, 37, 3, 0.925)] * SHARDS

    def test_materialisations_are_kept_in_utc(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        assert _one(connection, "SELECT min(materialised_at)::VARCHAR FROM materialisations") == "2026-01-02 03:04:00"
        assert _one(connection, "SELECT count(*) FROM materialisations") == store.inputs.materialisations.num_rows
        assert _one(connection, "SELECT count(*) FROM quality_by_shard WHERE materialised_at IS NULL") == 0

    def test_views_begin_with_what_is_asked_for(self, connection: duckdb.DuckDBPyConnection) -> None:
        worst = [row[0] for row in connection.execute("SELECT original_similarity FROM worst_captions").fetchall()]
        assert worst == sorted(worst)
        gains = [row[0] for row in connection.execute("SELECT gain FROM most_improved").fetchall()]
        assert gains == sorted(gains, reverse=True)
        assert min(gains) > 0
        unique = connection.execute(
            "SELECT count(*), count(*) FILTER (is_duplicate) FROM samples SEMI JOIN well_aligned_unique USING (uid)"
        ).fetchall()
        assert unique[0][0] > 0
        assert unique[0][1] == 0

    def test_the_same_store_gives_the_same_tables(
        self, connection: duckdb.DuckDBPyConnection, store: Store, tmp_path: Path
    ) -> None:
        again = Warehouse(path=tmp_path / "w.duckdb")
        again.rebuild(lambda new: build_warehouse(new, store.inputs))
        other = again.connect()
        for name in sorted(TABLES | VIEWS):
            assert connection.sql(f"FROM {name}").fetchall() == other.sql(f"FROM {name}").fetchall(), name

    @pytest.mark.parametrize(
        "store_of",
        [{"shards": 0}, {"captioners": ()}, {"duplicates": False}, {"all_failed": True}, {"rows": 0}],
        ids=["no shards", "no captioners", "no duplicates", "all failed", "no rows"],
    )
    def test_a_store_that_lacks_something_still_has_every_table(self, tmp_path: Path, store_of: dict) -> None:
        store = make_store(tmp_path, **store_of)
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
        connection = warehouse.connect()
        for name in TABLES | VIEWS:
            assert connection.sql(f"FROM {name}").columns
        assert [section.title for section in quality_report(connection, RELATIONS)] == SECTIONS
        assert _one(connection, "SELECT count(*) FROM captioners") == len(store.inputs.captioners)

    def test_captions_of_a_captioner_that_left_the_configuration_stay(self, store: Store, tmp_path: Path) -> None:
        inputs = replace(store.inputs, captioners=[CAPTIONERS[1]])
        warehouse = Warehouse(path=tmp_path / "w.duckdb")
        warehouse.rebuild(lambda connection: build_warehouse(connection, inputs))
        rows = warehouse.query("SELECT name, kind, model, independent FROM captioners").to_pylist()
        assert rows[0] == {"name": "labels", "kind": None, "model": "EfficientNet-Lite0 labels", "independent": None}
        assert rows[1]["kind"] == "lmdeploy"

    def test_a_uid_that_stands_twice_is_an_error(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, shards=2)
        first, second = store.inputs.assets["raw_samples"]
        pq.write_table(pq.ParquetFile(first).read(), second)
        with pytest.raises(ValueError, match="2 times"):
            Warehouse(path=tmp_path / "w.duckdb").rebuild(lambda connection: build_warehouse(connection, store.inputs))


def test_the_quality_report_says_in_words_what_is_preferred_and_what_proves_nothing(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    report = {section.title: section for section in quality_report(connection, RELATIONS)}
    assert list(report) == SECTIONS
    preference = report["Preference"]
    words = dict(zip(*(preference.table[name].to_pylist() for name in ("preference", "independent")), strict=True))
    assert words["vlm over original"] == "yes"
    assert words["labels over original"] == "no"
    assert "proves nothing" in preference.description
    assert "shares an image backbone with labels" in preference.description
    assert report["Captions"].table["source"].to_pylist() == ["original", "labels", "vlm"]
    assert report["Samples"].table["failed"].to_pylist() == [3 * SHARDS]
