"""Reading what is trained on from its shards: pictures as the network sees them, captions as tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from dqe_assets.training.loop import Examples
from dqe_assets.training.tar_files import files_of, opened
from dqe_resources.errors import DataQualityError
from dqe_resources.images import ImageError, decode, middle
from dqe_resources.models.open_clip_loading import import_open_clip, registered_name
from dqe_resources.parallel import ordered_map
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from mmap import mmap
    from pathlib import Path

    from PIL import Image

    from dqe_assets.training.data import TrainingData

_IMAGES = ("jpg", "png", "jpeg", "webp")
_TEXTS_AT_ONCE = 1024
_IMAGE_SIZE = 224
"""Of open_clip, where a configuration says none."""


class LoaderError(DataQualityError):
    """A sample cannot be trained on: says which."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One sample of the shards.

    Attributes:
        key: its key in the tar.
        image: contents of the image file.
        text: the caption, or a JSON object of several by kind.
    """

    key: str
    image: bytes
    text: str


def read_samples(shards: Iterable[Path]) -> Iterator[Stored]:
    """The samples of shards, in order; as open_clip does, those without an image or a caption are left out.

    Raises:
        TarError: a shard is not as it was written.
    """
    for data, key, image, text in _samples(shards):
        yield Stored(key, data[image], data[text].decode())


def read_texts(shards: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """The key and the text of each of these samples, without reading an image.

    Raises:
        TarError: a shard is not as it was written.
    """
    for data, key, _, text in _samples(shards):
        yield key, data[text].decode()


def _samples(shards: Iterable[Path]) -> Iterator[tuple[mmap, str, slice, slice]]:
    """The key of each sample, with the bytes of its shard and where its image and text are in them."""
    for shard in shards:
        with opened(shard) as data:
            for key, members in groupby(files_of(data, shard), key=lambda member: member[0].partition(".")[0]):
                files = {name.partition(".")[2].lower(): place for name, place in members}
                image = next((files[name] for name in _IMAGES if name in files), None)
                if image is not None and "txt" in files:
                    yield data, key, image, files["txt"]


def load_examples(data: TrainingData, architecture: str, captions: Sequence[tuple[str, float]]) -> Examples:
    """All that is trained on, pictures resized once for all runs that share them, in a file next to the shards.

    Args:
        data: the shards.
        architecture: open_clip's name of the model, or the path of a configuration.
        captions: the weight of each kind of captions.

    Raises:
        LoaderError: a picture cannot be read.
    """
    open_clip = import_open_clip()
    name = registered_name(architecture)
    vision = open_clip.get_model_config(name)["vision_cfg"]
    transform = open_clip.image_transform(vision.get("image_size", _IMAGE_SIZE), is_train=False)
    texts = [text for _, text in read_texts(data.shards)]
    kinds = [kind for kind, _ in captions]
    by_kind = [dict.fromkeys(kinds, text) if len(kinds) == 1 else json.loads(text) for text in texts]
    tokens = _tokens(open_clip.get_tokenizer(name), [[one.get(kind) for kind in kinds] for one in by_kind])
    weights = np.array([[weight * (kind in one) for kind, weight in captions] for one in by_kind])
    *_, normalise = transform.transforms
    return Examples(
        _pixels(data, transform, len(texts)),
        tokens,
        weights / weights.sum(axis=1, keepdims=True),
        tuple(normalise.mean),
        tuple(normalise.std),
    )


def _tokens(tokenizer: Any, texts: Sequence[Sequence[str | None]]) -> np.ndarray:
    """The tokens of each caption, int32 [n, kinds, context]; of one that is not there those of an empty text."""
    place: dict[str, int] = {}
    which = np.array([[place.setdefault(text or "", len(place)) for text in row] for row in texts])
    different = list(place)
    parts = [
        tokenizer(different[start : start + _TEXTS_AT_ONCE]).numpy().astype(np.int32)
        for start in range(0, len(different), _TEXTS_AT_ONCE)
    ]
    return np.concatenate(parts)[which]


def _pixels(data: TrainingData, transform: Any, count: int) -> np.ndarray:
    """The pictures as the network sees them, before they become numbers around 0: uint8 [n, height, width, 3]."""
    # Of the transform, what gives a picture: what follows are the tensor and its normalisation.
    steps = transform.transforms[:-2]
    height, width = np.broadcast_to(steps[0].size, 2).tolist()
    path = data.folder / f"pixels-{height}x{width}-{data.digest}.npy"
    if not path.exists():

        def write(target: IO[bytes]) -> None:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, 3)}
            np.lib.format.write_array_header_1_0(target, header)
            for pixels in ordered_map(lambda one: _picture(one, steps), read_samples(data.shards)):
                target.write(pixels.tobytes())

        replace_file(path, write)
    return np.load(path, mmap_mode="r")


def _picture(sample: Stored, steps: Sequence[Any]) -> np.ndarray:
    try:
        image: Image.Image = middle(decode(sample.image))
    except ImageError as error:
        raise LoaderError(f"sample {sample.key}: {error}; leave it out of the subset") from error
    for step in steps:
        image = step(image)
    return np.asarray(image, np.uint8)
