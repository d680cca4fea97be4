"""Training straight from the store: every sample once, whoever reads it, and the same after a stop."""

from __future__ import annotations

import io
import json
import pickle
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from torch.utils.data import DataLoader

from dqe_assets.cli.publish import _weights
from dqe_assets.filtering.subset import SubsetError, write_subset
from dqe_assets.publish.captions import CaptionReader, with_chosen
from dqe_assets.publish.loader import LoaderError, StoreDataset, StoreFiles, webdataset_pipeline
from dqe_resources.errors import UsageError
from dqe_resources.store import Stamp, StorageError, Store
from tests.publish.small_store import (
    BROKEN,
    ROWS,
    SEVERAL,
    SHARDS,
    UIDS,
    UNCAPTIONED,
    UNSCORED,
    make_store,
    picture,
    table,
    uid,
)
from tests.servers.seaweed import s3_server

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.publish.captions import Caption

EPOCHS = 10

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("small") / "store"
    make_store(str(folder))
    return str(folder)


def subset_file(path: Path, uids: list[str]) -> Path:
    pairs = np.array(sorted((int(one[:16], 16), int(one[16:], 16)) for one in uids), "u8,u8")
    write_subset(path, pairs, {})
    return path


def batches(dataset: Any, workers: int = 0, size: int = 4) -> list[list[Any]]:
    return list(DataLoader(dataset, batch_size=size, num_workers=workers, collate_fn=list))


def keys(given: list[list[dict[str, Any]]]) -> list[list[tuple[str, str]]]:
    return [[(one["uid"], one["caption"]) for one in batch] for batch in given]


@pytest.mark.parametrize(("ranks", "workers", "buffer"), [(1, 0, 0), (1, 2, 10), (3, 0, 1000), (2, 3, 7)])
def test_each_sample_is_given_once_whoever_reads(root: str, ranks: int, workers: int, buffer: int) -> None:
    shares = []
    for rank in range(ranks):
        dataset = StoreDataset(root, captions={"original": 1, "model": 1}, buffer=buffer, split=(rank, ranks))
        found = [one["uid"] for batch in batches(dataset, workers) for one in batch]
        assert len(dataset) == len(found)
        shares.append(found)
    every = [one for share in shares for one in share]
    # One has neither caption.
    assert Counter(every) == Counter(one for one in UIDS if one not in {uid(n, UNCAPTIONED) for n in range(SHARDS)})
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert dataset.without_caption == SHARDS
    if not buffer:
        assert every == [one for one in UIDS if one in set(every)], "in the order of the store"
    else:
        assert every != [one for one in UIDS if one in set(every)]


@pytest.mark.parametrize(("workers", "stop"), [(0, 8), (2, 1), (2, 0), (3, 8), (3, 19)])
def test_what_stopped_goes_on_with_the_same_batches(root: str, workers: int, stop: int) -> None:
    options: dict[str, Any] = {"captions": {"original": 1, "model": 1}, "buffer": 20, "split": (1, 2)}
    first = StoreDataset(root, **options)
    first.set_epoch(3)
    whole = keys(batches(first, workers, 3))
    again = StoreDataset(root, **options)
    again.load_state_dict(json.loads(json.dumps(first.state_after(stop, 3, workers))))
    assert keys(batches(again, workers, 3)) == whole[stop:]
    again.set_epoch(4)
    other = keys(batches(again, workers, 3))
    assert other != whole
    assert sum(map(len, other)) == len(again), "the next epoch is a whole one"


def test_a_state_is_where_this_process_is(root: str) -> None:
    dataset = StoreDataset(root, captions="original", buffer=30)
    reading = iter(dataset)
    given = [next(reading)["uid"] for _ in range(17)]
    other = StoreDataset(root, captions="original", buffer=30)
    other.load_state_dict(dataset.state_dict())
    rest = [one["uid"] for one in other]
    assert Counter(given + rest) == Counter(one["uid"] for one in StoreDataset(root, captions="original"))
    with pytest.raises(LoaderError, match="the state is of seed 0, and this data set of 1"):
        StoreDataset(root, captions="original", buffer=30, seed=1).load_state_dict(dataset.state_dict())
    with pytest.raises(LoaderError, match="the state is of samples"):
        StoreDataset(root, captions="model", buffer=30).load_state_dict(dataset.state_dict())
    other.load_state_dict(dataset.state_after(2, 4, 3))
    with pytest.raises(LoaderError, match="the state is of 3 workers, and there are 1"):
        next(iter(other))


