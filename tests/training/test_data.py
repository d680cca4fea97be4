"""What is trained on: which samples with which captions, and that every shard is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import runner
from dqe_assets.training.data import TrainingDataError, open_data
from dqe_assets.training.loader import load_examples, read_samples
from tests.stages import stage_named
from tests.training.toy import CAPTIONER, MODEL, make, make_folder, picture

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings

RAW = ("raw_samples", "reviews", f"synthetic_captions/{CAPTIONER}")
RUNS = [
    {"subsets": ["all"], "scale": "toy"},
    {"subsets": ["all"], "scale": "toy", "captions": CAPTIONER},
    {"subsets": ["all"], "scale": "toy", "captions": {"original": 1, CAPTIONER: 3}},
]
OWN, TABLE, BOTH = "all", f"all_with_{CAPTIONER}", f"all_with_original_{CAPTIONER}"


@pytest.fixture
def settings(data: Path) -> Settings:
    return make_folder(data / "own", 50, {"runs": RUNS, "samples_per_shard": 20})


@pytest.fixture(autouse=True)
def own_folder(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(data / "own"))
    monkeypatch.setenv("DAGSTER_HOME", str(data / "own" / "dagster_home"))


def texts(settings: Settings, name: str) -> dict[str, str]:
    """The captions by the picture's place in the source."""
    raw = [settings.opened_store.read("raw_samples", f"walls-{n:05d}", RAW_SAMPLES) for n in range(3)]
    names = {row["uid"]: row["image_name"] for table in raw for row in table.to_pylist()}
    return {names[one.key.partition("-")[0]]: one.text for one in read_samples(open_data(name).shards)}


def test_each_choice_of_captions_is_shards_of_its_own_and_leaves_out_who_has_none(settings: Settings) -> None:
    outcome = make(settings, *RAW, *(f"training_data/{name}" for name in (OWN, TABLE, BOTH)))
    assert not outcome.failures
    every = [f"{number:04d}.png" for number in range(50)]
    own = {name: picture(number)[1] for number, name in enumerate(every) if number != 2}
    table = {name: picture(number)[2] for number, name in enumerate(every) if number != 1}
    assert texts(settings, OWN) == own
    assert texts(settings, TABLE) == table
    both = {name: json.loads(text) for name, text in texts(settings, BOTH).items()}
    assert both == {
        name: {kind: found[name] for kind, found in (("original", own), (CAPTIONER, table)) if name in found}
        for name in every
    }
    stored = settings.opened_store.get(f"training_data/{OWN}", None)
    assert stored is not None
    facts = stored.stamp.facts
    assert (stored.stamp.rows, facts["without_caption"], facts["shards"]) == (49, 1, 3)
    assert facts["digest"] == open_data(OWN).digest


def test_pictures_are_as_open_clip_prepares_them_and_a_missing_caption_is_never_drawn(
    settings: Settings, tmp_path: Path
) -> None:
    import torch

    from dqe_resources.images import decode
    from dqe_resources.models.open_clip_loading import import_open_clip, registered_name

    make(settings, *RAW, f"training_data/{BOTH}")
    data = open_data(BOTH)
    (tmp_path / "walls.json").write_text(json.dumps(MODEL))
    examples = load_examples(data, str(tmp_path / "walls.json"), [(CAPTIONER, 3.0), ("original", 1.0)])
    open_clip = import_open_clip()
    name = registered_name(str(tmp_path / "walls.json"))
    _, _, prepare = open_clip.create_model_and_transforms(name)
    stored = list(read_samples(data.shards))
    expected = torch.stack([prepare(decode(one.image)) for one in stored])
    pixels = torch.from_numpy(examples.images[:]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (examples.mean, examples.std))
    assert torch.allclose((pixels - mean) / std, expected, atol=1e-6)

    captions = [json.loads(one.text) for one in stored]
    tokenizer = open_clip.get_tokenizer(name)
    for place, kind in enumerate((CAPTIONER, "original")):
        wanted = tokenizer([one.get(kind, "") for one in captions]).numpy()
        assert (examples.tokens[:, place] == wanted).all()
    chances = {
        (CAPTIONER in one, "original" in one): row for one, row in zip(captions, examples.chances.tolist(), strict=True)
    }
    assert chances == {(True, True): [0.75, 0.25], (True, False): [1, 0], (False, True): [0, 1]}


def test_a_shard_that_is_missing_or_cut_is_refused_and_made_again(settings: Settings) -> None:
    name = f"training_data/{OWN}"
    make(settings, *RAW, name)
    digest = open_data(OWN).digest
    shard = open_data(OWN).shards[1]
    content = shard.read_bytes()
    for damage in (lambda: shard.write_bytes(content[:-512]), shard.unlink):
        damage()
        with pytest.raises(
            TrainingDataError, match=r"00000001\.tar: (has|is not there).*run: dqe materialize training_"
        ):
            open_data(OWN)
        assert (
            runner.state(settings, stage_named(settings, name), None, [f"walls-{n:05d}" for n in range(3)]) == "stale"
        )
        assert not make(settings, name).failures
        assert (open_data(OWN).digest, shard.read_bytes()) == (digest, content)


def test_what_became_of_other_samples_is_written_anew(settings: Settings, data: Path) -> None:
    make(settings, *RAW, f"training_data/{OWN}")
    before = open_data(OWN)
    (data / "own" / "pictures" / "0007.txt").write_text("another caption")
    make(settings, *RAW, f"training_data/{OWN}")
    after = open_data(OWN)
    assert after.digest != before.digest
    assert texts(settings, OWN)["0007.png"] == "another caption"
    assert after.samples == 49
