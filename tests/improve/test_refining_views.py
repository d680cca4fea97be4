"""What asking again brought, by SQL against plain Python, and where people see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.core.figures import DARK
from dqe_assets.improve.refining_plots import similarity_before_and_after, similarity_by_round
from dqe_assets.improve.refining_views import rounds_of
from dqe_assets.improve.tables import REFINED_CAPTIONS
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.report.build_warehouse import CaptionerInfo, build_warehouse
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_assets.report.quality import quality_report
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.make_store import Store

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
REFINER = CaptionerInfo("refined", "refining", "InternVL2-8B", (), shares_backbone_with_scorer=False)


def row(uid: str, number: int, candidate: int, before: float | None, similarity: float | None, **values: Any) -> Any:
    answered = similarity is not None
    return {
        "uid": uid,
        "caption_source": "vlm",
        "round": number,
        "candidate": candidate,
        "reason": "below_original",
        "text": f"A <b>dog</b> of round {number}." if answered else None,
        "caption": f"A <b>dog</b> of round {number}." if answered else None,
        "flags": [] if answered else None,
        "veto": None,
        "finish_reason": "stop" if answered else "error",
        "similarity": similarity,
        "previous_similarity": before,
        "accepted": False,
        "words": 5 if answered else None,
        "previous_words": 8,
        "tokens": 7 if answered else None,
        "truncated": False if answered else None,
        "independent": True,
        "model": "InternVL2-8B",
        "temperature": 0.7,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "seconds": 2.0,
        "cost": 0.5,
        # Two candidates at once, one second apart.
        "finished_at": MOMENT + timedelta(seconds=10 * number + candidate),
        **values,
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The usual store, of which three samples were asked about: one twice, one in vain, one without a caption."""
    root = tmp_path_factory.mktemp("store")
    made = make_store(root)
    raw = pq.read_table(made.inputs.assets["raw_samples"][0], schema=RAW_SAMPLES)
    a, b, c = raw["uid"].to_pylist()[:3]
    rows = [
        row(a, 1, 0, 0.1, 0.3, accepted=True),
        row(a, 1, 1, 0.1, 0.9, veto="word_list"),
        row(b, 1, 0, 0.2, 0.1),
        row(b, 1, 1, 0.2, None),
        row(c, 1, 0, None, 0.4, accepted=True),
        row(c, 1, 1, None, 0.2),
        row(a, 2, 0, 0.3, 0.5, accepted=True),
        row(a, 2, 1, 0.3, 0.4),
    ]
    path = root / "refined_captions" / "photos-00000.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, REFINED_CAPTIONS), path)
    assets = {**made.inputs.assets, "refined_captions": [path]}
    inputs = replace(made.inputs, assets=assets, captioners=[*made.inputs.captioners, REFINER])
    return replace(made, inputs=inputs)


@pytest.fixture(scope="module")
def warehouse(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    built = Warehouse(path=tmp_path_factory.mktemp("warehouse") / "warehouse.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return built


def refined(store: Store) -> pa.Table:
    return pq.read_table(store.inputs.assets["refined_captions"][0], schema=REFINED_CAPTIONS)


def test_rounds_add_up(warehouse: Warehouse, store: Store) -> None:
    first, second = warehouse.query("FROM refining_rounds").to_pylist()
    assert rounds_of(refined(store)).to_pylist() == [first, second]
    assert (first["asked"], first["candidates"], first["answers"], first["vetoed"], first["accepted"]) == (
        3,
        6,
        5,
        1,
        2,
    )
    assert first["accepted_share"] == pytest.approx(2 / 3)
    assert first["mean_gain"] == pytest.approx(0.2), "where there was none before, there is no gain to speak of"
    assert first["mean_before"] == pytest.approx(0.15)
    assert first["mean_after"] == pytest.approx((0.3 + 0.2 + 0.4) / 3)
    assert (first["words_before"], first["words_after"]) == (8, 5)
    assert (first["prompt_tokens"], first["completion_tokens"], first["cost"]) == (600, 60, 3.0)
    assert first["busy_seconds"] == pytest.approx(3), "from 8 to 11 s, though the answers took 12 s in all"
    assert (second["asked"], second["accepted"], second["mean_gain"]) == (1, 1, pytest.approx(0.2))
    assert first["independent"] is True


def test_the_last_accepted_caption_stands_next_to_the_others_with_its_score(warehouse: Warehouse, store: Store) -> None:
    captions = warehouse.query(
        "SELECT * FROM captions WHERE caption_source = 'refined' ORDER BY similarity"
    ).to_pylist()
    assert [(one["caption"], one["similarity"], one["tokens"]) for one in captions] == [
        ("A <b>dog</b> of round 1.", pytest.approx(0.4), 7),
        ("A <b>dog</b> of round 2.", pytest.approx(0.5), 7),
    ]
    (captioner,) = warehouse.query("FROM captioners WHERE name = 'refined'").to_pylist()
    assert (captioner["kind"], captioner["captions"], captioner["independent"]) == ("refining", 2, True)
    assert len(warehouse.query("FROM refined_captions")) == 8


def test_the_report_and_the_gallery_show_it_and_escape_it(warehouse: Warehouse, store: Store) -> None:
    with warehouse.connect() as connection:
        (section,) = [one for one in quality_report(connection, RELATIONS) if one.title == "Refining"]
        page = render_gallery(
            GalleryInputs(connection, lambda uids: {uid: store.images[uid] for uid in uids}), RELATIONS
        )["gallery/refined.html"]
    assert section.table["round"].to_pylist() == [1, 2]
    assert '<section id="refined">' in page
    inside = page.split('<section id="refined">')[1].split("</section>")[0]
    assert "A &lt;b&gt;dog&lt;/b&gt; of round 2." in inside
    assert inside.count("<article>") == 2
    assert inside.index("round 2") < inside.index("round 1"), "those first that gained most"
    assert "<b>dog" not in page


def test_without_any_there_is_neither_section_nor_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1)
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    with warehouse.connect() as connection:
        assert "Refining" not in [section.title for section in quality_report(connection, RELATIONS)]
        assert "gallery/refined.html" not in render_gallery(GalleryInputs(connection, lambda _: {}), RELATIONS)
    assert warehouse.query("FROM refining_rounds").num_rows == 0
    nothing = REFINED_CAPTIONS.empty_table()
    assert rounds_of(nothing).num_rows == 0
    assert similarity_before_and_after(nothing).startswith(b"\x89PNG")


def test_the_picture_follows_each_sample(store: Store) -> None:
    found = similarity_by_round(refined(store))
    expected = [[0.1, 0.2, np.nan], [0.3, 0.2, 0.4], [0.5, 0.2, 0.4]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    light = similarity_before_and_after(refined(store))
    assert light == similarity_before_and_after(refined(store))
    assert light != similarity_before_and_after(refined(store), DARK)
