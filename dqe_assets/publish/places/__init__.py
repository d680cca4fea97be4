"""Where a publication is written: a folder, an object store, or a data set on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dqe_assets.publish.places.bucket import Bucket
from dqe_assets.publish.places.folder import Folder
from dqe_assets.publish.places.hub import Hub, is_of_hub

if TYPE_CHECKING:
    from dqe_assets.publish.places.protocol import Place


def place_of(target: str | Path, *, is_public: bool = False) -> Place:
    """The place that a path or an fsspec URL names.

    Args:
        target: a path; ``file://``, ``s3://bucket/path`` or any other fsspec URL; or ``hf://datasets/OWNER/NAME``, with
            ``@REVISION`` for a branch.
        is_public: whether a data set that is new on the hub is public.

    Raises:
        UsageError: the URL is none of a place that can be written to, or a package for it is missing.
    """
    if isinstance(target, Path) or "://" not in target:
        return Folder(Path(target))
    if target.startswith("file://"):
        return Folder(Path(target.removeprefix("file://")))
    return Hub.at(target, is_public=is_public) if is_of_hub(target) else Bucket.at(target)
