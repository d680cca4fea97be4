"""Everything over all shards of a large store, and one more shard: CPU seconds, memory, and how they grow.

    python -m benchmarks.corpus --shards 10 30 100 [--json] [--steps status warehouse] [--rows-per-shard 10000]

The store is valid, so that ``dqe status`` finds it current, but no model has seen its shards: their rows are drawn from
those of the sample, with uids of their own. Captions are made of words; vectors lie around those of the sample; one row
in ten is a copy of one of an earlier shard, some exact and most changed a little. Images are small. Of each shard, one
sample in a hundred is in the collection: benchmarks/collection.py measures that.

A step is an asset over all shards, which is made from nothing and then again after one more shard, or a command. Each
is a process of its own. The time of an asset is that of its making, with its checks; the time of a command is all that
its process takes. Memory is what a process takes beyond files that it maps.

With ``--store FOLDER`` the corpus is kept there, as it is at each number of shards, and taken from there the next time:
for one number of rows in a shard and one version of the code, on the file system of the temporary folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from functools import cache, cached_property
from hashlib import blake2b
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from benchmarks.common import data_folder, measured, publish
from dqe_assets import concepts
from dqe_assets.core.arrow import from_matrix, to_matrix
from dqe_assets.core.schema import ORIGINAL, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.search.collection_points import collection_points
from dqe_assets.search.query import collection_vectors
from dqe_resources.cache import data_directory
from dqe_resources.store import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import Work
    from dqe_assets.orchestration.settings import Settings

ROOT = Path(__file__).parent.parent
ROWS = 10_000
SOURCE = "made"
OUT = "OUT"
"""Stands for a new folder in a command."""

VIEWS = ("worst_captions", "most_improved", "caption_quality", "quality_by_source", "suspects", "repeated_captions")

COMMANDS = {
    "sync": ["sync"],
    "status": ["status", "--json"],
    "materialize": ["materialize"],
    "report": ["report"],
    "get": ["get", "0/0.jpg"],
    "explain": ["explain", "0/0.jpg"],
    "search": ["search", "a dog on the beach", "--unique"],
    **{view: ["sql", f"SELECT * FROM {view} LIMIT 10"] for view in VIEWS},  # noqa: S608
    "publish": ["publish", OUT],
}
"""The commands that are measured, when all is current; a view is asked for its first rows."""

ONE_MORE = "{}, one more shard"
ALL = "all assets"

_COPIED = 10
_COPIES_EXACT = 0.2
_IN_COLLECTION = 100
_THUMBNAIL = 96
_SENTENCES = (
    "a {0} and a {1} on the {2}",
    "the {0} of a {1} with {2} in front of a {3}",
    "my {0} next to the {1} in {2}",
    "{0} by the {1} and some {2} at the {3} of the {4}",
    "this is a photo of the {0}, taken from the {1} of {2}",
)


class Sample(NamedTuple):
    """The tables of the sample's assets, and where the rows of each uid stand in them."""

    tables: dict[str, pa.Table]
    uids: pa.Array

    def drawn(self, asset: str, picks: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        """The rows of some samples, and the place in ``picks`` of the sample that each row is of."""
        table = self.tables[asset]
        of_sample = pc.index_in(table["uid"], self.uids).to_numpy()
        order = np.argsort(of_sample, kind="stable")
        starts = np.searchsorted(of_sample[order], np.arange(len(self.uids) + 1))
        counts = np.diff(starts)[picks]
        owner = np.repeat(np.arange(len(picks)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return table.take(pa.array(order[starts[picks][owner] + within])), owner


class Shard:
    """What is made up of one shard; the same number gives the same.

    Args:
        number: of the shard.
        rows: how many rows it has.
    """

    def __init__(self, number: int, rows: int) -> None:
        self.number, self.rows = number, rows
        self.name = f"{SOURCE}-{number:05d}"

    def rng(self, what: int) -> np.random.Generator:
        """Random numbers for one purpose."""
        return np.random.default_rng([self.number, what])

    @cached_property
    def uids(self) -> pa.Array:
        """The samples' uids."""
        digests = (blake2b(f"{self.name}/{row}".encode(), digest_size=16) for row in range(self.rows))
        return pa.array([digest.hexdigest() for digest in digests], pa.string())

    @cached_property
    def copies(self) -> tuple[Shard, np.ndarray, np.ndarray, np.ndarray]:
        """The shard that rows are copied from, rows here, rows there, and which copies are exact."""
        rng = self.rng(0)
        origin = Shard(int(rng.integers(max(self.number, 1))), self.rows)
        here, there = (rng.permutation(self.rows)[: self.rows // _COPIED] for _ in range(2))
        return origin, here, there, rng.random(len(here)) < _COPIES_EXACT

    def picks(self, samples: int) -> np.ndarray:
        """Which sample of the sample each row is drawn from."""
        return self.rng(1).integers(samples, size=self.rows)

    def hashes(self) -> np.ndarray:
        """Perceptual hashes, uint64 [rows]; copies differ in a few bits."""
        found = self.own_hashes()
        if self.number:
            origin, here, there, exact = self.copies
            flipped = np.uint64(1) << self.rng(3).integers(64, size=(len(here), 4), dtype=np.uint64)
            changed = np.where(exact, np.uint64(0), np.bitwise_xor.reduce(flipped, axis=1))
            found[here] = origin.own_hashes()[there] ^ changed
        return found

    def own_hashes(self) -> np.ndarray:
        """Those of a shard without copies."""
        return self.rng(2).integers(1 << 63, size=self.rows, dtype=np.uint64)

    def digests(self) -> list[str]:
        """Digests of files and of pixels; equal for exact copies."""
        found = [blake2b(uid.encode(), digest_size=16).hexdigest() for uid in self.uids.to_pylist()]
        if self.number:
            origin, here, there, exact = self.copies
            for row, other in zip(here[exact].tolist(), there[exact].tolist(), strict=True):
                found[row] = blake2b(origin.uids[other].as_py().encode(), digest_size=16).hexdigest()
        return found

    def vectors(self, around: np.ndarray) -> np.ndarray:
        """Vectors about those of the sample, float32 [rows, d]; copies have cosines of 0.8 to 1."""
        found = self.own_vectors(around)
        if self.number:
            origin, here, there, exact = self.copies
            copied = origin.own_vectors(around)[there]
            noise = self.rng(5).normal(size=copied.shape).astype(np.float32)
            noise *= np.linalg.norm(copied, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
            cosine = self.rng(6).uniform(0.8, 1, len(here))
            found[here] = copied + np.where(exact, 0, np.tan(np.arccos(cosine)))[:, None] * noise
        return found

    def own_vectors(self, around: np.ndarray) -> np.ndarray:
        """Those of a shard without copies."""
        rng = self.rng(4)
        centres = around[rng.integers(len(around), size=self.rows)]
        noise = rng.normal(size=centres.shape).astype(np.float32)
        noise *= np.linalg.norm(centres, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
        return centres * rng.uniform(0.3, 1.2, (self.rows, 1)).astype(np.float32) + noise

    def captions(self, what: int) -> list[str]:
        """Captions of one kind, 1 in 20 of which are among 2,000 that all shards share."""
        rng = self.rng(what)
        found = _captions(rng, self.rows)
        shared = _captions(np.random.default_rng(what), 2_000)
        for row in rng.choice(self.rows, self.rows // 20, replace=False).tolist():
            found[row] = shared[rng.integers(len(shared))]
        return found


@cache
def _words() -> np.ndarray:
    lines = (Path(concepts.__file__).parent / "nouns.txt").read_text(encoding="utf-8").splitlines()
    return np.array([line for line in lines if line and not line.startswith("#")])


def _captions(rng: np.random.Generator, rows: int) -> list[str]:
    words = _words()
    # Frequent as words are: the r-th in proportion to 1 / r.
    ranks = (len(words) ** rng.random((rows, 5))).astype(np.int64) - 1
    sentences = rng.integers(len(_SENTENCES), size=rows)
    return [_SENTENCES[one].format(*row) for one, row in zip(sentences.tolist(), words[ranks].tolist(), strict=True)]


def sample_tables(folder: Path | None) -> Sample:
    """The tables of the sample's per-shard assets.

    Args:
        folder: a data folder in which all has been made of the sample; None to make it.
    """
    if folder is None:
        with data_folder() as made:
            shutil.copy(ROOT / "data" / "dqe.yaml", made)
            return _sample_tables(make=True)
    with _data(folder):
        return _sample_tables(make=False)


def _sample_tables(*, make: bool) -> Sample:
    settings = load_settings()
    shards = [source.key(shard.index) for source in settings.sources for shard in source.shards()]
    found = {}
    for stage in _resampled(settings):
        arguments = stage.arguments(graph.resources(settings))
        tables = []
        for shard in shards:
            work = stage.work(settings.opened_store, shard, shards)
            if make:
                stage.make(work, arguments)
            tables.append(work.read(stage.name))
        found[stage.name] = pa.concat_tables(tables).combine_chunks()
    found["raw_samples"] = _with_thumbnails(found["raw_samples"])
    return Sample(found, found["raw_samples"]["uid"].combine_chunks())


def _resampled(settings: Settings) -> list[Stage]:
    """The stages whose tables are drawn from those of the sample; the signatures of captions are made."""
    stages = (one for one in graph.stages(settings) if one.partitioned and one.schema is not None)
    return [one for one in stages if one.name != "caption_signatures"]


def _with_thumbnails(raw: pa.Table) -> pa.Table:
    from PIL import Image

    images = []
    for image in raw["image"].to_pylist():
        if image is not None:
            with Image.open(BytesIO(image["bytes"])) as opened:
                opened.thumbnail((_THUMBNAIL, _THUMBNAIL))
                opened.convert("RGB").save(small := BytesIO(), "JPEG")
            image = {**image, "bytes": small.getvalue()}  # noqa: PLW2901
        images.append(image)
    place = raw.schema.get_field_index("image")
    return raw.set_column(place, raw.schema.field(place), pa.array(images, raw.schema.field(place).type))


@contextmanager
def _data(folder: Path) -> Iterator[None]:
    before = os.environ.get("DQE_DATA")
    os.environ["DQE_DATA"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("DQE_DATA")
        if before is not None:
            os.environ["DQE_DATA"] = before


def kept_sample(folder: Path, made_in: Path | None) -> Sample:
    """``sample_tables`` of ``made_in``, kept in a folder."""
    kept = folder / "sample"
    if not kept.is_dir():
        for asset, table in sample_tables(made_in).tables.items():
            path = kept.with_name("sample.new") / f"{asset}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
        kept.with_name("sample.new").rename(kept)
    paths = sorted(kept.rglob("*.parquet"))
    tables = {path.relative_to(kept).with_suffix("").as_posix(): pq.read_table(path) for path in paths}
    return Sample(tables, tables["raw_samples"]["uid"].combine_chunks())


def copy_corpus(source: Path, target: Path) -> None:
    """Make a data folder the same corpus as another, sharing the files that are only ever replaced."""
    for name in ("store", "tables", "qdrant"):
        shutil.rmtree(target / name, ignore_errors=True)
        if (source / name).is_dir():
            share = shutil.copy2 if name == "qdrant" else os.link
            shutil.copytree(source / name, target / name, copy_function=share)
    configured = yaml.safe_load((source / "dqe.yaml").read_text(encoding="utf-8"))
    configured["sources"][0]["path"] = str(target / "tables")
    (target / "dqe.yaml").write_text(yaml.safe_dump(configured))


def make_corpus(data: Path, rows: int) -> None:
    """Write the settings of an empty corpus into a data folder."""
    configured = yaml.safe_load((ROOT / "data" / "dqe.yaml").read_text(encoding="utf-8"))
    tables = data / "tables"
    tables.mkdir()
    configured["sources"] = [{"kind": "parquet", "name": SOURCE, "path": str(tables), "shard_size": rows}]
    (data / "dqe.yaml").write_text(yaml.safe_dump(configured))


def add_shards(sample: Sample, first: int, last: int, rows: int) -> None:
    """Add the shards from ``first`` up to ``last`` to the corpus: to the source, the store and the collection."""
    for number in range(first, last):
        captions = pa.array(Shard(number, rows).captions(7))
        names = pa.array([f"{number}/{row}.jpg" for row in range(rows)])
        path = data_directory() / "tables" / f"{number:06d}.parquet"
        pq.write_table(pa.table({"image": names, "caption": captions}), path)
    settings = load_settings().as_it_is_now()
    stages = {one.name: one for one in graph.stages(settings)}
    resources = graph.resources(settings)
    vectors, named = resources["vectors"], collection_vectors(resources["scorer"], resources["captions"])
    for number in range(first, last):
        shard = Shard(number, rows)
        made: dict[str, pa.Table] = {}
        for stage in _resampled(settings):
            made[stage.name] = _drawn(stage, sample, shard)
            _store(settings, stage, shard.name, made[stage.name])
        signatures = stages["caption_signatures"]
        signatures.make(
            signatures.work(settings.opened_store, shard.name, [shard.name]), signatures.arguments(resources)
        )
    with vectors.open(named) as collection:
        for number in range(first, last):
            shard = Shard(number, rows)
            stage = stages["caption_collection"]
            work = stage.work(settings.opened_store, shard.name, [shard.name])
            written = collection.replace_shard(shard.name, _points(work, list(named)[1:], rows))
            facts = {"collection": collection.identity, "counted": written}
            fingerprint = stage.fingerprint(work, stage.arguments(resources))
            stamp = Stamp(fingerprint, stage.code_version, written, facts=facts)
            settings.opened_store.write_manifest(stage.name, shard.name, stamp)


def _store(settings: Settings, stage: Stage, shard: str, table: pa.Table) -> None:
    from dqe_resources.fingerprint import fingerprint

    work = stage.work(settings.opened_store, shard, [shard])
    version = stage.fingerprint(work, stage.arguments(graph.resources(settings)))
    content = fingerprint(stage.content(table)) if stage.content else ""
    stamp = Stamp(version, stage.code_version, table.num_rows, content=content)
    settings.opened_store.write_table(stage.name, shard, table, work.tables[stage.name], stamp)


def _drawn(stage: Stage, sample: Sample, shard: Shard) -> pa.Table:
    table, owner = sample.drawn(stage.name, shard.picks(len(sample.uids)))
    changed: dict[str, Any] = {"uid": shard.uids.take(pa.array(owner))}
    original, synthetic = (pa.array(shard.captions(what)) for what in (7, 8))
    name = stage.name
    if name == "raw_samples":
        names = [f"{shard.number}/{row}.jpg" for row in range(shard.rows)]
        changed |= {
            "source": pa.repeat(SOURCE, shard.rows),
            "shard": pa.repeat(shard.name, shard.rows),
            "row": pa.array(np.arange(shard.rows), pa.int32()),
            "image_name": pa.array(names),
            "caption": original,
            "sha256": pc.if_else(table["sha256"].is_valid(), pa.array(shard.digests()), None),
            "truth": pa.nulls(shard.rows, stage.schema.field("truth").type),
        }
    elif name.startswith(SYNTHETIC_CAPTIONS_PREFIX):
        texts = pc.if_else(table["caption"].is_valid(), synthetic, None)
        changed |= {"caption": texts, "text": texts}
    elif name == "image_features":
        rows, _ = to_matrix(table["embedding"])
        around = to_matrix(sample.tables[name]["embedding"])[1]
        kind = stage.schema.field("embedding").type.value_type
        is_valid = table["pixel_digest"].is_valid()
        changed |= {
            "embedding": from_matrix(shard.vectors(around)[rows], rows, shard.rows, kind),
            "pixel_digest": pc.if_else(is_valid, pa.array(shard.digests()), None),
            "perceptual_hash": pc.if_else(is_valid, pa.array(shard.hashes()), pa.scalar(None, pa.uint64())),
        }
    elif name == "joint_embeddings":
        rows, vectors = to_matrix(table["embedding"])
        noise = shard.rng(9).normal(size=vectors.shape).astype(np.float32) * 0.3 / vectors.shape[1] ** 0.5
        kind = stage.schema.field("embedding").type.value_type
        moved = vectors + noise
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        changed["embedding"] = from_matrix(moved, rows, len(table), kind)
    elif name == "caption_scores":
        noise = shard.rng(10).normal(size=len(table)).astype(np.float32) * np.float32(0.02)
        changed["similarity"] = pc.add(table["similarity"], pa.array(noise))
    elif name == "best_captions":
        texts = pc.if_else(pc.equal(table["caption_source"], ORIGINAL), original, synthetic)
        changed["caption"] = pc.if_else(table["caption"].is_valid(), texts, None)
    columns = [changed.get(field.name, table[field.name]) for field in stage.schema]
    return pa.table(columns, schema=stage.schema)


def _points(work: Work, sources: Sequence[str], rows: int) -> pa.Table:
    """The points of the first few samples of a shard."""
    few = -(-rows // _IN_COLLECTION)
    raw = work.read("raw_samples", ["uid", "source", "shard", "image_name", "url", "width", "height", "status"])[:few]
    captions = {ORIGINAL: work.read("raw_samples", ["caption"])["caption"][:few]}
    flags = {}
    for source in sources:
        if source != ORIGINAL:
            table = work.read(f"{SYNTHETIC_CAPTIONS_PREFIX}{source}", ["caption", "flags"])[:few]
            captions[source], flags[source] = table["caption"], table["flags"]
    embeddings, scores = work.read("joint_embeddings"), work.read("caption_scores")
    return collection_points(
        raw,
        captions,
        flags,
        embeddings.filter(pc.is_in(embeddings["uid"], value_set=raw["uid"])),
        scores.filter(pc.is_in(scores["uid"], value_set=raw["uid"])),
    )


def over_all_shards(settings: Settings) -> list[Stage]:
    """The stages that are made over all shards, in order."""
    return [one for one in graph.stages(settings) if one.partition_set is None]


def make_assets(names: Sequence[str]) -> None:
    """Make some of them, as ``dqe materialize`` does; first prints the CPU seconds that this process took before.

    Raises:
        RuntimeError: a check failed.
    """
    settings = load_settings()
    shards = sorted(settings.opened_store.partitions("raw_samples"))
    resources = graph.resources(settings)
    stages = [one for one in over_all_shards(settings) if one.name in names]
    print(time.process_time(), flush=True)
    for stage in stages:
        work, arguments = stage.work(settings.opened_store, None, shards), stage.arguments(resources)
        _, _, results = stage.make(work, arguments)
        failed = [results[check.name].description for check in stage.checks if not results[check.name].passed]
        if failed:
            raise RuntimeError(f"{stage.name}: {failed}")


def grow(shards: int, sample: Sample, rows: int, store: Path | None) -> None:
    """Make the corpus one of so many shards, of which it has fewer; or take it from a folder of those that are kept."""
    data = data_directory()
    kept = store / str(shards) if store else None
    if kept and kept.is_dir():
        copy_corpus(kept, data)
        return
    add_shards(sample, len(load_settings().opened_store.partitions("raw_samples")), shards, rows)
    if kept:
        made = kept.with_name(f"{shards}.new")
        made.mkdir(parents=True, exist_ok=True)
        copy_corpus(data, made)
        made.rename(kept)


def figures(shards: int, sample: Sample, rows: int, steps: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The figures of the steps on a corpus of so many shards."""
    settings = load_settings()
    assets = [one.name for one in over_all_shards(settings)]
    for asset in assets:
        shutil.rmtree(Path(settings.opened_store.path(asset, None)).parent, ignore_errors=True)
    for kept in ("concepts", "duplicates", "languages", "map"):
        shutil.rmtree(data_directory() / kept, ignore_errors=True)
    yield from _of_assets(assets, shards, "{}", steps)
    _dqe("sync", shards)
    yield from (_dqe(step, shards) for step in COMMANDS if not steps or step in steps)
    add_shards(sample, shards, shards + 1, rows)
    yield from _of_assets(assets, shards, ONE_MORE, steps)
    if not steps or "materialize" in steps:
        add_shards(sample, shards + 1, shards + 2, rows)
        yield _dqe("materialize", shards, ONE_MORE)


def _of_assets(assets: Sequence[str], shards: int, step: str, steps: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Make every asset, each that is a step in a process of its own; and the sum, if all are."""
    found = []
    for is_step, some in groupby(assets, lambda asset: not steps or asset in steps):
        for names in [[asset] for asset in some] if is_step else [list(some)]:
            print(f"{shards} shards: {step.format(', '.join(names))} ...", file=sys.stderr)
            usage, text = measured([sys.executable, "-m", "benchmarks.corpus", "--make", *names])
            usage["cpu_seconds"] -= float(text.splitlines()[0])
            if is_step:
                found.append({"step": step.format(names[0]), "shards": shards, **usage})
    yield from found
    if not steps:
        total, peak = sum(one["cpu_seconds"] for one in found), max(one["peak_mib"] for one in found)
        yield {"step": step.format(ALL), "shards": shards, "cpu_seconds": total, "peak_mib": peak}


def _dqe(step: str, shards: int, name: str = "{}") -> dict[str, Any]:
    print(f"{shards} shards: dqe {step} ...", file=sys.stderr)
    out = data_directory() / "out"
    command = [str(out) if part == OUT else part for part in COMMANDS[step]]
    usage, text = measured([sys.executable, "-m", "dqe_assets.cli", *command])
    shutil.rmtree(out, ignore_errors=True)
    if step == "status" and not json.loads(text)["is_current"]:
        raise RuntimeError(f"the corpus is not current: {text}")
    return {"step": name.format(step), "shards": shards, **usage}


def with_exponents(rows: Sequence[dict[str, Any]]) -> None:
    """Add to each figure the power of the number of shards that it grows with, from the fewest shards on."""
    for row in rows:
        fewest = next(one for one in rows if one["step"] == row["step"])
        if row["shards"] > fewest["shards"] and min(row["cpu_seconds"], fewest["cpu_seconds"]) > 0:
            ratio = row["cpu_seconds"] / fewest["cpu_seconds"]
            row["exponent"] = float(np.log(ratio) / np.log(row["shards"] / fewest["shards"]))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description="Everything over all shards of a large store, and one more shard.")
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 30, 100], help="How many shards, each in turn.")
    parser.add_argument("--rows-per-shard", type=int, default=ROWS, help="Rows in a shard.")
    parser.add_argument("--steps", nargs="+", default=[], help="Assets and commands to show; all by default.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object alone.")
    parser.add_argument("--sample", type=Path, help="A data folder in which the sample is made.")
    parser.add_argument("--store", type=Path, help="A folder in which the corpus is kept, to be used again.")
    parser.add_argument("--make", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_assets(options.make)
        sys.stdout.flush()
        # What is measured is done. Arrow's threads now and then abort a process that ends as soon as this one.
        os._exit(0)
    sample = kept_sample(options.store, options.sample) if options.store else sample_tables(options.sample)
    rows: list[dict[str, Any]] = []
    with data_folder() as data:
        make_corpus(data, options.rows_per_shard)
        for shards in sorted(set(options.shards)):
            grow(shards, sample, options.rows_per_shard, options.store)
            rows += figures(shards, sample, options.rows_per_shard, options.steps)
    with_exponents(rows)
    publish(
        "corpus",
        ["step", "shards", "cpu_seconds", "peak_mib", "exponent"],
        rows,
        f"Shards of {options.rows_per_shard:,} samples; the exponent is that of the growth from the fewest shards",
        # Figures of other shards cannot be compared.
        keep=options.rows_per_shard == ROWS,
        show=not options.json,
    )
    if options.json:
        found: dict[str, dict[str, Any]] = {}
        for row in rows:
            found.setdefault(row["step"], {})[str(row["shards"])] = {
                key: row[key] for key in ("cpu_seconds", "peak_mib")
            }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
