"""The captioners side by side on one page: every measure that there is, the same images, and nothing from outside."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_HITS
from dqe_assets.grounding.tables import GROUNDING
from dqe_assets.report.assets import _Loads
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.captions_page import NoSourceError, render_captions
from dqe_assets.report.gallery import GalleryInputs
from dqe_assets.score.tables import VQA_SCORES
from dqe_resources.warehouse import Warehouse
from tests.report.make_store import THINGS, make_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.make_store import Store

SOURCES = ("original", "labels", "vlm")
ATTACK = "<script>alert(1)</script> my boat & <b>dog</b>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two captioners, with truth, grounding and concepts of every caption."""
    root = tmp_path_factory.mktemp("store")
    made = make_store(root, shards=2, captions={4: ATTACK})
    files = dict(made.inputs.assets)
    texts: dict[str, dict[str, str]] = {source: {} for source in SOURCES}
    for source in SOURCES:
        asset = "raw_samples" if source == "original" else f"synthetic_captions/{source}"
        for path in files[asset]:
            table = pq.read_table(path, columns=["uid", "caption"]).to_pylist()
            texts[source] |= {row["uid"]: row["caption"] for row in table if row["caption"]}

    def write(asset: str, rows: list[dict[str, Any]], schema: pa.Schema, partition: str = "photos-00000") -> None:
        path = root / asset.replace("/", "_") / f"{partition}.parquet"
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
        files[asset] = [path]

    grounding, hits = [], []
    for source, of_source in texts.items():
        truth = []
        for number, (uid, caption) in enumerate(of_source.items()):
            named = [thing for thing in THINGS if thing in caption]
            absent = named if number % 3 == 0 else []
            precision = (1 - len(absent) / len(named)) if named else None
            grounding.append({"uid": uid, "caption_source": source, "entities": named, "ungrounded": absent})
            grounding[-1] |= {"missing": [], "precision": precision, "recall": 0.5, "flagged": bool(absent)}
            hits.append({"uid": uid, "item": source, "concepts": named, "words": named, "counted_by": "x"})
            truth.append({"uid": uid, "score": (number % 10) / 10, "finish_reason": "stop", "model": "m"})
        write(f"vqa_scores/{source}", truth, VQA_SCORES)
    write("grounding", grounding, GROUNDING)
    write("concept_hits", hits, CONCEPT_HITS)
    write("concept_frequency", [], CONCEPT_FREQUENCY, "all")
    return replace(made, inputs=replace(made.inputs, assets=files))


@pytest.fixture(scope="module")
def warehouse(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    built = Warehouse(path=tmp_path_factory.mktemp("warehouse") / "w.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    return built


def page_of(warehouse: Warehouse, store: Store, sources: tuple[str, ...] = (), images: int = 20) -> str:
    with warehouse.connect() as connection:
        inputs = GalleryInputs(
            connection,
            lambda uids: {uid: store.images[uid] for uid in uids if uid in store.images},
            title="Captions compared",
        )
        return render_captions(inputs, sources, images)


def cells(page: str, measure: str) -> list[str]:
    row = re.search(rf'<th scope="row">{re.escape(measure)}</th>(.*?)</tr>', page, re.DOTALL)
    assert row, measure
    return re.findall(r"<bdi>(.*?)</bdi>", row[1])


def test_every_measure_stands_beside_the_others_and_the_better_end_is_marked(
    warehouse: Warehouse, store: Store
) -> None:
    page = page_of(warehouse, store)
    quality = {row["caption_source"]: row for row in warehouse.query("FROM caption_quality").to_pylist()}
    assert cells(page, "similarity") == [f"{quality[source]['mean_similarity']:.3f}" for source in SOURCES]
    assert cells(page, "truth (vqa)") == [f"{quality[source]['mean_vqa']:.3f}" for source in SOURCES]
    assert cells(page, "a caption")[:2] == ["–", "–"]
    assert cells(page, "a caption")[2].endswith(" s")
    best = re.search(r'<th scope="row">similarity</th>.*?</tr>', page, re.DOTALL)
    assert best is not None
    assert best[0].count('class="best"') == 1
    for measure in (
        *("things found in the image", "of the original&#39;s kept", "most lost", "flagged"),
        *("a thousand captions", "tokens read, each", "correlation of both", "preferred to the original"),
    ):
        assert cells(page, measure), measure
    assert re.search(r"\d+% \(\d+% to \d+%\)", cells(page, "preferred to the original")[2])


def test_the_same_images_are_shown_with_all_captions_and_words_that_were_not_found_are_marked(
    warehouse: Warehouse, store: Store
) -> None:
    page = page_of(warehouse, store)
    assert page.count("<article") == 20
    assert page.count("<img data-uid") == 20
    assert page.count('<div class="source') == 20 * 3
    assert "<mark>" in page.partition('<div class="rows">')[2]
    assert page_of(warehouse, store) == page, "the same warehouse gives the same page"
    few = page_of(warehouse, store, ("vlm", "original"), images=3)
    assert few.count("<article") == 3
    assert few.count('<div class="source') == 3 * 2


def test_the_page_loads_nothing_and_captions_are_text(warehouse: Warehouse, store: Store) -> None:
    page = page_of(warehouse, store, images=80)
    loads = _Loads()
    loads.feed(page)
    assert loads.found == []
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page


def test_a_source_that_is_not_there_is_refused(warehouse: Warehouse, store: Store) -> None:
    with pytest.raises(NoSourceError, match="no captions of 'best'; there are: original, labels, vlm"):
        page_of(warehouse, store, ("best",))


def test_with_captions_alone_it_leaves_out_what_nobody_measured(tmp_path: Path) -> None:
    bare = make_store(tmp_path, shards=1, captioners=())
    built = Warehouse(path=tmp_path / "w.duckdb")
    built.rebuild(lambda connection: build_warehouse(connection, bare.inputs))
    page = page_of(built, bare)
    assert "truth (vqa)" not in page
    assert 'id="preference"' not in page
    assert cells(page, "similarity")
