"""The assets ``training_data/<data>``: subsets with their captions, as the shards that runs train on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work, stored_input
from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.store_pool import STORE
from dqe_assets.filtering.subset import contains, parse_uids, read_subset, union
from dqe_assets.reviews.decide import dropped
from dqe_assets.training import metadata
from dqe_assets.training.data import (
    CaptionedPart,
    TrainingDataError,
    data_folder,
    digest_of,
    every_sample,
    open_data,
    without_caption,
    write_data,
)
from dqe_assets.training.reshard import MANIFEST, plan_shards, read_record
from dqe_assets.training.samples import StoreShard, tars
from dqe_assets.training.settings import ALL
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from dqe_assets.training.data import Captions
    from dqe_assets.training.samples import SamplePart
    from dqe_resources.store import Stamp

DATA_PREFIX = "training_data/"


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What some runs train on.

    Attributes:
        name: of the data, as ``Run.data``.
        subset: name of the subset; None for every sample that has an image.
        pools: where its samples are: ``store``, and folders or URLs of DataComp metadata.
        captions: the kinds of captions that are chosen from, such as ``original``, each with the asset that has them.
    """

    name: str
    subset: str | None
    pools: Sequence[str]
    captions: Mapping[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of captions."""
        return tuple(self.captions)


def training_data_of(plan: DataPlan) -> Stage:
    """The asset ``training_data/<data>``."""
    pools = plan.pools

    def parts(work: Work, urls: Sequence[str]) -> list[SamplePart]:
        found: list[SamplePart] = []
        if STORE in pools:
            found += [
                CaptionedPart(StoreShard(work.store, shard), partial(_captions, work, shard, plan.captions), plan.kinds)
                for shard in work.shards
            ]
        if any(name != STORE for name in pools):
            found += [tar for url in urls for tar in tars(url)]
        return found

    def states(_: Work, tar_urls: Sequence[str]) -> list[Any]:
        if all(name == STORE for name in pools):
            return []
        return [[tar.name, tar.filesystem.size(tar.name)] for url in tar_urls for tar in tars(url)]

    def is_there(_: Work, stamp: Stamp) -> bool:
        try:
            return open_data(plan.name).digest == stamp.facts["digest"]
        except TrainingDataError:
            return False

    @stage(
        name=f"{DATA_PREFIX}{plan.name}",
        kinds={"webdataset"},
        code_version="2",
        inputs=dict.fromkeys(["raw_samples", *([] if plan.subset else ["reviews"]), *plan.captions.values()])
        if STORE in pools
        else (),
        unpartitioned_inputs=[f"subsets/{plan.subset}"] if plan.subset else (),
        partitioned=False,
        resources={"samples_per_shard": "training.samples_per_shard", "tar_urls": "training.tars"},
        checks=[
            Check("shards_whole", "Every shard is there, and has the samples that were counted.", _shards_whole),
            Check(
                "captions_there",
                "Every sample of the subset has a caption of the choice.",
                _captions_there,
                blocking=False,
            ),
        ],
        metadata=metadata.training_data,
        signature=states,
        is_valid=is_there,
    )
    def make(work: Work, samples_per_shard: int, tar_urls: Sequence[str]) -> Manifest:
        """A subset with its captions as WebDataset shards, which all runs that are trained on it share."""
        found = parts(work, tar_urls)
        subset = read_subset(subset_path(plan.subset)) if plan.subset else _not_dropped(work, every_sample(found))
        if not len(subset):
            why = f" ({len(work.left_out)} shards lack inputs: see dqe status)" if work.left_out else ""
            raise TrainingDataError(
                f"training_data/{plan.name}: the subset is empty{why}: there is nothing to train on"
            )
        planned = plan_shards(subset, found, samples_per_shard, work.version)
        kept = planned.leaving_out(without_caption(found))
        meter = work.meter(kept.total)
        about = {"subset": plan.subset or ALL, "captions": list(plan.kinds)}
        manifest = write_data(plan.name, kept, about, lambda done, _: meter.update(done))
        return Manifest(
            manifest["samples"],
            {
                "path": str(data_folder(plan.name).relative_to(data_directory())),
                **about,
                "without_caption": planned.total - kept.total,
                "encoded_anew": manifest["encoded_anew"],
                "shards": len(manifest["shards"]),
                "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
                "digest": digest_of(manifest),
            },
        )

    return make


def data_digest(work: Work, name: str) -> str:
    """What decides of its data what a run becomes: what is in the shards, however often they are made again.

    Raises:
        StorageError: the data are not there, or failed a check.
    """
    return str(stored_input(work, f"{DATA_PREFIX}{name}", None).stamp.facts["digest"])


def _not_dropped(work: Work, uids: NDArray[np.void]) -> NDArray[np.void]:
    """Those of sorted uids that nobody has decided to drop."""
    gone = union([parse_uids(dropped(work.scan("reviews", ["uid", "review"])))])[0]
    return uids[~contains(gone, uids)]


def _captions(work: Work, shard: str, assets: Mapping[str, str]) -> Captions:
    """The captions of a shard that are not empty."""
    found: Captions = {}
    for kind, asset in assets.items():
        table = work.of_shard(shard).read(asset, ["uid", "caption"])
        for uid, caption in zip(table["uid"].to_pylist(), table["caption"].to_pylist(), strict=True):
            if caption and caption.strip():
                found.setdefault(uid, {})[kind] = caption
    return found


def _shards_whole(_: Work, output: Manifest) -> CheckResult:
    folder = data_directory() / output.facts["path"]
    try:
        data = open_data(folder.name)
    except TrainingDataError as error:
        return CheckResult(False, str(error))
    counted = sum(shard["samples"] for shard in (read_record(folder / MANIFEST) or {})["shards"])
    return CheckResult(
        counted == output.rows == data.samples,
        f"{output.rows:,} samples were counted, {counted:,} are in {len(data.shards):,} shards",
        {"samples": counted, "shards": len(data.shards)},
    )


def _captions_there(_: Work, output: Manifest) -> CheckResult:
    left_out = output.facts["without_caption"]
    return CheckResult(
        left_out == 0, f"{left_out:,} samples are left out: they have no caption of the choice", {"left_out": left_out}
    )
