"""The assets ``targets/<name>``: embeddings of the images that data is to be like."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.figures import contact_sheet
from dqe_assets.core.metadata import SHEET_IMAGES, Metadata, picture
from dqe_assets.core.schema import IMAGE
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.evaluation.targets import embedded, of_folder, of_task
from dqe_assets.filtering.filters.pool_scores import TARGETS_PREFIX, targets_path
from dqe_assets.score.sample_score_assets import JOINT, SCORER_PREFIX
from dqe_resources.cache import data_directory
from dqe_resources.sources.protocol import source_of
from dqe_resources.store import Stamp, is_as_written, replace_file, what_is_written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dqe_assets.evaluation.settings import Evaluation
    from dqe_assets.evaluation.targets import Targets
    from dqe_resources.models.image_model import ImageModel
    from dqe_resources.scorers.protocol import Scorer


def targets_of(targets: Targets, evaluation: Evaluation, embeddings: Mapping[str, str], max_bytes: int) -> Stage:
    """The asset ``targets/<name>``.

    Args:
        targets: which images.
        evaluation: has the tasks.
        embeddings: the asset that has the embeddings of each scorer, by the scorer's name.
        max_bytes: a larger file of a folder is not read.
    """
    asset = JOINT if targets.scorer is None else embeddings[targets.scorer]
    path = targets_path(targets.name)

    def is_valid(_: Work, stamp: Stamp) -> bool:
        return is_as_written(path, stamp.facts)

    def metadata(_: Work, output: Manifest) -> Metadata:
        """How many images there are, and the first of them."""
        shown = [file for file in islice(_files(targets, evaluation, max_bytes), SHEET_IMAGES) if file]
        sheet = {"images": picture(contact_sheet(shown), "the first of the target images")} if shown else {}
        return {"targets": output.rows, "left_out": output.facts["left_out"], "scorer": output.facts["scorer"], **sheet}

    @stage(
        name=f"{TARGETS_PREFIX}{targets.name}",
        kinds={"numpy"},
        code_version="1",
        inputs=[asset] if targets.source is not None else (),
        partitioned=False,
        resources={"scorer": f"{SCORER_PREFIX}{targets.scorer}" if targets.scorer else "scorer"},
        checks=[
            Check("not_empty", "There are target images.", _not_empty),
            Check("readable", "Every target image can be read.", _readable, blocking=False),
        ],
        metadata=metadata,
        signature=lambda _: _state(targets, evaluation),
        is_valid=is_valid,
        pool=MODEL_POOL,
    )
    def make(work: Work, scorer: Scorer, image_model: ImageModel) -> Manifest:
        """Images that data is to be like, as unit vectors in a file that the score normsim compares with."""
        if targets.source is not None:
            vectors = list(_of_source(work, asset, targets.source))
        else:
            vectors = list(embedded(_files(targets, evaluation, max_bytes), scorer, image_model))
        found = np.concatenate([np.empty((0, scorer.dimension), np.float16), *vectors])
        is_there = np.isfinite(found).all(axis=1)
        left_out = int((~is_there).sum())
        found = found[is_there]
        replace_file(path, lambda target: np.save(target, found))
        where = {"path": str(path.relative_to(data_directory())), **what_is_written(path)}
        return Manifest(len(found), {"left_out": left_out, "scorer": scorer.model, **where})

    return make


def _files(targets: Targets, evaluation: Evaluation, max_bytes: int) -> Iterator[bytes | None]:
    """The image files; none of a source, whose embeddings are in the store."""
    if targets.images is not None:
        yield from of_folder(targets.folder, max_bytes)
    elif targets.task is not None:
        yield from of_task(evaluation.task(targets.task))


def _state(targets: Targets, evaluation: Evaluation) -> Any:
    """What decides which images they are, apart from the store."""
    if targets.images is not None:
        return [shard.digest for shard in targets.folder.shards()]
    return targets.source if targets.task is None else evaluation.task(targets.task).state


def _of_source(work: Work, asset: str, source: str) -> Iterator[np.ndarray]:
    """The vectors of a source's images, a shard at a time."""
    for shard in work.shards:
        if source_of(shard) == source:
            table = work.of_shard(shard).read(asset, ["item", "embedding"])
            vectors = to_matrix(table.filter(pc.equal(table["item"], IMAGE))["embedding"])[1]
            if len(vectors):
                yield vectors.astype(np.float16)


def _not_empty(_: Work, output: Manifest) -> CheckResult:
    return CheckResult(output.rows > 0, f"{output.rows:,} images", {"targets": output.rows})


def _readable(_: Work, output: Manifest) -> CheckResult:
    left_out = output.facts["left_out"]
    return CheckResult(not left_out, f"{left_out:,} images could not be read", {"left_out": left_out})
