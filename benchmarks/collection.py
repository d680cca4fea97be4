"""Captions to a searchable collection: encoder time, store time and search, beside the bare encoder and qdrant-client.

    python -m benchmarks.collection                       # 10,000 captions, two minutes
    python -m benchmarks.collection --captions 100000     # fifteen minutes

The captions are the real ones of ../shared/data/sbu where present, three for each photo, then generated ones of the
same kinds: short alt texts and long synthetic captions. Every vector is stored under its own point, with the payload
that the platform gives it.
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
from dqe_resources.parallel import ordered_map
from dqe_resources.text_encoders import minilm
from dqe_resources.vectors import EmbeddedQdrant, Range, ServerQdrant

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import QdrantClient

    from dqe_resources.vectors import Collection

SBU = Path(__file__).parents[2] / "shared" / "data" / "sbu" / "captions.parquet"
REFERENCE_SECONDS = 111
SHARD = 10_000
ONE_BY_ONE = 300
LOCAL_POINTS = 10_000
QUERIES = 200
NAME = {"original": 384}

_THINGS = ("cat", "dog", "horse", "bridge", "church", "boat", "beach", "garden", "train", "market", "bird", "flower")
_LOOKS = ("old", "small", "red", "white", "wooden", "bright", "sleeping", "wet", "huge", "quiet", "broken", "snowy")
_PLACES = ("in the park", "on the river", "near our house", "at sunset", "behind the fence", "in downtown Oakland")
_DETAIL = (
    "The scene is lit by soft light, and in the background {a} {b} can be seen. ",
    "To the left stands {a} {b}, partly hidden by the shadow of a tree. ",
    "The overall mood is calm, and the {b} adds a sense of depth. ",
)


class _Local(ServerQdrant):
    """qdrant-client's own store in a directory."""

    directory: Path

    def _connect(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        return QdrantClient(path=str(self.directory))


def captions(count: int) -> list[str]:
    """Distinct captions: real ones as far as there are, then generated ones, half of them long."""
    found: dict[str, None] = {}
    if SBU.exists():
        import pyarrow.parquet as pq

        names = ["original_caption", "cogvlm2_caption", "internvl2_caption"]
        for row in pq.read_table(SBU, columns=names).to_pylist():
            found |= dict.fromkeys(text for text in row.values() if text)
    rng = np.random.default_rng(0)
    while len(found) < count:
        a, b = (f"{rng.choice(_LOOKS)} {rng.choice(_THINGS)}" for _ in range(2))
        text = f"My {a} {rng.choice(_PLACES)}, {rng.choice(_LOOKS)} day, picture {len(found)}"
        if rng.random() < 0.5:
            text += ". " + "".join(rng.choice(_DETAIL).format(a="a", b=b) for _ in range(rng.integers(2, 6)))
        found[text] = None
    return list(found)[:count]


def points(shard: int, vectors: np.ndarray, texts: list[str]) -> pa.Table:
    """A shard's points as the platform makes them; three fields are there to be filtered by."""
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
        }
    )


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came back."""
    started = time.perf_counter()
    found = call()
    return time.perf_counter() - started, found


def bare(texts: list[str], encoder: minilm.MiniLM) -> float:
    """Seconds of the model alone: texts tokenised, sorted, padded and batched before the clock starts."""
    version = minilm.package_version(minilm._DISTRIBUTION)  # noqa: SLF001
    model = minilm.session(minilm.cached_file(f"minilm-{version}-1.onnx", minilm._write_model), 1)  # noqa: SLF001
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
    return timed(lambda: [None for _ in ordered_map(lambda batch: model.run(["vectors"], batch), batches)])[0]


def stored(collection: Collection, vectors: np.ndarray, texts: list[str]) -> None:
    """Every shard, as the platform writes them."""
    for shard in range(-(-len(texts) // SHARD)):
        part = slice(shard * SHARD, (shard + 1) * SHARD)
        collection.replace_shard(f"web-{shard:05d}", points(shard, vectors[part], texts[part]))


FILTERS: dict[str, Any] = {
    "no filter": None,
    "0.1 %, a language": {"language": "is"},
    "1 %, a range": {"width": Range(0, 10)},
    "10 %, a score": {"similarity_original": Range(0.9, None)},
    "50 %, a source": {"source": "half"},
    "50 %, a range": {"width": Range(0, 500)},
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


def main(captions_: Annotated[int, typer.Option("--captions", min=100)] = 10_000) -> None:
    """Measure, print and record."""
    texts = captions(captions_)
    encoder = minilm.MiniLM()
    encoder.encode(texts[:64])
    # The bare rate before and after, since the machine may be busier at one time than at another.
    first = bare(texts, encoder)
    encode, embedded = timed(lambda: encoder.encode(texts))
    alone = min(first, bare(texts, encoder))
    sampled = texts[:: max(1, len(texts) // ONE_BY_ONE)]
    one = timed(lambda: [encoder.encode([text]) for text in sampled])[0] * len(texts) / len(sampled)
    vectors = embedded.vectors
    rng = np.random.default_rng(1)
    queries = vectors[rng.integers(0, len(texts), QUERIES)] + rng.normal(0, 0.02, (QUERIES, 384)).astype(np.float32)
    with TemporaryDirectory() as folder:
        store = EmbeddedQdrant(directory=Path(folder, "edge"))

        def write() -> None:
            with store.open(NAME) as collection:
                stored(collection, vectors, texts)

        upsert, _ = timed(write)
        again, _ = timed(write)
        with store.open() as collection:
            found = searches(collection, queries)
        count = min(len(texts), LOCAL_POINTS)
        with _Local(url="http://local", directory=Path(folder, "local")).open(NAME) as collection:
            local, _ = timed(lambda: stored(collection, vectors[:count], texts[:count]))
            local_found = searches(collection, queries[:20])
        with EmbeddedQdrant(directory=Path(folder, "part")).open(NAME) as collection:
            stored(collection, vectors[:count], texts[:count])
            same = [row["uids"] for row in searches(collection, queries[:20])] == [row["uids"] for row in local_found]
    n = len(texts)
    figures = [
        ("encode, sorted batches", encode, n),
        ("the model alone, ready batches", alone, n),
        ("encode one at a time, as the reference", one, n),
        ("the reference on an A100, one at a time", REFERENCE_SECONDS * n / 10_000, n),
        ("store: write", upsert, n),
        ("store: write again, all there", again, n),
        ("qdrant-client's local mode: write", local, count),
    ]
    rows = [
        {"what": what, "captions": size, "seconds": seconds, "per_second": size / seconds}
        for what, seconds, size in figures
    ]
    publish("collection", ["what", "captions", "seconds", "per_second"], rows, f"{n:,} captions")
    shares = [
        {"what": "encoder / its bare rate", "captions": n, "ratio": alone / encode, "goal": 0.9},
        {"what": "same neighbours as qdrant-client", "captions": count, "ratio": float(same), "goal": 1.0},
    ]
    publish("collection", ["what", "captions", "ratio", "goal"], shares, "ratios")
    by_name = {row["search"]: row["p50_ms"] for row in local_found}
    timings = [
        {
            **{name: row[name] for name in ("search", "p50_ms", "p95_ms")},
            "captions": n,
            "qdrant_client_local_p50_ms": by_name[row["search"]],
            "local_points": count,
        }
        for row in found
    ]
    columns = ["search", "captions", "p50_ms", "p95_ms", "qdrant_client_local_p50_ms", "local_points"]
    publish("collection", columns, timings, f"ten nearest of {n:,}")


if __name__ == "__main__":
    typer.run(main)
