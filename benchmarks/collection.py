"""Captions to a searchable collection: encoder time, store time and search, next to the bare encoder and qdrant-client.

    python -m benchmarks.collection                       # 10,000 captions and 100,000 points, three minutes
    python -m benchmarks.collection --captions 100000     # most of an hour: a long caption takes 10 ms on two cores
    python -m benchmarks.collection --made 1000000        # five minutes: a million made vectors, and nothing else

The captions are the real ones of ../shared/data/sbu where present, three for each photo, then generated ones of the
same kinds: short alt texts and long synthetic captions. The bare rate of the encoder is that of its model on every
eighth of the very same batches, before and after. Every vector is stored under its own point, with the payload that
the platform gives it; where more points are asked for than captions, the others have the captions' vectors with noise
added, which costs the store as much as any others.

``--made`` stores vectors around the centres of clusters, shard by shard, each with an opening of its own as a run does
it, and compares what is found with the nearest by all float32 vectors. Around a centre they are spread evenly in all
directions, so that the nearest are hardly nearer than others: harder than most captions.
"""

from __future__ import annotations

import os
import resource
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
CENTRES = 1000
QUERY_SEED = 10**6
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

KEPT: dict[str, Any] = {
    "no filter": lambda number: number >= 0,
    "0.1 %, a language": lambda number: number % 1000 == 0,
    "1 %, a range": lambda number: number % 1000 < 10,
    "10 %, a score": lambda number: number * 7919 % 1000 >= 900,
    "50 %, a source": lambda number: number % 2 == 1,
    "50 %, a range": lambda number: number % 1000 < 500,
    "0.5 %, a flag": lambda number: number % 200 == 0,
    f"{CLUSTER} points, a cluster": lambda number: number < CLUSTER,
}
"""Of each filter, the numbers of the points that ``points`` gives it."""


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
    made_: Annotated[int | None, typer.Option("--made", min=SHARD)] = None,
    named: Annotated[int, typer.Option(min=1, max=3, help="Vectors of each made point.")] = 1,
) -> None:
    """Measure, print and record."""
    if made_ is not None:
        many(made_ // SHARD, (SHORT, "image", "labels")[:named])
        return
    by_kind = captions(captions_)
    vectors, rows = zip(*(encoding(kind, texts) for kind, texts in by_kind.items()), strict=True)
    figures = [row for of_kind in rows for row in of_kind]
    publish("collection", list(figures[0]), figures, "Encoding; the goal is 0.9 of the bare rate")
    texts = [text for of_kind in by_kind.values() for text in of_kind]
    every = more(np.concatenate(vectors), max(points_, captions_))
    storing(every, [texts[number % len(texts)] for number in range(len(every))], len(texts))


def made(centres: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Vectors around centres: float32 [count, 384], of unit length, a cosine of about 0.7 from their centre."""
    rng = np.random.default_rng(seed)
    spread = rng.normal(0, 384**-0.5, (count, 384)).astype(np.float32)
    vectors: np.ndarray = centres[rng.integers(0, len(centres), count)] + spread
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def many(shards: int, names: tuple[str, ...]) -> None:
    """Publish what it takes to store shards of made vectors, and how well and how fast they are found."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, 384)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    queries = made(centres, QUERIES, QUERY_SEED)
    sizes, cpu, wall = dict.fromkeys(names, 384), [], []
    texts = [f"A picture of what number {number} shows, in the words of somebody who saw it" for number in range(SHARD)]
    with TemporaryDirectory() as folder:
        store = EmbeddedQdrant(directory=Path(folder, "made"))
        for shard in range(shards):
            table = points(shard, made(centres, SHARD, shard), texts)
            for name in names[1:]:
                table = table.append_column(name, table["original"])
            before = cpu_seconds()
            wall.append(timed(lambda shard=shard, table=table: _replace(store, sizes, f"web-{shard:05d}", table))[0])
            cpu.append(cpu_seconds() - before)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = cpu_seconds()
        with store.open() as collection:
            opening = cpu_seconds() - before
            searches(collection, queries[:20])
            found = searches(collection, queries)
            stored_count = collection.count()
        size = sum(512 * path.stat().st_blocks for path in Path(folder).rglob("*")) / 2**20
    figures = {
        "points": stored_count,
        "vectors": len(names),
        "cpu_s": sum(cpu),
        "wall_s": sum(wall),
        "median_shard_cpu_s": float(np.median(cpu)),
        "dearest_shard_cpu_s": max(cpu),
        "last_ten_shards_cpu_s": sum(cpu[-10:]),
        "opening_cpu_s": opening,
        "peak_mb": peak,
        "disk_mb": size,
    }
    publish("collection", list(figures), [figures], "Storing made vectors, shard by shard; the goal is 120 CPU seconds")
    every = np.concatenate([queries @ made(centres, SHARD, shard).T for shard in range(shards)], axis=1)
    numbers = np.arange(every.shape[1])
    for row in found:
        wanted = KEPT[row["search"]](numbers)
        best = [numbers[wanted][np.argpartition(-of_query[wanted], 9)[:10]] for of_query in every]
        got = [{int(uid, 16) - 1 for uid in uids} for uids in row.pop("uids")]
        row["recall_at_10"] = float(
            np.mean([len(a & set(b.tolist())) / len(b) for a, b in zip(got, best, strict=True)])
        )
    columns = ["search", "p50_ms", "p95_ms", "recall_at_10"]
    publish("collection", columns, found, f"Ten nearest of {stored_count:,} made vectors; the goals are 10 ms and 0.95")


def _replace(store: EmbeddedQdrant, sizes: dict[str, int], shard: str, table: pa.Table) -> None:
    with store.open(sizes) as collection:
        collection.replace_shard(shard, table)


def cpu_seconds() -> float:
    """Own CPU time so far, of all threads."""
    times = os.times()
    return times.user + times.system


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
