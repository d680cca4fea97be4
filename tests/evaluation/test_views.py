"""What the warehouse, the report and the gallery show of evaluations."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dqe_assets.concepts.counting import ConceptIndex
from dqe_assets.core.figures import DARK, LIGHT
from dqe_assets.evaluation import plots
from dqe_assets.evaluation.class_counts import caption_counts, concept_accuracies
from dqe_assets.evaluation.leaderboard import leaderboard, run_cost, training_curves
from dqe_assets.evaluation.views import RELATIONS as MINE
from dqe_assets.report.build_warehouse import WarehouseInputs, build_warehouse
from dqe_assets.report.tables import MATERIALISATIONS
from tests.evaluation.made_tasks import COLOURS
from tests.evaluation.test_leaderboard import row, table
from tests.report.make_store import RELATIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

SUBSETS = ["all", "best", "_a", r"$\frac{", "<b>|", "x" * 40]


def evaluated(subsets: int) -> pa.Table:
    """Evaluations of some subsets, of three seeds and four checkpoints at a constant learning rate, and a last one."""
    classes = [{"class_name": name, "images": 5, "correct": 2} for name in COLOURS]
    return table(
        *(
            row(
                data,
                seed,
                "mine",
                0.1 * (1 + place) + 0.02 * step + 0.01 * seed,
                data_size=100 * (1 + place),
                checkpoint=step,
                samples_seen=1_000 * step,
                is_final=step == 5,
                at_peak=step < 5,
                schedule="constant_cooldown",
                classes=classes,
            )
            for place, data in enumerate(SUBSETS[:subsets])
            for seed in range(3)
            for step in range(1, 6)
        )
    )


@pytest.mark.parametrize("subsets", [1, 3, 6])
def test_every_plot_can_be_drawn(subsets: int) -> None:
    board, curves = leaderboard(evaluated(subsets)).to_pylist(), training_curves(evaluated(subsets)).to_pylist()
    (peak,) = {one["metric"] for one in curves if one["metric"].startswith("toy: ")}
    points = [one for one in curves if one["metric"] == peak]
    assert len(points) == 4 * subsets
    for theme in (LIGHT, DARK):
        for data in (
            plots.leaderboard(board, theme),
            plots.over_size(board, theme),
            plots.over_samples_seen(peak, points, theme),
        ):
            with Image.open(io.BytesIO(data)) as image:
                assert image.width >= 500


def test_the_warehouse_the_report_and_the_gallery_have_them(tmp_path: Path) -> None:
    evaluation = evaluated(3)
    weights = {run: {"original": 1.0} for run in evaluation["run"].to_pylist()}
    texts = [("0" * 32 + "-0", "a red wall")]
    counts = dict.fromkeys(SUBSETS[:3], caption_counts(texts, ["original"], ConceptIndex(list(COLOURS))))
    costs = {run: run_cost([{"gpus": 2, "seconds": 1800.0}], 3.0, None) for run in weights}
    tables = {
        "evaluation": evaluation,
        "leaderboard": leaderboard(evaluation, costs),
        "training_curves": training_curves(evaluation),
        "concept_accuracies": concept_accuracies(evaluation, counts, weights, []),
    }
    for name, one in tables.items():
        pq.write_table(one, tmp_path / f"{name}.parquet")
    with duckdb.connect() as connection:
        paths = {name: [tmp_path / f"{name}.parquet"] for name in tables}
        build_warehouse(connection, WarehouseInputs(RELATIONS, paths, MATERIALISATIONS.empty_table(), (), "none"))
        for name, one in tables.items():
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(one.num_rows,)]
        (section,) = MINE.report_sections
        shown = connection.sql(section.query).to_arrow_table().to_pylist()
        assert [one["data"] for one in shown] == ["_a", "best", "all"]
        assert [one["rank"] for one in shown] == [1, 2, None]
        assert {(one["gpu_hours"], one["cpu_hours"], one["cost"]) for one in shown} == {(1.0, 0.0, 3.0)}
        quoted = connection.execute(
            "SELECT DISTINCT class_name, accuracy FROM concept_accuracies JOIN evaluation_classes "
            "USING (run, task, class_name) WHERE class_name LIKE '%quoted%'"
        ).fetchall()
        assert quoted == [('a "quoted" grey\'s', 0.4)]
        (plots_of,) = MINE.gallery_plots
        drawn = dict(plots_of.read(connection, 0))
        assert list(drawn) == [
            "toy: mine of each subset",
            "toy: mine over the size of the subset, at equal compute",
            "toy: mine acc1 over the samples seen",
        ]
        assert all(draw(DARK).startswith(b"\x89PNG") for draw in drawn.values())
