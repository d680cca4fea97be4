"""The captioner ``retrieval``, on a small model with weights made here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from dqe_resources.captioners import AnyCaptioner
from dqe_resources.captioners.protocol import CaptionerError, Sample
from tests.image_files import encoded, noise

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_resources.captioners.retrieval import RetrievalCaptioner

TEXTS = ["two dogs", "a red car", "a cat", "a house on a hill", "a cat"]


def captioner_of(model: Path, table: Path, **settings: Any) -> RetrievalCaptioner:
    return TypeAdapter(AnyCaptioner).validate_python(
        {"kind": "retrieval", "name": "near", "architecture": f"local-dir:{model}", "captions": table}
        | {"device": "cpu", "batch_size": 2, **settings}
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "captions.csv"
    path.write_text("caption,n\n" + "".join(f"{text},{n}\n" for n, text in enumerate(TEXTS)) + ",5\n")
    return path


def samples(*files: bytes) -> list[Sample]:
    return [Sample({"image": {"bytes": one, "path": None}}) for one in files]


def test_each_image_gets_the_nearest_of_the_captions(tiny_clip: Path, table: Path) -> None:
    files = [encoded(noise(40 + number, 30), "JPEG") for number in range(5)]
    captioner = captioner_of(tiny_clip, table)
    found = list(captioner.caption(iter(samples(*files))))
    network = captioner.load()
    images = np.concatenate(list(network.embed_images(files, 8)))
    texts = sorted(set(TEXTS))
    nearest = (images @ network.embed_texts(texts, 8).vectors.T).argmax(axis=1)
    assert [place for place, _ in found] == list(range(5))
    assert [one.text for _, one in found] == [texts[number] for number in nearest]
    assert captioner.model_id == f"{captioner.model_name}, captions of captions.csv"


def test_an_image_that_cannot_be_read_has_a_reason_and_the_others_a_caption(tiny_clip: Path, table: Path) -> None:
    good = encoded(noise(40, 30), "JPEG")
    found = [one for _, one in captioner_of(tiny_clip, table).caption(iter(samples(good, b"no image", good)))]
    assert [one.finish_reason for one in found] == ["stop", "error", "stop"]
    assert found[1].error == "the image cannot be read"
    assert found[0].text == found[2].text is not None


def test_other_captions_or_another_order_of_them(tiny_clip: Path, table: Path, tmp_path: Path) -> None:
    files = [encoded(noise(40 + number, 30), "JPEG") for number in range(3)]
    turned = tmp_path / "turned.csv"
    turned.write_text("caption\n" + "".join(f"{text}\n" for text in reversed(TEXTS)))
    first, second = (
        [one.text for _, one in captioner_of(tiny_clip, path).caption(iter(samples(*files)))]
        for path in (table, turned)
    )
    assert first == second
    before = captioner_of(tiny_clip, table).signature()
    assert captioner_of(tiny_clip, table, batch_size=9).signature() == before
    table.write_text("caption\na bird\n")
    assert captioner_of(tiny_clip, table).signature() != before
    assert {one.text for _, one in captioner_of(tiny_clip, table).caption(iter(samples(*files)))} == {"a bird"}


def test_a_table_without_captions_is_an_error(tiny_clip: Path, table: Path) -> None:
    table.write_text("caption\n\n")
    with pytest.raises(CaptionerError, match=r"captions.csv: the column caption has no caption"):
        list(captioner_of(tiny_clip, table).caption(iter(samples(encoded(noise(40, 30), "JPEG")))))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"caption_column": "text"}, "has no column 'text'; there are: caption, n"),
        ({"captions": "no.csv"}, "no.csv"),
        ({"captions": __file__}, "expected a file ending in .parquet, .csv"),
    ],
)
def test_wrong_settings_are_refused(tiny_clip: Path, table: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        captioner_of(tiny_clip, table, **settings)
