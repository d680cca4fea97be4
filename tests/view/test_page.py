"""The view in a real browser: what it shows and finds, and that nothing in samples can do anything there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pyarrow as pa
import pytest

from dqe_assets.reviews.imports import parse_said, read_decisions
from dqe_assets.view.assets import samples_path, state_path, write_view
from dqe_assets.view.chosen import Chosen
from dqe_assets.view.server import HOST, application, listening
from dqe_assets.view.tables import THUMBNAILS
from dqe_assets.view.thumbnails import thumbnails
from dqe_resources.store import Stamp, Store
from tests.conftest import ROOT, environment
from tests.image_files import encoded, noise
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (Debian: apt-get install chromium)")

PATIENCE = 120_000
"""Milliseconds that a browser on a busy machine may take."""

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(7)"><script>alert(8)</script></svg>'
ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }}<svg/onload=alert(3)>",
    "[a link](javascript:alert(4)) ![](https://example.com/x.png)",
    "https://example.com/tracked.png",
    "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='alert(5)'/>",
    "<iframe srcdoc='<script>parent.alert(6)</script>'></iframe>",
    "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciIG9ubG9hZD0iYWxlcnQoOSkiLz4=",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    pytest.importorskip("embedding_atlas", reason="the extra 'view' is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        # As root, chromium starts only without its sandbox; the pages are our own.
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(finished: Path) -> Iterator[str]:
    """Where ``dqe view`` shows the embedded sample."""
    pytest.importorskip("embedding_atlas", reason="the extra 'view' is not installed")
    port = free_port()
    command = [sys.executable, "-m", "dqe_assets.cli", "view", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(finished), stdout=subprocess.PIPE, text=True) as running:
        said = running.stdout.readline() if running.stdout else ""
        assert said.startswith(f"http://{HOST}:{port}: 256 samples. Only this machine can open it."), said
        yield f"http://{HOST}:{port}"
        running.send_signal(signal.SIGINT)


def opened(browser: Any, address: str, **options: Any) -> Any:
    """A tab that shows the view."""
    tab = browser.new_context(viewport={"width": 1600, "height": 1000}, accept_downloads=True, **options).new_page()
    tab.set_default_timeout(PATIENCE)
    tab.goto(address)
    tab.get_by_text("Conditions", exact=True).wait_for()
    tab.locator("img[src*='thumbnails'], img[src^='data:image/jpeg']").first.wait_for()
    return tab


def until(tab: Any, expression: str) -> None:
    """Wait until an expression is true. Playwright's own waiting needs what the page's policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not tab.evaluate(expression):
        assert time.monotonic() < end, f"not true in time: {expression}"
        tab.wait_for_timeout(50)


def shows(tab: Any, number: int) -> None:
    """Wait until so many samples are left."""
    until(tab, f"document.body.innerText.replace(/\\s+/g, ' ').includes(' {number} / 256 points')")


def test_a_filter_on_similarity_leaves_fewer_and_its_export_is_a_file_of_their_uids(
    browser: Any, address: str, opened_settings: Any, tmp_path: Path
) -> None:
    with opened_settings.warehouse.connect() as connection:
        query = "SELECT uid FROM samples WHERE original_similarity < 0.1"
        wanted = {uid for (uid,) in connection.execute(query).fetchall()}
    tab = opened(browser, address)
    shows(tab, 256)
    loaded = "() => [...document.images].filter(i => i.naturalWidth > 20 && i.src.includes('thumbnails')).length"
    until(tab, f"({loaded})() > 3")
    tab.get_by_text("fits badly: below 0.1").click()
    shows(tab, len(wanted))
    assert 0 < len(wanted) < 256
    tab.get_by_title("Export Selection").first.click()
    formats = tab.locator("select").filter(has=tab.locator("option", has_text="JSONL")).first
    for label in ("Parquet", "JSONL", "JSON", "CSV"):
        formats.select_option(label=label)
        with tab.expect_download() as download:
            tab.get_by_title("Export the selected points").click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        assert file.suffix == f".{label.lower()}"
        decided, _ = read_decisions(file, parse_said("drop"))
        assert set(decided["uid"].to_pylist()) == wanted
    tab.context.close()


def test_a_search_finds_captions(browser: Any, address: str) -> None:
    tab = opened(browser, address)
    tab.get_by_role("button", name="Search").first.click()
    tab.locator("input[type=search], input[placeholder*='earch']").first.fill("motorbike")
    tab.get_by_text("1980s Yamaha").nth(1).wait_for()
    tab.context.close()


