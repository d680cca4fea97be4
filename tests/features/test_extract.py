from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
from PIL import Image

from dqe_assets.core.schema import IMAGE_TYPE
from dqe_assets.features import extract as module
from dqe_assets.features.extract import image_features
from dqe_assets.features.tables import IMAGE_FEATURES
from dqe_resources.models.image_model import ImageModel
from tests.image_files import encoded, noise

if TYPE_CHECKING:
    import pytest


def raw(files: list[bytes | None]) -> pa.Table:
    stored = [None if file is None else {"bytes": file, "path": "x"} for file in files]
    return pa.table({"uid": [str(row) for row in range(len(files))], "image": pa.array(stored, IMAGE_TYPE)})


def test_an_image_that_cannot_be_worked_on_is_its_own_rows_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    good, odd = encoded(noise(), "PNG"), encoded(Image.new("RGB", (31, 31)), "PNG")
    measure = module.measure

    def fails_at_odd(image: Image.Image) -> module.ImageMeasures:
        if image.width == 31:
            raise ZeroDivisionError("by zero")
        return measure(image)

    monkeypatch.setattr(module, "measure", fails_at_odd)
    table = image_features(raw([good, None, odd, good[:-99], good]), ImageModel(batch_size=2))
    assert table.schema == IMAGE_FEATURES
    assert table["fault"].to_pylist()[:3] == [None, None, "damaged: ZeroDivisionError: by zero"]
    assert str(table["fault"][3]).startswith("truncated: ")
    assert table["fault"][4].as_py() is None
    for name in table.column_names[1:-1]:
        assert table[name].is_valid().to_pylist() == [True, False, False, False, True], name
        assert table[name][0] == table[name][4]


def test_a_shard_of_nothing_but_faults_is_a_table_too() -> None:
    table = image_features(raw([b"\xff\xd8\xff", b"GIF89a"]), ImageModel())
    assert table["embedding"].null_count == 2
    assert table["fault"].null_count == 0
    assert image_features(raw([]), ImageModel()).num_rows == 0
