"""The generated pages say what the code says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def make_reference(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("make_reference")


def test_generated_pages_are_current(make_reference):
    pages = make_reference.pages()
    stale = [
        str(path.relative_to(ROOT))
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"{', '.join(stale)}: not as the code is; run: {make_reference.REFRESH}"


def test_every_asset_is_on_the_page_of_its_stage(make_reference):
    pages = {path.name: text for path, text in make_reference.pages().items()}
    for name, stage in make_reference.assets(make_reference.everything_on()).items():
        assert f"[`{name}`](reference/assets.md#" in pages[f"{stage.group}.md"], name
