"""Take the pictures of docs/images from a running UI, in which everything is materialised, a gallery and a warehouse.

Usage: python docs/take_pictures.py http://127.0.0.1:3000 data/gallery.html
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from dqe_assets.filtering import plots as filter_plots
from dqe_assets.improve import best_plots
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parent / "images"
MAX_BYTES = 300_000


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ui", help="address of the running UI")
    parser.add_argument("gallery", type=Path, help="path of gallery.html")
    arguments = parser.parse_args()

    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        # As root, chromium starts only without its sandbox.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take_graph(browser, arguments.ui)
        take_gallery(browser, arguments.gallery.resolve().as_uri())
        browser.close()
    draw_best()
    draw_filters()


def draw_best() -> None:
    """How well captions of the embedded sample fit before and after, from the data folder's warehouse."""
    query = "SELECT original_similarity, similarity, coalesce(independent, true) AS independent FROM best_captions"
    with load_settings().warehouse.connect() as connection:
        columns = connection.sql(query).fetchnumpy()
    before, after = (np.ma.filled(columns[name], np.nan) for name in ("original_similarity", "similarity"))
    picture = best_plots.before_and_after(before, after, columns["independent"])
    (IMAGES / "best_captions.png").write_bytes(picture)


def draw_filters() -> None:
    """What the filters keep of the embedded sample, from the data folder's store and warehouse."""
    settings = load_settings()
    stored = settings.opened_store.get("filter_masks", None)
    if stored is None:
        sys.exit("no filters: run dqe materialize")
    facts = stored.stamp.facts
    steps = [(one["filter"], [(step["condition"], step["kept"]) for step in one["steps"]]) for one in facts["filters"]]
    with settings.warehouse.connect() as connection:
        planted = connection.sql("SELECT filter, planted, share FROM filter_planted").fetchall()
    names = [one["filter"] for one in facts["filters"]]
    (IMAGES / "filter_overlap.png").write_bytes(filter_plots.overlap_matrix(names, facts["both"]))
    (IMAGES / "filter_funnel.png").write_bytes(filter_plots.funnels(steps, facts["samples"]))
    (IMAGES / "filter_planted.png").write_bytes(filter_plots.planted_shares(planted))


def take_graph(browser: Browser, ui: str) -> None:
    """What the best captions are made of: the whole graph is too large to be read in a picture."""
    page = browser.new_page(base_url=ui, viewport={"width": 1500, "height": 900})
    page.goto("/assets/best_captions?view=lineage&lineageScope=upstream&lineageDepth=10")
    settle(page)
    save(page, "asset_graph.png")
    page.close()


def take_gallery(browser: Browser, address: str) -> None:
    """The gallery's beginning, and the first of its photos."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    settle(page)
    save(page, "gallery.png")
    page.set_viewport_size({"width": 1280, "height": 720})  # one row of photos with their captions
    page.goto(address.removesuffix(".html") + "/improved.html")
    settle(page)
    save(page, "gallery_photos.png")
    page.close()


def settle(page: Page) -> None:
    """Wait until nothing is loaded or moves any more."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)


def save(page: Page, name: str) -> None:
    """Keep a picture of a page, in few enough colours that a README loads quickly."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / name
    picture.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        sys.exit(f"{path}: {path.stat().st_size:,} bytes are more than {MAX_BYTES:,}")


if __name__ == "__main__":
    main()
