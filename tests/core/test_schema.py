"""What is said of columns that several stages read."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import has_image


def test_rows_with_an_image() -> None:
    raw = pa.table({"uid": ["a", "b", "c"], "status": ["ok", "failed", "ok"]})
    assert has_image(raw).to_pylist() == [True, False, True]
    assert has_image(raw.slice(0, 0)).to_pylist() == []
