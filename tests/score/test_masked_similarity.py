from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from dqe_assets.core.arrow import from_matrix, to_matrix
from dqe_assets.features.extract import image_features
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score import masked_similarity as module
from dqe_assets.score.image_text import corners_of, without_text
from dqe_assets.score.masked_similarity import masked_similarity
from dqe_assets.score.tables import CAPTION_SCORES, IMAGE_TEXT, JOINT_EMBEDDINGS, MASKED_SIMILARITY
from dqe_resources import images
from dqe_resources.models.image_model import ImageModel
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.protocol import Scorer
from tests.image_files import encoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.models.text_encoders.protocol import TextEmbeddings

SHARD = "sample-00001"


class MeanColour(Scorer):
    """An image is its mean colour."""

    kind: ClassVar[str] = "mean_colour"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("image",)
    model: ClassVar[str] = "mean colour"  # type: ignore[misc]
    backbones: ClassVar[frozenset[str]] = frozenset()  # type: ignore[misc]
    dimension: ClassVar[int] = 3  # type: ignore[misc]
    logit_scale: ClassVar[float] = 100.0  # type: ignore[misc]
    max_tokens: ClassVar[int] = 77  # type: ignore[misc]

    def embed_image_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
        for batch in batches:
            files = batch["image"].to_pylist()
            yield unit(np.stack([np.asarray(images.decode(one["bytes"]), np.float32).mean((0, 1)) for one in files]))

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        raise NotImplementedError


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Stored:
    """What is stored of one shard of the sample."""

    def __init__(self, settings: Settings) -> None:
        store = settings.opened_store
        self.raw = store.read("raw_samples", SHARD, RAW_SAMPLES)
        self.text = store.read("image_text", SHARD, IMAGE_TEXT)
        self.features = store.read("image_features", SHARD, IMAGE_FEATURES)
        self.masked = store.read("masked_similarity", SHARD, MASKED_SIMILARITY)
        scores = store.read("caption_scores", SHARD, CAPTION_SCORES)
        self.scores = scores.filter(pc.equal(scores["caption_source"], "original"))
        joint = store.read("joint_embeddings", SHARD, JOINT_EMBEDDINGS)
        self.captions = joint.filter(pc.equal(joint["item"], "original"))
        self.scored = self.captions.append_column("similarity", self.scores["similarity"])
        scored = pc.and_(pc.greater(self.text["text_area"], 0), pc.is_valid(self.scores["similarity"]))
        self.with_text = np.flatnonzero(pc.fill_null(scored, fill_value=False).to_numpy())

    def painted_over(self, row: int, fill: str = "surrounding_mean") -> bytes:
        image = images.decode(self.raw["image"][row].as_py()["bytes"])
        file = io.BytesIO()
        without_text(image, corners_of(self.text["regions"][row].as_py()), fill).save(file, "PNG")
        return file.getvalue()


@pytest.fixture
def stored(opened: Settings) -> Stored:
    return Stored(opened)


def test_images_without_text_keep_their_similarity_to_the_last_bit(stored: Stored) -> None:
    table = stored.masked
    assert table["similarity"] == stored.scores["similarity"]
    others = np.setdiff1d(np.arange(len(table)), stored.with_text)
    rest = table.take(pa.array(others))
    assert rest["masked_similarity"] == rest["similarity"]
    assert 0 < rest["similarity"].null_count < len(rest)
    assert len(stored.with_text) >= 6


def test_with_the_embedded_scorer_it_is_what_its_features_give_for_the_masked_image(stored: Stored) -> None:
    rows = stored.with_text[:3]
    files = [{"bytes": stored.painted_over(row), "path": None} for row in rows.tolist()]
    masked = pa.table({"uid": ["a", "b", "c"], "image": pa.array(files, RAW_SAMPLES.field("image").type)})
    vectors = LabelSpace().embed_images(image_features(masked, ImageModel()))
    captions = to_matrix(stored.captions["embedding"].take(pa.array(rows)))[1]
    found = stored.masked["masked_similarity"].take(pa.array(rows)).to_numpy()
    np.testing.assert_allclose(found, (vectors * captions).sum(axis=1), atol=2e-3)
    assert (found != stored.masked["similarity"].take(pa.array(rows)).to_numpy()).all()


