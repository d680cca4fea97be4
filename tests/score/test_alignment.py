"""Similarity and preference, with captions that are longer than the encoder reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.core.schema import IMAGE, IMAGE_TYPE
from dqe_assets.score.alignment import (
    Preferring,
    caption_preference,
    caption_scores,
    caption_similarity,
    embed_captions,
    joint_embeddings,
)
from dqe_assets.score.sentences import split_sentences
from dqe_assets.score.tables import CAPTION_PREFERENCE, CAPTION_SCORES, JOINT_EMBEDDINGS
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.open_clip import OpenClipScorer
from tests.resources.scorers.test_open_clip_scorer import pictures

if TYPE_CHECKING:
    from pathlib import Path

LONG = "A brown dog runs over the wet sand. It has a red ball. " * 8
CAPTIONS = {"original": ["a dog", None, "a cat", " ", "a bird"], "vlm": [LONG, "a house", LONG + "The sun!", "x", None]}
HAS_IMAGE = np.array([True, True, True, False, True])
UIDS = pa.chunked_array([[f"{row:032x}" for row in range(5)]])


def scorer_of(folder: Path, **settings: Any) -> OpenClipScorer:
    return OpenClipScorer(architecture=f"local-dir:{folder}", device="cpu", **settings)


def embedded(scorer: OpenClipScorer, progress: Any = lambda _: None) -> pa.Table:
    samples = pictures(5).to_batches(max_chunksize=2)
    captions = {source: pa.array(texts, pa.string()) for source, texts in CAPTIONS.items()}
    return joint_embeddings(UIDS, samples, HAS_IMAGE, captions, scorer, progress)


def test_embeddings_hold_a_row_for_each_sample_and_item(tiny_clip: Path) -> None:
    done: list[int] = []
    scorer = scorer_of(tiny_clip, batch_size=2)
    table = embedded(scorer, done.append)
    assert table.schema.equals(JOINT_EMBEDDINGS)
    assert table["item"].to_pylist() == [item for item in (IMAGE, "original", "vlm") for _ in range(5)]
    rows = table.to_pylist()
    assert [row["embedding"] is not None for row in rows[:5]] == HAS_IMAGE.tolist()
    images = scorer.embed_images(pictures(5))
    np.testing.assert_allclose([row["embedding"] for row in rows[:5] if row["embedding"]], images[HAS_IMAGE], atol=1e-3)
    assert [row["tokens"] for row in rows[5:10]] == [4, None, 4, None, 4]
    assert [row["truncated"] for row in rows[10:]] == [True, False, True, False, None]
    assert table["parts"].null_count == 15, "nobody asked for sentences"
    assert sum(done) == 4 + 3 + 4


def test_an_image_that_the_scorer_cannot_read_is_its_own_rows_fault(tiny_clip: Path) -> None:
    scorer = scorer_of(tiny_clip, batch_size=2)
    files = pictures(5)["image"].to_pylist()
    files[1]["bytes"], files[2] = b"\xff\xd8\xff", None
    samples = pa.table({"image": pa.array(files, IMAGE_TYPE)}).to_batches(max_chunksize=2)
    table = joint_embeddings(UIDS, samples, HAS_IMAGE, {"original": pa.array(CAPTIONS["original"])}, scorer)
    assert table["fault"].to_pylist() == [
        None,
        f"{scorer.model} gives no vector for it",
        "raw_samples has nothing of it: its fault says why",
        *[None] * 7,
    ]
    assert table["embedding"].is_valid().to_pylist()[:5] == [True, False, False, False, True]
    scores = caption_scores(table, ["original"])
    assert scores["similarity"].is_valid().to_pylist() == [True, False, False, False, True]


@pytest.mark.parametrize("policy", ["sentences_mean", "sentences_max"])
def test_long_captions_are_scored_by_their_sentences(tiny_clip: Path, policy: str) -> None:
    scorer = scorer_of(tiny_clip, long_captions=policy)
    embeddings = embedded(scorer)
    scores = caption_scores(embeddings, list(CAPTIONS), scorer.long_captions)
    assert scores.schema.equals(CAPTION_SCORES)
    cut = caption_scores(embedded(scorer_of(tiny_clip)), list(CAPTIONS))
    images = scorer.embed_images(pictures(5))
    combine = {"sentences_mean": np.mean, "sentences_max": np.max}
    for row, was, place in zip(scores.to_pylist(), cut.to_pylist(), [*range(5)] * 2, strict=True):
        text = CAPTIONS[row["caption_source"]][place]
        if not HAS_IMAGE[place] or text is None:
            assert row["similarity"] is None
        elif text.startswith(LONG):
            cosines = scorer.embed_texts(split_sentences(text)).vectors @ images[place]
            for name, how in combine.items():
                assert row[f"similarity_{name}"] == pytest.approx(how(cosines), abs=2e-3)
            assert row["similarity"] == row[f"similarity_{policy}"]
            assert row["similarity_truncated"] == was["similarity_truncated"] == was["similarity"]
            assert was["similarity_sentences_mean"] is was["similarity_sentences_max"] is None
        else:
            assert row["similarity"] == was["similarity"]
            assert {row[f"similarity_{name}"] for name in ("truncated", *combine)} == {None}


@pytest.mark.usefixtures("data")
def test_the_embedded_scorer_keeps_to_the_same_policies() -> None:
    scorer = LabelSpace(long_captions="sentences_max")
    text = " ".join(["A dog on a beach under a grey sky."] * 40)
    found = embed_captions(["short", text], scorer)
    assert found.whole.truncated.tolist() == [False, True]
    assert found.of.tolist() == [1] * 40
    assert scorer.signature() == LabelSpace().signature()


def test_of_many_chunks_each_part_belongs_to_its_caption(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqe_assets.score.alignment.TEXTS_AT_ONCE", 2)
    scorer = scorer_of(tiny_clip, long_captions="sentences_mean")
    texts = ["a", LONG, "b", "c", LONG + "End."]
    found = embed_captions(texts, scorer)
    assert found.of.tolist() == [1] * 16 + [4] * 17
    np.testing.assert_allclose(found.whole.vectors, scorer.embed_texts(texts).vectors, atol=1e-6)
    np.testing.assert_allclose(found.parts[-1], scorer.embed_texts(["End."]).vectors[0], atol=1e-6)


def test_with_no_pair_there_is_no_similarity(tiny_clip: Path) -> None:
    nothing = np.empty((0, 4), np.float32)
    none = np.empty(0, np.int64)
    found = caption_similarity(nothing, nothing, none.astype(bool), nothing, none, "sentences_max")
    assert found.similarity.shape == (0,)
    captions = {"original": pa.array(["a"] * 5)}
    for has_image in (np.zeros(5, bool), np.ones(5, bool)):
        table = joint_embeddings(UIDS, pictures(5).to_batches(), has_image, captions, scorer_of(tiny_clip))
        assert caption_scores(table, ["original"])["similarity"].null_count == 5 - has_image.sum()


def test_preference_is_computed_or_imported() -> None:
    scores = pa.table(
        {
            "uid": ["1" * 32, "2" * 32] * 3,
            "caption_source": [source for source in ("original", "a", "b") for _ in range(2)],
            "similarity": pa.array([0.2, None, 0.21, 0.3, 0.1, 0.1], pa.float32()),
        }
    )
    pairs = [Preferring("original", "a", "CLIP", True), Preferring("original", "b", "ours", False)]
    imported = {("original", "a"): (pa.array([0.25, None], pa.float32()), pa.array([0.75, None], pa.float32()))}
    found = caption_preference(scores, pairs, 100, imported)
    assert found.schema.equals(CAPTION_PREFERENCE)
    assert found["probability_a"].to_pylist() == [0.25, None, pytest.approx(1 / (1 + np.exp(-10)), rel=1e-5), None]
    assert found["scorer"].to_pylist() == ["CLIP"] * 2 + ["ours"] * 2
    assert found["independent"].to_pylist() == [True, True, False, False]
    assert caption_preference(scores, [], 100, {}).num_rows == 0
