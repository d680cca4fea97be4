"""Images that data is to be like: from a folder, a task and a source, and what the score normsim makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from tests.evaluation.made_tasks import parquet
from tests.image_files import encoded
from tests.stages import handed, stage_named

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = ("red", "green", "blue", "orange")


@pytest.fixture
def folders(data: Path) -> Path:
    """Two sources of four pictures each, and a folder of targets in which a file is none."""
    for name in ("web", "good", "wanted"):
        folder = data / name
        folder.mkdir()
        for number, colour in enumerate(COLOURS):
            picture = Image.effect_noise((64, 64), 40).convert("RGB") if name == "web" else Image.new("RGB", (64, 64))
            picture.paste(colour, (0, 0, 64, 10 * (number + 1)))
            (folder / f"{number}.png").write_bytes(encoded(picture, "PNG"))
            (folder / f"{number}.txt").write_text(f"a picture in {colour}")
    (data / "wanted" / "torn.png").write_bytes(b"\x89PNG")
    return data


def settings_of(folders: Path, tiny_clip: Path, *targets: dict[str, Any], **more: Any) -> Settings:
    sources = [{"kind": "folder", "name": name, "path": str(folders / name)} for name in ("web", "good")]
    small = {"kind": "open_clip", "name": "small", "architecture": f"local-dir:{tiny_clip}", "device": "cpu"}
    return Settings.model_validate({"sources": sources, "scorers": [small], "targets": list(targets), **more})


def make(settings: Settings, *names: str) -> dict[str, Any]:
    """Make these assets of all shards; returns the metadata of the last."""
    shards = ["good-00000", "web-00000"]
    shown: dict[str, Any] = {}
    for name in names:
        stage = stage_named(settings, name)
        for shard in shards if stage.partitioned else [None]:
            work = stage.work(settings.opened_store, shard, shards)
            _, metadata, results = stage.make(work, handed(settings, stage))
            assert all(results[check.name].passed for check in stage.checks if check.blocking), results
            shown = dict(metadata)
    return shown


def vectors_of(settings: Settings, name: str) -> np.ndarray:
    from dqe_assets.filtering.filters.pool_scores import targets_path

    found: np.ndarray = np.load(targets_path(name))
    assert settings.targets
    return found


def test_targets_of_a_folder_a_task_and_a_source(folders: Path, tiny_clip: Path) -> None:
    task = folders / "tasks" / "colours"
    pictures = [(folders / "good" / f"{number}.png").read_bytes() for number in range(4)]
    parquet(task, [{"image": {"bytes": picture, "path": None}, "caption": "a picture"} for picture in pictures])
    settings = settings_of(
        folders,
        tiny_clip,
        {"name": "of_folder", "images": "wanted", "scorer": "small"},
        {"name": "of_task", "task": "colours", "scorer": "small"},
        {"name": "of_source", "source": "good", "scorer": "small"},
        {"name": "embedded", "images": "wanted"},
        evaluation={"tasks": [{"path": str(task)}]},
    )
    shown = make(settings, "targets/of_folder")
    assert (shown["targets"], shown["left_out"]) == (4, 1)
    assert "the first of the target images" in shown["images"]
    make(settings, "raw_samples", "embeddings/small", "targets/of_task", "targets/of_source")
    of_folder, of_task, of_source = (vectors_of(settings, name) for name in ("of_folder", "of_task", "of_source"))
    np.testing.assert_allclose(of_task, of_source, atol=1e-3)
    np.testing.assert_allclose(of_folder, of_source, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(of_folder.astype(np.float32), axis=1), 1, atol=1e-3)
    make(settings, "targets/embedded")
    assert vectors_of(settings, "embedded").shape == (4, 384)


def test_normsim_keeps_what_is_like_the_targets(folders: Path, tiny_clip: Path) -> None:
    text = "score_top(0.5, score=normsim(wanted, p=inf, scorer=small))"
    targets = {"name": "wanted", "images": "wanted", "scorer": "small"}
    settings = settings_of(folders, tiny_clip, targets, filters={"like": text})
    assert "targets/wanted" in stage_named(settings, "filter_masks").unpartitioned_inputs
    make(settings, "raw_samples", "embeddings/small", "targets/wanted")
    pool = StorePool(settings.opened_store, ("good-00000", "web-00000"), signals=graph.signals(settings))
    made = make_subset(parse(text), [pool])
    (good, *_), _ = (list(part.batches(["uid"])) for part in pool.parts)
    assert {f"{high:016x}{low:016x}" for high, low in made.uids.tolist()} == set(good.column("uid").to_pylist())
    assert list(made.manifest["versions"])[-1] == "wanted.npy"


def test_other_images_make_other_targets_and_the_same_are_current(folders: Path, tiny_clip: Path) -> None:
    settings = settings_of(folders, tiny_clip, {"name": "wanted", "images": "wanted", "scorer": "small"})
    assert make(settings, "targets/wanted")["reused"] is False
    assert make(settings, "targets/wanted")["reused"] is True
    (folders / "wanted" / "0.png").unlink()
    assert make(settings, "targets/wanted")["targets"] == 3
    (folders / "targets" / "wanted.npy").write_bytes(b"torn")
    assert make(settings, "targets/wanted")["reused"] is False


@pytest.mark.parametrize(
    "text",
    [
        "soft_cap(normsim(wanted), 9)",
        "soft_cap(similarity, 9, of=score_top(0.5, score=normsim(wanted)))",
        "basic & ~score_top(0.5, score=mix({mix({normsim(wanted): 1}): 1, similarity: 1}))",
        "score_top(0.5, score=mix(m_flyt, targets=wanted))",
    ],
)
def test_wherever_targets_stand_they_are_known(text: str) -> None:
    assert parse(text).targets == (("wanted", None),)


@pytest.mark.parametrize(
    ("targets", "filters", "said"),
    [
        ({"name": "a"}, {}, "give one of the keys"),
        ({"name": "a", "images": "wanted", "source": "web"}, {}, "give one of the keys"),
        ({"name": "a", "source": "elsewhere"}, {}, "source 'elsewhere', which is not there; there are: web, good"),
        ({"name": "a", "task": "birds"}, {}, "task 'birds', which is not there; there are: none"),
        ({"name": "a", "source": "web", "scorer": "b"}, {}, "scorer 'b', which is not there; there are: small"),
        (
            {"name": "a", "source": "web"},
            {"f": "score_top(0.5, score=normsim(b))"},
            "no targets b under the key targets",
        ),
        (
            {"name": "a", "source": "web", "scorer": "small"},
            {"f": "score_top(0.5, score=mix({normsim(a): 1}))"},
            "embeddings of the scorer small, and the images' are of the key scorer",
        ),
    ],
)
def test_wrong_targets_are_refused(
    folders: Path, tiny_clip: Path, targets: dict[str, Any], filters: dict[str, str], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        settings_of(folders, tiny_clip, targets, filters=filters)
