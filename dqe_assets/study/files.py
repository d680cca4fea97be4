"""What is written into the folders of a study: dqe.yaml, captions, and the tasks to evaluate on."""

from __future__ import annotations

import csv
import io
import tarfile
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dqe_assets.concepts.tables import CONCEPT_HITS
from dqe_assets.concepts.tail import rarest
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.evaluation.tables import CLASS_COUNTS, TRAINING_CURVES
from dqe_assets.filtering.subset import contains, parse_uids, read_subset
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.tables import CAPTION_SCORES
from dqe_assets.study.findings import BASE_AND_ANY, BASE_AND_RARE
from dqe_assets.study.plan import ADDED, CONCEPTS, CURVES, LOSS, PAIRS, RAREST, TASK, TASK_SEED, TRUTH
from dqe_resources.sources.world_scenes import DRAWN, World, names
from dqe_resources.store import Store, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from dqe_assets.study.findings import Law
    from dqe_assets.study.plan import Study
    from dqe_resources.sources.world import WorldSource
    from dqe_resources.sources.world_scenes import Scene

TEMPLATES = ("a {c}", "a photo of a {c}")


def write_scorer(study: Study, seed: int) -> None:
    """Write what is not there of a scorer's folder, or is of another study; what has not changed keeps its time.

    Raises:
        SourceError: the drawings or their names are not installed.
    """
    folder = _begun(study, study.scorer_folder(seed))
    _write(folder / TRUTH, _true_captions(study.pairs(seed)))
    _write(folder / "dqe.yaml", _as_yaml(study.scorer_settings(seed)))


def write_captioner(study: Study, seed: int) -> None:
    """The same of a captioner's folder."""
    folder = _begun(study, study.captioner_folder(seed))
    _write(folder / TRUTH, _true_captions(study.captioned(seed)))
    _write(folder / "dqe.yaml", _as_yaml(study.captioner_settings(seed)))


def write_seed(study: Study, seed: int) -> None:
    """The same of the folder of a seed's pool and tasks."""
    folder = _begun(study, study.seed_folder(seed))
    _write(folder / TRUTH, _true_captions(study.web(seed)))
    for name, content in _task(seed, study.size.images).items():
        _write(folder / "tasks" / TASK / name, content)
    if study.law:
        _write(folder / "tasks" / PAIRS / "test" / "0.tar", _pairs(seed, study.size.pairs))
    _write(folder / "dqe.yaml", _as_yaml(study.settings(seed, names()[:CONCEPTS])))


def write_clean(study: Study, law: Law, seed: int) -> None:
    """The same of the folder of a seed's clean pool."""
    folder = _begun(study, study.clean_folder(seed))
    _write(folder / "tasks" / PAIRS / "test" / "0.tar", _pairs(seed, study.size.pairs))
    _write(folder / "dqe.yaml", _as_yaml(study.clean_settings(law, seed)))


def write_law(study: Study, law: Law) -> None:
    """Write the mean over seeds of the curves of the clean pool, once all of them are followed.

    Raises:
        StorageError: they are not.
    """
    columns = ["metric", "pool", "pool_size", "samples_seen", "error"]
    tables = [
        Store(str(study.clean_folder(seed) / "store")).read("training_curves", None, TRAINING_CURVES, columns)
        for seed in study.seeds
    ]
    curves = pa.concat_tables(tables).group_by(columns[:-1]).aggregate([("error", "mean")])
    curves = curves.filter(pc.equal(curves["metric"], LOSS)).sort_by(
        [("pool", "ascending"), ("samples_seen", "ascending")]
    )
    folder = _begun(study, study.law_folder)
    rows = (tuple(map(str, row.values())) for row in curves.to_pylist())
    _write(folder / CURVES, _table(tuple(columns), rows))
    _write(folder / "dqe.yaml", _as_yaml(study.law_settings(law)))


def write_second(study: Study, seed: int) -> None:
    """Write the folder of the second pool, once the captions of the base are counted.

    Raises:
        StorageError: they are not.
    """
    folder = _begun(study, study.second_folder(seed))
    _write(folder / "dqe.yaml", _as_yaml(study.second_settings(seed, [name for name, _ in rarest_of(study, seed)])))


def rarest_of(study: Study, seed: int) -> list[tuple[str, int]]:
    """The rarest of the concepts in captions of the base, and how many of them name each.

    Raises:
        StorageError: they are not counted.
    """
    store = Store(str(study.seed_folder(seed) / "store"))
    counts = store.read(f"class_counts/{study.base.data}", None, CLASS_COUNTS, ["class_name", "item", "samples"])
    counts = counts.filter(pc.equal(counts["item"], ORIGINAL))
    return rarest(counts["class_name"].to_pylist(), counts["samples"].to_numpy(), RAREST)