@pytest.mark.parametrize("fill", ["surrounding_mean", "image_mean"])
def test_a_scorer_that_sees_images_is_given_the_masked_files(
    stored: Stored, fill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    captions = unit(np.random.default_rng(0).random((len(stored.raw), 3), np.float32)).astype(np.float16)
    embedding = from_matrix(captions, np.arange(len(captions)), len(captions), pa.float16())
    scored = stored.scored.set_column(stored.scored.schema.get_field_index("embedding"), "embedding", embedding)
    batches = stored.raw.to_batches(max_chunksize=5)
    table = masked_similarity(stored.text, scored, iter(batches), MeanColour(), ImageModel(), fill=fill)
    assert table.schema == MASKED_SIMILARITY
    for row in stored.with_text.tolist():
        colour = np.asarray(images.decode(stored.painted_over(row, fill)), np.float32).mean((0, 1))
        expected = unit(colour[None])[0] @ captions[row].astype(np.float32)
        assert table["masked_similarity"][row].as_py() == pytest.approx(expected, abs=2e-3)


def scored(similarities: list[float | None]) -> pa.Table:
    """Original captions with these similarities, each with the unit vector of white."""
    white = (np.ones(3) / np.sqrt(3)).tolist()
    return pa.table(
        {
            "similarity": pa.array(similarities, pa.float32()),
            "embedding": pa.array([None if one is None else white for one in similarities]),
            "truncated": [None if one is None else False for one in similarities],
            "parts": pa.nulls(len(similarities), JOINT_EMBEDDINGS.field("parts").type),
        }
    )


def test_a_shard_without_text_needs_no_model() -> None:
    text = pa.Table.from_pylist([{"uid": "a"}, {"uid": "b", "regions": [], "text_area": 0.0}], IMAGE_TEXT)
    table = masked_similarity(text, scored([None, 0.25]), [], MeanColour(), ImageModel())
    assert table.drop_columns(["fault"]).to_pylist() == [
        {"uid": "a", "masked_similarity": None, "similarity": None, "text_area": None},
        {"uid": "b", "masked_similarity": 0.25, "similarity": 0.25, "text_area": 0.0},
    ]
    assert table["fault"].null_count == 2


def test_an_image_that_cannot_be_masked_is_its_own_rows_fault() -> None:
    region = {"corners": [0.1, 0.1, 0.2, 0.1, 0.2, 0.2, 0.1, 0.2], "score": 0.9}
    rows = [{"uid": uid, "regions": [region], "text_area": 0.01} for uid in "abc"]
    white = encoded(Image.new("RGB", (40, 30), "white"), "PNG")
    stored = [{"bytes": white}, {"bytes": b"\xff\xd8\xff"}, {"bytes": white}]
    raw = pa.table({"uid": list("abc"), "image": pa.array(stored, RAW_SAMPLES.field("image").type)})
    found = masked_similarity(
        pa.Table.from_pylist(rows, IMAGE_TEXT), scored([0.5, 0.5, 0.5]), raw.to_batches(), MeanColour(), ImageModel()
    )
    assert found["masked_similarity"].to_pylist() == [pytest.approx(1, abs=1e-3), None, pytest.approx(1, abs=1e-3)]
    assert found["fault"].to_pylist() == [None, "truncated: JPEG: it ends too early", None]


def test_a_large_image_is_made_smaller_before_it_is_masked(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MASKED_SIDE", 100)
    row = int(stored.with_text[0])
    sample = module.masked_sample(
        stored.raw.slice(row, 1).to_pylist()[0], stored.text["regions"][row].as_py(), "image_mean"
    )
    assert max(images.decode(sample["image"]["bytes"]).size) == 100
