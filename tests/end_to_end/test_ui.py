"""The UI as a person has it: dagster dev in a process of its own, driven in a real browser."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from dqe_assets.orchestration.graph import stages
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.sources.sample import SampleSource
from tests.conftest import dqe, make_data_folder
from tests.servers.dagster_services import BACKFILL_SECONDS, FINISHED, Dagster, dagster_dev, poll

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("playwright", "dagster_webserver") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}: extras ui and test"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)"),
]

SHARDS = ["photos-00000", "photos-00001", "photos-00002"]
SHARD_SIZE = 4
SETTINGS = """
sources: [{{kind: folder, name: photos, path: {folder}, shard_size: {size}}}]
captioners: [{{kind: labels, name: labels}}]
"""


def write_photos(folder: Path, count: int) -> None:
    """The first photos of the embedded sample that are files at all, as a folder with sidecar captions."""
    folder.mkdir(exist_ok=True)
    rows = (row for row in SampleSource().rows(0) if isinstance(row.image, bytes) and row.truth.image != "not_an_image")
    for number, row in enumerate(islice(rows, count)):
        path = folder / f"{number:02}.jpg"
        if not path.exists():
            path.write_bytes(row.image)
            path.with_suffix(".txt").write_text(f"{row.caption or ''}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Dagster]:
    """Dagster on a folder of photos, whose first shard the command line has made, and the others nobody yet."""
    root = tmp_path_factory.mktemp("ui")
    data = make_data_folder(root / "data", model_cache)
    (data / "dqe.yaml").write_text(SETTINGS.format(folder=root / "photos", size=SHARD_SIZE))
    write_photos(root / "photos", SHARD_SIZE)
    done = dqe(data, "materialize")
    assert done.returncode == 0, done.stdout + done.stderr
    write_photos(root / "photos", SHARD_SIZE * len(SHARDS))
    with dagster_dev(data) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, chromium starts only without its sandbox; the pages are our own.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-sync"])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def pictured(browser: Browser, ui: Dagster, picture: Path) -> Iterator[Page]:
    """A page of the UI; how it looked in the end is kept as a picture."""
    page = browser.new_page(base_url=ui.url, viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(30_000)
    try:
        yield page
    finally:
        page.screenshot(path=picture)
        page.close()


@pytest.fixture
def page(browser: Browser, ui: Dagster, tmp_path: Path) -> Iterator[Page]:
    with pictured(browser, ui, tmp_path / "page.png") as opened:
        yield opened


@pytest.fixture(scope="module")
def materialised(ui: Dagster, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Dagster:
    """The same after "Materialize all", for all partitions, clicked on the lineage page."""
    poll("shards", lambda: ui.shards() == SHARDS, 60)
    with pictured(browser, ui, tmp_path_factory.mktemp("materialise") / "page.png") as page:
        page.goto("/asset-groups")
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="All", exact=True).click()
        dialog.get_by_text(f"{len(SHARDS)} partitions").wait_for()
        dialog.get_by_role("button", name="Launch backfill").click()
        page.get_by_text("Created backfill").wait_for()
        page.get_by_text("View", exact=True).click()
        page.wait_for_url(re.compile("/runs/b/"))
        ended = poll(
            "end of the backfill", lambda: [b for b in ui.backfills() if b["status"] in FINISHED], BACKFILL_SECONDS
        )
        assert ended[0]["status"] == "COMPLETED_SUCCESS", (ended, (ui.data / "dev.log").read_text()[-5000:])
        page.get_by_text("Succeeded").first.wait_for()
    return ui


def show(page: Page, asset: str, shard: str | None = None) -> None:
    """Open an asset's page: what was materialised last, or one of its partitions."""
    page.goto(f"/assets/{asset}?view=" + (f"partitions&partition={shard}" if shard else "overview"))
    page.get_by_text("Metadata", exact=True).first.wait_for()


def expect_entry(page: Page, key: str, value: str) -> None:
    """A metadata entry is shown with this in it, or, of a number, with this alone."""
    row = page.locator("tr", has=page.get_by_text(key, exact=True)).first
    row.get_by_text(value, exact=value.isdigit()).first.wait_for()


def test_what_the_command_line_made_is_shown(ui: Dagster, page: Page) -> None:
    show(page, "raw_samples", SHARDS[0])
    page.get_by_text("Materialized", exact=True).wait_for()
    expect_entry(page, "dagster/partition_row_count", str(SHARD_SIZE))
    expect_entry(page, "dagster/uri", "raw_samples/photos-00000.parquet")
    expect_entry(page, "reused", "false")
    show(page, "warehouse")
    expect_entry(page, "samples", str(SHARD_SIZE))


def test_the_sensor_registers_new_shards(ui: Dagster, page: Page) -> None:
    poll("shards", lambda: ui.shards() == SHARDS, 60)
    page.goto("/assets/raw_samples?view=partitions")
    for shard in SHARDS:
        page.get_by_text(shard, exact=True).first.wait_for()


def test_materialising_all_makes_every_asset_of_every_shard(
    materialised: Dagster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DQE_DATA", str(materialised.data))
    missing = [
        (stage.name, shard)
        for stage in stages(load_settings())
        for shard in (SHARDS if stage.partitioned else ["all"])
        if not list((materialised.data / "store" / stage.name).glob(f"{shard}.*"))
    ]
    assert not missing
    assert (materialised.data / "gallery.html").stat().st_size > 0
    assert {run["status"] for run in materialised.backfills()[0]["runs"]} == {"SUCCESS"}


def test_an_assets_page_shows_partitions_metadata_and_plot(materialised: Dagster, page: Page) -> None:
    show(page, "caption_preference", SHARDS[1])
    page.get_by_text(f"Materialized ({len(SHARDS)})").wait_for()
    page.get_by_text("Missing (0)").wait_for()
    expect_entry(page, "preferred", "original / labels")
    page.locator("tr", has=page.get_by_text("counts", exact=True)).get_by_text("Show Markdown").click()
    plot = page.get_by_role("dialog").locator("img")
    plot.wait_for()
    assert plot.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300


def test_checks_are_shown_with_their_results(materialised: Dagster, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto("/assets/caption_preference?view=checks")
    page.get_by_text("No two rows have the same uid and source_a and source_b.").wait_for()
    for name in ("keys_unique", "rows_complete", "probability_a_finite"):
        page.get_by_text(name, exact=True).first.wait_for()
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(3, timeout=30_000)


def test_what_is_current_is_not_made_again(materialised: Dagster, page: Page) -> None:
    show(page, "image_features", SHARDS[0])
    expect_entry(page, "reused", "true")
    show(page, "image_features", SHARDS[1])
    expect_entry(page, "reused", "false")


def test_the_assets_over_all_shards_are_made_after_the_shards(materialised: Dagster, page: Page) -> None:
    show(page, "warehouse")
    expect_entry(page, "samples", str(SHARD_SIZE * len(SHARDS)))
    show(page, "duplicate_clusters")
    show(page, "sample_gallery")


def test_the_command_line_goes_on_from_what_the_ui_made(materialised: Dagster) -> None:
    report = dqe(materialised.data, "report")
    assert report.returncode == 0, report.stderr
    assert "photos" in report.stdout
    again = dqe(materialised.data, "materialize")
    assert again.returncode == 0, again.stderr
    assert "0 partitions made" in again.stdout
