"""Mixtures: subsets that are drawn from sources and other subsets by weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.filtering import metadata
from dqe_assets.filtering.assets import NOT_EMPTY, UIDS_SORTED, subset_is_there, subset_path
from dqe_assets.filtering.mixture import mix_parts
from dqe_assets.filtering.pool import batches_of
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.filtering.subset import (
    UID_TYPE,
    distinct,
    manifest_path,
    order_of,
    parse_uids,
    read_subset,
    write_subset,
)
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dqe_assets.filtering.settings import Mixture, MixturePart

_SHARE_TOLERANCE = 0.01


def mixture_of(mixture: Mixture) -> Stage:
    """The asset ``subsets/<name>`` of a mixture."""
    path = subset_path(mixture.name)

    @stage(
        name=f"subsets/{mixture.name}",
        kinds={"numpy"},
        code_version="1",
        inputs=["raw_samples", "reviews"] if any(part.source for part in mixture.parts) else (),
        unpartitioned_inputs=dict.fromkeys(f"subsets/{part.subset}" for part in mixture.parts if part.subset),
        partitioned=False,
        checks=[
            NOT_EMPTY,
            UIDS_SORTED,
            Check("weights_kept", "Each part has the share that its weight asks for.", _weights_kept, blocking=False),
        ],
        metadata=metadata.mixture,
        signature=lambda _: mixture.model_dump(),
        is_valid=lambda _, stamp: subset_is_there(path, stamp),
    )
    def make(work: Work) -> Manifest:
        """A subset mixed of sources and other subsets: uids, each as often as it is to be trained on."""
        parts = [_uids_of(work, part) for part in mixture.parts]
        caps = [part.max_repeats for part in mixture.parts]
        weights = [part.weight for part in mixture.parts]
        drawn = mix_parts(parts, weights, caps, mixture.samples, mixture.seed)
        composition = [
            {
                "part": part.title,
                "weight": part.weight,
                "weight_share": part.weight / sum(weights),
                "samples": len(uids),
                "drawn": int(count),
                "share": int(count) / max(len(drawn.uids), 1),
                "repeats": int(count) / max(len(uids), 1),
                "max_repeats": part.max_repeats,
            }
            for part, uids, count in zip(mixture.parts, parts, drawn.counts, strict=True)
        ]
        asked = mixture.samples if mixture.samples is not None else sum(map(len, parts))
        facts = {
            "mixture": mixture.name,
            "seed": mixture.seed,
            "samples_wanted": asked,
            "uids": len(drawn.uids),
            "distinct_uids": distinct(drawn.uids),
            "composition": composition,
        }
        write_subset(path, drawn.uids, facts)
        written = json.loads(manifest_path(path).read_bytes())["subset"]
        place = {"path": str(path.relative_to(data_directory())), "bytes": path.stat().st_size}
        return Manifest(len(drawn.uids), {**place, "sha256": written["sha256"], **facts})

    return make


def _uids_of(work: Work, part: MixturePart) -> NDArray[np.void]:
    """The uids of a part, sorted: of a source those of the samples with an image that nobody decided to drop."""
    if part.subset:
        return read_subset(subset_path(part.subset))
    of_source = (
        parse_uids(batch.column("uid").filter(pc.equal(batch.column("source"), part.source)))
        for batch in batches_of([StorePool(work.store, work.shards)], ("uid", "source"))
    )
    uids = np.concatenate([np.empty(0, UID_TYPE), *of_source])
    return uids[order_of(uids)]


def _weights_kept(_: Work, output: Manifest) -> CheckResult:
    parts: list[dict[str, Any]] = output.facts["composition"]
    off = [part for part in parts if abs(part["share"] - part["weight_share"]) > _SHARE_TOLERANCE]
    said = [
        f"{part['part']} has {part['share']:.1%} in place of {part['weight_share']:.1%}, each sample "
        f"{part['repeats']:.3g} times"
        for part in off
    ]
    short = output.facts["samples_wanted"] - output.rows
    said += [f"{short:,} samples less than wanted: all parts are at their caps"] if short else []
    return CheckResult(not said, "; ".join(said) or "all shares are as the weights say", {"off": len(off)})
