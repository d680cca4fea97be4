"""Whether samples are also in the sets that models are evaluated on: three assets, where there are such sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.contamination import metadata
from dqe_assets.contamination.compare import Looked
from dqe_assets.contamination.matching import READ, ROWS_AT_ONCE, Reference, Samples, contaminated, in_order
from dqe_assets.contamination.pictures import REFERENCE_PREFIX
from dqe_assets.contamination.planted import drawn
from dqe_assets.contamination.planted import planted_copies as copies_of
from dqe_assets.contamination.reference import batched, read_set
from dqe_assets.contamination.reference import reference_features as features_of
from dqe_assets.contamination.tables import CONTAMINATION, PLANTED_COPIES, REFERENCE_FEATURES
from dqe_assets.contamination.texts import Texts
from dqe_assets.contamination.variants import WHOLE
from dqe_assets.contamination.views import RELATIONS
from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.checks import finite, unique
from dqe_assets.core.stage import MODEL_POOL, Stage, stage
from dqe_assets.core.work import Batches, Check, CheckResult, Work

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dqe_assets.contamination.settings import ContaminationRules, ReferenceSets
    from dqe_assets.ingest.settings import IngestSettings
    from dqe_resources.models.image_model import ImageModel

PLANTED_PICTURES = 100
"""Pictures of each reference set that copies are made of."""

_SEED = "planted"
_PARTS_AT_ONCE = 4
_PICTURE = ["pixel_digest", "perceptual_hash", "contrast", "embedding"]


def contamination_of(sets: Sequence[str], text: Sequence[str]) -> list[Stage]:
    """The assets ``reference_features/<set>``, ``contamination`` and ``planted_copies``; none where there is no set.

    Args:
        sets: names of the reference sets.
        text: the asset ``image_text``, if it is made.
    """
    if not sets:
        return []
    made = [_reference_features_of(name) for name in sets]
    return [*made, _contamination_of(sets, text), _planted_copies_of(sets)]


def _all_read(_: Work, table: pa.Table) -> CheckResult:
    rows = table.filter(pc.equal(table["variant"], WHOLE))
    faults = rows.num_rows - rows["fault"].null_count
    return CheckResult(
        faults == 0, f"{faults:,} of {rows.num_rows:,} rows have no picture that can be read", {"faults": faults}
    )


def _something_there(_: Work, table: pa.Table) -> CheckResult:
    there = pc.or_(pc.is_valid(table["perceptual_hash"]), pc.is_valid(table["texts"]))
    count = pc.sum(there).as_py() or 0
    return CheckResult(count > 0, f"{table.num_rows:,} rows, {count:,} with a picture or a text", {"rows": count})


def _reference_features_of(name: str) -> Stage:
    """The asset ``reference_features/<set>``."""

    def state(_: Work, reference_sets: ReferenceSets, ingest: IngestSettings) -> Any:
        source = reference_sets.named(name)
        digests = [shard.digest for shard in source.shards()]
        return [source.signature(), digests, ingest.images.model_dump(exclude={"disallowed_data_mining"})]

    @stage(
        name=f"{REFERENCE_PREFIX}{name}",
        kinds={"parquet", "onnx"},
        code_version="1",
        schema=REFERENCE_FEATURES,
        partitioned=False,
        checks=[
            unique("reference_row", "variant"),
            Check("something_there", "The set has a picture or a text to compare with.", _something_there),
            Check("all_read", "Every picture of the set can be read.", _all_read, blocking=False),
        ],
        metadata=metadata.reference_features,
        signature=state,
        pool=MODEL_POOL,
    )
    def make(work: Work, reference_sets: ReferenceSets, ingest: IngestSettings, image_model: ImageModel) -> Batches:
        """What the pictures and texts of a reference set are compared by, made once for all shards."""
        source = reference_sets.named(name)
        meter = work.meter(sum(shard.rows for shard in source.shards()))

        def parts() -> Iterator[pa.RecordBatch]:
            first = 0
            for raw in read_set(work, source, ingest):
                yield features_of(raw, first, image_model)
                first += raw.num_rows
                meter.update(first)

        yield from batched(parts(), _PARTS_AT_ONCE)

    return make


def _reference(work: Work, name: str) -> Reference:
    asset, over_all = f"{REFERENCE_PREFIX}{name}", work.over_all
    return Reference(
        name,
        lambda: over_all.batches(asset, READ, ROWS_AT_ONCE),
        lambda positions, columns: over_all.read_rows(asset, positions.tolist(), columns),
    )


def _contamination_of(sets: Sequence[str], text: Sequence[str]) -> Stage:
    """The asset ``contamination``."""

    def of_samples(work: Work, table: pa.Table) -> CheckResult:
        uids = work.read("raw_samples", ["uid"])["uid"]
        foreign = pc.sum(pc.invert(pc.is_in(table["uid"], value_set=uids))).as_py() or 0
        return CheckResult(foreign == 0, f"{table.num_rows:,} rows, {foreign:,} of no sample", {"foreign": foreign})

    @stage(
        kinds={"parquet", "numpy"},
        relations=RELATIONS,
        code_version="1",
        schema=CONTAMINATION,
        resources={"rules": "contamination"},
        inputs=["raw_samples", "image_features", *text],
        unpartitioned_inputs=[f"{REFERENCE_PREFIX}{name}" for name in sets],
        checks=[
            unique("uid", "kind", "reference_set"),
            Check("of_samples", "Each row is of a sample of the shard.", of_samples),
            finite("similarity", 0, 1),
        ],
        metadata=metadata.contamination,
    )
    def contamination(work: Work, rules: ContaminationRules) -> pa.Table:
        """Which samples are in the reference sets: the same picture, one that looks or means the same, or a text."""
        samples = _samples(work, rules, text)
        return in_order([contaminated(samples, _reference(work, name), rules) for name in work.track(sets, len(sets))])

    return contamination


def _samples(work: Work, rules: ContaminationRules, text: Sequence[str]) -> Samples:
    """The samples of the shard: of their features, memory holds the codes alone."""
    raw = work.read("raw_samples", ["uid", "sha256", "status", "caption", "original_captions"])
    # A broken file is no sample, even if it equals another.
    digests = pc.if_else(pc.equal(raw["status"], "ok"), raw["sha256"], None)
    dimension = 0

    def batches() -> Iterator[pa.Table]:
        nonlocal dimension
        before = 0
        for batch in work.batches("image_features", _PICTURE, ROWS_AT_ONCE):
            lengths = pc.list_value_length(batch["embedding"]).drop_null()
            dimension = lengths[0].as_py() if len(lengths) else dimension
            yield pa.table([*batch.columns, digests.slice(before, batch.num_rows)], [*_PICTURE, "sha256"])
            before += batch.num_rows

    looked = Looked.of(batches(), rules.min_contrast)
    captions = zip(raw["caption"].to_pylist(), raw["original_captions"].to_pylist(), strict=True)
    texts = {"caption": [(row, text) for row, (one, several) in enumerate(captions) for text in several or [one]]}
    texts |= {asset: list(enumerate(work.read(asset, ["text"])["text"].to_pylist())) for asset in text}

    def vectors(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return to_matrix(work.read_rows("image_features", rows.tolist(), ["embedding"])["embedding"])[1]

    return Samples(
        raw["uid"].combine_chunks(),
        looked,
        vectors,
        dimension,
        {
            kind: (Texts([one for _, one in found]), np.array([row for row, _ in found], np.int64))
            for kind, found in texts.items()
        },
    )


def _planted_copies_of(sets: Sequence[str]) -> Stage:
    """The asset ``planted_copies``."""

    @stage(
        kinds={"parquet", "numpy"},
        code_version="1",
        schema=PLANTED_COPIES,
        resources={"rules": "contamination"},
        unpartitioned_inputs=[f"{REFERENCE_PREFIX}{name}" for name in sets],
        partitioned=False,
        checks=[unique("reference_set", "reference_row", "copy"), finite("cosine", -1, 1)],
        metadata=metadata.planted_copies,
        pool=MODEL_POOL,
    )
    def planted_copies(work: Work, rules: ContaminationRules, image_model: ImageModel) -> pa.Table:
        """How near copies of some of the sets' own pictures are to them: recompressed, cropped, mirrored, lettered."""
        tables = [PLANTED_COPIES.empty_table()]
        for name in work.track(sets, len(sets)):
            asset = f"{REFERENCE_PREFIX}{name}"
            seen = work.read_unpartitioned(asset, ["variant", "perceptual_hash"])
            whole = pc.and_(pc.equal(seen["variant"], WHOLE), pc.is_valid(seen["perceptual_hash"]))
            pictures = np.flatnonzero(whole.to_numpy())
            chosen = pictures[drawn(len(pictures), PLANTED_PICTURES)].tolist()
            rows = work.over_all.read_rows(asset, chosen, ["reference_row", "reference", "image"])
            if len(chosen):
                tables.append(copies_of(_reference(work, name), rows, rules, image_model, _SEED))
        return pa.concat_tables(tables)

    return planted_copies
