"""Images described by codes, and the codes clustered: which images say the same, so that a share of them is enough."""

from __future__ import annotations

import heapq
import tempfile
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.compression import metadata
from dqe_assets.compression.caption_codebook import forget_training, train_codebook
from dqe_assets.compression.codebook import Codebook, health, k_means_codebook
from dqe_assets.compression.selection import CodeClusters, content_keys
from dqe_assets.compression.settings import CaptionerCodebook
from dqe_assets.compression.tables import CODE_CLUSTERS, CODEBOOK, IMAGE_CODES
from dqe_assets.compression.views import RELATIONS
from dqe_assets.core.checks import complete, unique, without_faults
from dqe_assets.core.k_means import default_clusters, training_rows
from dqe_assets.core.schema import has_image
from dqe_assets.core.stage import MODEL_POOL, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work, facts_of, with_facts
from dqe_resources.cache import data_directory
from dqe_resources.store import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dqe_assets.compression.settings import ClusterSettings
    from dqe_resources.configurable import Configurable
    from dqe_resources.models.image_towers import ImageTower

CLUSTERS = "code_clusters"

_CLUSTERS_VERSION = "2"
_ROWS_AT_ONCE = 64
_LEAST_SHARE_USED = 0.05


def _alive(_: Work, table: pa.Table) -> CheckResult:
    found = facts_of(table)
    wanted = _LEAST_SHARE_USED * found["codes"]
    return CheckResult(
        found["perplexity"] >= wanted,
        f"the codes of the drawn images are used like {found['perplexity']:.1f} codes that are all as frequent, of "
        f"{found['codes']}; at least {wanted:.1f} are wanted",
        {"perplexity": found["perplexity"], "codes": found["codes"]},
    )


def _better_than_words_alone(_: Work, table: pa.Table) -> CheckResult:
    found = facts_of(table)
    if "unigram_loss" not in found:
        return CheckResult(True, "nothing was trained")
    loss = found["epochs"][-1]["held_out_loss"]
    return CheckResult(
        loss < found["unigram_loss"],
        f"held-out captions cost {loss:.3f} nats a token from the codes, {found['unigram_loss']:.3f} by the frequency "
        "of words alone",
        {"held_out_loss": loss, "unigram_loss": found["unigram_loss"]},
    )


@stage(
    kinds={"parquet", "torch", "faiss"},
    relations=RELATIONS,
    code_version="1",
    schema=CODEBOOK,
    resources={"tower": "compression.tower", "settings": "compression.codebook"},
    inputs=["raw_samples"],
    partitioned=False,
    checks=[
        Check("alive", "The codes are used: no few of them stand for everything.", _alive),
        Check(
            "says_something",
            "Captions are written better from the codes than by the frequency of words.",
            _better_than_words_alone,
            blocking=False,
        ),
    ],
    metadata=metadata.codebook,
    pool=MODEL_POOL,
)
def codebook(work: Work, tower: ImageTower, settings: Configurable) -> pa.Table:
    """The codes that image tokens are rounded to, found on a draw of all shards.

    By k-means over the tokens; or trained, as in TL;DR, by a captioner that sees the image through them alone.
    """
    captioned = isinstance(settings, CaptionerCodebook)
    trains_tower = isinstance(settings, CaptionerCodebook) and settings.tower_learning_rate is not None
    files, captions = _drawn(work, settings.draw, captioned=captioned)  # type: ignore[attr-defined]
    with tempfile.TemporaryFile(dir=data_directory()) as file:
        batches = tower.pixel_batches(files) if trains_tower else tower.token_batches(files)
        seen, is_read = _in_file(work, batches, len(captions), file)
        captions = [caption for caption, there in zip(captions, is_read, strict=True) if there]
        if not captions:
            raise ValueError("codebook: no sample has an image" + (" and a caption" if captioned else ""))
        facts: dict[str, Any] = {"kind": settings.kind, "images": len(captions), "tower_trained": trains_tower}
        if isinstance(settings, CaptionerCodebook):
            meter = work.meter(settings.epochs * len(captions))
            folder = data_directory() / "compression"
            if work.force:
                forget_training(folder)
            network = tower.network() if trains_tower else None
            trained = train_codebook(seen, captions, settings, folder, work.version, meter.update, tower=network)
            found = trained.codebook
            facts |= {"epochs": [asdict(one) for one in trained.epochs], "unigram_loss": trained.unigram_loss}
        else:
            found = k_means_codebook(seen, settings.codes, settings.seed)  # type: ignore[attr-defined]
        counts = np.zeros(len(found.vectors), np.int64)
        blocks = (seen[start : start + _ROWS_AT_ONCE] for start in range(0, len(seen), _ROWS_AT_ONCE))
        for tokens in tower.trained_batches(blocks, found.tower) if trains_tower else blocks:
            facts["tokens"] = tokens.shape[1]
            counts += np.bincount(found.nearest(tokens).ravel(), minlength=len(counts))
    return with_facts(found.to_table(), {**facts, **health(counts), "counts": counts.tolist()})


