"""What the warehouse says of filters: what each keeps, what two keep together, what each step removes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.relations import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILTER = {"filter": ("VARCHAR", "name of the filter in data/dqe.yaml")}

_PLANTED = """
    CASE WHEN truth.caption LIKE 'language_%' THEN 'caption: other language'
         WHEN truth.caption <> 'right' THEN 'caption: ' || truth.caption
         ELSE 'image: ' || truth.image END
"""
"""What was planted in a row of the embedded sample; its caption is right where it is named by its image."""

_GOOD = "truth.caption = 'right' AND truth.image NOT IN ('tiny', 'extreme_aspect')"


def masks_table(filters: Mapping[str, str]) -> Table:
    """The table ``filter_masks``: a column for each filter.

    Args:
        filters: what each filter is, by its name.
    """
    columns = {"uid": ("VARCHAR", "128-bit hex digest of the source's own key of the row")}
    columns |= {name: ("BOOLEAN", f"whether {expression} keeps it") for name, expression in filters.items()}
    quoted = ", ".join(f'"{name}"' for name in columns)
    return Table(
        "filter_masks",
        "Every sample, failed ones too, and whether each filter keeps it: a column for each filter",
        columns,
        f"SELECT {quoted} FROM stored_masks",  # noqa: S608 - names are checked when the settings are loaded
    )


def kept_by_filter(filters: Mapping[str, str]) -> str:
    """SQL for the masks as rows: ``uid``, ``filter``, ``kept``."""
    parts = [f"SELECT uid, '{name}' AS filter, \"{name}\" AS kept FROM stored_masks" for name in filters]  # noqa: S608
    return " UNION ALL ".join(parts) or "SELECT uid, NULL::VARCHAR AS filter, false AS kept FROM stored_masks LIMIT 0"


FILTER_TABLES = (
    Table(
        "filters",
        "Every filter: how many samples it keeps, how well their captions fit, and how well it finds what was planted",
        _FILTER
        | {
            "expression": ("VARCHAR", "what it is"),
            "samples": ("BIGINT", "samples with an image, which it chooses from"),
            "kept": ("BIGINT", "samples that it keeps"),
            "share": ("DOUBLE", "kept / samples [0 to 1]"),
            "mean_original_similarity": ("DOUBLE", "mean similarity of the original captions that it keeps [-1 to 1]"),
            "mean_original_similarity_left_out": ("DOUBLE", "the same of those that it leaves out [-1 to 1]"),
            "mean_best_similarity": ("DOUBLE", "mean similarity of the best captions of what it keeps [-1 to 1]"),
            "duplicates": ("BIGINT", "samples that it keeps and another one of their duplicate cluster stands for"),
            "precision": (
                "DOUBLE",
                (
                    "share of what it keeps that is good [0 to 1]; null without a planted truth. Good is a right "
                    "caption in English with an image neither tiny nor a strip"
                ),
            ),
            "recall": ("DOUBLE", "share of the good that it keeps [0 to 1]; null without a planted truth"),
        },
        f"""
        WITH steps AS (SELECT filter, any_value(expression) AS expression FROM filter_steps GROUP BY filter)
        SELECT filter, any_value(expression), count(*), count(*) FILTER (kept), count(*) FILTER (kept) / count(*),
            avg(original_similarity) FILTER (kept), avg(original_similarity) FILTER (NOT kept),
            avg(best_similarity) FILTER (kept), count(*) FILTER (kept AND is_duplicate),
            count(*) FILTER (kept AND {_GOOD}) / nullif(count(*) FILTER (kept AND truth IS NOT NULL), 0),
            count(*) FILTER (kept AND {_GOOD}) / nullif(count(*) FILTER ({_GOOD}), 0)
        FROM kept_by_filter JOIN steps USING (filter) JOIN samples USING (uid)
            JOIN (SELECT uid, truth FROM raw_samples) USING (uid)
        WHERE status = 'ok' GROUP BY filter ORDER BY filter
        """,  # noqa: S608
    ),
    Table(
        "filter_overlap",
        "Every pair of filters, both ways round: how many samples both keep",
        {
            "filter_a": ("VARCHAR", "a filter"),
            "filter_b": ("VARCHAR", "another, or the same"),
            "kept_by_both": ("BIGINT", "samples that both keep"),
            "share_of_a": ("DOUBLE", "share of what a keeps that b keeps too [0 to 1]"),
            "jaccard": ("DOUBLE", "kept_by_both / samples that at least one of the two keeps [0 to 1]"),
        },
        """
        WITH alone AS (SELECT filter_a AS filter, kept_by_both AS kept FROM filter_pairs WHERE filter_a = filter_b)
        SELECT filter_a, filter_b, kept_by_both, kept_by_both / nullif(a.kept, 0),
            kept_by_both / nullif(a.kept + b.kept - kept_by_both, 0)
        FROM filter_pairs JOIN alone a ON a.filter = filter_a JOIN alone b ON b.filter = filter_b
        ORDER BY filter_a, filter_b
        """,
    ),
    Table(
        "filter_funnel",
        "Every step of every filter, in order: what it removes of what the steps before have left",
        _FILTER
        | {
            "step": ("INTEGER", "place in the expression, from 1"),
            "condition": ("VARCHAR", "what the step asks for"),
            "kept": ("BIGINT", "samples that are left after it"),
            "removed": ("BIGINT", "samples that it removes"),
            "share": ("DOUBLE", "kept / all samples with an image [0 to 1]"),
        },
        """
        SELECT filter, step, condition, kept, lag(kept, 1, samples) OVER (PARTITION BY filter ORDER BY step) - kept,
            kept / nullif(samples, 0)
        FROM filter_steps ORDER BY filter, step
        """,
    ),
    Table(
        "filter_planted",
        "What was planted in the embedded sample, and how much of it each filter keeps; empty for other data",
        _FILTER
        | {
            "planted": ("VARCHAR", "what is wrong with the caption; where that is right, the kind of image"),
            "samples": ("BIGINT", "samples with an image of that kind"),
            "kept": ("BIGINT", "those that it keeps"),
            "share": ("DOUBLE", "kept / samples [0 to 1]"),
        },
        f"""
        SELECT filter, {_PLANTED} AS planted, count(*), count(*) FILTER (kept), count(*) FILTER (kept) / count(*)
        FROM kept_by_filter JOIN raw_samples USING (uid)
        WHERE status = 'ok' AND truth IS NOT NULL GROUP BY ALL ORDER BY filter, planted
        """,  # noqa: S608
    ),
)

FILTERS_REPORT = """
SELECT filter, kept, share, mean_original_similarity AS original, mean_original_similarity_left_out AS left_out,
    duplicates AS redundant, precision, recall
FROM filters ORDER BY filter
"""
"""The filters, for the quality report."""