def write_added(study: Study, seed: int) -> None:
    """Write the folder of the base with samples of the second pool: a table of captions says which.

    Raises:
        StorageError: the base or the second pool is not made.
    """
    folder = _begun(study, study.seed_folder(seed) / ADDED)
    first = dict(_captions(study.seed_folder(seed), "raw_samples", RAW_SAMPLES, study.web(seed)))
    subset = read_subset(study.seed_folder(seed) / "subsets" / f"{study.base.subset}.npy")
    is_kept = contains(subset, parse_uids(pa.array(first, pa.string())))
    base = {uid: text for (uid, text), kept in zip(first.items(), is_kept, strict=True) if kept and text}
    second = dict(_captions(study.second_folder(seed), "raw_samples", RAW_SAMPLES, study.second(seed)))
    rare = _named(study, seed)
    drawn = np.random.default_rng(seed).permutation(sorted(second))[: len(rare)].tolist()
    for name, uids in ((BASE_AND_RARE, rare), (BASE_AND_ANY, drawn)):
        added = {uid: text for uid in uids if (text := second[uid])}
        _write(folder / f"{name}.csv", _table(("uid", "caption"), sorted({**base, **added}.items())))
    _write(folder / "dqe.yaml", _as_yaml(study.added_settings(seed, names()[:CONCEPTS])))


def _named(study: Study, seed: int) -> list[str]:
    """Uids of the second pool whose captions name one of the rarest concepts: of each concept, those that fit best."""
    store, found = Store(str(study.second_folder(seed) / "store")), list[tuple[str, float, str]]()
    for shard in study.second(seed).shards():
        key = study.second(seed).key(shard.index)
        hits = store.read("concept_hits", key, CONCEPT_HITS, ["uid", "item", "concepts"]).to_pylist()
        scores = store.read("caption_scores", key, CAPTION_SCORES, ["uid", "caption_source", "similarity"]).to_pylist()
        fit = {row["uid"]: row["similarity"] for row in scores if row["caption_source"] == ORIGINAL}
        found += [
            (concept, -fit[row["uid"]], row["uid"])
            for row in hits
            if row["item"] == ORIGINAL
            for concept in row["concepts"] or ()
        ]
    best = (islice(some, study.size.added) for _, some in groupby(sorted(found), key=itemgetter(0)))
    return sorted({uid for some in best for _, _, uid in some})


def _captions(folder: Path, asset: str, schema: pa.Schema, source: WorldSource) -> Iterator[tuple[str, str | None]]:
    store = Store(str(folder / "store"))
    for shard in source.shards():
        table = store.read(asset, source.key(shard.index), schema, ["uid", "caption"])
        yield from zip(table["uid"].to_pylist(), table["caption"].to_pylist(), strict=True)


def _begun(study: Study, folder: Path) -> Path:
    """A data folder whose converted models are those of all others."""
    cache = study.folder / "cache"
    for one in (folder, cache):
        one.mkdir(parents=True, exist_ok=True)
    link = folder / "cache"
    if not link.is_symlink():
        link.symlink_to(Path("/".join([".."] * len(folder.relative_to(study.folder).parts))) / "cache")
    return folder


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return

    def write(target: BinaryIO) -> None:
        target.write(content)

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)


def _as_yaml(settings: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return f"# Written by dqe study, which writes it again.\n{text}".encode()


def _true_captions(source: WorldSource) -> bytes:
    world = source.world
    rows = ((f"{number:08d}.png", world.true_caption(world.scene(number))) for number in range(source.rows_made))
    return _table(("image_name", "caption"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()


def _task(seed: int, images: int) -> dict[str, bytes]:
    """Scenes of one object, which is to be named among all, as DataComp has its tasks: contents by path."""
    world = World(TASK_SEED + seed, CONCEPTS)

    def members() -> Iterator[tuple[str, bytes]]:
        for concept in range(len(DRAWN)):
            for number in range(images):
                yield f"{concept:03d}-{number:03d}.cls", str(concept).encode()
                yield f"{concept:03d}-{number:03d}.png", _picture(world, world.single(concept, number))

    return {
        "classnames.txt": "\n".join(names()).encode(),
        "zeroshot_classification_templates.txt": "\n".join(TEMPLATES).encode(),
        "test/0.tar": _tar(members()),
    }


def _pairs(seed: int, pairs: int) -> bytes:
    """Scenes with their true captions, of a world in which all things are alike frequent, as a tar."""
    world = World(TASK_SEED + seed, CONCEPTS, zipf=0.0, near_copies=0.0)

    def members() -> Iterator[tuple[str, bytes]]:
        for number in range(pairs):
            scene = world.scene(number)
            yield f"{number:06d}.png", _picture(world, scene)
            yield f"{number:06d}.txt", world.true_caption(scene).encode()

    return _tar(members())


def _picture(world: World, scene: Scene) -> bytes:
    file = io.BytesIO()
    world.image(scene).save(file, "PNG")
    return file.getvalue()


def _tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()
