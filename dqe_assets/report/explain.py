"""What is known of a sample, at a glance or with how every number of it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dqe_assets.filtering.filter_steps import filter_steps, is_in_subset
from dqe_assets.filtering.subset import SubsetError
from dqe_assets.report.build_warehouse import Section
from dqe_resources.cache import data_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import duckdb

    from dqe_assets.orchestration.settings import Settings

MASKS = "filter_masks"


@dataclass(frozen=True, slots=True)
class _Part:
    """Something to say of a sample.

    Attributes:
        title: its heading.
        assets: what its numbers are from; one that ends in / stands for all that begin so.
        query: its rows, by the uid.
        upright: whether a row is shown as a field in each line, those that are null left out.
    """

    title: str
    assets: tuple[str, ...]
    query: str
    upright: bool = False


_CAPTIONS = _Part(
    "Captions",
    ("raw_samples", "synthetic_captions/", "joint_embeddings", "caption_scores"),
    """
    SELECT caption_source, similarity, tokens, truncated, caption FROM captions WHERE uid = ?
    ORDER BY caption_source <> 'original', caption_source
    """,
)
_BEST = _Part(
    "Best caption",
    ("best_captions",),
    """
    SELECT * EXCLUDE (uid, set_aside), nullif(array_to_string(set_aside, '; '), '') AS set_aside
    FROM best_captions WHERE uid = ?
    """,
    upright=True,
)
GLANCE = (
    _Part("Sample", (), "SELECT * EXCLUDE (caption, best_source, best_similarity) FROM samples WHERE uid = ?", True),
    _CAPTIONS,
    _BEST,
)
"""What ``dqe get`` shows."""

EXPLAINED = (
    _Part(
        "As found",
        ("raw_samples",),
        """
        SELECT s.uid, s.source, s.shard, s."row", s.image_name, s.url, s.format, s.bytes, s.width, s.height, s.status,
            s.reason, f.detail, s.host, s.attempts, s.http_status, s.final_url, s.seconds, s.fetched_at,
            s.source_metadata
        FROM samples s LEFT JOIN failures f USING (uid) WHERE uid = ?
        """,
        upright=True,
    ),
    _Part(
        "Measured of the image",
        ("image_features",),
        """
        SELECT sharpness, brightness, contrast, colourfulness, top_label, top_label_probability
        FROM samples WHERE uid = ? AND status = 'ok'
        """,
        upright=True,
    ),
    _CAPTIONS,
    _Part(
        "Synthetic captions",
        ("synthetic_captions/",),
        """
        SELECT caption_source, model, prompt, finish_reason, flags, seconds, attempts, error
        FROM caption_generation WHERE uid = ? ORDER BY caption_source
        """,
    ),
    _Part(
        "Text of the captions",
        ("text_quality",),
        """
        SELECT * EXCLUDE (uid, patterns), array_to_string(patterns, ', ') AS patterns
        FROM text_quality WHERE uid = ? AND words IS NOT NULL
        ORDER BY caption_source <> 'original', caption_source
        """,
    ),
    _Part(
        "Text in the image",
        ("image_text", "masked_similarity"),
        "SELECT * EXCLUDE uid FROM image_text WHERE uid = ? AND regions IS NOT NULL",
        upright=True,
    ),
    _Part(
        "Judgements",
        ("caption_judgements",),
        """
        SELECT caption_source, faithful, complete, fluent, invents_nothing, overall,
            concat_ws('; ', reasons.faithful, reasons.complete, reasons.fluent, reasons.invents_nothing) AS reasons,
            place, model, error
        FROM caption_judgements WHERE uid = ? ORDER BY place
        """,
    ),
    _Part(
        "Asked for again",
        ("refined_captions",),
        """
        SELECT caption_source, round, candidate, reason, previous_similarity, similarity, accepted, veto, caption,
            model, prompt, temperature, error
        FROM refined_captions WHERE uid = ? ORDER BY round, candidate
        """,
    ),
    _BEST,
    _Part(
        "Duplicates",
        ("duplicate_pairs", "duplicate_clusters"),
        """
        SELECT d.kind, d.size, s.image_name AS kept, d.similarity
        FROM duplicates d JOIN samples s ON s.uid = d.representative WHERE d.uid = ? ORDER BY d.kind
        """,
    ),
    _Part(
        "Repeated captions",
        ("caption_duplicates",),
        """
        SELECT d.caption_source, d.kind, d.size AS captions, d.similarity, c.caption AS representative
        FROM caption_duplicates d
        JOIN captions c ON c.uid = d.representative AND c.caption_source = d.caption_source
        WHERE d.uid = ? ORDER BY d.caption_source <> 'original', d.caption_source, d.kind
        """,
    ),
    _Part(
        "Concepts",
        ("concept_hits", "concept_frequency", "misalignment"),
        """
        SELECT h.item, array_to_string(h.concepts, ', ') AS concepts,
            EXISTS (FROM misaligned_samples m WHERE m.uid = h.uid AND m.caption_source = h.item) AS misaligned
        FROM concept_hits h WHERE h.uid = ? AND len(h.concepts) > 0
        ORDER BY h.item <> 'image', h.item <> 'original', h.item
        """,
    ),
    _Part(
        "Order and weight",
        ("curriculum", "rebalanced_subset"),
        """
        SELECT c.rank AS curriculum_rank, c.difficulty, r.weight
        FROM curriculum c FULL JOIN rebalanced_subset r USING (uid) WHERE uid = ?
        """,
        upright=True,
    ),
)
"""What ``dqe explain`` shows from the warehouse, in this order; what has no rows is left out."""

_WRITTEN = """
SELECT asset, partition, code_version, materialised_at, fingerprint
FROM materialisations WHERE partition = ? OR partition IS NULL ORDER BY asset
"""
_NEAR = "SELECT DISTINCT image_name FROM samples ORDER BY levenshtein(image_name, ?), image_name LIMIT 3"


def glance(settings: Settings, image_name: str) -> list[Section]:
    """The samples of that name at a glance, captions and the best of them; raises as ``explanation``."""
    with settings.warehouse.connect() as connection:
        return [
            section
            for sample in _samples(connection, image_name)
            for section, _ in _sections(connection, sample, GLANCE)
        ]


def explanation(settings: Settings, image_name: str) -> list[Section]:
    """The samples of that name: all that was measured and decided of each, and what every number is from.

    A name that several sources use gives a sample of each. What is from the warehouse is as it was when that was built:
    the last section of a sample says which of it the store has made anew since.

    Raises:
        ValueError: no sample has that name; says which names are near.
        WarehouseError: there is no warehouse.
        StorageError, PoolError: the sample's shard cannot be read.
    """
    sections = []
    with settings.warehouse.connect() as connection:
        for sample in _samples(connection, image_name):
            used = ["warehouse"]
            for section, assets in (
                *_sections(connection, sample, EXPLAINED),
                *_selection(settings, sample),
            ):
                sections.append(section)
                used += assets
            sections.append(_origin(settings, connection, sample, used))
    return sections


def _samples(connection: duckdb.DuckDBPyConnection, image_name: str) -> list[dict[str, Any]]:
    query = "SELECT uid, source, shard, image_name, status FROM samples WHERE image_name = ? ORDER BY uid"
    samples: list[dict[str, Any]] = _rows(connection, query, image_name).to_pylist()
    if not samples:
        near = _rows(connection, _NEAR, image_name)["image_name"].to_pylist()
        msg = f"no sample is named {image_name}" + (f"; near it: {', '.join(near)}" if near else "")
        raise ValueError(msg)
    return samples


def _sections(
    connection: duckdb.DuckDBPyConnection, sample: dict[str, Any], parts: Sequence[_Part]
) -> Iterator[tuple[Section, Sequence[str]]]:
    """What there is to say, each with the assets that it is from."""
    for number, part in enumerate(parts):
        table = _rows(connection, part.query, sample["uid"])
        if table.num_rows:
            title = part.title if number else f"{sample['image_name']} ({sample['source']})"
            yield Section(title, _from(part.assets), table, part.upright), part.assets


def _selection(settings: Settings, sample: dict[str, Any]) -> Iterator[tuple[Section, Sequence[str]]]:
    """What filters and subsets make of it: nothing where it has no image."""
    store = settings.opened_store
    masks = store.get(MASKS, None)
    if masks is None or sample["status"] != "ok" or sample["shard"] not in masks.stamp.facts["shards"]:
        return
    steps = filter_steps(store, sample["shard"], sample["uid"], masks.stamp.facts)
    if steps.num_rows:
        yield Section("Filters", _from([MASKS]), steps), [MASKS]
    rows = []
    for name in (f"subsets/{subset.name}" for subset in settings.subsets):
        stored = store.get(name, None)
        if stored is not None:
            facts = stored.stamp.facts
            try:
                is_in = "yes" if is_in_subset(data_directory() / facts["path"], sample["uid"]) else "no"
            except SubsetError as error:
                is_in = str(error)
            rows.append({"subset": name, "in_it": is_in, "expression": facts["expression"]})
    if rows:
        names = [row["subset"] for row in rows]
        yield Section("Subsets", _from(names), pa.Table.from_pylist(rows)), names


def _origin(
    settings: Settings, connection: duckdb.DuckDBPyConnection, sample: dict[str, Any], used: list[str]
) -> Section:
    """When and by what each of the assets was written, and whether the store still holds that."""
    written = {row["asset"]: row for row in _rows(connection, _WRITTEN, sample["shard"]).to_pylist()}
    names = [name for asset in used for name in (filter(_begins(asset), written) if asset.endswith("/") else [asset])]
    rows = []
    for name in dict.fromkeys(names):
        row = written.get(name)
        stored = settings.opened_store.get(name, row["partition"] if row else None)
        if row is None and stored is not None:
            # The warehouse, and what it holds nothing of.
            row = {
                "asset": name,
                "partition": None,
                "code_version": stored.stamp.code_version,
                "materialised_at": stored.written_at,
                "fingerprint": stored.stamp.identity,
            }
        if row is not None:
            now = "gone" if stored is None else "the same" if stored.stamp.identity == row["fingerprint"] else "another"
            rows.append({**row, "partition": row["partition"] or "all shards", "in_the_store_now": now})
    return Section("Where it is from", "Times are UTC.", pa.Table.from_pylist(rows))


def _begins(prefix: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefix)


def _from(assets: Sequence[str]) -> str:
    return f"From {', '.join(f'{name}*' if name.endswith('/') else name for name in assets)}." if assets else ""


def _rows(connection: duckdb.DuckDBPyConnection, query: str, value: str) -> pa.Table:
    return connection.sql(query, params=[value]).to_arrow_table()
