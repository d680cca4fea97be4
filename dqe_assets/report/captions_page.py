"""The captioners side by side on one HTML page: what they cost, how well they do, and the same images by all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from dqe_assets.concepts.lemmas import lemma
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.report.gallery import css_colours, page, photos_of
from dqe_assets.report.gallery_reader import CAPTION_CHARACTERS, GalleryReader
from dqe_assets.score import views as score_views
from dqe_resources.errors import DataQualityError
from dqe_resources.printable import printable
from dqe_resources.warehouse import of_this_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from dqe_assets.report.gallery import GalleryInputs

IMAGES = 20
"""Images of the grid."""

_WORD = re.compile(r"[^\W_]+")
_LOST = 6

Better = Literal["high", "low", ""]
"""Which end of a measure is the better one; neither, if nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A row of the comparison.

    Attributes:
        name: what is measured, in words.
        column: its column in ``_MEASURED``.
        form: how a value is written.
        better: which end is the better one.
        unit: what stands behind a value.
    """

    name: str
    column: str
    form: str = "{:.3f}"
    better: Better = "high"
    unit: str = ""


_MEASURES: dict[str, tuple[Measure, ...]] = {
    "Fit": (
        Measure("similarity", "mean_similarity"),
        Measure("truth (vqa)", "mean_vqa"),
        Measure("correlation of both", "rank_correlation", "{:+.2f}", ""),
        Measure("preferred to the original", "preferred", "{}"),
    ),
    "Grounding": (
        Measure("things found in the image", "mean_precision", "{:.0%}"),
        Measure("image's concepts named", "mean_recall", "{:.0%}"),
        Measure("F1", "mean_f1"),
        Measure("ungrounded", "share_ungrounded", "{:.1%}", "low"),
    ),
    "Concepts": (
        Measure("of the original's kept", "kept", "{:.0%}"),
        Measure("most lost", "lost", "{}", ""),
        Measure("in a caption", "concepts_each", "{:.2f}", ""),
    ),
    "Text": (
        Measure("words (median)", "median_words", "{:.0f}", ""),
        Measure("flagged", "share_flagged", "{:.1%}", "low"),
        Measure("flags", "flags", "{}", ""),
        Measure("too long for the scorer", "truncated_share", "{:.1%}", "low"),
    ),
    "Cost": (
        Measure("captions", "captions", "{:,}", ""),
        Measure("failed", "errors", "{:,}", "low"),
        Measure("a caption", "seconds_per_caption", "{:.3g}", "low", " s"),
        Measure("tokens read, each", "prompt_tokens_each", "{:,.0f}", "low"),
        Measure("tokens written, each", "mean_completion_tokens", "{:,.0f}", ""),
        Measure("a thousand captions", "cost_per_thousand", "{:,.2f}", "low"),
    ),
}

_MEASURED = """
WITH originals AS (
    SELECT uid, unnest(concepts) AS concept FROM concept_hits WHERE item = 'original'
), gone AS (
    SELECT caption_source, string_agg(concept || ' ' || n, ', ' ORDER BY n DESC, concept) AS lost
    FROM (
        SELECT h.item AS caption_source, o.concept, count(*) AS n
        FROM originals o JOIN concept_hits h ON h.uid = o.uid AND h.item NOT IN ('original', 'image')
        WHERE NOT list_contains(h.concepts, o.concept)
        GROUP BY h.item, o.concept QUALIFY row_number() OVER (PARTITION BY h.item ORDER BY n DESC, o.concept) <= $lost
    ) GROUP BY caption_source
), shown AS (
    SELECT item AS caption_source, avg(len(concepts)) AS concepts_each FROM concept_hits
    WHERE item <> 'image' GROUP BY item
), read AS (
    SELECT caption_source, sum(prompt_tokens) / nullif(sum(captions), 0) AS prompt_tokens_each
    FROM caption_accounting GROUP BY caption_source
), preferred AS (
    SELECT source_b AS caption_source, any_value(share_b) AS preferred, any_value(share_b_low) AS preferred_low,
        any_value(share_b_high) AS preferred_high
    FROM preference_intervals WHERE source_a = 'original' AND against IS NULL AND threshold = 0.7 GROUP BY source_b
)
SELECT q.caption_source, q.captions, q.mean_similarity, q.mean_vqa, q.truncated_share, c.model, c.independent,
    c.errors, c.seconds_per_caption, c.cost_per_thousand, c.mean_completion_tokens, nullif(c.flags, '') AS flags,
    c.flagged / nullif(q.captions, 0) AS share_flagged, t.median_words, g.mean_precision, g.mean_recall, g.mean_f1,
    g.share_ungrounded, a.rank_correlation, k.share AS kept, gone.lost, shown.concepts_each,
    nullif(read.prompt_tokens_each, 0) AS prompt_tokens_each,
    preferred.preferred, preferred.preferred_low, preferred.preferred_high