def test_only_its_own_page_is_answered(address: str) -> None:
    def status(path: str, **headers: str) -> int:
        try:
            with urlopen(Request(address + path, headers=headers)) as response:
                assert "default-src 'none'" in response.headers["content-security-policy"]
                return int(response.status)
        except HTTPError as error:
            return error.code

    assert status("/thumbnails/sample-00000/0") == 200
    assert status("/", Host="attacker.example") == 403
    assert status("/data/metadata.json", Origin="https://attacker.example") == 403
    for path in ("..%2F..%2Fdqe", "nobody", "sample-00000"):
        assert status(f"/thumbnails/{path}/9999") == 404
    assert status("/data/archive.zip") == status("/data/dataset.parquet") == 404
    assert status("/thumbnails/..%2Fraw_samples%2Fsample-00000/0") == 404


@pytest.fixture
def opened_settings(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings of the finished data folder."""
    from dqe_assets.orchestration.settings import load_settings

    for name, value in environment(finished).items():
        monkeypatch.setenv(name, value)
    return load_settings()


def hostile(folder: Path) -> tuple[Store, Chosen]:
    """Samples whose captions, names and files attack who looks at them, as the assets write them."""
    names = [f"{attack}.jpg" for attack in ATTACKS]
    files = [{"bytes": encoded(noise(60, 40), "JPEG")}] * (len(names) - 1) + [{"bytes": SVG}]
    uids = [f"{number:032x}" for number in range(len(names))]
    (pictures,) = thumbnails([pa.record_batch({"uid": uids, "image": files})])
    assert pictures["thumbnail"].null_count == 1
    store = Store(str(folder / "store"))
    store.write_table("thumbnails", "made", pa.Table.from_batches([pictures]), THUMBNAILS, Stamp("x", "1", len(uids)))
    samples = pa.table(
        {
            "uid": uids,
            "shard": ["made"] * len(uids),
            "row": pa.array(range(len(uids)), pa.int32()),
            "image_name": names,
            "caption": ATTACKS,
            "caption_vlm": ATTACKS[::-1],
            "status": ["ok"] * len(uids),
            "original_similarity": pa.array([0.1 * number for number in range(len(uids))], pa.float32()),
            "topic": ATTACKS,
            "filters": [[attack] for attack in ATTACKS],
            "reason": ATTACKS,
        }
    )
    write_view(iter([samples]), {})
    assert samples_path().is_file()
    assert state_path().is_file()
    return store, Chosen(None, len(uids), len(uids))


@contextmanager
def served(store: Store, chosen: Chosen) -> Iterator[str]:
    import uvicorn

    port = free_port()
    with listening(port) as listener:
        running = uvicorn.Server(uvicorn.Config(application(chosen, store, f"http://{HOST}:{port}"), log_level="error"))
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield f"http://{HOST}:{port}"
        finally:
            running.should_exit = True
            thread.join()


def is_up(port: int) -> None:
    """Wait until a server listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection((HOST, port)):
            return
        time.sleep(0.05)
    raise AssertionError("no server")


@contextmanager
def hosted(store: Store, chosen: Chosen, folder: Path) -> Iterator[str]:
    from dqe_assets.view.export import export_view

    export_view(folder, chosen, store)
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", HOST, "-d", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            is_up(port)
            yield f"http://{HOST}:{port}"
        finally:
            running.terminate()


@pytest.mark.parametrize("how", ["dqe view", "dqe view --export"])
def test_captions_names_and_an_svg_do_nothing(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setitem(os.environ, "DQE_DATA", str(tmp_path))
    store, chosen = hostile(tmp_path)
    with served(store, chosen) if how == "dqe view" else hosted(store, chosen, tmp_path / "look") as address:
        tab = browser.new_context(viewport={"width": 1600, "height": 3000}).new_page()
        tab.set_default_timeout(PATIENCE)
        happened: list[str] = []
        tab.on("dialog", lambda dialog: (happened.append(dialog.message), dialog.dismiss()))
        tab.on("pageerror", lambda error: happened.append(str(error)))
        tab.on("console", lambda said: "Content Security Policy" in said.text and happened.append(said.text))
        own = (f"{address}/", "data:", f"blob:{address}/")
        tab.on("request", lambda request: request.url.startswith(own) or happened.append(request.url))
        tab.goto(address)
        tab.get_by_text("Conditions", exact=True).wait_for()
        tab.locator("img[src*='thumbnails'], img[src^='data:image/jpeg']").first.wait_for()
        tab.wait_for_timeout(1500)
        text = " ".join(tab.locator("body").inner_text().split())
        for attack in ATTACKS[:4]:
            assert " ".join(attack.split()) in text
        tab.get_by_title("Table view").click()
        tab.wait_for_timeout(1500)
        assert tab.locator("iframe, svg[onload], img[onerror], script:not([src])").count() == 0
        assert tab.url.partition("#")[0].rstrip("/") == address
        assert happened == []
        tab.context.close()
