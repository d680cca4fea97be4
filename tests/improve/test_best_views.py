"""The best caption of each sample in the warehouse and in what is published, and the picture of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.core.figures import DARK
from dqe_assets.improve.best_plots import before_and_after
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.publish.selection import Facts, select
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import make_store

REFINED = "A red kite above a <b>lake</b>, asked for again"


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, str]:
    """A warehouse in which a refined caption is the best of the first sample, and that sample's uid."""
    tmp_path = tmp_path_factory.mktemp("refined")
    store = make_store(tmp_path, shards=1)
    (file,) = store.inputs.assets["best_captions"]
    rows = pq.ParquetFile(file).read().to_pylist()
    rows[0] |= {"caption": REFINED, "caption_source": "refined", "similarity": 0.9, "independent": False}
    pq.write_table(pa.Table.from_pylist(rows, BEST_CAPTIONS), file)
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return warehouse, rows[0]["uid"]


def test_a_best_caption_that_is_no_captioners_own_is_in_every_table_that_speaks_of_the_best(
    refined: tuple[Warehouse, str],
) -> None:
    warehouse, uid = refined
    (sample,) = warehouse.query(f"SELECT best_source, best_similarity FROM samples WHERE uid = '{uid}'").to_pylist()
    assert sample == {"best_source": "refined", "best_similarity": pytest.approx(0.9)}
    for view in ("worst_captions", "most_improved"):
        (row,) = warehouse.query(f"SELECT best_source, best_caption FROM {view} WHERE uid = '{uid}'").to_pylist()
        assert row == {"best_source": "refined", "best_caption": REFINED}
    assert warehouse.query(f"SELECT independent FROM most_improved WHERE uid = '{uid}'")["independent"].to_pylist() == [
        False
    ]
    (reason,) = warehouse.query("FROM best_reasons WHERE caption_source = 'refined'").to_pylist()
    assert (reason["samples"], reason["independent"]) == (1, False)


def test_it_is_published_with_its_source_and_its_own_similarity(refined: tuple[Warehouse, str]) -> None:
    warehouse, uid = refined
    with warehouse.session() as query:
        selection = select(query, "true", "best")
        pages = Facts(query, selection).pages(0, selection.total)
        facts = {row["uid"]: row for *_, page in pages for row in page.to_pylist()}
        of_one_captioner = select(query, "true", "vlm")
    assert (facts[uid]["caption"], facts[uid]["caption_source"]) == (REFINED, "refined")
    assert (facts[uid]["similarity"], facts[uid]["tokens"]) == (pytest.approx(0.9), None)
    others = [row for row in facts.values() if row["caption_source"] != "refined"]
    assert all(row["tokens"] is not None and row["similarity"] == row["best_similarity"] for row in others)
    assert len(facts) == 37
    assert of_one_captioner.total == 36


def test_the_picture_is_the_same_every_time_and_drawn_of_anything() -> None:
    random = np.random.default_rng(0)
    original, best = random.normal(0.2, 0.1, 300), random.normal(0.3, 0.1, 300)
    original[:7], best[5:9] = np.nan, np.nan
    independent = random.random(300) < 0.5
    drawn = before_and_after(original, best, independent)
    assert drawn.startswith(b"\x89PNG")
    assert drawn == before_and_after(original, best, independent)
    assert (
        len({drawn, before_and_after(original, best, independent | True), before_and_after(best, best, independent)})
        == 3
    )
    nothing = np.full(3, np.nan)
    for before, after in ((nothing, nothing), (nothing, np.ones(3)), (np.ones(3), np.ones(3)), ([], [])):
        assert before_and_after(before, after, np.ones(len(before)), DARK).startswith(b"\x89PNG")