def test_the_captions_of_a_sample_are_drawn_by_their_weights(root: str) -> None:
    dataset = StoreDataset(root, captions={"original": 1, "model": 3}, buffer=8)
    drawn: dict[str, Counter[str]] = {}
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for one in dataset:
            drawn.setdefault(one["uid"], Counter())[one["caption"]] += 1
    # Row 6 has two original captions and one of the model; row 1 none of the model; row 9 none.
    for shard in range(SHARDS):
        key = f"mine-{shard:05d}"
        assert drawn[uid(shard, 1)] == {f"original {key} 1": EPOCHS}
        assert uid(shard, UNCAPTIONED) not in drawn
        assert {*drawn[uid(shard, 6)]} <= {f"original {key} 6", f"further {key} 6", f"model {key} 6"}
    share = sum(count for found in drawn.values() for text, count in found.items() if text.startswith("model"))
    possible = EPOCHS * sum(len({text.split()[0] for text in found} & {"model"}) for found in drawn.values())
    assert share / possible == pytest.approx(0.75, abs=0.05)
    further = sum(count for found in drawn.values() for text, count in found.items() if text.startswith("further"))
    both = sum(
        count
        for found in drawn.values()
        if any(text.startswith("further") for text in found)
        for text, count in found.items()
        if text.startswith(("further", "original"))
    )
    assert further / both == pytest.approx(0.5, abs=0.17)


def test_a_subset_is_read_as_often_as_it_says(root: str, tmp_path: Path) -> None:
    wanted = [uid(0, 2), uid(2, 30), uid(2, 30), uid(2, 30), uid(1, 17)]
    subset = subset_file(tmp_path / "few.npy", wanted)
    for given in (subset, f"file://{subset}"):
        dataset = StoreDataset(root, given, captions="original")
        assert Counter(one["uid"] for one in dataset) == Counter(wanted)
    assert len(dataset) == 5
    gone = subset_file(tmp_path / "gone.npy", [*wanted, uid(7, 7)])
    with pytest.raises(LoaderError, match=f"1 samples of the subset are not there, first {uid(7, 7)}"):
        StoreDataset(root, gone, captions="original")
    with pytest.raises(SubsetError, match="cannot be read as a subset"):
        StoreDataset(root, tmp_path / "none.npy", captions="original")
    with pytest.raises(LoaderError, match="none of 3 samples has a caption of original"):
        StoreDataset(
            root, subset_file(tmp_path / "mute.npy", [uid(n, UNCAPTIONED) for n in range(3)]), captions="original"
        )
    with pytest.raises(StorageError, match="synthetic_captions/nobody"):
        StoreDataset(root, captions="nobody")


