"""The first ten lines of the report: how much there is, how well captions fit, what that proves, and the worst."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len

from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_assets.report.summary import Found, Summary, summary
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import CAPTIONERS, RELATIONS, make_store

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def built(folder: Path, **options: Any) -> Warehouse:
    store = make_store(folder, **options)
    warehouse = Warehouse(path=folder / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return warehouse


def summarised(warehouse: Warehouse) -> Summary:
    with warehouse.connect() as connection:
        return summary(connection, RELATIONS)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return built(tmp_path_factory.mktemp("store"))


def test_it_counts_what_the_warehouse_holds_in_ten_lines_of_80_columns(warehouse: Warehouse) -> None:
    found = summarised(warehouse)
    ((rows, readable, copies),) = (
        warehouse.query(
            "SELECT count(*), count(*) FILTER (status = 'ok'), count(*) FILTER (is_duplicate AND status = 'ok') "
            "FROM samples"
        )
        .to_pandas()
        .to_numpy()
        .tolist()
    )
    assert (found.rows, found.readable, found.redundant, found.sources, found.shards) == (rows, readable, copies, 1, 3)
    assert 0 < copies < readable < rows
    lines = found.lines
    assert lines[0] == f"{rows} rows of 1 source in 3 shards; {readable} have a readable image ({readable / rows:.1%})."
    assert lines[1].startswith(f"{copies} of those are copies of others; {readable - copies} pictures are left")
    assert len(lines) <= 10
    assert max(cell_len(line) for line in lines if not line.startswith(" ")) <= 80


def test_each_problem_is_shown_by_its_command_and_the_largest_comes_first(warehouse: Warehouse) -> None:
    found = summarised(warehouse).problems
    assert 1 <= len(found) <= 3
    counts = [one.samples for one in found]
    assert counts == sorted(counts, reverse=True)
    for one in found:
        assert 0 < one.samples <= one.of
        query = re.fullmatch(r'dqe sql "(.*)"', one.command)
        assert query, one.command
        assert warehouse.query(query[1]).num_rows > 0, one.what


def test_every_problem_of_every_stage_can_be_counted_and_shown(warehouse: Warehouse) -> None:
    problems = [problem for one in RELATIONS for problem in one.problems]
    assert len(problems) >= 6
    for problem in problems:
        warehouse.query(problem.shown_by)


def test_an_independent_captioner_is_evidence_and_one_that_shares_a_backbone_proves_nothing(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    found = summarised(warehouse)
    (interval,) = warehouse.query(
        "SELECT share_b_low, share_b_high FROM preference_intervals "
        "WHERE source_a = 'original' AND source_b = 'vlm' AND against IS NULL AND threshold = 0.7"
    ).to_pylist()
    low, high = interval["share_b_low"], interval["share_b_high"]
    assert found.lines[3] == (
        f"That is evidence: an independent scorer prefers vlm on {low:.0%} to {high:.0%} of images."
    )
    assert "vlm" in found.lines[2]
    assert found.lines[2].endswith("; 1 more.")

    shared = summarised(built(tmp_path / "shared", captioners=CAPTIONERS[:1], shards=1))
    assert shared.lines[3] == "That proves nothing: the scorer shares its image backbone with labels."
    alone = summarised(built(tmp_path / "alone", captioners=(), shards=1))
    assert alone.lines[3].startswith("That proves little by itself")


def test_nothing_at_all_is_said_too(tmp_path: Path) -> None:
    found = summarised(built(tmp_path, shards=0))
    assert found.lines[0] == "0 rows of 0 sources in 0 shards; 0 have a readable image (none)."
    assert found.lines[2] == "No caption has a score."
    assert found.problems == []


def test_a_section_without_rows_or_with_nothing_but_names_says_nothing(tmp_path: Path) -> None:
    warehouse = built(tmp_path, shards=1, duplicates=False)
    with warehouse.connect() as connection:
        sections = {one.title: one for one in quality_report(connection, RELATIONS)}
    assert not sections["Samples"].says_nothing
    assert sections["Duplicates"].table.num_rows == 0
    assert sections["Duplicates"].says_nothing


def test_the_document_has_the_figures_and_the_lines(warehouse: Warehouse) -> None:
    found = summarised(warehouse)
    document = found.to_json()
    assert document["lines"] == found.lines
    assert [Found(**one) for one in document["problems"]] == list(found.problems)
    assert document["fits"][0]["caption_source"] == "original"
