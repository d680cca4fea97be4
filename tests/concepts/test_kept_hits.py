"""What each shard shows is kept as numbers: what follows from it is the same, whatever was kept, damaged or went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.concepts import kept_hits
from dqe_assets.concepts.corpus import shard_hits
from dqe_assets.concepts.lists import as_lists
from dqe_assets.concepts.tables import CONCEPT_HITS
from dqe_assets.core.schema import IMAGE
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.orchestration.takedowns import left_of
from dqe_resources.store import Stamp
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from pathlib import Path

SHARDS = ["photos-00000", "photos-00001", "photos-00002"]
SAID = ["a tabby cat", None, "a dog and a fly", "an agaric", "cats", "nothing"]


def put(shard: str, seed: int) -> None:
    """Store what a shard shows; its last image is none."""
    settings = load_settings()
    rng = np.random.default_rng(seed)
    uids = pa.chunked_array([pa.array([f"{100 * seed + row:032x}" for row in range(len(SAID))])])
    captions = {"original": pa.array([SAID[place] for place in rng.permutation(len(SAID))], pa.string())}
    rows = np.arange(len(SAID) - 1)
    images = as_lists(rows, rng.integers(4, size=len(rows)), len(rows))
    table = shard_hits(uids, captions, images, rows, settings.concepts.counting())
    settings.opened_store.write_table("concept_hits", shard, table, CONCEPT_HITS, Stamp(f"{seed}", "1", len(table)))


def made(shards: list[str], *, force: bool = False) -> list[pa.Table]:
    settings = load_settings()
    tables = []
    for name in ("concept_frequency", "misalignment"):
        stage = stage_named(settings, name)
        work = stage.work(settings.opened_store, None, shards)
        _, _, results = stage.make(work, handed(settings, stage), force=force)
        assert all(result.passed for result in results.values()), results
        tables.append(work.read_unpartitioned(name))
    return tables


@pytest.fixture(params=["zero", "ignore"])
def data_of(request: pytest.FixtureRequest, data: Path) -> Path:
    """Three stored shards of captions alone, with absent words counted in either way."""
    (data / "names.txt").write_text("cat\ntabby cat\ndog\nfly agaric\n")
    (data / "photos").mkdir()
    (data / "dqe.yaml").write_text(
        "sources: [{kind: folder, name: photos, path: photos}]\ncaptioners: []\n"
        f"concepts: {{vocabulary: [names.txt], absent_words: {request.param}}}\n"
    )
    for seed, shard in enumerate(SHARDS):
        put(shard, seed)
    return data


def test_only_new_and_changed_shards_are_read(data_of: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    numbered = kept_hits.numbered

    def noted(shard: str, *rest: object) -> pa.Table:
        read.append(shard)
        return numbered(shard, *rest)

    monkeypatch.setattr(kept_hits, "numbered", noted)
    made(SHARDS[:2])
    assert read == SHARDS[:2]
    whole = made(SHARDS)
    assert read == SHARDS
    assert [row["samples"] for row in whole[0].to_pylist() if row["item"] == IMAGE] != [0] * 4
    put(SHARDS[1], 7)
    changed = made(SHARDS)
    assert read == [*SHARDS, SHARDS[1]]
    assert changed != whole
    assert made(SHARDS, force=True) == changed
    assert len(list((data_of / "concepts").iterdir())) == len(SHARDS)


@pytest.mark.parametrize("content", [b"", b"damaged", b"0" * 5_000])
def test_a_damaged_file_is_made_again(data_of: Path, content: bytes) -> None:
    whole = made(SHARDS)
    for path in (data_of / "concepts").iterdir():
        path.write_bytes(content)
    for name in ("concept_frequency", "misalignment"):
        (data_of / "store" / name / "all.parquet").unlink()
    assert made(SHARDS) == whole


def test_what_is_left_of_a_sample_is_found(data_of: Path) -> None:
    made(SHARDS)
    uid = f"{100:032x}"
    ((path, count),) = kept_hits.places_of([uid])
    assert (path.name.split(".")[0], count) == (SHARDS[1], 1)
    assert [place for place in left_of(load_settings(), "uid", uid).places if str(path) in place]
    put(SHARDS[1], 7)
    made(SHARDS)
    assert kept_hits.places_of([uid]) == []
