"""`dqe view` of many samples: until its server answers, until the first screen in Chromium, and what one does then.

    python -m benchmarks.view [--rows 10000 100000 1000000] [--sample FOLDER] [--search]

The file of the view and the warehouse are valid, but no model has seen their samples: what is known of them is drawn
from the embedded sample, with uids and captions of their own and numbers moved a little. Thumbnails are those of the
sample, the same in every shard. Of each size, all samples are opened, those of a condition that a tenth meets, and a
tenth by ``--limit``.

- answer: from the start of the command to the first answer to a query.
- screen: from then until the page shows all charts, and the pictures that are in sight.
- filter: from a click on a condition until all charts and pictures show what is left.
- page: from a click on the next page of pictures until they are there.
- search (with ``--search``): from typing a word until the samples with it are there; the first needs an index of all
  captions in the browser, the second does not.
- export: the samples of the condition as Parquet.

``cpu`` is what the server's process took until its answer, in seconds of CPU: where others share the machine, trust it.
Memory is the peak of the server's process (VmHWM), files that it maps among it; ``exported_mib`` is it after the
export.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.common import data_folder, publish
from benchmarks.corpus import ROOT, Shard
from dqe_assets.orchestration.graph import signals
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.view.assets import samples_path, write_view
from dqe_assets.view.samples import NEIGHBOURS
from dqe_assets.view.tables import THUMBNAILS
from dqe_resources.cache import data_directory
from dqe_resources.store import Stamp, Store
from dqe_resources.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS_PER_SHARD = 10_000
PORT = 5077
ADDRESS = f"http://127.0.0.1:{PORT}"
CONDITION = "fits badly: below 0.1"
WHERE = "hash(uid) % 10 = 0"
FOUND, FOUND_NEXT = "quixotic", "aardvark"
"""Words that only the last sample's caption has."""

COLUMNS = (
    "opened",
    "rows",
    "cpu",
    "answer",
    "screen",
    "filter",
    "page",
    "search",
    "export",
    "peak_mib",
    "exported_mib",
)
_PATIENCE = 600_000
_SETTLED, _BEGUN = 0.5, 5.0
"""Seconds without a question until all is shown, and until it is clear that the page asks nothing."""
_CAPTIONS = ("caption", "best_caption")


