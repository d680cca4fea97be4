"""Captions to a searchable collection: encoder time, store time and search, next to the bare encoder and qdrant-client.

    python -m benchmarks.collection                       # 10,000 captions and 100,000 points, three minutes
    python -m benchmarks.collection --captions 100000     # most of an hour: a long caption takes 10 ms on two cores

The captions are the real ones of ../shared/data/sbu where present, three for each photo, then generated ones of the
same kinds: short alt texts and long synthetic captions. The bare rate of the encoder is that of its model on every
eighth of the very same batches, before and after. Every vector is stored under its own point, with the payload that
the platform gives it; where more points are asked for than captions, the others have the captions' vectors with noise
added, which costs the store as much as any others.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from benchmarks.common import publish
from dqe_resources.models.text_encoders import minilm
from dqe_resources.parallel import ordered_map
from dqe_resources.vectors import EmbeddedQdrant, Range, ServerQdrant

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import QdrantClient

    from dqe_resources.vectors import Collection

SBU = Path(__file__).parents[2] / "shared" / "data" / "sbu" / "captions.parquet"
REFERENCE_SECONDS = 111
SHARD = 10_000
EVERY_EIGHTH = 8
ONE_BY_ONE = 200
LOCAL_POINTS = 5_000
LOCAL_QUERIES = 10
QUERIES = 200
CLUSTER = 50
NAME = {"original": 384}
SHORT, LONG = "original", "synthetic"

_THINGS = ("cat", "dog", "horse", "bridge", "church", "boat", "beach", "garden", "train", "market", "bird", "flower")
_LOOKS = ("old", "small", "red", "white", "wooden", "bright", "sleeping", "wet", "huge", "quiet", "broken", "snowy")
_PLACES = ("in the park", "on the river", "near our house", "at sunset", "behind the fence", "in downtown Oakland")
_DETAIL = (
    "The scene is lit by soft light, and in the background {a} {b} can be seen. ",
    "To the left stands {a} {b}, partly hidden by the shadow of a tree. ",
    "The overall mood is calm, and the {b} adds a sense of depth. ",
)


class _Local(ServerQdrant):
    """qdrant-client's own store, in memory: in a directory it waits for the disk after every point."""

    def _connect(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        return QdrantClient(":memory:")


def captions(count: int) -> dict[str, list[str]]:
    """Distinct captions, short and long: real ones as far as there are, then generated ones, half of them long."""
    found: dict[str, dict[str, None]] = {SHORT: {}, LONG: {}}
    if SBU.exists():
        import pyarrow.parquet as pq

        kinds = {"original_caption": SHORT, "cogvlm2_caption": LONG, "internvl2_caption": LONG}
        for row in pq.read_table(SBU, columns=list(kinds)).slice(0, -(-count // len(kinds))).to_pylist():
            for name, kind in kinds.items():
                if row[name] and sum(map(len, found.values())) < count:
                    found[kind][row[name]] = None
    rng = np.random.default_rng(0)
    while (there := sum(map(len, found.values()))) < count:
        a, b = (f"{rng.choice(_LOOKS)} {rng.choice(_THINGS)}" for _ in range(2))
        text = f"My {a} {rng.choice(_PLACES)}, {rng.choice(_LOOKS)} day, picture {there}"
        kind = LONG if rng.random() < 0.5 else SHORT
        if kind == LONG:
            text += ". " + "".join(rng.choice(_DETAIL).format(a="a", b=b) for _ in range(rng.integers(2, 6)))
        found[kind][text] = None
    return {kind: list(texts) for kind, texts in found.items()}


def points(shard: int, vectors: np.ndarray, texts: list[str]) -> pa.Table:
    """A shard's points as the platform makes them; their numbers decide what they are filtered by."""
    start, count = shard * SHARD, len(vectors)
    numbers = np.arange(start, start + count)
    flat = pa.array(vectors.astype(np.float16).ravel())
    return pa.table(
        {
            "uid": [f"{number + 1:032x}" for number in numbers],
            "original": pa.FixedSizeListArray.from_arrays(flat, 384).cast(pa.list_(pa.float16())),
            "caption_original": texts,
            "image_name": [f"{number}.jpg" for number in numbers],
            "source": ["half" if number % 2 else "other" for number in numbers],
            "language": ["is" if number % 1000 == 0 else "en" for number in numbers],
            "width": pa.array(numbers % 1000, pa.int32()),
            "similarity_original": pa.array((numbers * 7919 % 1000) / 1000, pa.float32()),
            "flags_vlm": [["cut_off"] if number % 200 == 0 else [] for number in numbers],
            "flagged_vlm": numbers % 200 == 0,
        }
    )


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came back."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def ready_batches(texts: list[str], encoder: minilm.MiniLM) -> list[dict[str, np.ndarray]]:
    """The texts tokenised, sorted, padded and batched, as the encoder does it."""
    encoded = minilm._tokenizer().encode_batch(texts)  # noqa: SLF001
    tokens = sorted((encoding.ids[: minilm.MAX_TOKENS] for encoding in encoded), key=len)
    batches = []
    for start in range(0, len(tokens), encoder.batch_size):
        rows = tokens[start : start + encoder.batch_size]
        ids = np.zeros((len(rows), len(rows[-1])), np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        batches.append({"ids": ids, "mask": mask})
    return batches


def bare(batches: list[dict[str, np.ndarray]], first: int) -> float:
    """Seconds that the model alone takes for all batches, from every eighth of them, on all cores."""
    version = minilm.package_version(minilm._DISTRIBUTION)  # noqa: SLF001
    model = minilm.session(minilm.cached_file(f"minilm-{version}-1.onnx", minilm._write_model), 1)  # noqa: SLF001
    some = batches[first::EVERY_EIGHTH]
    taken, _ = timed(lambda: [None for _ in ordered_map(lambda batch: model.run(["vectors"], batch), some)])
    return taken * sum(batch["ids"].size for batch in batches) / sum(batch["ids"].size for batch in some)


def more(vectors: np.ndarray, count: int) -> np.ndarray:
    """The vectors, and after them the same with noise, unit length, until there are so many."""
    rng = np.random.default_rng(2)
    repeated = vectors[np.arange(count) % len(vectors)]
    repeated[len(vectors) :] += rng.normal(0, 0.03, (max(count - len(vectors), 0), 384)).astype(np.float32)
    return repeated / np.linalg.norm(repeated, axis=1, keepdims=True)


def stored(collection: Collection, vectors: np.ndarray, texts: list[str]) -> list[float]:
    """Every shard, as the platform writes them; returns the seconds of each."""
    seconds = []
    for shard in range(-(-len(vectors) // SHARD)):
        part = slice(shard * SHARD, (shard + 1) * SHARD)
        some = points(shard, vectors[part], texts[part])
        seconds.append(timed(lambda shard=shard, some=some: collection.replace_shard(f"web-{shard:05d}", some))[0])
    return seconds


FILTERS: dict[str, Any] = {
    "no filter": None,
    "0.1 %, a language": {"language": "is"},
    "1 %, a range": {"width": Range(0, 10)},
    "10 %, a score": {"similarity_original": Range(0.9, None)},
    "50 %, a source": {"source": "half"},
    "50 %, a range": {"width": Range(0, 500)},
    "0.5 %, a flag": {"flags_vlm": "cut_off"},
    f"{CLUSTER} points, a cluster": {"uid": frozenset(f"{number + 1:032x}" for number in range(CLUSTER))},
}


def searches(collection: Collection, queries: np.ndarray) -> list[dict[str, Any]]:
    """p50 and p95 of the ten nearest, for each filter, and the uids found."""
    rows = []
    for name, where in FILTERS.items():
        seconds, uids = [], []
        for query in queries:
            taken, hits = timed(lambda query=query, where=where: collection.search(query, "original", 10, where))
            seconds.append(taken)
            uids.append([hit.uid for hit in hits])
        low, high = np.percentile(seconds, [50, 95]) * 1000
        rows.append({"search": name, "p50_ms": low, "p95_ms": high, "uids": uids})
    return rows


def main(
    captions_: Annotated[int, typer.Option("--captions", min=100)] = 10_000,
    points_: Annotated[int, typer.Option("--points", min=100)] = 100_000,
) -> None:
    """Measure, print and record."""
    by_kind = captions(captions_)
    vectors, rows = zip(*(encoding(kind, texts) for kind, texts in by_kind.items()), strict=True)
    figures = [row for of_kind in rows for row in of_kind]
    publish("collection", list(figures[0]), figures, "Encoding; the goal is 0.9 of the bare rate")
    texts = [text for of_kind in by_kind.values() for text in of_kind]
    every = more(np.concatenate(vectors), max(points_, captions_))
    storing(every, [texts[number % len(texts)] for number in range(len(every))], len(texts))


def encoding(kind: str, texts: list[str]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The vectors of captions, and how long encoding them takes."""
    encoder = minilm.MiniLM()
    encoder.encode(texts[:64])
    batches = ready_batches(texts, encoder)
    # The bare rate before and after, since the machine may be busier at one time than at another.
    before = bare(batches, 0)
    encode, embedded = timed(lambda: encoder.encode(texts))
    alone = (before + bare(batches, EVERY_EIGHTH // 2)) / 2
    sampled = texts[:: max(1, len(texts) // ONE_BY_ONE)]
    one = timed(lambda: [encoder.encode([text]) for text in sampled])[0] * len(texts) / len(sampled)
    figures = [
        ("encode, sorted batches", encode),
        ("the model alone, ready batches", alone),
        ("encode one at a time, as the reference", one),
        ("the reference on an A100, one at a time", REFERENCE_SECONDS * len(texts) / 10_000),
    ]
    about = {"kind": kind, "captions": len(texts), "mean_tokens": float(embedded.tokens.mean())}
    rows = [
        {"what": what, **about, "seconds": seconds, "per_second": len(texts) / seconds, "of_bare_rate": alone / seconds}
        for what, seconds in figures
    ]
    return embedded.vectors, rows


def storing(vectors: np.ndarray, texts: list[str], real: int) -> None:
    """Publish how long the store takes, and whether qdrant-client finds the same neighbours."""
    rng = np.random.default_rng(1)
    queries = vectors[rng.integers(0, real, QUERIES)] + rng.normal(0, 0.02, (QUERIES, 384)).astype(np.float32)
    count = min(len(vectors), LOCAL_POINTS)
    with TemporaryDirectory() as folder:
        store = EmbeddedQdrant(directory=Path(folder, "edge"))

        def write() -> list[float]:
            with store.open(NAME) as collection:
                return stored(collection, vectors, texts)

        whole, shards = timed(write)
        _, again = timed(write)
        with store.open() as collection:
            found = searches(collection, queries)
        with _Local(url="http://local").open(NAME) as collection:
            local = sum(stored(collection, vectors[:count], texts[:count]))
            local_found = searches(collection, queries[:LOCAL_QUERIES])
        with EmbeddedQdrant(directory=Path(folder, "part")).open(NAME) as collection:
            stored(collection, vectors[:count], texts[:count])
            embedded_found = searches(collection, queries[:LOCAL_QUERIES])
    same = [row["uids"] for row in embedded_found] == [row["uids"] for row in local_found]
    size = min(len(vectors), SHARD)
    figures = [
        (f"write {size:,} points, median of {len(shards)}", size, float(np.median(shards))),
        ("the same again, all there", size, float(np.median(again))),
        ("write all, and settle", len(vectors), whole),
        ("qdrant-client's local mode, in memory: write", count, local),
    ]
    rows = [
        {"what": what, "points": size, "seconds": seconds, "points_per_second": size / seconds}
        for what, size, seconds in figures
    ]
    publish("collection", list(rows[0]), rows, "Storing; the goal is 2 s for 10,000 points")
    about = {"points": len(vectors), "encoded_captions": real, "goal_ms": 5}
    by_name = {row["search"]: row["p50_ms"] for row in local_found}
    timings = [
        {
            **{name: row[name] for name in ("search", "p50_ms", "p95_ms")},
            **about,
            "local_p50_ms": by_name[row["search"]],
            "local_points": count,
            "same_neighbours": same,
        }
        for row in found
    ]
    columns = ["search", "p50_ms", "p95_ms", *about, "local_p50_ms", "local_points", "same_neighbours"]
    publish("collection", columns, timings, f"Ten nearest of {len(vectors):,}; local is qdrant-client's local mode")


if __name__ == "__main__":
    typer.run(main)
