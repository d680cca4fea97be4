"""A selection of the store as a folder to train on: resumable, with its card, its lineage and a manifest of hashes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.core.schema import IMAGE, REFINED, REVIEWED, SYNTHETIC_CAPTIONS_PREFIX
from dqe_assets.filtering.mix_assets import MIXED_PREFIX
from dqe_assets.ingest.private import Private
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.published import note_published
from dqe_assets.publish import card
from dqe_assets.publish.captions import CaptionReader
from dqe_assets.publish.conversations import LLAVA, SHAREGPT, Conversations
from dqe_assets.publish.formats import Shards
from dqe_assets.publish.output import write_files
from dqe_assets.publish.places import place_of
from dqe_assets.publish.places.protocol import File
from dqe_assets.publish.questions import load_questions
from dqe_assets.publish.selection import RequestError, made_by, select
from dqe_assets.publish.signing import signer
from dqe_assets.reviews import log as reviews
from dqe_resources.fingerprint import fingerprint
from dqe_resources.models.packages import package_version
from dqe_resources.printable import command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.publish.options import Format
    from dqe_assets.publish.selection import Selection
    from dqe_assets.report.condition import Query

CARD = "README.md"
LOADER = "load_vectors.py"

_VERSION = "5"
"""Raised whenever the same selection comes to give other files than before."""

_PACKAGES = ("duckdb", "pillow", "pyarrow")

_PATHS: dict[str, tuple[str, str]] = {
    "hf": ("data/train-{number:05d}-of-{shards:05d}.parquet", "data/train-*.parquet"),
    "webdataset": ("data/{number:08d}.tar", "data/*.tar"),
    "datacomp": ("metadata/{number:05d}-of-{shards:05d}.parquet", "metadata/*.parquet"),
    "llava": (LLAVA, LLAVA),
    "sharegpt": (SHAREGPT, SHAREGPT),
}
"""Name of a shard's file, and of all of them, for each format."""


