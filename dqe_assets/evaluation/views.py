"""Tables and views of evaluations in the warehouse, and what the report and the gallery show of them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dqe_assets.core.relations import GalleryPlots, Read, Relations, ReportSection, Table, columns
from dqe_assets.evaluation import plots
from dqe_assets.evaluation.tables import CONCEPT_ACCURACIES, EVALUATION, LEADERBOARD, TRAINING_CURVES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import duckdb

    from dqe_assets.core.relations import Drawing

_EVALUATION = columns(
    EVALUATION,
    run="VARCHAR",
    subset="VARCHAR",
    captions="VARCHAR",
    data="VARCHAR",
    data_size="BIGINT",
    scale="VARCHAR",
    seed="BIGINT",
    schedule="VARCHAR",
    checkpoint="INTEGER",
    is_final="BOOLEAN",
    at_peak="BOOLEAN",
    samples_seen="BIGINT",
    task="VARCHAR",
    task_name="VARCHAR",
    metric="VARCHAR",
    value="DOUBLE",
    is_main="BOOLEAN",
    images="BIGINT",
    left_out="BIGINT",
)
_CLASSES = {
    **{name: _EVALUATION[name] for name in ("run", "checkpoint", "task")},
    "class_name": ("VARCHAR", "name of the class"),
    "images": ("BIGINT", "images of the class"),
    "correct": ("BIGINT", "of these, how many the model puts into it"),
}
_LEADERBOARD = columns(
    LEADERBOARD,
    scale="VARCHAR",
    score="VARCHAR",
    data="VARCHAR",
    data_size="BIGINT",
    samples_seen="BIGINT",
    seeds="BIGINT",
    value="DOUBLE",
    spread="DOUBLE",
    difference="DOUBLE",
    difference_low="DOUBLE",
    difference_high="DOUBLE",
    rank="BIGINT",
    cost="DOUBLE",
    gpu_hours="DOUBLE",
    cpu_hours="DOUBLE",
)
_CURVES = columns(
    TRAINING_CURVES,
    pool="VARCHAR",
    pool_size="BIGINT",
    samples_seen="BIGINT",
    metric="VARCHAR",
    error="DOUBLE",
    seeds="BIGINT",
    spread="DOUBLE",
)
_ACCURACIES = columns(
    CONCEPT_ACCURACIES,
    run="VARCHAR",
    data="VARCHAR",
    data_size="BIGINT",
    scale="VARCHAR",
    seed="BIGINT",
    task="VARCHAR",
    class_name="VARCHAR",
    caption_samples="DOUBLE",
    image_samples="BIGINT",
    images="BIGINT",
    correct="BIGINT",
    accuracy="DOUBLE",
)
_BOTH = """
    (SELECT * FROM stored_evaluation UNION ALL BY NAME SELECT * FROM stored_model_evaluation)
"""


def _drawings(database: duckdb.DuckDBPyConnection, _: int) -> Iterator[Drawing]:
    rows = database.sql("FROM leaderboard").to_arrow_table().to_pylist()
    for scale in dict.fromkeys(row["scale"] for row in rows):
        of_scale = [row for row in rows if row["scale"] == scale]
        first = of_scale[0]["score"]
        shown = [row for row in of_scale if row["score"] == first]
        yield f"{scale}: {first} of each subset", partial(plots.leaderboard, shown)
        if len(shown) > 1:
            yield f"{scale}: {first} over the size of the subset, at equal compute", partial(plots.over_size, shown)
    curves = database.sql("FROM training_curves").to_arrow_table().to_pylist()
    for metric in dict.fromkeys(row["metric"] for row in curves):
        mine = [row for row in curves if row["metric"] == metric]
        if len(mine) > len({row["pool"] for row in mine}):
            yield f"{metric} over the samples seen", partial(plots.over_samples_seen, metric, mine)


RELATIONS = Relations(
    reads=(
        Read("evaluation", EVALUATION, " ".join([*_EVALUATION, "classes"])),
        Read("model_evaluation", EVALUATION, " ".join([*_EVALUATION, "classes"])),
        Read("leaderboard", LEADERBOARD, " ".join(_LEADERBOARD)),
        Read("training_curves", TRAINING_CURVES, " ".join(_CURVES)),
        Read("concept_accuracies", CONCEPT_ACCURACIES, " ".join(_ACCURACIES)),
    ),
    tables=(
        Table(
            "evaluation",
            "What each evaluated model does on each task, by each metric",
            _EVALUATION,
            f"SELECT {', '.join(_EVALUATION)} FROM {_BOTH} ORDER BY run, checkpoint, task, metric",  # noqa: S608
        ),
        Table(
            "evaluation_classes",
            "How many images of each class each evaluated model gets right",
            _CLASSES,
            f"""
            SELECT run, checkpoint, task, one.class_name, one.images, one.correct
            FROM (SELECT run, checkpoint, task, unnest(classes) AS one FROM {_BOTH})
            ORDER BY run, checkpoint, task, one.class_name
            """,  # noqa: S608
        ),
        Table(
            "leaderboard",
            "Subsets compared at each scale, with the difference to all samples",
            _LEADERBOARD,
            f"SELECT {', '.join(_LEADERBOARD)} FROM stored_leaderboard ORDER BY scale, score, value DESC",  # noqa: S608
        ),
        Table(
            "training_curves",
            "Error of each subset over the samples seen, averaged over seeds",
            _CURVES,
            f"SELECT {', '.join(_CURVES)} FROM stored_training_curves ORDER BY metric, pool, samples_seen",  # noqa: S608
        ),
        Table(
            "concept_accuracies",
            "For each training run and class, how many samples of its own subset show the class, and its accuracy",
            _ACCURACIES,
            f"SELECT {', '.join(_ACCURACIES)} FROM stored_concept_accuracies ORDER BY run, task, class_name",  # noqa: S608
        ),
    ),
    report_sections=(
        ReportSection(
            "Leaderboard",
            "Subsets trained with the same compute, each compared with all samples by runs of the same seed. There is "
            "no rank where the 95 % interval of the difference holds 0. Hours and cost are means of a run.",
            """
            SELECT scale, score, data, seeds, value, difference, difference_low, difference_high, rank, gpu_hours,
                cpu_hours, cost
            FROM leaderboard ORDER BY scale, score, value DESC
            """,
            order=141,
            only_with="leaderboard",
        ),
    ),
    gallery_plots=(GalleryPlots(_drawings, order=141),),
)