def make_view(sample: Path, rows: int) -> None:
    """Write the file of the view, the thumbnails and a warehouse of so many samples into the data folder."""
    known = pq.read_table(sample / "view" / "samples.parquet").combine_chunks()
    pictures = pa.concat_tables(
        pq.read_table(path, columns=["thumbnail"])
        for path in sorted((sample / "store" / "thumbnails").glob("*.parquet"))
    )
    store = Store(str(data_directory() / "store"))
    count = -(-rows // ROWS_PER_SHARD)
    on_map = min(1.0, load_settings().map.samples / rows)
    names: list[str] = []

    def tables() -> Iterator[pa.Table]:
        for number in range(count):
            shard = Shard(number, min(ROWS_PER_SHARD, rows - number * ROWS_PER_SHARD))
            names.append(shard.name)
            picks = shard.picks(len(known))
            if not number:
                table = pa.table({"uid": shard.uids, "thumbnail": pictures["thumbnail"].take(pa.array(picks))})
                table = table.append_column("fault", pa.nulls(len(table), pa.string()))
                store.write_table("thumbnails", shard.name, table, THUMBNAILS, Stamp("made", "1", len(table)))
            else:
                Path(store.path("thumbnails", shard.name)).hardlink_to(store.path("thumbnails", names[0]))
            yield _drawn(known.take(pa.array(picks)), shard, on_map, is_last=number + 1 == count)

    write_view(tables(), signals(load_settings()))
    with Warehouse(path=sample / "warehouse.duckdb").connect() as of_sample:
        own = of_sample.execute("SELECT column_name FROM (DESCRIBE samples)").fetchall()
    columns = ", ".join(f'"{name}"' for (name,) in own)
    Warehouse().rebuild(
        lambda connection: connection.execute(
            f"CREATE TABLE samples AS SELECT {columns} FROM read_parquet('{samples_path()}')"  # noqa: S608 - our own
        )
    )


def _drawn(table: pa.Table, shard: Shard, on_map: float, *, is_last: bool) -> pa.Table:
    """Rows of the sample as those of a shard."""
    rng = shard.rng(11)
    changed: dict[str, Any] = {
        "uid": shard.uids,
        "shard": pa.repeat(shard.name, shard.rows),
        "row": pa.array(np.arange(shard.rows), pa.int32()),
        "image_name": pa.array([f"{shard.number}/{row}.jpg" for row in range(shard.rows)]),
    }
    mapped = pa.array(rng.random(shard.rows) < on_map)
    for place, name in enumerate(table.column_names):
        kind, values = table.schema.field(name).type, table[name]
        if name in _CAPTIONS or name.startswith("caption_"):
            texts = shard.captions(100 + place)
            if is_last:
                texts[-1] = f"{FOUND} {FOUND_NEXT}"
            changed[name] = pc.if_else(values.is_valid(), pa.array(texts), None)
        elif name in {"map_x", "map_y", "neighbours", "topic"}:
            if name == "neighbours":
                ids = pa.array(rng.integers(shard.rows, size=shard.rows * 8))
                ends = pa.array(np.arange(shard.rows + 1, dtype=np.int32) * 8)
                lists = [shard.uids.take(ids), pa.array(rng.random(shard.rows * 8).astype(np.float32))]
                values = pa.StructArray.from_arrays(
                    [pa.ListArray.from_arrays(ends, one) for one in lists], fields=list(NEIGHBOURS)
                )
            changed[name] = pc.if_else(mapped, values, pa.scalar(None, kind))
        elif pa.types.is_floating(kind):
            changed[name] = pc.add(values, pa.array(rng.normal(size=shard.rows) * 0.02)).cast(kind)
    columns = [changed.get(name, table[name]) for name in table.column_names]
    return pa.table(columns, schema=table.schema)


@contextmanager
def opened(*options: str) -> Iterator[tuple[float, subprocess.Popen[str]]]:
    """``dqe view``, once it has answered a query: the seconds until then, and its process."""
    command = [sys.executable, "-m", "dqe_assets.cli", "view", "--port", str(PORT), *options]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:  # noqa: S603
        try:
            while running.poll() is None:
                try:
                    _asked("data/query", {"type": "json", "sql": "SELECT count(*) AS n FROM dataset"})
                    break
                except OSError:
                    time.sleep(0.02)
            yield time.perf_counter() - started, running
        finally:
            running.terminate()


def _asked(path: str, body: Any) -> bytes:
    headers = {"Content-Type": "application/json"}
    request = Request(f"{ADDRESS}/{path}", json.dumps(body).encode(), headers)  # noqa: S310 - this machine
    with urlopen(request, timeout=_PATIENCE / 1000) as answer:  # noqa: S310
        found: bytes = answer.read()
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Peak memory of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Screen:
    """A tab of Chromium that shows the view, and how long it takes to show what is asked of it."""

    def __init__(self, browser: Any) -> None:
        self.tab = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        self.tab.set_default_timeout(_PATIENCE)
        self._pending: set[Any] = set()
        self._last = time.perf_counter()
        self.tab.on("request", self._asked)
        for event in ("requestfinished", "requestfailed"):
            self.tab.on(event, self._answered)

    def _asked(self, request: Any) -> None:
        self._pending.add(request)
        self._last = time.perf_counter()

    def _answered(self, request: Any) -> None:
        self._pending.discard(request)
        self._last = time.perf_counter()

    def seconds(self, action: Any) -> float:
        """From the action, which asks for something, until half a second without a question, which is not counted."""
        self._last = started = time.perf_counter()
        action()
        while self._pending or time.perf_counter() - self._last < (_SETTLED if self._last > started else _BEGUN):
            self.tab.wait_for_timeout(20)
        return self._last - started

    def open(self) -> None:
        """Open the page, until it has charts and a picture."""
        self.tab.goto(ADDRESS)
        self.tab.get_by_text("Conditions", exact=True).wait_for()
        self.tab.locator("img[src*='thumbnails']").first.wait_for()

    def search(self, word: str) -> None:
        """Search for a word of one caption alone."""
        field = self.tab.locator("input[type=search], input[placeholder*='earch']").first
        if not field.is_visible():
            self.tab.get_by_role("button", name="Search").first.click()
        field.fill(word)
        self.tab.get_by_text(f"{FOUND} {FOUND_NEXT}").first.wait_for()

    def next_page(self) -> None:
        """Show the next pictures."""
        button = self.tab.get_by_role("button", name="Next Page").first
        button.scroll_into_view_if_needed()
        button.click()


def figures(rows: int, browser: Any, name: str, options: list[str], *, with_search: bool) -> dict[str, Any]:
    """The figures of one way to open the view."""
    print(f"{rows:,} rows: dqe view {' '.join(options)} ...", file=sys.stderr)
    with opened(*options) as (answer, running):
        screen = Screen(browser)
        found: dict[str, Any] = {"opened": name, "rows": rows, "cpu": cpu_seconds(running.pid), "answer": answer}
        found["screen"] = screen.seconds(screen.open)
        found["filter"] = screen.seconds(lambda: screen.tab.get_by_text(CONDITION).click())
        screen.seconds(lambda: screen.tab.get_by_text(CONDITION).click())
        found["page"] = screen.seconds(screen.next_page)
        found["peak_mib"] = peak_mib(running.pid)
        if with_search:
            found["search"] = screen.seconds(lambda: screen.search(FOUND))
            found["search_again"] = screen.seconds(lambda: screen.search(FOUND_NEXT))
        started = time.perf_counter()
        found["export_mb"] = (
            len(_asked("data/selection", {"predicate": "original_similarity < 0.1", "format": "parquet"})) / 1e6
        )
        found["export"] = time.perf_counter() - started
        found["exported_mib"] = peak_mib(running.pid)
        screen.tab.context.close()
    return found


def with_exponents(rows: list[dict[str, Any]]) -> None:
    """Add to each figure how it grows with the rows, from the fewest on: the power of their number."""
    for row in rows:
        fewest = next(one for one in rows if one["opened"] == row["opened"])
        if row["rows"] > fewest["rows"]:
            for what in ("cpu", "answer", "screen", "filter", "page", "export", "peak_mib"):
                ratio = np.log(row[what] / fewest[what]) / np.log(row["rows"] / fewest["rows"])
                row[f"{what}_exponent"] = round(float(ratio), 3)


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description="`dqe view` of many samples.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="How many samples.")
    parser.add_argument("--sample", type=Path, help="A data folder in which the embedded sample is made.")
    parser.add_argument("--search", action="store_true", help="Search too: in a million captions that takes minutes.")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with data_folder() as made, sync_playwright() as playwright:
        sample = options.sample or made / "sample"
        if options.sample is None:
            sample.mkdir()
            shutil.copy(ROOT / "data" / "dqe.yaml", sample)
            subprocess.run(
                [sys.executable, "-m", "dqe_assets.cli", "materialize"],
                check=True,
                env={**os.environ, "DQE_DATA": str(sample)},
            )
        # As root, chromium starts only without its sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found = []
        for rows in sorted(options.rows):
            for folder in ("store", "view"):
                shutil.rmtree(data_directory() / folder, ignore_errors=True)
            shutil.copy(ROOT / "data" / "dqe.yaml", made)
            make_view(sample.resolve(), rows)
            ways = {
                "all": ["--limit", str(rows)],
                "a condition": ["--limit", str(rows), "--where", WHERE],
                "a tenth by --limit": ["--limit", str(rows // 10)],
            }
            found += [figures(rows, browser, *way, with_search=options.search) for way in ways.items()]
        browser.close()
    with_exponents(found)
    publish("view", COLUMNS, found, "Seconds of dqe view, and MiB of its server")


if __name__ == "__main__":
    main()
