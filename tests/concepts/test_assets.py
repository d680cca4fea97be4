"""From hits to the plan: the assets on the embedded sample, their settings, and the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.cli.app import app
from dqe_assets.concepts.accuracies import EXAMPLE_FILE, MeasuredConcepts, read_accuracies
from dqe_assets.concepts.corpus import frequencies
from dqe_assets.concepts.counting import count_concepts
from dqe_assets.concepts.example import INTERCEPT, SLOPE, example_csv
from dqe_assets.concepts.performance import predict_accuracy
from dqe_assets.concepts.plan import concept_plan, fit_accuracies, fitted_models, line_interval
from dqe_assets.concepts.tables import CONCEPT_PERFORMANCE, CONCEPT_PLAN
from dqe_assets.concepts.tail import gini, share_under
from dqe_assets.core.measurements import EXAMPLE_SOURCE, MeasurementsError
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import Settings, SettingsError, load_settings
from tests.conftest import dqe
from tests.stages import table_of

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.concepts.plan import FittedModel


@pytest.fixture(scope="module")
def example() -> FittedModel:
    return next(fitted_models(fit_accuracies(read_accuracies(EXAMPLE_FILE), EXAMPLE_SOURCE)))


def test_the_example_says_that_it_is_made_up_and_is_what_its_script_writes(example: FittedModel) -> None:
    assert EXAMPLE_FILE.read_text() == example_csv()
    assert EXAMPLE_FILE.read_text().startswith("# MADE-UP NUMBERS")
    assert example.is_made_up
    assert example.model == "made-up CLIP"


def test_the_fit_of_the_example_finds_the_line_that_it_was_made_from(example: FittedModel) -> None:
    line = example.fit.binned
    assert line.slope_low <= SLOPE <= line.slope_high
    assert line.slope == pytest.approx(SLOPE, abs=0.006)
    assert predict_accuracy(example.fit, [1])[0] == pytest.approx(INTERCEPT, abs=0.05)
    assert example.fit.r > 0.95


def test_the_interval_of_the_line_is_that_of_the_regression(example: FittedModel) -> None:
    from scipy import stats

    fit = example.fit
    x, y = fit.edges[1:-1], fit.means[1:-1]
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    at = np.log([10.0, 1000.0])
    design = np.stack([np.ones_like(x), x], axis=1)
    covariance = residual @ residual / (len(x) - 2) * np.linalg.inv(design.T @ design)
    error = np.sqrt([[1, value] @ covariance @ [1, value] for value in at])
    low, high = line_interval(fit, [10, 1000])
    np.testing.assert_allclose((high - low) / 2, stats.t.ppf(0.975, len(x) - 2) * error)
    np.testing.assert_allclose((high + low) / 2, predict_accuracy(fit, [10, 1000]))


def test_a_fit_keeps_what_it_was_made_of() -> None:
    measured = [
        MeasuredConcepts("m", tuple("abcdefghijkl"), 2 ** np.arange(12), np.linspace(0, 0.5, 12)),
        MeasuredConcepts("n", tuple("abcdefghijkl"), 3 ** np.arange(12), np.linspace(0.5, 0, 12)),
    ]
    table = fit_accuracies(measured, "mine.csv")
    assert table.schema.equals(CONCEPT_PERFORMANCE)
    assert table["bin_concepts"][0].as_py() == [1] * 12
    assert table["bin_counts"][0].as_py() == pytest.approx(2.0 ** np.arange(12))
    assert [one.model for one in fitted_models(table)] == ["m", "n"]
    plan = concept_plan([*fitted_models(table)], ["b", "a", "c"], [5, 0, 5000], 0.3, "original")
    assert plan.schema.equals(CONCEPT_PLAN)
    rows = plan.to_pylist()
    assert [row["concept"] for row in rows] == ["a", "b", "c"] * 2
    assert [row["place"] for row in rows] == [1, 2, 3] * 2
    assert rows[0]["samples_needed"] > rows[1]["samples_needed"] > rows[2]["samples_needed"] == 0
    assert [row["samples_needed"] for row in rows[3:]] == [0, 0, np.inf]
    assert all(row["predicted_low"] <= row["predicted_accuracy"] <= row["predicted_high"] for row in rows)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("concept,count,accuracy\ncat,1,1.2", "line 2: accuracy is 1.2, it must be from 0 to 1; divide percentages"),
        ("concept,count,accuracy\ncat,1.5,0.2", "line 2: count is 1.5, it must be a whole number"),
        ("concept,count,accuracy\ncat,many,0.2", "line 2: count is 'many', it must be a number"),
        ("concept,count\ncat,1", "line 2: no accuracy; needed: concept, count, accuracy"),
        ("concept,count,accuracy\ncat,1,0.1\ncat,2,0.1", "line 3: 'cat' of model stands twice"),
        ("concept,count,accuracy\ncat,1,0.1", "model has 1 concepts; a fit needs at least 10"),
        ("concept,count,accuracy\n", "no measurements"),
    ],
)
def test_faults_of_measurements_are_said_by_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(MeasurementsError) as caught:
        read_accuracies(tmp_path / "m.csv")
    assert str(caught.value).startswith(f"{tmp_path / 'm.csv'}")
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("concepts", "fault"),
    [
        (
            {"vocabulary": ["birds.txt"]},
            "concepts.vocabulary: there is no file .*birds.txt; allowed: imagenet",
        ),
        ({"measurements": "m.csv"}, "concepts.measurements: there is no file .*m.csv; allowed: 'example'"),
        ({"count_by": "cogvlm2"}, "there is no 'cogvlm2' to count by; allowed: original, image"),
        ({"tagger": {"kind": "ram"}}, "concepts.tagger: kind 'ram' is not known; allowed: labels, open_clip"),
        ({"treshold": 0.7}, "concepts: unknown key 'treshold'; allowed: absent_words, candidates"),
        ({"temperature": 2}, "concepts.temperature: .*must be at most 1"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(data: Path, concepts: dict[str, object], fault: str) -> None:
    write_settings(data, concepts)
    with pytest.raises(SettingsError, match=fault):
        load_settings({})


def test_images_and_captions_agree_on_what_the_photos_show(opened: Settings) -> None:
    frequency = {(row["item"], row["concept"]): row for row in table_of(opened, "concept_frequency").to_pylist()}
    assert frequency["image", "goldfish"]["samples"] > 0
    assert frequency["labels", "goldfish"]["agreed"] == frequency["image", "goldfish"]["samples"]
    assert frequency["original", "tripod"]["samples"] > frequency["original", "tripod"]["agreed"] > 0


def test_captions_of_other_photos_are_found_to_be_misaligned(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        rows = connection.sql(
            "SELECT m.image_name, m.caption_concepts, m.image_concepts, m.caption_source FROM misaligned_samples m"
        ).fetchall()
        totals = connection.sql("SELECT sum(misaligned) FROM misalignment").fetchall()
    assert totals == [(len(rows),)]
    assert any(name.startswith("coffee") and "electric guitar" in shown for name, shown, _, _ in rows)
    assert all(not set(shown) & set(pictured) for _, shown, pictured, _ in rows)
    # Its own labels are what the captioner writes down: the tagger cannot find it at fault.
    assert {source for *_, source in rows} == {"original"}


def test_the_tail_in_sql_is_the_tail_in_python(opened: Settings) -> None:
    with opened.warehouse.connect() as connection:
        rows = connection.sql("FROM concept_tail").to_arrow_table().to_pylist()
    table = table_of(opened, "concept_frequency").to_pylist()
    assert [row["item"] for row in rows] == ["original", "labels", "image"]
    for row in rows:
        counts = [one["samples"] for one in table if one["item"] == row["item"]]
        assert row["gini"] == pytest.approx(gini(counts))
        assert [row["under_10"], row["under_100"], row["under_1000"]] == pytest.approx([*share_under(counts).values()])
        assert row["shown"] == sum(count > 0 for count in counts) > 10


def test_what_follows_from_the_counts_is_made_for_every_usable_sample(opened: Settings) -> None:
    weights, ranks = table_of(opened, "rebalanced_subset"), table_of(opened, "curriculum")
    assert weights["uid"].to_pylist() == ranks["uid"].to_pylist()
    assert weights["weight"].to_numpy().max() > 1.5
    retrieved = table_of(opened, "rare_concept_retrieval")
    settings = opened.concepts
    assert len(set(retrieved["concept"].to_pylist())) == settings.rarest
    assert len(retrieved) == settings.rarest * 3 * settings.candidates
    plan = table_of(opened, "concept_plan").to_pylist()
    assert [row["samples"] for row in plan] == sorted(row["samples"] for row in plan)
    assert {row["concept"] for row in plan[: settings.rarest]} == set(retrieved["concept"].to_pylist())


def test_the_command_answers_and_draws_a_page(finished: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = dqe(finished, "concepts", "Golden Retriever", "fly agaric", "--html", str(page))
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for words in (
        "golden retriever (in imagenet)",
        "fly agaric (not in the vocabulary: captions counted now)",
        "No caption has the word fly or agaric.",
        "Concepts that are near: agaric, fly.",
        "0.6 needs",
        "The predicted accuracies are made up",
        'concepts: {names: ["fly agaric"]}',
        "Next: dqe search 'fly agaric'",
    ):
        assert words in text
    html = page.read_text()
    assert html.count("data:image/jpeg") >= 3
    assert "golden retriever: examples" in html
    assert "<script" not in html


def test_before_anything_is_made_the_command_says_what_to_do(data: Path) -> None:
    done = CliRunner().invoke(app, ["concepts", "cat"])
    assert done.exit_code == 1
    assert "dqe materialize" in done.output


def test_settings_and_measurements_make_stale_what_they_change(data: Path) -> None:
    write_settings(data, {})
    with instance() as current:
        settings = load_settings({})
        assert runner.materialize(settings, current, assets=["concept_performance"]).failures == []
        performance = next(s for s in _stages(settings) if s.name == "concept_performance")
        assert runner.state(settings, performance, None, ()) == "current"
        lines = [f"concept {n},{2**n},{n / 20}" for n in range(15)]
        (data / "mine.csv").write_text("\n".join(["concept,count,accuracy", *lines]))
        write_settings(data, {"measurements": "mine.csv"})
        settings = load_settings({})
        assert runner.state(settings, performance, None, ()) == "stale"
        assert runner.materialize(settings, current, assets=["concept_performance"]).failures == []
        table = table_of(settings, "concept_performance")
        assert table["source"].to_pylist() == ["mine.csv"]
        assert table["slope"][0].as_py() == pytest.approx(0.05 / np.log(2), rel=0.05)


def _stages(settings: Settings) -> list:
    from dqe_assets.orchestration import graph

    return graph.stages(settings)


def write_settings(data: Path, concepts: dict[str, object]) -> None:
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "sample"}], "concepts": concepts}))


def test_real_captions_run_through_the_platform(data: Path, sbu: Path) -> None:
    captions = pq.read_table(sbu / "captions.parquet", columns=["image_name", "original_caption"])
    paths = [str(sbu / "images" / name) for name in captions["image_name"].to_pylist()]
    pq.write_table(captions.append_column("image", pa.array(paths)), data / "sbu.parquet")
    source = {"kind": "parquet", "name": "sbu", "path": "sbu.parquet", "caption_column": "original_caption"}
    source |= {"key_column": "image_name", "shard_size": 4000, "min_success_rate": 0, "allow_outside": True}
    (data / "dqe.yaml").write_text(
        yaml.safe_dump({"sources": [source], "concepts": {"names": ["girl"], "threshold": 0.3}})
    )
    settings = load_settings({})
    names = ["raw_samples", "image_features", "concept_hits", "concept_frequency", "misalignment"]
    with instance() as current:
        runner.sync(settings, current)
        assert runner.materialize(settings, current, assets=names).failures == []
    table = table_of(settings, "concept_frequency")
    found = frequencies(table, ["original", "image"])
    concepts = settings.concepts.counting().concepts.names
    expected = count_concepts(normalise_captions(captions["original_caption"]), concepts, "lemmatized", "zero")
    assert found["original"].tolist() == expected["count"].to_pylist()
    assert expected["count"].to_pylist()[-1] > 200
    assert 0 < found["image"].sum() < 30
    rows = table_of(settings, "misalignment").to_pylist()
    assert [row["samples"] for row in rows] == [4000, 3999]
    assert sum(row["comparable"] for row in rows) <= 9