def opening(manifest: dict[str, Any], place: str) -> str:
    """The command or code that opens a publication at a path or URL."""
    if manifest["format"] == "datacomp":
        return f"{command('dqe filter', f'{place}/metadata')} --expr basic_filter --out subset.npy"
    if manifest["format"] == "webdataset":
        last = -(-manifest["samples"] // manifest["samples_per_shard"]) - 1
        return f"webdataset.WebDataset({_literal(f'{place}/data/{{{0:08d}..{last:08d}}}.tar')})"
    if place.startswith("hf://"):
        repository, _, revision = place.removeprefix("hf://datasets/").rstrip("/").partition("@")
        return f"datasets.load_dataset({_literal(repository)}{f', revision={_literal(revision)}' if revision else ''})"
    if "://" in place:
        kind, files = "parquet" if manifest["format"] == "hf" else "json", f"{place}/{_PATHS[manifest['format']][1]}"
        return f"datasets.load_dataset({_literal(kind)}, data_files={_literal(files)})"
    return f"datasets.load_dataset({_literal(place)})"


def _literal(text: str) -> str:
    # JSON's texts are Python's too.
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What to publish.

    Attributes:
        condition: SQL over the warehouse's table ``samples``.
        caption: ``best``, ``original``, or the name of a captioner or a mix.
        format: of the files.
        shard_size: samples in each file but the last.
        vectors: whether the named vectors are published too.
        weights: caption sources, and how often each is to be drawn, relative to the others; none for all alike.
        questions: the file of the questions in conversations; None for the platform's own.
    """

    condition: str
    caption: str
    format: Format
    shard_size: int
    vectors: bool = False
    weights: tuple[tuple[str, float], ...] = ()
    questions: Path | None = None

    @property
    def is_of_conversations(self) -> bool:
        """Whether captions are written as answers to questions."""
        return self.format in {"llava", "sharegpt"}


def publish(
    settings: Settings,
    target: str | Path,
    request: Request,
    track: Callable[[int, int], None] = lambda _, __: None,
    *,
    is_public: bool = False,
    key: Path | None = None,
) -> dict[str, Any]:
    """Write a publication; a killed run goes on where it stopped. Returns the manifest.

    Memory holds the facts of a few thousand samples, a few images, and four bytes for each sample chosen.

    Args:
        settings: the settings.
        target: where to, as ``place_of`` takes it: empty, absent, or holding this very publication, finished or not.
        request: what to publish.
        track: is told how many samples of how many have been written.
        is_public: whether a data set that is new on the hub is public.
        key: a PEM file with the Ed25519 key that signs the manifest; None for no signature.

    Raises:
        UsageError: the target is a URL that cannot be written to, or the key is none.
        PublishError: the condition is wrong, nothing is chosen, the place holds something else, or a shard of the
            store has changed since the warehouse was built.
        WarehouseError: there is no warehouse.
        StorageError: the store cannot be read, or the place cannot be written.
    """
    # What it tells of is what it writes: one version of each table.
    settings = settings.as_it_is_now()
    sign = signer(key) if key else None
    place = place_of(target, is_public=is_public)
    with settings.warehouse.session() as query:
        selection = select(query, request.condition, request.caption)
        private = Private.of(settings.model_dump(), settings.fetching.allow)
        about = private.record(_about(settings, selection, request, private)) | card.counts(query, selection)
        shards = Shards(
            settings.opened_store,
            query,
            selection,
            CaptionReader(settings.opened_store, about["caption_weights"]),
            private,
        )
        note_published(place.name, _uids(settings, selection))
        files = [*_shard_files(shards, request, about["vectors"]), *_card_files(query, selection, request, about)]
        return write_files(place, about, files, track, sign)


def _uids(settings: Settings, selection: Selection) -> pa.ChunkedArray:
    """The uids of all samples chosen."""
    columns = [
        settings.opened_store.read("raw_samples", chosen.shard, RAW_SAMPLES, ["uid"])["uid"].take(pa.array(chosen.rows))
        for chosen in selection.shards
    ]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())


def _about(settings: Settings, selection: Selection, request: Request, private: Private) -> dict[str, Any]:
    """Everything that decides the files' content."""
    names = dict.fromkeys((IMAGE, *settings.caption_sources), settings.scorer.dimension)
    of_source: Counter[str] = Counter()
    for chosen in selection.shards:
        of_source[settings.ingest.source_of(chosen.shard).name] += len(chosen.rows)
    return {
        "format": request.format,
        "condition": request.condition,
        "caption": request.caption,
        "caption_weights": _weights(settings, request.weights),
        "samples": selection.total,
        "samples_per_shard": request.shard_size,
        "vectors": names if request.vectors else None,
        **({"questions": load_questions(request.questions).described()} if request.is_of_conversations else {}),
        "selection": {
            "samples": selection.samples,
            "steps": [asdict(step) for step in selection.steps],
            "without_caption": selection.without_caption,
            "filters": dict(selection.filters),
            "shards": [
                {"shard": chosen.shard, "samples": len(chosen.rows), "digest": chosen.digest}
                for chosen in selection.shards
            ],
        },
        "sources": [
            {
                "name": source.name,
                "kind": source.kind,
                "license": source.license or card.UNKNOWN,
                "samples": of_source[source.name],
            }
            for source in settings.sources
            if of_source[source.name]
        ],
        "lineage": {
            "assets": _lineage(settings, selection),
            "scorer": private.name(settings.scorer.model),
            "captioners": {one.name: private.name(one.model_id) for one in settings.captioners},
            "licences": {one.name: one.license or card.UNKNOWN for one in settings.captioners},
            "columns": made_by(request.caption),
            "best": settings.best.model_dump(mode="json"),
        },
        "versions": {"publish": _VERSION, **{name: package_version(name) for name in _PACKAGES}},
    }


def _weights(settings: Settings, given: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The weight of every caption source: of those that are not given, where some are, 0."""
    sources = [*settings.caption_sources, *([REFINED] if settings.refining else [])]
    sources += [REVIEWED] if reviews.has_captions() else []
    if unknown := [name for name, _ in given if name not in sources]:
        raise RequestError(f"--weight {unknown[0]}: there is no such caption source; there are: {', '.join(sources)}")
    return dict.fromkeys(sources, 0.0 if given else 1.0) | dict(given)


def _lineage(settings: Settings, selection: Selection) -> list[dict[str, Any]]:
    """The assets made from the shards, with the versions of their code and their fingerprints."""
    shards = [chosen.shard for chosen in selection.shards]
    synthetic = [SYNTHETIC_CAPTIONS_PREFIX + name for name in settings.captioner_names]
    scores = ["joint_embeddings", "caption_scores", "further_caption_scores"]
    per_shard = ["raw_samples", "reviews", "image_features", *synthetic, *scores, "best_captions"]
    per_shard += [f"{MIXED_PREFIX}{mix.name}" for mix in settings.caption_mixes if mix.name == selection.caption]
    over_all = ["duplicate_clusters", *(["filter_masks"] if selection.filters else [])]
    places: dict[str, list[Any]] = dict.fromkeys(per_shard, shards) | {asset: [None] for asset in over_all}
    lineage = []
    for asset, partitions in places.items():
        found = [settings.opened_store.get(asset, partition) for partition in partitions]
        stamps = [stored.stamp for stored in found if stored is not None]
        if stamps:
            lineage.append(
                {
                    "asset": asset,
                    "partitions": len(stamps),
                    "code_versions": sorted({stamp.code_version for stamp in stamps}),
                    "fingerprint": fingerprint([stamp.identity for stamp in stamps]),
                }
            )
    return lineage


def _shard_files(shards: Shards, request: Request, vectors: dict[str, int] | None) -> list[File]:
    total, size = shards.selection.total, request.shard_size
    count = -(-total // size)
    write = {"hf": shards.write_images, "webdataset": shards.write_tar, "datacomp": shards.write_metadata}
    kinds: list[tuple[str, Callable[..., None]]] = []
    conversations: list[File] = []
    if request.is_of_conversations:
        questions = load_questions(request.questions)
        conversations = Conversations(shards, questions, size, is_list=request.format == "llava").files()
    else:
        kinds.append((_PATHS[request.format][0], write[request.format]))
    if vectors is not None:
        kinds.append(("vectors/{number:05d}-of-{shards:05d}.parquet", partial(shards.write_vectors, vectors=vectors)))
    return conversations + [
        File(
            name.format(number=number, shards=count),
            min(size, total - number * size),
            partial(writer, start=number * size, stop=(number + 1) * size),
        )
        for name, writer in kinds
        for number in range(count)
    ]


def _card_files(query: Query, selection: Selection, request: Request, about: dict[str, Any]) -> list[File]:
    """The card, its pictures and the loader of vectors."""

    def write_card(target: BinaryIO) -> None:
        text = card.render(
            about,
            figures=card.figures(query, selection),
            composition=card.composition(query, selection),
            contamination=card.contamination(query, selection),
            credits=_credits(about["sources"]),
            paths=_PATHS[request.format][1],
            opened=opening(about, "."),
        )
        target.write(text.encode())

    drawn: dict[str, bytes] = {}

    def write_picture(target: BinaryIO, name: str) -> None:
        drawn.update(drawn or card.pictures(query, selection))
        target.write(drawn[name])

    files = [
        File(name, 0, partial(write_picture, name=name)) for name in (card.SIMILARITY_PICTURE, card.FUNNEL_PICTURE)
    ]
    if request.vectors:
        loader = Path(__file__).with_name(LOADER)
        files.append(File(LOADER, 0, lambda target: target.write(loader.read_bytes())))
    return [*files, File(CARD, 0, write_card)]


def _credits(sources: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Who made the photos of the embedded sample, where it is among the sources."""
    if not any(source["kind"] == "sample" for source in sources):
        return {}
    from dqe_resources.sources.sample_images.photos import PHOTOS

    return {key: photo.credit for key, photo in PHOTOS.items()}
