"""The metadata of these assets in the UI: scores, what is missing, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.core.metadata import Metadata, markdown_table, picture
from dqe_assets.core.schema import IMAGE
from dqe_assets.core.work import facts_of
from dqe_assets.evaluation import plots

if TYPE_CHECKING:
    import pyarrow as pa

    from dqe_assets.core.work import Work

_WORST_CLASSES = 10


def evaluation(_: Work, table: pa.Table) -> Metadata:
    """The score on each task, which tasks are missing, and the classes that are found worst."""
    rows = table.to_pylist()
    main = [row for row in rows if row["is_main"]]
    classes = [
        (row["task_name"], one["class_name"], one["correct"] / one["images"], one["images"])
        for row in main
        if row["is_final"]
        for one in row["classes"] or ()
    ]
    classes.sort(key=lambda one: (one[2], one[1]))
    return {
        "tasks": len({row["task"] for row in rows}),
        "samples_left_out": sum(row["left_out"] for row in main),
        "scores": markdown_table(
            ["model", "samples seen", "task", "metric", "value", "images"],
            [[row[name] for name in ("run", "samples_seen", "task_name", "metric", "value", "images")] for row in main],
        ),
        "worst_classes": markdown_table(["task", "class", "accuracy", "images"], classes[:_WORST_CLASSES]),
        "tasks_missing": list(facts_of(table).get("missing", [])),
    }


def class_counts(_: Work, table: pa.Table) -> Metadata:
    """How many classes no sample shows, and the rarest of the others, in captions and in images."""
    shown: dict[tuple[str, str], int] = {}
    for row in table.to_pylist():
        place = ("images" if row["item"] == IMAGE else "captions", row["class_name"])
        shown[place] = shown.get(place, 0) + row["samples"]
    rarest = sorted((count, *place) for place, count in shown.items() if count)
    return {
        "classes": len({name for _, name in shown}),
        "never_in_captions": sum(not count for (item, _), count in shown.items() if item == "captions"),
        "rarest": markdown_table(["samples", "shown in", "class"], rarest[:_WORST_CLASSES]),
    }


def concept_accuracies(_: Work, table: pa.Table) -> Metadata:
    """How many runs and classes there are, and the classes that are found worst, with their counts."""
    rows = sorted(table.to_pylist(), key=lambda row: (row["accuracy"], row["class_name"]))
    columns = ("run", "task", "class_name", "caption_samples", "image_samples", "accuracy", "images")
    return {
        "runs": len({row["run"] for row in rows}),
        "classes": len({(row["task"], row["class_name"]) for row in rows}),
        "worst": markdown_table(columns, [[row[name] for name in columns] for row in rows[:_WORST_CLASSES]]),
    }


def leaderboard(_: Work, table: pa.Table) -> Metadata:
    """Each scale's first score as a table and a plot."""
    rows = table.to_pylist()
    if not rows:
        return {"subsets": 0}
    first = [row for row in rows if (row["scale"], row["score"]) == (rows[0]["scale"], rows[0]["score"])]
    return {
        "subsets": len({row["data"] for row in rows}),
        "leaderboard": markdown_table(
            ["scale", "score", "subset", "seeds", "value", "difference to all", "from", "to", "rank"],
            [
                [
                    row[name]
                    for name in (
                        *("scale", "score", "data", "seeds", "value"),
                        *("difference", "difference_low", "difference_high", "rank"),
                    )
                ]
                for row in rows
            ],
        ),
        "compared": picture(plots.leaderboard(first), f"{first[0]['score']} of each subset"),
        "over_size": picture(plots.over_size(first), f"{first[0]['score']} over the size of the subset"),
    }


def training_curves(_: Work, table: pa.Table) -> Metadata:
    """How many curves there are, and the first metric's."""
    rows = table.to_pylist()
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    found: Metadata = {"pools": len({row["pool"] for row in rows}), "metrics": metrics}
    if rows:
        first = [row for row in rows if row["metric"] == metrics[0]]
        found = {**found, "curves": picture(plots.over_samples_seen(metrics[0], first), "error over samples seen")}
    return found