def _drawn(work: Work, most: int, *, captioned: bool) -> tuple[Iterator[bytes], list[str]]:
    """The images of the samples with the lowest uids, a few at a time, and their captions, which may be empty."""
    kept: list[tuple[str, str, int, str]] = []
    for shard, table in zip(work.shards, work.scan("raw_samples", ["uid", "status", "caption"]), strict=True):
        captions = normalise_captions(table["caption"].combine_chunks())
        usable = has_image(table).combine_chunks()
        if captioned:
            usable = pc.and_(usable, pc.greater(pc.fill_null(pc.utf8_length(captions), 0), 0))
        rows = np.flatnonzero(usable.to_numpy(zero_copy_only=False))
        uids, texts = table["uid"].take(pa.array(rows)).to_pylist(), captions.take(pa.array(rows)).to_pylist()
        found = [(uid, shard, int(row), text or "") for uid, row, text in zip(uids, rows, texts, strict=True)]
        kept = heapq.nsmallest(most, [*kept, *found])

    def files() -> Iterator[bytes]:
        # In the order of uids, whatever shard they are in: a shard more changes little of the draw.
        for start in range(0, len(kept), _ROWS_AT_ONCE):
            some = kept[start : start + _ROWS_AT_ONCE]
            contents: dict[tuple[str, int], bytes] = {}
            for shard in dict.fromkeys(one[1] for one in some):
                rows = sorted(one[2] for one in some if one[1] == shard)
                images = work.of_shard(shard).read_rows("raw_samples", rows, ["image"])["image"]
                contents |= {(shard, row): image["bytes"].as_py() for row, image in zip(rows, images, strict=True)}
            yield from (contents[shard, row] for _, shard, row, _ in some)

    return files(), [one[3] for one in kept]


def _in_file(
    work: Work, batches: Iterator[NDArray[np.float32]], count: int, file: IO[bytes]
) -> tuple[NDArray[np.float16], list[bool]]:
    """Tokens or pixels of images, as 16-bit numbers in a file, so that memory does not grow with the draw.

    Of those that can be read; also which these are.
    """
    meter = work.meter(count)
    is_read: list[bool] = []
    shape: tuple[int, ...] = ()
    for batch in batches:
        there = _is_read(batch)
        batch[there].astype(np.float16).tofile(file)
        is_read += there.tolist()
        shape = batch.shape[1:]
        meter.update(len(is_read), "describing images")
    file.flush()
    read = sum(is_read)
    return np.memmap(file, np.float16, "r", shape=(read, *shape)) if read else np.empty(0, np.float16), is_read


