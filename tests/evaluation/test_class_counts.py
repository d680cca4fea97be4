"""How often what runs train on shows each class, beside how well they know it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from dqe_assets.concepts.accuracies import trained_accuracies
from dqe_assets.concepts.counting import ConceptIndex, count_concepts
from dqe_assets.concepts.plan import concept_plan, fit_trained, fitted_models
from dqe_assets.concepts.tables import CONCEPT_HITS
from dqe_assets.core.measurements import MeasurementsError
from dqe_assets.evaluation import class_counts
from dqe_assets.evaluation.class_counts import caption_counts, concept_accuracies, image_counts
from dqe_assets.evaluation.tables import CLASS_COUNTS, CONCEPT_ACCURACIES, EVALUATION
from dqe_assets.evaluation.tasks import TaskError
from dqe_assets.orchestration.settings import Settings
from tests.evaluation.test_leaderboard import row
from tests.stages import stage_named

CLASSES = ["red", 'a "quoted" cat\'s', "tabby_cat", "Emu (bird)"]
UIDS = [f"{number:032x}" for number in range(4)]


def test_trained_concepts_are_read_from_the_asset_with_its_runs_in_the_lineage() -> None:
    source = {"sources": [{"kind": "sample"}], "concepts": {"measurements": "trained"}}
    with pytest.raises(ValidationError, match=r"concepts\.measurements: 'trained' are the results of training runs"):
        Settings.model_validate(source)
    runs = {"runs": [{"subsets": ["all", "best"], "scale": "small"}]}
    settings = Settings.model_validate({**source, "training": runs})
    assert stage_named(settings, "concept_performance").unpartitioned_inputs == ("concept_accuracies",)
    made = stage_named(settings, "concept_accuracies")
    assert made.run_inputs == ("evaluation",)
    assert made.unpartitioned_inputs == ("class_counts/all", "class_counts/best")


def samples(count: int) -> list[tuple[str, str]]:
    words = ["a red wall", "two tabby cats", "a quoted cat's paw", "an emu", "nothing here"]
    random = np.random.default_rng(0)
    return [(f"{n:032x}-0", " and ".join(random.choice(words, 2))) for n in range(count)]


@pytest.mark.parametrize("absent", ["zero", "ignore"])
def test_captions_are_counted_as_concepts_are_whatever_the_batches(
    absent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = caption_counts(samples(200), ["original"], ConceptIndex(CLASSES, absent_words=absent))
    assert found.schema.equals(CLASS_COUNTS)
    expected = count_concepts([text for _, text in samples(200)], CLASSES, absent_words=absent)
    assert found["samples"].to_pylist() == expected["count"].to_pylist()
    assert min(expected["count"].to_pylist()[:3]) > 0
    assert set(found["beside"].to_pylist()) == {"original"}
    monkeypatch.setattr(class_counts, "_ROWS", 7)
    assert caption_counts(samples(200), ["original"], ConceptIndex(CLASSES, absent_words=absent)) == found


def test_of_several_captions_each_counts_by_the_chance_that_it_is_drawn() -> None:
    captions = [{"a": "red", "b": "tabby cat"}, {"a": "red"}, {"b": "red"}, {"a": "emu", "b": "red"}]
    texts = [(f"{uid}-0", json.dumps(one)) for uid, one in zip(UIDS, captions, strict=True)]
    counts = caption_counts(texts, ["a", "b"], ConceptIndex(CLASSES))
    classes = [{"class_name": name, "images": 4, "correct": 1} for name in CLASSES]
    table = pa.Table.from_pylist([row("mix", 0, "mine", 0.25, classes=classes)], EVALUATION)
    found = concept_accuracies(table, {"mix": counts}, {"mix-toy-0": {"a": 1, "b": 3}}, [])
    assert found.schema.equals(CONCEPT_ACCURACIES)
    by_class = {one["class_name"]: one for one in found.to_pylist()}
    assert by_class["red"]["caption_samples"] == 1 / 4 + 1 + 1 + 3 / 4
    assert by_class["tabby_cat"]["caption_samples"] == 3 / 4
    assert by_class["Emu (bird)"]["caption_samples"] == 1 / 4
    with pytest.raises(TaskError, match="mix-toy-0: was evaluated on the class 'red' of mine, which no task has any"):
        concept_accuracies(
            table,
            {"mix": counts.filter(pc.not_equal(counts["class_name"], "red"))},
            {"mix-toy-0": {"a": 1, "b": 3}},
            [],
        )
    assert by_class["red"]["image_samples"] is None
    assert by_class["red"]["accuracy"] == 0.25


def test_images_are_counted_in_the_subset_alone_and_as_often_as_they_are_there() -> None:
    shown = [["tabby cat", "emu"], ["tabby cat"], None, ["red"]]
    hits = pa.Table.from_pylist(
        [
            {"uid": uid, "item": item, "concepts": names, "words": None, "counted_by": "x"}
            for item in ("image", "original")
            for uid, names in zip(UIDS, shown, strict=True)
        ],
        CONCEPT_HITS,
    ).select(["uid", "item", "concepts"])
    keys = [f"{UIDS[0]}-0", f"{UIDS[0]}-1", f"{UIDS[1]}-0", f"{UIDS[2]}-0"]
    found = image_counts(keys, [hits.slice(0, 3), hits.slice(3)], [*CLASSES, "Tabby Cat"])
    assert found["samples"].to_pylist() == [0, 0, 3, 0, 3]
    assert set(found["item"].to_pylist()) == {"image"}
    classes = [{"class_name": name, "images": 2, "correct": 2} for name in ("red", "tabby_cat")]
    table = pa.Table.from_pylist([row("best", 0, "mine", 1.0, classes=classes)], EVALUATION)
    made = concept_accuracies(table, {"best": found}, {"best-toy-0": {"original": 1.0}}, ["tabby cat", "emu"])
    images = {one["class_name"]: one["image_samples"] for one in made.to_pylist()}
    assert images == {"red": None, "tabby_cat": 3}


def measured(data: str, seed: int, slope: float, classes: int = 12, task: str = "mine") -> list[dict[str, Any]]:
    about = {"run": f"{data}-toy-{seed}", "data": data, "data_size": 9, "scale": "toy", "seed": seed, "task": task}
    return [
        {
            **about,
            "class_name": f"c{place}",
            "caption_samples": 2.0**place,
            "image_samples": 3**place if place else None,
            "images": 100,
            "correct": round(100 * (0.1 + slope * place)) + seed,
            "accuracy": 0.0,
        }
        for place in range(classes)
    ]


def test_accuracies_of_trained_runs_are_fitted_by_subset_with_their_seeds_together() -> None:
    rows = [*measured("good", 0, 0.05), *measured("good", 2, 0.05), *measured("few", 0, 0.05, classes=2)]
    table = pa.Table.from_pylist(rows, CONCEPT_ACCURACIES)
    good, few = trained_accuracies(table, "original")
    assert (good.model, few.model) == ("good, toy", "few, toy")
    assert good.counts.tolist() == [2**place for place in range(12)]
    assert good.accuracy.tolist() == pytest.approx([0.11 + 0.05 * place for place in range(12)])
    told: list[str] = []
    fits = fit_trained([good, few], "concept_accuracies", told.append)
    assert fits["model"].to_pylist() == ["good, toy"]
    assert fits["slope"][0].as_py() == pytest.approx(0.05 / np.log(2), rel=0.01)
    assert fits["source"][0].as_py() == "concept_accuracies"
    assert told[0].startswith("concept_accuracies: few, toy is left out: ")
    plan = concept_plan([*fitted_models(fits)], ["rare", "common"], [4, 4_000], 0.5, "original")
    assert plan["samples_needed"].to_pylist()[0] > plan["samples_needed"].to_pylist()[1] == 0

    by_image = trained_accuracies(table, "image")[0]
    assert by_image.counts.tolist() == [3**place for place in range(1, 12)]
    several = pa.Table.from_pylist([*rows, *measured("good", 0, 0.05, task="other")], CONCEPT_ACCURACIES)
    assert trained_accuracies(several, "original")[0].concepts[0] == "mine: c0"
    with pytest.raises(MeasurementsError, match="few, toy is left out"):
        fit_trained([few], "concept_accuracies", told.append)
    with pytest.raises(MeasurementsError, match="no measurements; materialise training runs"):
        fit_trained([], "concept_accuracies", told.append)
