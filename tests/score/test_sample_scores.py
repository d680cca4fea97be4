"""Scores beside the one that decides best captions: on a small model of open_clip, and on the embedded scorer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError

from dqe_assets.core.arrow import to_matrix
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.settings import Settings
from dqe_assets.score.sample_score_assets import embedding_assets
from dqe_assets.score.sample_scores import NO_CAPTION, NO_IMAGE
from dqe_resources.scorers.linear_head import HeadError
from tests.stages import checked, handed, stage_named, table_of

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 5


@pytest.fixture
def photos(data: Path) -> Path:
    """A folder of pictures: the third file is none, and the fourth has no caption."""
    folder = data / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(ROWS):
        written = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120)).save(written, "PNG")
        (folder / f"{number}.png").write_bytes(b"no image" if number == 2 else written.getvalue())
        if number != 3:
            (folder / f"{number}.txt").write_text(f"a picture of noise, number {number}")
    return folder


def settings_of(photos: Path, *scorers: dict[str, Any], **more: Any) -> Settings:
    source = {"kind": "folder", "name": "noise", "path": str(photos)}
    return Settings.model_validate({"sources": [source], "scorers": list(scorers), **more})


def make(settings: Settings, *names: str) -> None:
    """Make these assets, and whatever they read."""
    stages = {one.name: one for one in graph.stages(settings)}
    due: dict[str, None] = {}

    def add(name: str) -> None:
        for read in stages[name].inputs:
            add(read)
        due.setdefault(name)

    for name in names:
        add(name)
    for name in due:
        stage = stages[name]
        _, metadata, results = stage.make(
            stage.work(settings.opened_store, "noise-00000", ["noise-00000"]), handed(settings, stage)
        )
        failed = [check.name for check in stage.checks if check.blocking and not results[check.name].passed]
        assert not failed, (name, results)
        assert metadata["dagster/partition_row_count"]


def scores(settings: Settings, name: str) -> pa.Table:
    return table_of(settings, f"scores/{name}", "noise-00000")


def tiny(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "open_clip", "name": name, "architecture": f"local-dir:{folder}", "device": "cpu", **more}


def test_a_model_beside_gives_cosines_and_says_why_a_sample_has_none(photos: Path, tiny_clip: Path) -> None:
    settings = settings_of(photos, tiny(tiny_clip, "small"))
    make(settings, "scores/small")
    found = scores(settings, "small")
    embedded = table_of(settings, "embeddings/small", "noise-00000")
    assert set(embedded["item"].to_pylist()) == {IMAGE, ORIGINAL}
    (_, images), (_, texts) = (
        to_matrix(embedded.filter(pa.compute.equal(embedded["item"], item))["embedding"]) for item in (IMAGE, ORIGINAL)
    )
    # Rows 0, 1, 3, 4 have an image, and 0, 1, 2, 4 a caption.
    expected = [images[0] @ texts[0], images[1] @ texts[1], None, None, images[3] @ texts[3]]
    assert found["score"].to_pylist() == pytest.approx(expected, abs=1e-6)
    assert found["reason"].to_pylist() == [None, None, NO_IMAGE, NO_CAPTION, None]


def test_scorers_of_one_model_share_its_embeddings(photos: Path, tiny_clip: Path) -> None:
    settings = settings_of(
        photos,
        {"kind": "prompt_axis", "name": "marked", "axis": "watermark", "model": "again"},
        tiny(tiny_clip, "small"),
        tiny(tiny_clip, "again", batch_size=4),
        tiny(tiny_clip, "by_sentence", long_captions="sentences_mean"),
        {"kind": "prompt_axis", "name": "good", "prompts": [["Good photo.", "Bad photo."]]},
        {"kind": "label_space", "name": "labels"},
    )
    assert embedding_assets(settings.scorers, settings.scorer) == {
        "marked": "embeddings/small",
        "small": "embeddings/small",
        "again": "embeddings/small",
        "by_sentence": "embeddings/by_sentence",
        "good": "joint_embeddings",
        "labels": "joint_embeddings",
    }
    inputs = {stage.name: stage.inputs for stage in graph.stages(settings)}
    assert inputs["scores/marked"] == ("raw_samples", "embeddings/small")
    assert [name for name in inputs if name.startswith("embeddings/")] == ["embeddings/small", "embeddings/by_sentence"]


def test_an_axis_is_the_softmax_over_each_pair_of_prompts(photos: Path, tiny_clip: Path) -> None:
    pairs = [["Good photo.", "Bad photo."], ["noise", "a cat"]]
    small = tiny(tiny_clip, "small")
    axis = {"kind": "prompt_axis", "name": "good", "model": "small", "prompts": pairs}
    settings = settings_of(photos, small, axis)
    make(settings, "scores/good")
    model = settings.scorers[0]
    embedded = table_of(settings, "embeddings/small", "noise-00000")
    _, images = to_matrix(embedded.filter(pa.compute.equal(embedded["item"], IMAGE))["embedding"])
    shares = []
    for pair in pairs:
        logits = model.logit_scale * images @ model.embed_texts(pair).vectors.T  # type: ignore[attr-defined]
        shares.append(np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1))
    found = scores(settings, "good")
    assert found["reason"].to_pylist() == [None, None, NO_IMAGE, None, None]
    np.testing.assert_allclose(found["score"].drop_null().to_numpy(), np.mean(shares, axis=0), rtol=1e-4)


def test_the_embedded_scorer_has_axes_too(photos: Path) -> None:
    settings = settings_of(photos, {"kind": "prompt_axis", "name": "dogs", "prompts": [["a dog", "a car"]]})
    make(settings, "scores/dogs")
    found = scores(settings, "dogs")["score"].drop_null().to_numpy()
    assert len(found) == 4
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_head_is_a_linear_function_of_the_embedding(
    photos: Path, tiny_clip: Path, tmp_path: Path, dtype: str
) -> None:
    import torch
    from safetensors.torch import save_file

    weights = torch.linspace(-1, 1, 16).reshape(1, 16).to(getattr(torch, dtype))
    save_file({"weight": weights, "bias": torch.tensor([0.5])}, tmp_path / "head.safetensors")
    head = {"kind": "linear_head", "name": "beauty", "model": "small", "path": str(tmp_path / "head.safetensors")}
    settings = settings_of(photos, tiny(tiny_clip, "small"), head, {**head, "name": "share", "sigmoid": True})
    make(settings, "scores/beauty", "scores/share")
    embedded = table_of(settings, "embeddings/small", "noise-00000")
    _, images = to_matrix(embedded.filter(pa.compute.equal(embedded["item"], IMAGE))["embedding"])
    expected = images @ weights.float().numpy()[0] + 0.5
    np.testing.assert_allclose(scores(settings, "beauty")["score"].drop_null().to_numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(
        scores(settings, "share")["score"].drop_null().to_numpy(), 1 / (1 + np.exp(-expected)), rtol=1e-5
    )


def test_a_head_of_another_model_or_file_is_refused(photos: Path, tiny_clip: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "head.safetensors"
    head = {"kind": "linear_head", "name": "beauty", "model": "small", "path": str(path)}
    for tensors, said in (
        ({"weight": torch.zeros(768)}, "weight has 768 numbers, and a vector of open_clip clip"),
        ({"layer.weight": torch.zeros(16)}, r"has layer.weight \[16\]; expected the tensors weight"),
        ({"weight": torch.zeros(2, 8)}, r"has weight \[2, 8\]"),
        ({"weight": torch.full((16,), torch.nan)}, "not finite"),
    ):
        save_file(tensors, path)
        settings = settings_of(photos, tiny(tiny_clip, "small"), head)
        with pytest.raises(HeadError, match=said):
            make(settings, "scores/beauty")
    path.write_bytes(b"torn")
    with pytest.raises(HeadError, match=r"cannot be read as \.safetensors"):
        make(settings_of(photos, tiny(tiny_clip, "small"), head), "scores/beauty")


def test_checks_of_scores_can_fail(photos: Path) -> None:
    settings = settings_of(photos, {"kind": "prompt_axis", "name": "good", "axis": "quality"})
    make(settings, "scores/good")
    stage, found = stage_named(settings, "scores/good"), scores(settings, "good")
    work = stage.work(settings.opened_store, "noise-00000", ["noise-00000"])
    nothing = pa.nulls(ROWS, pa.float32())
    unsaid = found.set_column(1, "score", nothing)
    said = unsaid.set_column(2, "reason", pa.array(["away"] * ROWS))
    infinite = found.set_column(1, "score", pa.array([np.inf] * ROWS, pa.float32()))
    for check, damaged in (
        ("keys_unique", pa.concat_tables([found, found])),
        ("rows_complete", found.slice(1)),
        ("score_finite", infinite),
        ("scored", unsaid),
        ("has_scores", said),
    ):
        assert checked(settings, stage, check, work, found).passed
        assert not checked(settings, stage, check, work, damaged).passed, check


def test_imported_scores_are_joined_by_their_key(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("image_name,beauty\n0.png,5.5\n1.png,\n4.png,-2\nelsewhere.png,9\n")
    imported = {"kind": "imported", "name": "beauty", "path": str(tmp_path / "scores.csv"), "key": "image_name"}
    settings = settings_of(photos, imported)
    make(settings, "scores/beauty")
    found = scores(settings, "beauty")
    assert found["score"].to_pylist() == [5.5, None, None, None, -2.0]
    assert found["reason"].to_pylist()[1:4] == ["no row of scores.csv has its image_name"] * 3


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (
            {"kind": "prompt_axis", "name": "a", "axis": "quality", "model": "b"},
            "has the model 'b', which is no scorer",
        ),
        ({"kind": "prompt_axis", "name": "a"}, "give either the key 'axis' or the key 'prompts'"),
        ({"kind": "prompt_axis", "name": "a", "prompts": [["same", "same"]]}, "two texts that differ"),
        ({"kind": "prompt_axis", "name": "A", "axis": "nsfw"}, "should match pattern"),
        ({"kind": "open_clip", "name": "a", "preset": "clip"}, "clip_l14"),
        ({"kind": "open_clip", "name": "a", "preset": "clip_l14", "architecture": "ViT-B-32"}, "leave out one"),
        ({"kind": "linear_head", "name": "a", "path": "dqe.yaml"}, "expected a file ending in .safetensors"),
    ],
)
def test_a_wrong_scorer_is_refused_with_what_is_allowed(data: Path, scorer: dict[str, Any], said: str) -> None:
    assert data.is_dir()
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"sources": [{"kind": "sample"}], "scorers": [scorer]})


def test_a_name_stands_once(data: Path) -> None:
    assert data.is_dir()
    one = {"kind": "prompt_axis", "name": "good", "axis": "quality"}
    with pytest.raises(ValidationError, match="scorers: the name 'good' is used twice"):
        Settings.model_validate({"sources": [{"kind": "sample"}], "scorers": [one, one]})


def test_presets_are_models_that_open_clip_has() -> None:
    open_clip = pytest.importorskip("open_clip")
    from dqe_resources.scorers.open_clip import OpenClipScorer
    from dqe_resources.scorers.presets import PRESETS

    known = set(open_clip.list_pretrained())
    for name, preset in PRESETS.items():
        scorer = OpenClipScorer(preset=name)
        assert (scorer.architecture, scorer.weights) == (preset.architecture, preset.weights)
        assert scorer.licence == preset.licence
        if not preset.architecture.startswith("hf-hub:"):
            assert (preset.architecture, preset.weights) in known
            needs_quick = open_clip.get_pretrained_cfg(preset.architecture, preset.weights).get("quick_gelu", False)
            assert needs_quick == preset.architecture.endswith("quickgelu")
    assert all("apple-amlr" in preset.licence for name, preset in PRESETS.items() if name.startswith("dfn"))
    assert (
        OpenClipScorer(preset="clip_b32").signature()
        == OpenClipScorer(architecture="ViT-B-32-quickgelu", weights="openai").signature()
    )
    with pytest.raises(ValidationError, match="there is nothing at"):
        OpenClipScorer(preset="clip_b32", weights="/nowhere/clip.pt")


def test_expressions_read_scores_and_embeddings_of_scorers(photos: Path, tiny_clip: Path) -> None:
    text = "score_top(0.5, score=mix({s_clip_loss(small): 1, small: 0.5})) & small > -2"
    settings = settings_of(photos, tiny(tiny_clip, "small"), filters={"chosen": text, "clip": "score_top(0.5)"})
    make(settings, "scores/small")
    masks = next(stage for stage in graph.stages(settings) if stage.name == "filter_masks")
    assert {"scores/small", "embeddings/small"} <= {*masks.inputs}
    pool = StorePool(settings.opened_store, ("noise-00000",), signals=graph.signals(settings))
    made = make_subset(parse(text), [pool])
    # Of four images, one has no caption and so no score.
    assert len(made.uids) == 2
    files = [file["path"] for file in made.manifest["pools"][0]["files"]]
    assert files == ["embeddings/small/noise-00000", "raw_samples/noise-00000", "scores/small/noise-00000"]
    (batch,) = pool.parts[0].batches(["small_img", "small_txt", "small"])
    images, texts = (np.stack(batch.column(name).take([0, 1, 3]).to_pylist()) for name in ("small_img", "small_txt"))
    np.testing.assert_allclose((images * texts).sum(axis=1), batch.column("small").take([0, 1, 3]), atol=1e-2)


def test_a_clip_among_the_scorers_gives_the_columns_of_datacomp(photos: Path) -> None:
    scorers = [{"kind": "open_clip", "name": name, "preset": name} for name in ("siglip_b16", "clip_l14")]
    known = graph.signals(settings_of(photos, *scorers))
    assert known["clip_l14_similarity_score"].asset == "scores/clip_l14"
    assert (known["l14_img"].asset, known["l14_img"].item) == ("embeddings/clip_l14", IMAGE)
    assert (known["siglip_b16_txt"].asset, known["siglip_b16_txt"].item) == ("embeddings/siglip_b16", ORIGINAL)
    assert not {"clip_b32_similarity_score", "b32_img"} & {*known}


def test_the_published_weights_take_scorers_by_their_names(photos: Path, tiny_clip: Path) -> None:
    settings = settings_of(photos, tiny(tiny_clip, "dfn"), tiny(tiny_clip, "clip_l14", batch_size=2))
    make(settings, "scores/dfn", "scores/clip_l14")
    pool = StorePool(settings.opened_store, ("noise-00000",), signals=graph.signals(settings))
    manifest = make_subset(parse("score_top(0.5, score=mix(m_flyt, scorer=dfn))"), [pool]).manifest
    (facts,) = manifest["leaves"]
    assert facts["missing"] == ["normsim", "clip_b32"]
    assert facts["weights"] == {"s_clip_loss(scorer=dfn)": 0.51, "dfn": 0.80, "clip_l14": 0.21}
    files = [file["path"] for file in manifest["pools"][0]["files"]]
    assert files == [
        f"{asset}/noise-00000" for asset in ("embeddings/dfn", "raw_samples", "scores/clip_l14", "scores/dfn")
    ]