FROM caption_quality q LEFT JOIN captioner_comparison c USING (caption_source)
LEFT JOIN text_quality_by_source t USING (caption_source) LEFT JOIN grounding_by_source g USING (caption_source)
LEFT JOIN scorer_agreement a USING (caption_source) LEFT JOIN kept_concepts k USING (caption_source)
LEFT JOIN gone USING (caption_source) LEFT JOIN shown USING (caption_source) LEFT JOIN read USING (caption_source)
LEFT JOIN preferred USING (caption_source)
ORDER BY q.caption_source <> 'original', q.caption_source
"""

_SAME_IMAGES = """
WITH written AS (
    SELECT uid, count(caption) AS captions FROM captions WHERE list_contains($sources, caption_source) GROUP BY uid
)
SELECT s.uid, s.image_name FROM samples s JOIN written w USING (uid)
WHERE s.status = 'ok' AND NOT s.is_duplicate ORDER BY w.captions DESC, md5(s.uid), s.uid LIMIT $images
"""

_CAPTIONS = """
SELECT c.uid, c.caption_source, c.caption, c.similarity, c.vqa, g."precision", g.ungrounded, n.flags
FROM captions c LEFT JOIN grounding g USING (uid, caption_source)
LEFT JOIN caption_generation n USING (uid, caption_source)
WHERE list_contains($uids, c.uid) AND list_contains($sources, c.caption_source)
"""


class NoSourceError(DataQualityError):
    """There are no captions of a source: says which there are."""


def render_captions(inputs: GalleryInputs, sources: Sequence[str] = (), images: int = IMAGES) -> str:
    """One self-contained HTML page that compares caption sources.

    Args:
        inputs: what the gallery reads.
        sources: the caption sources, in their order; by default all, the original first.
        images: images of the grid.

    Raises:
        NoSourceError: there are no captions of one.
        WarehouseError: the warehouse lacks a table or column that the page shows.
    """
    with of_this_version():
        return _rendered(inputs, sources, images)


def _rendered(inputs: GalleryInputs, sources: Sequence[str], images: int) -> str:
    found = {row["caption_source"]: row for row in _rows(inputs.connection, _MEASURED, lost=_LOST)}
    unknown = [name for name in sources if name not in found]
    if unknown:
        raise NoSourceError(f"there are no captions of '{printable(unknown[0])}'; there are: {', '.join(found)}")
    shown = list(sources) or list(found)
    reader = GalleryReader(inputs.connection, inputs.per_section)
    samples = _rows(inputs.connection, _SAME_IMAGES, sources=shown, images=images)
    uids = [row["uid"] for row in samples]
    captions = {
        (row["uid"], row["caption_source"]): _caption(row)
        for row in _rows(inputs.connection, _CAPTIONS, uids=uids, sources=shown)
    }
    return page(
        "captions.html.j2",
        title=inputs.title,
        scorer=reader.scorer(),
        notes=reader.notes(),
        sources=[found[name] for name in shown],
        groups=_table([found[name] for name in shown]),
        preferences=_preferences(inputs.connection, shown),
        plots=reader.plots([score_views.RELATIONS]),
        samples=[
            {"uid": row["uid"], "name": row["image_name"], "captions": [captions.get((row["uid"], n)) for n in shown]}
            for row in samples
        ],
        colours=css_colours(reader.sources),
        photos=photos_of(inputs.images(uids)),
        original=ORIGINAL,
    )


def _table(found: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, list[tuple[str, bool]]]]]]:
    """The comparison: groups of rows, each a name and a cell for each source, written, with whether it is the best."""
    groups = []
    for title, measures in _MEASURES.items():
        rows = []
        for one in measures:
            values = [row[one.column] for row in found]
            if any(value is not None for value in values):
                rows.append((one.name, [(_written(one, row), row[one.column] == _best(one, values)) for row in found]))
        if rows:
            groups.append((title, rows))
    return groups


def _best(one: Measure, values: Sequence[Any]) -> Any:
    """The best of the values; nothing if there is none, or nothing to choose from."""
    there = [value for value in values if value is not None]
    if not one.better or len(set(there)) < 2:
        return ()
    return max(there) if one.better == "high" else min(there)


def _written(one: Measure, row: dict[str, Any]) -> str:
    value = row[one.column]
    if value is None:
        return "–"
    if one.column == "preferred":
        return f"{value:.0%} ({row['preferred_low']:.0%} to {row['preferred_high']:.0%})"
    return one.form.format(value) + one.unit


def _preferences(connection: duckdb.DuckDBPyConnection, shown: Sequence[str]) -> list[dict[str, Any]]:
    """For each pair of sources, how often each is preferred above 70 %, with intervals."""
    return _rows(
        connection,
        """
        SELECT i.source_a AS a, i.source_b AS b, i.n, i.share_a, i.share_a_low, i.share_a_high, i.share_b,
            i.share_b_low, i.share_b_high, p.independent
        FROM preference_intervals i JOIN caption_preference p USING (source_a, source_b, scorer)
        WHERE i.against IS NULL AND i.threshold = 0.7 AND i.n > 0
            AND list_contains($sources, i.source_a) AND list_contains($sources, i.source_b)
        ORDER BY i.source_a <> 'original', i.source_a, i.source_b
        """,
        sources=list(shown),
    )


def _caption(row: dict[str, Any]) -> dict[str, Any]:
    """A caption with the words that its image does not bear out marked."""
    text = None if row["caption"] is None else printable(row["caption"])[:CAPTION_CHARACTERS]
    absent = {word for name in row["ungrounded"] or () for word in name.split()}
    return {**row, "text": None if text is None else _marked(text, absent)}


def _marked(text: str, absent: set[str]) -> Markup:
    parts, end = [], 0
    for match in _WORD.finditer(text) if absent else ():
        if lemma(match[0].casefold()) in absent:
            parts += [Markup.escape(text[end : match.start()]), Markup("<mark>{}</mark>").format(match[0])]
            end = match.end()
    return Markup("").join([*parts, Markup.escape(text[end:])])


def _rows(connection: duckdb.DuckDBPyConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(query, params=values).to_arrow_table().to_pylist()
    return rows
