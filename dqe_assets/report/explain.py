"""All that the warehouse knows of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from dqe_assets.report.warehouse import Section

if TYPE_CHECKING:
    import duckdb

    from dqe_resources.warehouse import Warehouse

_CAPTIONS = """
SELECT caption_source, similarity, tokens, truncated, caption FROM captions WHERE uid = ?
ORDER BY caption_source <> 'original', caption_source
"""
_GENERATION = """
SELECT caption_source, model, prompt, finish_reason, flags, seconds, attempts, error
FROM caption_generation WHERE uid = ? ORDER BY caption_source
"""
_DUPLICATES = """
SELECT d.kind, d.size, s.image_name AS kept, d.similarity
FROM duplicates d JOIN samples s ON s.uid = d.representative WHERE d.uid = ? ORDER BY d.kind
"""
_REPEATED = """
SELECT d.caption_source, d.kind, d.size AS captions, d.similarity, c.caption AS representative
FROM caption_duplicates d JOIN captions c ON c.uid = d.representative AND c.caption_source = d.caption_source
WHERE d.uid = ? ORDER BY d.caption_source <> 'original', d.caption_source, d.kind
"""
_NEAR = "SELECT DISTINCT image_name FROM samples ORDER BY levenshtein(image_name, ?), image_name LIMIT 3"
_SECTIONS = (
    ("Captions", _CAPTIONS),
    ("Synthetic captions", _GENERATION),
    ("Duplicates", _DUPLICATES),
    ("Repeated captions", _REPEATED),
)


def sample_sections(warehouse: Warehouse, image_name: str) -> list[Section]:
    """The samples of that name: captions, their scores and how they were made, duplicates, filters, repeated captions.

    A name that several sources use gives a sample of each.

    Raises:
        ValueError: no sample has that name; says which names are near.
        WarehouseError: there is no warehouse.
    """
    with warehouse.connect() as connection:
        samples = _rows(connection, "SELECT * FROM samples WHERE image_name = ? ORDER BY uid", image_name)
        if not samples.num_rows:
            near = _rows(connection, _NEAR, image_name)["image_name"].to_pylist()
            msg = f"no sample is named {image_name}" + (f"; near it: {', '.join(near)}" if near else "")
            raise ValueError(msg)
        sections = []
        for sample in samples.to_pylist():
            known = {name: value for name, value in sample.items() if value is not None}
            fields = pa.table({"field": list(known), "value": [_text(value) for value in known.values()]})
            sections.append(Section(f"{sample['image_name']} ({sample['source']})", "", fields))
            for title, query in _SECTIONS:
                table = _rows(connection, query, sample["uid"])
                if table.num_rows:
                    sections.append(Section(title, "", table))
            for masks in _rows(connection, "SELECT * FROM filter_masks WHERE uid = ?", sample["uid"]).to_pylist():
                kept = {name: value for name, value in masks.items() if name != "uid"}
                sections.append(Section("Filters", "", pa.table({"filter": list(kept), "keeps": list(kept.values())})))
        return sections


def _rows(connection: duckdb.DuckDBPyConnection, query: str, value: str) -> pa.Table:
    return connection.sql(query, params=[value]).to_arrow_table()


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
