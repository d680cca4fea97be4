"""A subset as BLIP's readers take it: image files, and a JSON list of image, caption and image_id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.compression.captions import refined_captions
from dqe_assets.core.schema import SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.filtering.subset import format_uids
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.training.samples import StoreShard
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dqe_assets.compression.captions import Captions, Refined
    from dqe_resources.scorers.protocol import Scorer
    from dqe_resources.store import Store

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class BlipCaptions:
    """Which captions are written.

    Attributes:
        how: joined, replaced, or the original ones.
        captioner: whose captions are joined or take the place; None for the original ones.
        scorer: counts the tokens of a caption, and says how many its text encoder reads.
    """

    how: Captions
    captioner: str | None
    scorer: Scorer

    def of_shard(self, store: Store, shard: str, kept: frozenset[str]) -> tuple[list[str], Refined]:
        """The uids of a shard's samples that are kept, and their captions."""
        raw = store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "caption"])
        originals = normalise_captions(raw["caption"].combine_chunks()).to_pylist()
        generated: list[str | None] = [None] * raw.num_rows
        if self.captioner is not None:
            name = SYNTHETIC_CAPTIONS_PREFIX + self.captioner
            generated = store.read(name, shard, SYNTHETIC_CAPTIONS, ["caption"])["caption"].to_pylist()
        rows = [row for row, uid in enumerate(raw["uid"].to_pylist()) if uid in kept]
        texts = refined_captions(
            [originals[row] for row in rows],
            [generated[row] for row in rows],
            self.how,
            self.scorer.count_tokens,
            self.scorer.max_tokens,
        )
        return [raw["uid"][row].as_py() for row in rows], texts


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        samples: with an image and a caption.
        without_caption: samples that were left out, as they have no caption.
        joined: captions that are joined.
        without_room: captions that were not, as both do not fit the text encoder.
    """

    samples: int
    without_caption: int
    joined: int
    without_room: int


def write_blip(
    folder: Path,
    store: Store,
    shards: Sequence[str],
    uids: NDArray[np.void],
    captions: BlipCaptions,
    track: Callable[[int, int], None] = lambda _, __: None,
) -> Written:
    """Write the images of a subset, and last ``annotations.json``: ``[{image, caption, image_id}, ...]``.

    ``image`` is the path from the folder, ``image_id`` the uid. An image that is there is not written again, so that a
    killed run goes on.

    Args:
        folder: where to.
        store: where from.
        shards: shards of the store.
        uids: of the subset, "u8,u8" [n].
        captions: which captions.
        track: is told how many samples are done, of how many.

    Raises:
        StorageError: a table is not there or torn.
    """
    kept = frozenset(format_uids(uids).to_pylist())
    found: list[dict[str, str]] = []
    without_caption = joined = without_room = 0
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for shard in shards:
        names, refined = captions.of_shard(store, shard, kept)
        joined, without_room = joined + refined.joined, without_room + refined.without_room
        texts = {uid: text for uid, text in zip(names, refined.texts, strict=True) if text}
        without_caption += len(names) - len(texts)
        for uid, path in _images(folder, StoreShard(store, shard), frozenset(texts)):
            found.append({"image": path, "caption": texts[uid], "image_id": uid})
            track(len(found) + without_caption, len(kept))
    text = json.dumps(found, ensure_ascii=False, indent=0).encode()
    replace_file(folder / ANNOTATIONS, partial(_write, text))
    return Written(len(found), without_caption, joined, without_room)


def _images(folder: Path, part: StoreShard, wanted: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Each image's uid and path from the folder, once it is written."""
    for picture in part.pictures(wanted):
        path = f"images/{picture.uid}.{picture.extension}"
        place = folder / path
        if not (place.exists() and place.stat().st_size == len(picture.data)):
            replace_file(place, partial(_write, picture.data))
        yield picture.uid, path


def _write(data: bytes, target: IO[bytes]) -> None:
    target.write(data)