def _is_read(found: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of some images could be read, by their tokens or pixels."""
    return np.isfinite(found.reshape(len(found), -1)[:, 0])


@stage(
    kinds={"parquet", "onnx"},
    code_version="1",
    schema=IMAGE_CODES,
    resources={"tower": "compression.tower"},
    inputs=["raw_samples"],
    unpartitioned_inputs=["codebook"],
    checks=[unique("uid"), complete(), without_faults()],
    metadata=metadata.image_codes,
    pool=MODEL_POOL,
)
def image_codes(work: Work, tower: ImageTower) -> pa.Table:
    """The code of every token of each image, seen without crop, flip or colour drawn."""
    book = Codebook.from_table(work.read_unpartitioned("codebook"))
    raw = work.read("raw_samples", ["uid", "status"])
    rows = np.flatnonzero(has_image(raw).to_numpy())

    def files() -> Iterator[bytes]:
        for table in work.batches("raw_samples", ["image"], _ROWS_AT_ONCE):
            yield from (image["bytes"].as_py() for image in table["image"] if image.is_valid)

    meter = work.meter(len(rows))
    found: list[list[int] | None] = [None] * raw.num_rows
    faults: list[str | None] = [None] * raw.num_rows
    done = 0
    for batch in tower.described(files(), book.tower):
        for codes, is_read in zip(book.nearest(batch).tolist(), _is_read(batch), strict=True):
            found[rows[done]] = codes if is_read else None
            faults[rows[done]] = None if is_read else f"{tower.kind} gives no tokens for it"
            done += 1
        meter.update(done)
    return pa.table({"uid": raw["uid"], "codes": found, "fault": faults}, schema=IMAGE_CODES)


def _clusters_are_there(work: Work, stamp: Stamp) -> bool:
    stored = [work.store.get(CLUSTERS, shard) for shard in stamp.facts["shards"]]
    return all(one is not None and one.stamp.fingerprint == stamp.fingerprint for one in stored)


def _every_image_clustered(work: Work, _: Manifest) -> CheckResult:
    images = clustered = 0
    for shard in work.shards:
        images += work.store.read("image_codes", shard, IMAGE_CODES, ["codes"])["codes"].is_valid().to_numpy().sum()
        table = work.store.read(CLUSTERS, shard, CODE_CLUSTERS, ["code_cluster"])
        clustered += table["code_cluster"].is_valid().to_numpy().sum()
    return CheckResult(
        bool(images == clustered),
        f"{images:,} images have codes, {clustered:,} are in a cluster",
        {"images": int(images)},
    )


@stage(
    kinds={"parquet", "faiss"},
    code_version=_CLUSTERS_VERSION,
    resources={"settings": "compression.clustering"},
    inputs=["image_codes"],
    unpartitioned_inputs=["codebook"],
    partitioned=False,
    checks=[Check("every_image_clustered", "Every image that has codes is in a cluster.", _every_image_clustered)],
    metadata=metadata.code_clusters,
    is_valid=_clusters_are_there,
)
def code_clusters(work: Work, settings: ClusterSettings) -> Manifest:
    """The cluster of every image by its codes, over all shards: a table for each shard.

    Memory holds a cluster and a distance for each sample (8 bytes), the samples that k-means reads, and a shard.
    """
    book = Codebook.from_table(work.read_unpartitioned("codebook"))
    n_codes = len(book.vectors)
    images = sum(len(_codes(work, shard)[1]) for shard in work.shards)
    clusters = settings.clusters or default_clusters(images)
    drawn = _codes_to_fit(work, clusters, n_codes, settings)
    if not len(drawn):
        for shard in work.shards:
            table, _, _ = _codes(work, shard)
            _write(work, shard, table["uid"], np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
        return Manifest(0, {"shards": list(work.shards), "clusters": 0, "sizes": [], "features": settings.features})
    fitted = CodeClusters.fitted_to(
        drawn, n_codes, clusters, settings.features, codebook=book.vectors, seed=settings.seed
    )
    assigned = [fitted.assigned(_codes(work, shard)[2]) for shard in work.track(work.shards, len(work.shards))]
    sizes = np.bincount(np.concatenate([labels for labels, _ in assigned]), minlength=len(fitted.centroids))
    order = np.argsort(-sizes, kind="stable")
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    for shard, (labels, distances) in zip(work.shards, assigned, strict=True):
        table, rows, _ = _codes(work, shard)
        _write(work, shard, table["uid"], rows, place[labels], distances)
    sizes = sizes[order]
    return Manifest(
        int(sizes.sum()),
        {
            "shards": list(work.shards),
            "clusters": int((sizes > 0).sum()),
            "sizes": sizes[sizes > 0].tolist(),
            "features": settings.features,
        },
    )


def _codes(work: Work, shard: str) -> tuple[pa.Table, NDArray[np.int64], NDArray[np.uint16]]:
    """A shard's table of codes, the rows that have some, and these codes [n, tokens]."""
    table = work.store.read("image_codes", shard, IMAGE_CODES)
    column = table["codes"].combine_chunks()
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    return table, rows, np.asarray(flat, np.uint16).reshape(len(rows), -1) if len(rows) else np.empty((0, 1), np.uint16)


def _codes_to_fit(work: Work, clusters: int, n_codes: int, settings: ClusterSettings) -> NDArray[np.uint16]:
    """The samples that k-means reads, [n, tokens]: those with the lowest hashes of their codes, over all shards."""
    most = training_rows(clusters, n_codes)
    kept = np.empty((0, 1), np.uint16)
    for shard in work.shards:
        codes = _codes(work, shard)[2]
        if len(codes):
            kept = np.concatenate([kept, codes]) if len(kept) else codes
            kept = kept[np.lexsort(content_keys(kept, settings.seed))[:most]]
    return kept


def _write(
    work: Work,
    shard: str,
    uids: pa.ChunkedArray,
    rows: NDArray[np.int64],
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> None:
    known = np.zeros(len(uids), bool)
    known[rows] = True
    cluster, distance = np.zeros(len(uids), np.int32), np.zeros(len(uids), np.float32)
    cluster[rows], distance[rows] = labels, distances
    table = pa.table(
        {"uid": uids, "code_cluster": pa.array(cluster, mask=~known), "code_distance": pa.array(distance, mask=~known)},
        schema=CODE_CLUSTERS,
    )
    work.store.write_table(
        CLUSTERS, shard, table, CODE_CLUSTERS, Stamp(work.version, _CLUSTERS_VERSION, table.num_rows)
    )