def test_files_are_those_of_a_published_tar_and_webdataset_decodes_them(root: str, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    from dqe_assets.training.reshard import plan_shards, write_shards
    from dqe_assets.training.samples import StoreShard

    wanted = [uid(shard, row) for shard in range(SHARDS) for row in (2, 7, 37)]
    subset = subset_file(tmp_path / "few.npy", wanted)
    files = {one["__key__"]: one for one in StoreFiles(root, subset, captions="original")}
    parts = [StoreShard(Store(root), f"mine-{shard:05d}") for shard in range(SHARDS)]
    write_shards(plan_shards(np.load(subset), parts), tmp_path / "tars", {})
    published = list(webdataset.WebDataset(str(tmp_path / "tars" / "00000000.tar"), shardshuffle=False))
    assert len(published) == len(files) == len(wanted)
    for tar in published:
        ours = files[tar["__key__"].partition("-")[0]]
        names = {name for name in ("jpg", "png", "txt") if name in tar}
        assert {name: ours[name] for name in names} == {name: tar[name] for name in names}
        assert len(names) == 2
    dataset = {one["uid"]: np.asarray(one["image"]) for one in StoreDataset(root, subset, captions="original")}
    pipeline = webdataset_pipeline(
        webdataset.decode("pil"),
        webdataset.to_tuple("jpg;png", "txt", "json"),
        store=root,
        subset=subset,
        captions={"original": 1, "model": 1},
    )
    for image, text, facts in DataLoader(pipeline, batch_size=None, num_workers=2):
        assert np.array_equal(np.asarray(image.convert("RGB")), dataset[facts["uid"]])
        assert text in [one["text"] for one in facts["captions"]]
        assert text == facts["caption"]
        assert sum(one["weight"] for one in facts["captions"]) == pytest.approx(1)


def test_a_shard_that_is_made_again_ends_the_reading_and_workers_may_be_spawned(tmp_path: Path) -> None:
    store = make_store(str(tmp_path / "store"))
    dataset = pickle.loads(pickle.dumps(StoreDataset(store.root, captions="original", buffer=0)))
    assert len({one["uid"] for one in dataset}) == len(UIDS) - SHARDS
    from dqe_assets.ingest.tables import RAW_SAMPLES

    rows = store.read("raw_samples", "mine-00001", RAW_SAMPLES)
    store.write_table("raw_samples", "mine-00001", rows, RAW_SAMPLES, Stamp("2", "1", ROWS))
    with pytest.raises(LoaderError, match="mine-00001 was made again meanwhile"):
        list(dataset)


def test_every_caption_of_a_sample_is_read_with_its_source_weight_and_similarity(root: str) -> None:
    captions = CaptionReader(Store(root), {"original": 1.0, "model": 1.0}).of_shard("mine-00000", [0, 1, BROKEN + 1])
    assert captions[0] == [
        {"text": "original mine-00000 0", "source": "original", "weight": 0.25, "similarity": 0.25},
        {"text": "further mine-00000 0", "source": "original", "weight": 0.25, "similarity": 0.0},
        {"text": "model mine-00000 0", "source": "model", "weight": 0.5, "similarity": 0.5},
    ]
    assert captions[1] == [
        {"text": "original mine-00000 1", "source": "original", "weight": 1.0, "similarity": 0.25},
    ]
    assert len(captions[2]) == (3 if (BROKEN + 1) % SEVERAL == 0 else 2)


def test_a_further_caption_has_its_own_similarity_or_none_where_it_was_not_scored(root: str) -> None:
    row = 7 * SEVERAL
    for shard in range(SHARDS):
        ((_, further),) = CaptionReader(Store(root), {"original": 1.0}).of_shard(f"mine-{shard:05d}", [row])
        expected = None if shard == UNSCORED else pytest.approx(row / 100)
        assert further["text"].startswith("further")
        assert further["similarity"] == expected


def test_a_store_on_s3_is_read_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server").mkdir()
    with s3_server(tmp_path / "server") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        store = make_store("s3://bucket/store")
        subset = subset_file(tmp_path / "few.npy", UIDS[::3])
        store.filesystem.put_file(str(subset), "bucket/few.npy")
        dataset = StoreDataset("s3://bucket/store", "s3://bucket/few.npy", captions="model", buffer=10)
        given = [one for batch in batches(dataset, 2) for one in batch]
        assert Counter(one["uid"] for one in given) <= Counter(UIDS[::3])
        assert len(given) == len(dataset) > 20
        with Image.open(io.BytesIO(picture(0, 0))) as image:
            assert given[0]["image"].size == image.size


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    from dqe_assets.ingest.tables import RAW_SAMPLES

    store = make_store(str(tmp_path / "store"))
    rows = store.read("raw_samples", "mine-00000", RAW_SAMPLES).to_pylist()
    rows[4]["image"]["bytes"] = b"no picture"
    store.write_table("raw_samples", "mine-00000", table(rows, RAW_SAMPLES), RAW_SAMPLES, Stamp("2", "1", ROWS))
    with pytest.raises(LoaderError, match=f"sample {uid(0, 4)} of mine-00000: not_an_image.*leave it out"):
        list(StoreDataset(store.root, captions="original", buffer=0))


def test_where_no_caption_has_a_weight_the_chosen_one_has_all_of_it() -> None:
    captions: list[Caption] = [
        {"text": text, "source": source, "weight": 0.0, "similarity": None}
        for text, source in (("a", "original"), ("b", "original"), ("c", "model"))
    ]
    assert [one["weight"] for one in with_chosen(captions, "a", "original")] == [0.5, 0.5, 0]
    first, *rest = with_chosen(captions, "c", "model")
    assert (first["text"], first["weight"], [one["text"] for one in rest]) == ("c", 1, ["a", "b"])


@pytest.mark.parametrize("given", ["original", "=1", "original=x", "original=0", "original=nan"])
def test_a_weight_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="expected a caption source and a number above 0"):
        _weights(["model=2", given])
