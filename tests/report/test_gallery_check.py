from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dqe_assets.core.work import Manifest
from dqe_assets.report.assets import gallery_path
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
    assert stands_alone(opened) == (True, "the page loads or runs 0 things")
    page = gallery_path().read_text(encoding="utf-8")
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
def test_a_page_that_loads_or_runs_anything_fails(data: Path, opened: Settings, markup: str, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    page = gallery_path().read_text(encoding="utf-8")
    monkeypatch.setenv("DQE_DATA", str(data))
    gallery_path().write_text(page.replace("</body>", markup + "</body>"), encoding="utf-8")
    passed, description = stands_alone(opened)
    assert not passed
    assert "1 things: " in description
