from __future__ import annotations

import html
import io
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from dqe_resources.models.image_model import ImageModel
from dqe_resources.scorers import AnyScorer
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.sources.sample_images.photos import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SCORER = LabelSpace()


@pytest.fixture(scope="module", autouse=True)
def _models(model_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQE_DATA", str(model_cache.parent))
        yield


def features(images: Iterable[Image.Image]) -> pa.Table:
    """The columns of image_features that the scorer reads."""
    model = ImageModel()
    found = model.embed(np.stack([model.preprocess(image.convert("RGB")) for image in images]))
    top = np.argsort(-found.probabilities, axis=1, kind="stable")[:, :20]
    return pa.table(
        {
            "embedding": pa.array(list(found.features.astype(np.float16)), pa.list_(pa.float16())),
            "label_ids": pa.array(list(top), pa.list_(pa.int16())),
            "label_probabilities": pa.array(
                list(np.take_along_axis(found.probabilities, top, axis=1)), pa.list_(pa.float32())
            ),
        }
    )


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative in which the positive is the larger."""
    return float((positives[:, None] > negatives[None]).mean() + (positives[:, None] == negatives[None]).mean() / 2)


def test_captions_of_real_photos_find_their_photo(sbu: Path) -> None:
    photos = sorted((sbu / "images").glob("*.jpg"))
    rows = {row["image_name"]: row for row in pq.read_table(sbu / "captions.parquet").to_pylist()}
    images = SCORER.embed_images(features(map(Image.open, photos)))
    areas, means = {}, {}
    for source in ("original", "cogvlm2", "internvl2"):
        captions = [html.unescape(html.unescape(rows[photo.name][f"{source}_caption"])) for photo in photos]
        cosines = images @ SCORER.embed_texts(captions).vectors.T
        matching = np.eye(len(photos), dtype=bool)
        areas[source], means[source] = auc(cosines[matching], cosines[~matching]), float(cosines[matching].mean())
    assert areas["cogvlm2"] >= 0.95
    assert areas["internvl2"] >= 0.95
    assert areas["original"] >= 0.80
    assert min(means["cogvlm2"], means["internvl2"]) > means["original"]


def test_captions_of_the_sample_find_their_photo() -> None:
    photos = list(PHOTOS.values())
    images = SCORER.embed_images(features(Image.open(io.BytesIO(photo.read())) for photo in photos))
    different = np.array([[not (a.themes & b.themes) for b in photos] for a in photos])
    areas = []
    for place in range(min(len(photo.captions) for photo in photos)):
        captions = [html.unescape(photo.captions[place]) for photo in photos]
        cosines = images @ SCORER.embed_texts(captions).vectors.T
        areas.append(auc(np.diag(cosines), cosines[different]))
    assert np.mean(areas) >= 0.93


def test_vectors_are_unit_float32_and_the_same_every_time() -> None:
    samples = features([Image.new("RGB", (300, 200), colour) for colour in ("red", "white", "navy")])
    first = SCORER.embed_images(samples)
    assert first.shape == (3, SCORER.dimension)
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(first, SCORER.embed_images(samples))
    chunked = pa.concat_tables([samples[:1], samples[1:]])
    np.testing.assert_array_equal(first, SCORER.embed_images(chunked))


def test_no_samples_give_an_empty_array() -> None:
    assert SCORER.embed_images(features([Image.new("RGB", (9, 9))])[:0]).shape == (0, 384)


def test_a_sample_without_features_has_no_vector() -> None:
    samples = features([Image.new("RGB", (9, 9))])
    missing = pa.table(
        {name: pa.array([*samples[name].to_pylist(), None], samples[name].type) for name in samples.column_names}
    )
    vectors = SCORER.embed_images(missing)
    np.testing.assert_array_equal(vectors[0], SCORER.embed_images(samples)[0])
    assert np.isnan(vectors[1]).all()
    with pytest.raises(ValueError, match="1 of 2 samples have no embedding"):
        list(SCORER.embed_image_batches(missing.combine_chunks().to_batches()))


def test_once_built_it_needs_no_torch() -> None:
    SCORER.embed_images(features([Image.new("RGB", (9, 9))]))
    code = (
        "import pyarrow as pa; from dqe_resources.scorers.label_space import LabelSpace\n"
        "one = pa.table({'embedding': pa.array([[1] * 1280], pa.list_(pa.float16())),\n"
        "    'label_ids': [[3] * 20], 'label_probabilities': [[0.05] * 20]})\n"
        "LabelSpace().embed_images(one); LabelSpace().embed_texts(['a cat'])\n"
        "import sys; print({'torch', 'timm', 'transformers', 'onnx', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_it_is_chosen_by_its_kind() -> None:
    adapter = TypeAdapter(AnyScorer)
    chosen = adapter.validate_python({"kind": "label_space", "text_encoder": {"kind": "minilm", "batch_size": 4}})
    assert chosen == LabelSpace.model_validate({"text_encoder": {"kind": "minilm", "batch_size": 4}})
    assert chosen.signature() != SCORER.signature()
    with pytest.raises(ValidationError, match="kind 'clip' is not known; allowed: label_space, open_clip"):
        adapter.validate_python({"kind": "clip"})
    with pytest.raises(ValidationError, match="allowed: minilm"):
        adapter.validate_python({"kind": "label_space", "text_encoder": {"kind": "bert"}})


def test_it_says_what_it_shares_with_captioners() -> None:
    assert SCORER.backbones == {"efficientnet-lite0"}
    assert SCORER.asset == "image_features"
    assert SCORER.logit_scale == 100
