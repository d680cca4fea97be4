from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.concepts.counting import concept_hits as hits_of
from dqe_assets.concepts.counting import count_concepts, tally
from dqe_assets.concepts.lemmas import lemma, split_words
from dqe_assets.concepts.lookup import Lookup, word_parts
from dqe_assets.concepts.tables import CONCEPT_PLAN
from dqe_resources.warehouse import WarehouseMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings

CAPTIONS = [
    "Two mice hid in the attic",
    "a mouse &amp; a cat",
    "MOUSE-traps",
    "a fly sat on the fly agaric",
    "flies on agarics",
    "fl\u00aduffy flying carpets",  # a soft hyphen within a word
    "\uff4d\uff4f\uff55\uff53\uff45 in full width",
    None,
    "",
]


def warehouse(captions: list[str | None], vocabulary: list[str] | None = None) -> duckdb.DuckDBPyConnection:
    """As much of a warehouse as is asked about concepts."""
    names = vocabulary or ["mouse", "cat"]
    counts = count_concepts(normalise_captions(pa.array(captions, pa.string())), names, "lemmatized", "zero")["count"]
    connection = duckdb.connect()
    uids = [f"{row:032x}" for row in range(len(captions))]
    tables = {
        "captions": pa.table(
            {
                "uid": uids,
                "caption_source": ["original"] * len(uids),
                "caption": pa.array(captions, pa.string()),
                "similarity": pa.array(np.linspace(0, 1, len(uids)), pa.float32()),
            }
        ),
        "samples": pa.table({"uid": uids, "image_name": [f"{uid[-2:]}.jpg" for uid in uids], "caption": captions}),
        "concept_frequency": pa.table(
            {
                "concept": names,
                "tasks": pa.array([["own"]] * len(names), pa.list_(pa.string())),
                "position": range(len(names)),
                "item": ["original"] * len(names),
                "samples": counts.combine_chunks(),
                "searched": [len(uids)] * len(names),
                "rank": [1] * len(names),
                "agreed": [0] * len(names),
                "absent_words": pa.array([[]] * len(names), pa.list_(pa.string())),
            }
        ),
    }
    for name, table in tables.items():
        connection.register("given", table)
        connection.execute(f"CREATE TABLE {name} AS FROM given")
    return connection


def lookup(connection: duckdb.DuckDBPyConnection) -> Lookup:
    plan = CONCEPT_PLAN.empty_table()
    return Lookup(connection, "lemmatized", "original", lambda *_: plan)


@pytest.mark.parametrize(
    ("concept", "samples"),
    [
        ("mice", 4),
        ("fly agaric", 2),
        ("Flying", 1),
        ("fly", 2),
        ("fluffy", 1),
        ("carpet", 1),
        ("mouse trap", 1),
        ("amp", 0),
    ],
)
def test_what_is_not_in_the_vocabulary_is_counted_in_the_captions(concept: str, samples: int) -> None:
    answer = lookup(warehouse(CAPTIONS)).ask(concept, 10)
    assert not answer.known
    assert answer.counts["samples"].to_pylist() == [samples]
    assert len(answer.examples) == samples
    assert answer.is_shown == (samples > 0)


def test_what_nothing_shows_is_spelled_out_with_what_is_near() -> None:
    answer = lookup(warehouse(CAPTIONS, ["fly", "fly fishing", "cat", "toadstools"])).ask("fly toadstool amanita", 3)
    assert answer.absent_words == ("toadstool", "amanita")
    assert set(answer.near) == {"fly", "fly fishing", "toadstools"}
    assert not answer.examples
    with pytest.raises(ValueError, match="'--' has neither a letter nor a digit"):
        lookup(warehouse(CAPTIONS)).ask("--", 3)


def test_a_warehouse_without_concepts_says_what_to_do() -> None:
    connection = duckdb.connect()
    with pytest.raises(WarehouseMissingError, match="run: dqe materialize"):
        lookup(connection)
    connection.execute("CREATE TABLE concept_frequency (concept VARCHAR, tasks VARCHAR[], position INTEGER)")
    with pytest.raises(WarehouseMissingError, match="run: dqe materialize"):
        lookup(connection)


def test_captions_that_are_sql_or_markup_are_text() -> None:
    nasty = ["'; DROP TABLE captions; --", "[red]mouse[/red] <script>", "%mouse_"]
    connection = warehouse(nasty)
    assert lookup(connection).ask("red mouse", 5).counts["samples"].to_pylist() == [1]
    assert lookup(connection).ask("'; DROP TABLE captions", 5).counts["samples"].to_pylist() == [1]
    assert connection.execute("SELECT count(*) FROM captions").fetchone() == (3,)


def test_every_form_of_a_word_has_one_of_its_parts(sbu: Path) -> None:
    texts = pq.read_table(sbu / "captions.parquet", columns=["original_caption"])["original_caption"]
    words = {word for text in texts.to_pylist() for word in split_words(text)}
    assert len(words) > 10_000
    without = [word for word in words if not any(part in word for part in word_parts(lemma(word), "lemmatized"))]
    assert without == []


def test_real_captions_are_counted_as_if_all_were_split(sbu: Path) -> None:
    texts = pq.read_table(sbu / "captions.parquet", columns=["original_caption"])["original_caption"].to_pylist()[:3000]
    names = [
        "dog",
        "fly",
        "tree house",
        "old man",
        "children",
        "café",
        "traffic light",
        "church tower",
        "leaf",
        "geese",
    ]
    captions = normalise_captions(pa.array(texts))
    expected = tally(hits_of(captions, names, "lemmatized", "zero"), len(names)).tolist()
    asked = lookup(warehouse(texts))
    assert [asked.ask(name, 0).counts["samples"].to_pylist()[0] for name in names] == expected
    assert min(expected[:3]) > 0


@pytest.fixture
def real(opened: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = opened.warehouse.connect()
    yield connection
    connection.close()


def test_a_known_concept_is_read_with_its_samples(opened: Settings, real: duckdb.DuckDBPyConnection) -> None:
    answer = lookup(real).ask("Golden_Retriever", 5)
    assert answer.known
    assert answer.concept == "golden retriever"
    counts = {row["item"]: row for row in answer.counts.to_pylist()}
    assert counts["image"]["samples"] >= counts["original"]["agreed"] > 0
    assert all(name.startswith("puppy_") for name in answer.examples["image_name"].to_pylist())
    assert len(answer.plan) == 1
    assert 0 < answer.plan["samples_needed"][0].as_py() < 1e7


def test_counts_of_the_vocabulary_are_those_of_a_scan(opened: Settings, real: duckdb.DuckDBPyConnection) -> None:
    rows = real.execute(
        "SELECT concept, samples FROM concept_frequency WHERE item = 'original' AND samples > 0 ORDER BY concept"
    ).fetchall()
    asked = lookup(real)
    asked._vocabulary.clear()
    found = [asked.ask(concept, 0) for concept, _ in rows]
    assert [answer.counts["samples"][0].as_py() for answer in found] == [samples for _, samples in rows]
    assert len(rows) > 10
