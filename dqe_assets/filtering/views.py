"""Views and report sections of filters: what each keeps, what two keep together, what each step removes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.core.relations import Read, Relations, ReportSection, Table, Temporary, sql_file
from dqe_assets.core.schema import UID
from dqe_assets.filtering.masks import pairs_table, steps_table
from dqe_assets.filtering.tables import filter_masks_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILTER = {"filter": ("VARCHAR", "name of the filter in data/dqe.yaml")}

_TABLES = (
    Table(
        "planted_truth",
        "What is right and wrong with the samples of the embedded sample; empty for other data",
        {
            "uid": ("VARCHAR", UID.description),
            "caption": ("VARCHAR", "right, or what is wrong with the caption"),
            "image": ("VARCHAR", "the kind of image"),
        },
        "SELECT uid, truth.caption, truth.image FROM stored_raw_samples WHERE truth IS NOT NULL ORDER BY uid",
        by_shard=True,
    ),
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
        sql_file(__file__, "filters"),
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
        sql_file(__file__, "filter_planted"),
    ),
)


def _of_configured(manifest: Mapping[str, Any]) -> Relations:
    """What depends on which filters there are: their masks, as a column for each and as rows, and their steps.

    Args:
        manifest: ``Tally.facts`` of the asset ``filter_masks``; empty if it is not materialised.
    """
    facts = manifest or {"filters": [], "both": []}
    filters = {one["filter"]: one["expression"] for one in facts["filters"]}
    # Names are checked when the settings are loaded.
    as_rows = [
        f"SELECT uid, '{name}' AS filter, \"{name}\" AS kept FROM stored_filter_masks"  # noqa: S608
        for name in filters
    ]
    no_rows = "SELECT uid, NULL::VARCHAR AS filter, false AS kept FROM stored_filter_masks LIMIT 0"
    return Relations(
        reads=(Read("filter_masks", filter_masks_schema(filters), " ".join(["uid", *filters])),),
        computed=(lambda _: {"filter_steps": steps_table(facts), "filter_pairs": pairs_table(facts)},),
        temporary=(Temporary("kept_by_filter", " UNION ALL ".join(as_rows) or no_rows),),
        tables=(
            Table(
                "filter_masks",
                "Every sample, failed ones too, and whether each filter keeps it: a column for each filter",
                {"uid": ("VARCHAR", UID.description)}
                | {name: ("BOOLEAN", f"whether {expression} keeps it") for name, expression in filters.items()},
                "SELECT * FROM stored_filter_masks",
            ),
        ),
    )


RELATIONS = Relations(
    tables=_TABLES,
    report_sections=(
        ReportSection(
            "Filters",
            "What the filters of data/dqe.yaml keep, and how well the original captions of that and of the rest fit.",
            """
            SELECT filter, kept, share, mean_original_similarity AS original,
                mean_original_similarity_left_out AS left_out, duplicates AS redundant, precision, recall
            FROM filters ORDER BY filter
            """,
            order=90,
        ),
    ),
    by_manifest={"filter_masks": _of_configured},
)
