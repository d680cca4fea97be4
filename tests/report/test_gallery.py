"""The gallery page, read as text and in a real browser."""

from __future__ import annotations

import html
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.report.build_warehouse import build_warehouse
from dqe_assets.report.gallery import GalleryInputs, render_gallery
from dqe_resources.warehouse import Warehouse, WarehouseError
from tests.report.make_store import RELATIONS, make_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.report.make_store import Store

ATTACKS = {
    0: "<script>alert(1)</script>",
    1: '"><img src=x onerror=alert(2)>',
    2: "' onmouseover='alert(3)' x='",
    3: "<svg/onload=alert(4)><iframe srcdoc='<script>parent.alert(5)</script>'></iframe>",
    4: "</style></title><style>*{display:none}</style><meta http-equiv=refresh content='0;url=https://example.com'>",
    5: "{{ 7 * 7 }}{% for x in () %}",
    6: "\u202eright to left\u0000 and a null",
    8: "<a href='javascript:alert(6)'>a link</a>" + " and more words" * 40,
    9: "<link rel=stylesheet href=https://example.com/x.css>",
}


def _pages(store: Store, folder: Path, per_section: int = 12) -> tuple[dict[str, str], list[list[str]]]:
    warehouse = Warehouse(path=folder / "w.duckdb")
    warehouse.rebuild(lambda connection: build_warehouse(connection, store.inputs))
    asked: list[list[str]] = []

    def images(uids: list[str]) -> dict[str, bytes]:
        asked.append(uids)
        return {uid: store.images[uid] for uid in uids if uid in store.images}

    with warehouse.connect() as connection:
        return render_gallery(GalleryInputs(connection, images, per_section=per_section), RELATIONS), asked


def _render(store: Store, folder: Path, per_section: int = 12) -> tuple[str, list[list[str]]]:
    """All pages, one after another."""
    pages, asked = _pages(store, folder, per_section)
    return "".join(pages.values()), asked


def _written(store: Store, folder: Path) -> list[Path]:
    """The pages as files, the first one first."""
    pages, _ = _pages(store, folder)
    (folder / "gallery").mkdir()
    for path, page in pages.items():
        (folder / path).write_text(page, encoding="utf-8")
    return [folder / path for path in pages]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A small store whose captions are full of markup, all of them shown on the page."""
    return make_store(tmp_path_factory.mktemp("store"), shards=1, rows=12, captions=ATTACKS)


def test_a_warehouse_that_lacks_what_is_shown_is_to_be_made_again() -> None:
    import duckdb

    with (
        duckdb.connect() as connection,
        pytest.raises(WarehouseError, match=r"made by another version, .*run: dqe materialize warehouse"),
    ):
        render_gallery(GalleryInputs(connection, lambda _: {}), RELATIONS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where this machine has one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def test_markup_in_captions_is_text(attacked: Store, tmp_path: Path) -> None:
    page, _ = _render(attacked, tmp_path)
    tags = set(re.findall(r"<([a-z0-9]+)", page))
    assert not tags & {"script", "iframe", "svg", "link", "object", "embed", "form", "base"}
    assert not re.search(r"<[^>]*\son\w+\s*=", page)
    assert html.escape(ATTACKS[0]) in page
    assert "{{ 7 * 7 }}" in page
    assert "\0" not in page


def test_in_a_browser_captions_do_nothing_and_nothing_is_loaded(attacked: Store, tmp_path: Path, browser: Any) -> None:
    files = _written(attacked, tmp_path)
    own = tuple(path.as_uri() for path in files)
    context = browser.new_context(offline=True)
    tab = context.new_page()
    happened: list[str] = []
    tab.on("dialog", lambda dialog: (happened.append(dialog.message), dialog.dismiss()))
    tab.on("console", lambda message: happened.append(message.text))
    tab.on("pageerror", lambda error: happened.append(str(error)))
    tab.on("request", lambda request: request.url.startswith(("data:", *own)) or happened.append(request.url))
    tab.goto(own[0])
    links = [link.get_attribute("href") for link in tab.locator("nav a").all()]
    assert [(tmp_path / link).as_uri() for link in links] == list(own)
    text, pictures = "", 0
    for address in own:
        tab.goto(address)
        tab.evaluate("document.querySelectorAll('bdi').forEach(one => one.dispatchEvent(new Event('mouseover')))")
        tab.evaluate("document.querySelectorAll('summary').forEach(one => one.click())")
        text += " ".join(tab.locator("body").inner_text().split())
        broken = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert tab.evaluate(broken) == 0
        pictures += tab.locator("article figure img").count()
    assert happened == []
    for attack in ATTACKS.values():
        assert " ".join(attack.replace("\0", " ").split())[:100] in text
    assert pictures > 12
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_every_screen_in_light_and_dark(
    attacked: Store, tmp_path: Path, browser: Any, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    for path in _written(attacked, tmp_path):
        tab.goto(path.as_uri())
        for width in (360, 768, 1440):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width, path
        assert tab.evaluate("document.documentElement.scrollHeight") < 5000, path
    ink, ground = (
        [int(part) for part in re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.body).{name}"))[:3]]
        for name in ("color", "backgroundColor")
    )
    assert abs(sum(ink) - sum(ground)) > 450
    assert (sum(ground) > sum(ink)) == (scheme == "light")
    context.close()


def test_it_shows_what_there_is_to_see(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    page, asked = _render(store, tmp_path)
    for heading in (
        "Most improved",
        "Worst aligned",
        "Best aligned",
        "Duplicates",
        "A sample of everything",
        "Failures",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "This preference proves nothing" in page
    assert "labels against vlm, original against labels" in page
    assert "not independent: labels" in page
    assert page.count("<article>") == 4 * 12 + 3
    assert all(len(one) == len(set(one)) <= 12 for one in asked), "memory holds the pictures of one page"
    assert page.count(">kept</span>") == 3
    assert html.escape("<photos-00000/0007.jpg>") in page


def test_without_a_shared_backbone_there_is_no_warning(tmp_path: Path) -> None:
    store = make_store(tmp_path, captioners=make_store.__kwdefaults__["captioners"][1:])
    page, _ = _render(store, tmp_path)
    assert "proves nothing" not in page
    assert "not independent" not in page


def test_it_is_bounded_and_the_same_every_time(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    page, asked = _render(store, tmp_path, per_section=2)
    assert page.count("<article>") == 4 * 2 + 2
    assert all(len(one) <= 2 * 3 for one in asked)
    assert _render(store, tmp_path, per_section=2)[0] == page


@pytest.mark.parametrize(
    "store_of",
    [{"shards": 0}, {"captioners": ()}, {"duplicates": False}, {"all_failed": True}],
    ids=["no shards", "no captioners", "no duplicates", "all failed"],
)
def test_a_store_that_lacks_something_still_has_a_page(tmp_path: Path, store_of: dict[str, Any]) -> None:
    page, _ = _render(make_store(tmp_path, **store_of), tmp_path)
    assert page.rstrip().endswith("</html>")
    assert ("Most improved" in page) == ("duplicates" in store_of)


def test_an_image_that_cannot_be_read_leaves_an_empty_frame(tmp_path: Path) -> None:
    store = make_store(tmp_path, shards=1, rows=5)
    for uid in list(store.images)[1:]:
        store.images[uid] = b"broken"
    del store.images[next(iter(store.images))]
    page, _ = _render(store, tmp_path)
    assert "no picture" in page
    assert "data:image/jpeg" not in page
