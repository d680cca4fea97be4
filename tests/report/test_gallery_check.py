from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from dqe_assets.core.work import Manifest
from dqe_assets.report.assets import gallery_pages, gallery_path
from tests.stages import checked, stage_named

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings


def stands_alone(settings: Settings) -> tuple[bool, str]:
    gallery = stage_named(settings, "sample_gallery")
    work = gallery.work(settings.opened_store, None, [])
    found = checked(settings, gallery, "stands_alone", work, Manifest(0))
    return found.passed, found.description


def test_the_gallery_stands_alone(opened: Settings) -> None:
    pages = gallery_pages()
    assert stands_alone(opened) == (True, f"{len(pages)} pages load or run 0 things")
    page = "".join(path.read_text(encoding="utf-8") for path in pages)
    assert "<script>alert" not in page.lower()
    assert "&lt;script&gt;" in page or "&lt;b&gt;" in page, "the sample's captions hold markup, and the page shows it"


@pytest.mark.parametrize(
    "markup",
    [
        '<img src="https://example.org/x.png">',
        "<script>1</script>",
        '<p onclick="x()">',
        '<a href="http://x">',
        "<form>",
    ],
)
def test_a_page_that_loads_or_runs_anything_fails(
    finished: Path, data: Path, opened: Settings, markup: str, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    page = gallery_path().read_text(encoding="utf-8")
    monkeypatch.setenv("DQE_DATA", str(data))
    shutil.copytree(finished / "gallery", data / "gallery")
    gallery_path().write_text(page.replace("</body>", markup + "</body>"), encoding="utf-8")
    passed, description = stands_alone(opened)
    assert not passed
    assert "1 things: " in description
