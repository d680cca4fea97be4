"""Load the published vectors into a Qdrant collection: python load_vectors.py COLLECTION [URL or folder].

Needs pyarrow and qdrant-client. Loading again changes nothing: a point's id is the uid of its sample.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.dataset as ds

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

VECTOR = "vector_"


def load(client: QdrantClient, collection: str, folder: Path) -> int:
    """Put every sample of vectors/*.parquet into a collection, made first if there is none; returns how many."""
    from qdrant_client import models

    verified = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    files = ds.dataset(folder / "vectors", format=ds.ParquetFileFormat(default_fragment_scan_options=verified))
    sizes = {field.name: field.type.list_size for field in files.schema if field.name.startswith(VECTOR)}
    if not client.collection_exists(collection):
        vectors = {
            name.removeprefix(VECTOR): models.VectorParams(size=size, distance=models.Distance.COSINE)
            for name, size in sizes.items()
        }
        client.create_collection(collection, vectors_config=vectors)
    loaded = 0
    for batch in files.to_batches(batch_size=500):
        points = []
        for row in batch.to_pylist():
            named = {name.removeprefix(VECTOR): row.pop(name) for name in sizes}
            known = {name: value for name, value in row.items() if value is not None}
            present = {name: vector for name, vector in named.items() if vector is not None}
            points.append(models.PointStruct(id=str(uuid.UUID(row["uid"])), vector=present, payload=known))
        if points:
            client.upsert(collection, points)
        loaded += len(points)
    return loaded


if __name__ == "__main__":
    from qdrant_client import QdrantClient as Client

    name, place = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "http://localhost:6333"
    with_client = Client(url=place) if "://" in place else Client(path=place)
    sys.stdout.write(f"{load(with_client, name, Path(__file__).parent):,} points\n")
    with_client.close()
