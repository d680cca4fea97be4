"""Which rows the embedded sample has: what is planted in each, in which order and under which name."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import astuple, dataclass
from functools import cache
from importlib.resources import files
from itertools import count, cycle, islice
from typing import TYPE_CHECKING

import PIL

from dqe_resources.sources.rows import SourceRow, Truth
from dqe_resources.sources.sample_images.photos import PHOTOS
from dqe_resources.sources.sample_images.plants import fraction, make
from dqe_resources.sources.sample_images.sample_captions import EMPTY, FILE_NAMES, MARKUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.sources.sample_images.photo import Photo

SHARDS = 4
"""The order of the rows gives every quarter of the sample a mix of every kind."""

IMAGE_KINDS = {
    "original": len(PHOTOS),
    "exact_copy": 36,
    "recompressed": 26,
    "resized": 26,
    "cropped": 26,
    "recoloured": 27,
    "rotated_exif": 6,
    "caption_drawn": 26,
    "tiny": 16,
    "extreme_aspect": 16,
    "truncated": 8,
    "not_an_image": 8,
    "missing": 6,
}
"""The kinds of image, and how many rows have each."""

NEAR_COPIES = frozenset({"recompressed", "resized", "cropped", "recoloured", "rotated_exif"})
"""Kinds of image that show all or nearly all of the photo, in other bytes."""

BROKEN = frozenset({"truncated", "not_an_image", "missing"})
"""Kinds of image that cannot be decoded."""

CAPTION_KINDS = {"other_photo": 40, "file_name": len(FILE_NAMES), "one_word": 14, "empty": 8, "markup": len(MARKUP)}
"""Kinds of caption other than `right` and `language_<code>`, and how many rows have each."""

SAMPLE_SIZE = sum(IMAGE_KINDS.values())
"""Rows of the sample."""

LETTERED = frozenset({"handwriting", "page"})
"""Photos of writing, and too low for more: nothing is drawn into them, and they are not made smaller."""


@dataclass(frozen=True, slots=True)
class Plant:
    """One row before its image is made.

    Attributes:
        name: the row's key, which is also the image's file name.
        seed: photo, kind of image and number, which the image's choices are made of.
        photo: key of the photo.
        image: kind of image, a key of IMAGE_KINDS.
        caption_kind: right, a key of CAPTION_KINDS, or language_<ISO 639-1 code>.
        caption: the caption as found.
    """

    name: str
    seed: str
    photo: str
    image: str
    caption_kind: str
    caption: str | None


@dataclass(slots=True)
class _Draft:
    seed: str
    photo: Photo
    image: str
    caption_kind: str = "right"
    caption: str | None = None


def _photos_in_turn(kind: str) -> Iterator[Photo]:
    unfit = LETTERED if kind in {"caption_drawn", "resized"} else frozenset()
    fit = [photo for photo in PHOTOS.values() if photo.key not in unfit]
    return cycle(sorted(fit, key=lambda photo: fraction(photo.key, kind)))


def _choose_caption_kinds(drafts: list[_Draft]) -> None:
    """What is wrong with a caption is planted on images that are fine."""
    fine = [draft for draft in drafts if draft.image in NEAR_COPIES | {"exact_copy"}]
    fine.sort(key=lambda draft: fraction(draft.seed, "caption"))
    for photo in PHOTOS.values():
        copies = (draft for draft in fine if draft.photo is photo)
        for (code, caption), draft in zip(photo.translations, copies, strict=False):
            draft.caption_kind, draft.caption = f"language_{code}", caption
    free = [draft for draft in fine if draft.caption_kind == "right"]
    # A first copy of each photo, then a second one ...: wrong captions reach every photo.
    turn: Counter[str] = Counter()
    turns = []
    for draft in free:
        turns.append(turn[draft.photo.key])
        turn[draft.photo.key] += 1
    queue = iter([draft for _, draft in sorted(zip(turns, free, strict=True), key=lambda pair: pair[0])])
    for kind, number in CAPTION_KINDS.items():
        for draft in islice(queue, number):
            draft.caption_kind = kind


def _write_captions(drafts: list[_Draft]) -> None:
    right = {photo.key: cycle(photo.captions) for photo in PHOTOS.values()}
    file_names, empty, markup = cycle(FILE_NAMES), cycle(EMPTY), cycle(MARKUP)
    strangers: Counter[str] = Counter()
    for draft in drafts:
        match draft.caption_kind:
            case "right":
                draft.caption = next(right[draft.photo.key])
            case "other_photo":
                stranger = _stranger(draft, strangers)
                strangers[stranger.key] += 1
                draft.caption = stranger.captions[-strangers[stranger.key] % len(stranger.captions)]
            case "file_name":
                draft.caption = next(file_names)
            case "one_word":
                draft.caption = draft.photo.word
            case "empty":
                draft.caption = next(empty)
            case "markup":
                draft.caption = next(markup).format(next(right[draft.photo.key]))


def _stranger(draft: _Draft, used: Counter[str]) -> Photo:
    """The least used photo that has no theme in common with the draft's."""
    different = [photo for photo in PHOTOS.values() if not photo.themes & draft.photo.themes]
    return min(different, key=lambda photo: (used[photo.key], fraction(draft.seed, photo.key)))


@cache
def manifest() -> tuple[Plant, ...]:
    """Every row of the sample in its order, without images. It reads no photo."""
    drafts = []
    for kind, number in IMAGE_KINDS.items():
        copies: Counter[str] = Counter()
        for photo in islice(_photos_in_turn(kind), number):
            drafts.append(_Draft(f"{photo.key}/{kind}/{copies[photo.key]}", photo, kind))
            copies[photo.key] += 1
    _choose_caption_kinds(drafts)
    _write_captions(drafts)

    drafts.sort(key=lambda draft: (draft.image, draft.caption_kind, fraction(draft.seed, "shard")))
    shards = [sorted(drafts[shard::SHARDS], key=lambda draft: fraction(draft.seed, "row")) for shard in range(SHARDS)]
    numbers = {key: count(1) for key in PHOTOS}
    return tuple(
        Plant(
            # Whatever the format, so that the name gives nothing away; on the web it is often wrong too.
            name=f"{draft.photo.key}_{next(numbers[draft.photo.key]):02d}.jpg",
            seed=draft.seed,
            photo=draft.photo.key,
            image=draft.image,
            caption_kind=draft.caption_kind,
            caption=draft.caption,
        )
        for shard in shards
        for draft in shard
    )


def sample_rows(start: int = 0, stop: int | None = None) -> Iterator[SourceRow]:
    """Rows [start, stop) of the sample, each image made as its row is asked for.

    Raises:
        SamplePhotoError: a package that carries photos is missing, or its file is not the expected one.
    """
    for plant in manifest()[start:stop]:
        yield SourceRow(
            key=plant.name,
            caption=plant.caption,
            image=make(plant.image, PHOTOS[plant.photo].base_image(), plant.seed, plant.caption),
            truth=Truth(plant.photo, plant.image, plant.caption_kind),
        )


def sample_digest() -> str:
    """Hex SHA-256 of all that the sample's bytes depend on: manifest, photos, how plants are made, Pillow's version."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for plant in manifest():
        digest.update(repr(astuple(plant)).encode())
    for photo in PHOTOS.values():
        digest.update(photo.sha256.encode())
    for module in ("photo.py", "plants.py"):
        digest.update(files(__package__).joinpath(module).read_bytes())
    return digest.hexdigest()
