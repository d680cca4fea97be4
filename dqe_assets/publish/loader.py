"""Training straight from the store: a subset as a PyTorch data set, or as what WebDataset reads, without a copy.

Needs PyTorch, and for ``webdataset_pipeline`` the package webdataset. ``docs/publish.md`` has examples.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Whoever imports this trains with PyTorch: nothing else of the platform imports it.
import torch  # noqa: TID253
import torch.distributed  # noqa: TID253
from torch.utils.data import IterableDataset, get_worker_info  # noqa: TID253

from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.subset import fetch_subset, read_subset
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.publish.options import BEST
from dqe_assets.publish.store_reading import LoaderError, Order, read_epoch, wanted_of
from dqe_assets.training.samples import picture_of
from dqe_resources.images import ImageError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from dqe_assets.publish.store_reading import Read

State = dict[str, Any]

__all__ = ["LoaderError", "StoreDataset", "StoreFiles", "webdataset_pipeline"]


class StoreDataset(IterableDataset):  # type: ignore[misc]
    """The samples of a subset, read from the store's Parquet, on this machine or at any fsspec URL.

    Each sample is a dictionary: ``uid`` (32 hex digits), ``image`` (what ``transform`` makes of the picture, an upright
    ``PIL.Image`` in RGB, as published ones decode to), ``caption``, and ``source``, its caption source. A sample that
    the subset has several times comes as often; one without a caption of the choice is left out.

    An epoch is split over ranks and the workers of a ``DataLoader`` so that each sample is given exactly once, and
    shares differ by one sample at most. Call ``set_epoch`` before each epoch, as with ``DistributedSampler``.

    Memory: four bytes for each sample of the subset, one for each of the reader's own, and the images of ``buffer``
    samples and of two row groups (16 MiB each).
    """

    def __init__(
        self,
        store: str | Path | None = None,
        subset: str | Path | None = None,
        *,
        captions: str | Mapping[str, float] = BEST,
        transform: Callable[[Image.Image], Any] | None = None,
        buffer: int = 1000,
        seed: int = 0,
        split: tuple[int, int] | None = None,
    ) -> None:
        """Find the samples; no image is read yet.

        Args:
            store: folder or URL of the store; by default that of data/dqe.yaml.
            subset: a .npy of uids (a path or a URL), or the name of a subset of data/dqe.yaml; by default every sample
                that has an image.
            captions: a caption source (``original``, ``best``, a captioner, a mix, ``refined``), or several with
                weights: of a sample's captions one is drawn by them each time that it is read.
            transform: makes of the picture what the model takes; by default it stays a picture.
            buffer: samples among which the next one is drawn; 0 keeps the order of the store.
            seed: of the order and of the captions.
            split: rank and number of ranks; by default those of ``torch.distributed``, or of RANK and WORLD_SIZE.

        Raises:
            LoaderError: samples of the subset are not in the store, or none has such a caption.
            SubsetError: the subset cannot be read.
            StorageError: the store cannot be read.
        """
        root = load_settings(sources_may_be_away=True).opened_store.root if store is None else str(store)
        weights = {captions: 1.0} if isinstance(captions, str) else dict(captions)
        self._wanted = wanted_of(root, _subset(subset), weights)
        self._transform, self._buffer, self._seed = transform, buffer, seed
        self._rank, self._ranks = split or _ranks()
        # Workers that outlive an epoch see the next one through shared memory.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._begun: State | None = None
        self._given = 0

    @property
    def without_caption(self) -> int:
        """How many samples of the subset are left out, as they have no caption of the choice."""
        return self._wanted.without_caption

    def __len__(self) -> int:
        """Samples that this rank gives in an epoch."""
        return sum(self._shares(1))

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch: with another order, and other captions drawn."""
        if self._begun is not None and self._begun["epoch"] != epoch:
            self._begun = None
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[Any]:
        """The samples of this rank and worker, from where a loaded state was.

        Raises:
            LoaderError: a shard was made again meanwhile, or a picture cannot be decoded.
        """
        worker, workers = _worker()
        worker, self._given = self._begun_by(worker, workers)
        self._begun = None
        order = Order(self._seed, int(self._epoch), self._buffer)
        reader, readers = self._rank * workers + worker, self._ranks * workers
        for read in read_epoch(self._wanted, order, reader, readers, self._given):
            self._given += 1
            yield self._sample(read)

    def _sample(self, read: Read) -> Any:
        picture = picture_of(read.row)
        try:
            image = decode(picture.data)
        except ImageError as error:
            raise LoaderError(f"sample {picture.uid} of {read.shard}: {error}; leave it out of the subset") from error
        return {
            "uid": picture.uid,
            "image": self._transform(image) if self._transform else image,
            "caption": read.caption["text"],
            "source": read.caption["source"],
        }

    def state_dict(self) -> State:
        """Where this reader is: in this process, or, as torchdata's ``StatefulDataLoader`` asks, in a worker's."""
        worker, workers = _worker()
        return self._state(workers, {worker: self._given})

    def state_after(self, batches: int, batch_size: int, workers: int = 0, *, drop_last: bool = False) -> State:
        """Where this rank is once a ``DataLoader`` with so many workers has given so many batches of the epoch.

        Args:
            batches: how many, with those before a state was loaded.
            batch_size: samples in each.
            workers: its ``num_workers``.
            drop_last: whether it leaves out batches that are not full.
        """
        shares = self._shares(max(workers, 1))
        left = [share // batch_size if drop_last else -(-share // batch_size) for share in shares]
        taken = [0] * len(shares)
        # Workers take turns, and one that has no more is left out.
        turn = 0
        for _ in range(min(batches, sum(left))):
            while taken[turn] == left[turn]:
                turn = (turn + 1) % len(shares)
            taken[turn] += 1
            turn = (turn + 1) % len(shares)
        given = {worker: min(taken[worker] * batch_size, share) for worker, share in enumerate(shares)}
        return self._state(max(workers, 1), given, turn)

    def load_state_dict(self, state: State) -> None:
        """Go on in the middle of an epoch: the next iteration begins where the state was made.

        Raises:
            LoaderError: the state is of other samples, another order, or another number of ranks.
        """
        ours = self._state(state.get("workers", 1), {})
        for name in ("samples", "seed", "buffer", "rank", "ranks"):
            if state.get(name) != ours[name]:
                raise LoaderError(
                    f"the state is of {name} {state.get(name)!r}, and this data set of {ours[name]!r}: go on with the "
                    "same store, subset, captions, seed, buffer and ranks"
                )
        self._begun = state
        self._epoch[0] = state["epoch"]

    def _state(self, workers: int, given: Mapping[int, int], turn: int = 0) -> State:
        return {
            "samples": self._wanted.fingerprint,
            "seed": self._seed,
            "buffer": self._buffer,
            "rank": self._rank,
            "ranks": self._ranks,
            "workers": workers,
            "epoch": int(self._epoch),
            "given": {str(worker): count for worker, count in given.items()},
            "turn": turn,
        }

    def _begun_by(self, worker: int, workers: int) -> tuple[int, int]:
        """In the place of which worker this one goes on, and how many samples of the epoch that one has given."""
        if self._begun is None:
            return worker, 0
        if self._begun["workers"] != workers:
            raise LoaderError(
                f"the state is of {self._begun['workers']} workers, and there are {workers}: go on with as many"
            )
        # A loader begins with its first worker: it is the one whose turn it was.
        worker = (worker + self._begun["turn"]) % workers
        return worker, int(self._begun["given"].get(str(worker), 0))

    def _shares(self, workers: int) -> list[int]:
        """Samples that each of the rank's workers gives."""
        readers = self._ranks * workers
        shares = (self._wanted.share(self._rank * workers + worker, readers) for worker in range(workers))
        return [end - first for first, end in shares]


class StoreFiles(StoreDataset):
    """The same samples as WebDataset gives those of tars: contents of files by extension, nothing decoded.

    ``__key__`` is the uid; ``jpg``, ``png`` or ``webp`` is the picture as it would be published; ``txt`` the caption
    that was drawn; ``json`` has uid, shard, caption and its source, and ``captions`` with all of them.
    """

    def _sample(self, read: Read) -> dict[str, Any]:
        picture, caption = picture_of(read.row), read.caption
        facts = {
            "uid": picture.uid,
            "shard": read.shard,
            "caption": caption["text"],
            "caption_source": caption["source"],
            "captions": read.captions,
        }
        return {
            "__key__": picture.uid,
            "__url__": f"{self._wanted.root}/raw_samples/{read.shard}.parquet",
            picture.extension: picture.data,
            "txt": caption["text"].encode(),
            "json": json.dumps(facts, ensure_ascii=False).encode(),
        }


def webdataset_pipeline(*stages: Any, **options: Any) -> Any:
    """A ``webdataset.DataPipeline`` whose first stage reads the store in place of tars.

    Args:
        stages: what follows, such as ``webdataset.decode("pil")``.
        options: as ``StoreDataset`` takes them, but for ``transform``.
    """
    from webdataset import DataPipeline

    return DataPipeline(StoreFiles(**options), *stages)


def _subset(subset: str | Path | None) -> NDArray[np.void] | None:
    if subset is None:
        return None
    if "://" in str(subset):
        return fetch_subset(str(subset))
    return read_subset(Path(subset) if str(subset).endswith(".npy") else subset_path(str(subset)))


def _ranks() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
