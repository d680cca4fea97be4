"""The truth of captions by a model: a row for each sample, nothing asked twice or lost, and beside similarity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from scipy.stats import spearmanr

from dqe_assets.improve.agreement import rank_correlation
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.settings import Settings
from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.quality import quality_report
from dqe_assets.score.tables import VQA_SCORES
from dqe_resources.captioners.protocol import CaptionerError
from dqe_resources.models.torchvision_cpu import ensure_torchvision
from dqe_resources.warehouse import Warehouse
from tests.caption_server import CaptionServer, jpeg
from tests.report.make_store import RELATIONS, make_store
from tests.resources.scorers.test_vqa import answer
from tests.servers.tiny_vlm import build_tiny_vlm
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from pathlib import Path

SHARD, PHOTOS = "stripes-00000", 12
BLANK, BROKEN = 3, 7


class TruthServer(CaptionServer):
    """Finds an image the truer the wider it is; after ``patience`` answers it refuses whatever it is asked."""

    def __init__(self, patience: int = 1000) -> None:
        super().__init__(self._answer)
        self.patience = patience

    async def _answer(self, number: int) -> web.Response:
        if len(self.asked) > self.patience:
            return web.Response(status=401, text="no more")
        return answer({"No": 1 - (number + 1) / 20, "Yes": (number + 1) / 20})


@pytest.fixture
def stripes(data: Path) -> Path:
    """Images known by their number: one has no caption, and one is none. A table has captions of a model."""
    folder = data / "stripes"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number:02d}.jpg").write_bytes(b"none" if number == BROKEN else jpeg(number))
        if number != BLANK:
            (folder / f"{number:02d}.txt").write_text(f'a "stripe" {number}')
    lines = [f"{number:02d}.jpg,a band of {number}" for number in range(PHOTOS)]
    (data / "rich.csv").write_text("image_name,caption\n" + "\n".join(lines) + "\n")
    return data


def settings_of(data: Path, url: str | None, captioners: tuple[str, ...] = ("rich",), **scorer: Any) -> Settings:
    return Settings.model_validate(
        {
            "sources": [{"kind": "folder", "name": "stripes", "path": str(data / "stripes")}],
            "captioners": [
                {"kind": "table", "name": name, "path": str(data / "rich.csv"), "key": "image_name"}
                for name in captioners
            ],
            "scorers": [
                {"kind": "vqa", "name": "truth", "model": "tiny-vlm", **({"url": url} if url else {}), **scorer}
            ],
            "best": {"by": ["vqa", "similarity"]},
        }
    )


def make(settings: Settings, name: str) -> dict[str, Any]:
    stage = stage_named(settings, name)
    work = stage.work(settings.opened_store, SHARD, [SHARD])
    _, metadata, results = stage.make(work, handed(settings, stage))
    assert all(result.passed for result in results.values()), results
    return dict(metadata)


def state(settings: Settings, name: str) -> str:
    return runner.state(settings, stage_named(settings, name), SHARD, [SHARD])


def test_every_caption_gets_its_exact_probability_and_the_rest_says_why_not(stripes: Path) -> None:
    with TruthServer() as server:
        settings = settings_of(
            stripes, server.url, price_per_million_prompt_tokens=2, price_per_million_completion_tokens=4
        )
        for name in ("raw_samples", "synthetic_captions/rich", "vqa_scores/original", "vqa_scores/rich"):
            metadata = make(settings, name)
    rows = table_of(settings, "vqa_scores/original", SHARD).to_pylist()
    for number, row in enumerate(rows):
        if number in {BLANK, BROKEN}:
            assert row["finish_reason"] == ("no_caption" if number == BLANK else "no_image")
            assert (row["score"], row["attempts"], row["cost"]) == (None, None, None)
        else:
            assert row["score"] == pytest.approx((number + 1) / 20)
            assert row["answered"] == pytest.approx(1)
            assert (row["finish_reason"], row["prompt_tokens"], row["completion_tokens"]) == ("stop", 300, 1)
            assert row["cost"] == pytest.approx((300 * 2 + 4) / 1e6)
    assert (metadata["scored"], metadata["prompt_tokens"]) == (PHOTOS - 1, 300 * (PHOTOS - 1))
    texts = {request["messages"][0]["content"][1]["text"] for request in server.requests}
    assert "Does this figure show \"a 'stripe' 0\"? Please answer yes or no." in texts
    assert graph.signals(settings)["truth"].asset == "vqa_scores/original"
    assert {"vqa_scores/original", "vqa_scores/rich"} <= set(stage_named(settings, "best_captions").inputs)


def test_a_run_that_ends_goes_on_with_the_rest_and_another_captioner_asks_for_nothing_again(stripes: Path) -> None:
    asset = "vqa_scores/original"
    with TruthServer(patience=4) as server:
        settings = settings_of(stripes, server.url, concurrency=1)
        make(settings, "raw_samples")
        with pytest.raises(CaptionerError, match=r"4 of 10 captions are finished and kept"):
            make(settings, asset)
    with TruthServer() as server:
        again = settings_of(stripes, server.url)
        make(again, asset)
        assert len(server.asked) == PHOTOS - 2 - 4
        assert state(settings_of(stripes, server.url, captioners=("rich", "more")), asset) == "current"
        assert state(settings_of(stripes, server.url, answer="grade"), asset) != "current"


def test_the_cap_leaves_captions_unasked_and_a_higher_one_goes_on_with_them(stripes: Path) -> None:
    asset = "vqa_scores/original"
    with TruthServer() as server:
        low = settings_of(stripes, server.url, max_tokens_total=3 * 301, max_prompt_tokens=300)
        make(low, "raw_samples")
        assert make(low, asset)["not_asked_for_the_cap"] == PHOTOS - 2 - 3
        assert state(low, asset) == "current", "no more can be asked"
        high = settings_of(stripes, server.url)
        assert state(high, asset) != "current"
        assert make(high, asset)["scored"] == PHOTOS - 2
        assert len(server.asked) == PHOTOS - 2


def test_a_model_in_this_process_makes_the_same_table_without_a_server(stripes: Path, tmp_path: Path) -> None:
    ensure_torchvision()
    answers = ["Yes", "No"]
    build_tiny_vlm(tmp_path / "vlm", words=answers, loud=answers, seed=1)
    settings = settings_of(
        stripes, None, kind="vqa_transformers", model=str(tmp_path / "vlm"), concurrency=4, device="cpu", min_scored=0
    )
    asset = "vqa_scores/original"
    make(settings, "raw_samples")
    metadata = make(settings, asset)
    rows = table_of(settings, asset, SHARD).to_pylist()
    asked = [row for row in rows if row["attempts"]]
    assert [row["finish_reason"] for row in rows if not row["attempts"]] == ["no_caption", "no_image"]
    assert len(asked) == PHOTOS - 2
    assert {row["finish_reason"] for row in asked} <= {"stop", "unparsable"}
    assert all(0 <= row["answered"] <= 1 and row["prompt_tokens"] > 16 and row["cost"] is None for row in asked)
    assert metadata["scored"] == sum(row["score"] is not None for row in asked) > 0
    assert metadata["not_asked_for_the_cap"] == 0
    assert state(settings, asset) == "current"
    assert stage_named(settings, asset).pool == "model"


def test_a_second_scorer_of_the_kind_and_a_rule_without_one_are_refused(stripes: Path) -> None:
    one = {"kind": "vqa", "url": "http://127.0.0.1:9", "model": "m"}
    source = {"kind": "folder", "name": "stripes", "path": str(stripes / "stripes")}
    with pytest.raises(ValueError, match="a, b are of kind vqa or vqa_transformers, and there can be one"):
        Settings.model_validate({"sources": [source], "scorers": [{**one, "name": "a"}, {**one, "name": "b"}]})
    with pytest.raises(ValueError, match=r"best\.by: vqa is the score of a scorer of kind vqa or vqa_transformers"):
        Settings.model_validate({"sources": [source], "best": {"by": ["vqa"]}})


def test_it_stands_beside_similarity_with_the_agreement_of_both(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1)
    scores = pq.read_table(store.inputs.assets["caption_scores"][0]).to_pylist()
    random = np.random.default_rng(0)
    files = dict(store.inputs.assets)
    given: dict[str, dict[str, float]] = {"original": {}, "vlm": {}}
    for source, truth in given.items():
        for row in scores:
            if row["caption_source"] == source and row["similarity"] is not None:
                truth[row["uid"]] = round(float(np.clip(row["similarity"] + random.normal(0, 0.1), 0, 1)), 2)
        records = [{"uid": uid, "score": one, "finish_reason": "stop", "model": "m"} for uid, one in truth.items()]
        path = tmp_path / source / store.inputs.assets["raw_samples"][0].name
        path.parent.mkdir()
        pq.write_table(pa.Table.from_pylist(records, VQA_SCORES), path)
        files[f"vqa_scores/{source}"] = [path]
    warehouse = Warehouse(path=tmp_path / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, replace(store.inputs, assets=files)))
    similarity = {(row["uid"], row["caption_source"]): row["similarity"] for row in scores}
    found = {row["caption_source"]: row for row in warehouse.query("FROM scorer_agreement").to_pylist()}
    assert list(found) == ["original", "vlm"]
    for source, truth in given.items():
        both = [(similarity[uid, source], np.float32(one)) for uid, one in truth.items()]
        expected = spearmanr(*zip(*both, strict=True)).statistic
        assert found[source]["rank_correlation"] == pytest.approx(expected)
        assert rank_correlation(*zip(*both, strict=True)) == pytest.approx(expected)
        assert found[source]["captions"] == len(truth)
    pairs = [
        (similarity[uid, "vlm"] > similarity[uid, "original"], given["vlm"][uid] > given["original"][uid])
        for uid in given["vlm"].keys() & given["original"].keys()
        if given["vlm"][uid] != given["original"][uid]
    ]
    assert found["vlm"]["pairs"] == len(pairs)
    assert found["vlm"]["same_preference"] == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert found["original"]["pairs"] is None
    means = {row["caption_source"]: row["mean_vqa"] for row in warehouse.query("FROM caption_quality").to_pylist()}
    assert means["vlm"] == pytest.approx(np.mean([*given["vlm"].values()]), abs=1e-6)
    assert means["labels"] is None
    with warehouse.connect() as connection:
        assert "Agreement of the scorers" in str(quality_report(connection, RELATIONS))
    low = warehouse.query("SELECT * FROM suspects WHERE list_contains(reasons, 'low_vqa')").to_pylist()
    lowest = {source: np.quantile([*truth.values()], 0.12) for source, truth in given.items()}
    assert low
    assert all(given[row["caption_source"]][row["uid"]] <= lowest[row["caption_source"]] for row in low)
