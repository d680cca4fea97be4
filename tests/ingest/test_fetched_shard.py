"""A shard that is fetched: limits, canaries, what is asked for again, and what a kill costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dqe_assets.ingest import raw
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.fetch.shard import CanaryError
from dqe_assets.ingest.ledger import Ledger
from dqe_assets.ingest.outcomes import OUTCOMES, by_reason_and_host
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_resources import progress
from dqe_resources.store import Checkpoint, StorageError, Store
from tests.hostile_server import HostileServer, photo
from tests.ingest.fetching import SHARD, make, rows, table, write_list
from tests.resources.store.test_damage import damage
from tests.stages import output_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 12

SMALL = 20_000
"""Bytes of a row group, so that a small shard has many."""


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer().running() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    return tmp_path


def change(folder: Path, **top: object) -> None:
    settings = yaml.safe_load((folder / "dqe.yaml").read_text())
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings | top))


def test_what_is_asked_again_is_what_refetch_says(server: HostileServer, folder: Path) -> None:
    urls = [server.url(name, number) for number in range(4) for name in ("good", "error_then_good", "not_found")]
    write_list(folder, urls, attempts=1)
    make()
    first = rows()
    assert [row["reason"] for row in first] == ["ok", "http_500", "http_404"] * 4

    make()
    assert set(server.times("good") + server.times("error_then_good") + server.times("not_found")) == {1}, (
        "it is current"
    )

    make(force=True)
    second = rows()
    assert [row["reason"] for row in second] == ["ok", "ok", "http_404"] * 4
    assert [after for after in second if after["reason"] != "ok" or "/good/" in after["url"]] == [
        before for before in first if before["reason"] == "http_404" or "/good/" in before["url"]
    ], "what was good or gone for good is kept, its times too"
    assert server.times("good") == server.times("not_found") == [1] * 4
    assert server.times("error_then_good") == [2] * 4

    change(folder, refetch="failed")
    make(force=True)
    assert server.times("not_found") == [2] * 4
    assert server.times("good") == [1] * 4

    change(folder, refetch="all")
    make(force=True)
    assert server.times("good") == [2] * 4
    assert server.times("error_then_good") == [3] * 4


def test_when_the_list_changes_rows_are_kept_by_uid_and_url(server: HostileServer, folder: Path) -> None:
    urls = [server.url("good", number) for number in range(6)]
    write_list(folder, urls)
    make()
    (folder / "list.jsonl").write_text(
        "\n".join(
            json.dumps({"url": url, "caption": f"a picture, number {number}"})
            for number, url in [(9, server.url("good", 9)), *reversed(list(enumerate(urls)))][:6]
        )
    )
    make()
    assert [row["url"] for row in rows()] == [server.url("good", number) for number in (9, 5, 4, 3, 2, 1)]
    assert [row["row"] for row in rows()] == list(range(6))
    assert all(row["image"]["bytes"] == photo(row["url"].partition(str(server.port))[2]) for row in rows())
    assert server.times("good") == [1] * 7


def test_what_an_interrupt_finds_is_kept(server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.delay = 0.05
    write_list(folder, [server.url("good", number) for number in range(60)], connections_per_host=4)

    def interrupted(_: object, step: progress.Step) -> None:
        if step.note and step.done >= 20:
            raise KeyboardInterrupt

    with progress.listen(lambda step: interrupted(None, step)), pytest.raises(KeyboardInterrupt):
        make()
    before = kept_rows(folder)
    assert before >= 20
    make()
    assert len(rows()) == 60
    assert sum(server.times("good")) <= 60 + 2 * 4
    assert sum(count > 1 for count in server.times("good")) <= 60 - before


def test_of_a_damaged_shard_only_what_cannot_be_read_is_fetched_again(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "ROW_GROUP_BYTES", SMALL)
    write_list(folder, [server.url("good", number) for number in range(20)])
    make()
    before = rows()
    path = folder / "store" / "raw_samples" / f"{SHARD}.parquet"
    in_group = pq.read_metadata(path).row_group(1).num_rows
    assert 0 < in_group < 20
    damage(path, "image.bytes", 1)
    make(force=True)
    assert [row["image"] for row in rows()] == [row["image"] for row in before]
    assert sorted(server.times("good")) == [1] * (20 - in_group) + [2] * in_group
    make()
    assert sum(server.times("good")) == 20 + in_group, "it is whole again"


def test_batches_are_made_while_others_are_fetched_and_closed_it_stops(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "ROW_GROUP_BYTES", SMALL)
    server.delay = 0.02
    write_list(folder, [server.url("good", number) for number in range(200)], connections=2, checkpoint_rows=8)
    settings = load_settings()
    batches = output_of(settings, raw_samples, raw_samples.work(settings.opened_store, SHARD, []))
    first = next(batches)
    assert first["row"].to_pylist() == list(range(first.num_rows))
    assert first.num_rows <= sum(server.asked.values()) < 150
    batches.close()
    asked = sum(server.asked.values())
    time.sleep(0.2)
    assert sum(server.asked.values()) == asked
    assert asked - 8 <= kept_rows(folder) <= asked
    make()
    assert rows() == sorted(rows(), key=lambda row: row["row"])
    assert len(server.times("good")) == len(rows()) == 200
    assert sum(count > 1 for count in server.times("good")) <= 8


def test_what_turns_out_a_placeholder_after_its_batch_was_written_is_one(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw, "ROW_GROUP_BYTES", SMALL)
    started, write_batches = [], Store.write_batches

    def counted(*given: Any) -> str:
        started.append(given)
        return write_batches(*given)

    monkeypatch.setattr(Store, "write_batches", counted)
    names = ["same_stock_picture", *["good"] * 30, "same_stock_picture", *["good"] * 30, "same_stock_picture"]
    write_list(folder, [server.url(name, number) for number, name in enumerate(names)], placeholders={"same_bytes": 3})
    make()
    expected = ["ok" if name == "good" else "placeholder" for name in names]
    assert table()["reason"].to_pylist() == expected
    assert len(started) == 2, "it was begun again"
    assert set(server.asked.values()) == {1}, "and nothing was asked for again"
    make(force=True)
    assert table()["reason"].to_pylist() == expected
    assert len(started) == 3


def test_a_full_disk_ends_the_shard_and_says_so(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space left")

    write_list(folder, [server.url("good", number) for number in range(60)])
    monkeypatch.setattr(Checkpoint, "append", full)
    with pytest.raises(StorageError, match="no space left"):
        make()


def test_of_rows_of_one_uid_the_first_is_fetched_and_the_others_have_a_fault(
    server: HostileServer, folder: Path
) -> None:
    urls = [server.url("good", number) for number in range(3)]
    pq.write_table(pa.table({"uid": ["0" * 32] * 3, "url": urls, "text": ["a", "b", "c"]}), folder / "meta.parquet")
    write_list(folder, [])
    change(folder, sources=[{"kind": "datacomp", "name": "web", "path": "meta.parquet"}])
    assert make()["keys_unique"].passed
    first, *others = rows()
    assert first["image"]["bytes"] == photo("/good/0")
    assert [row["reason"] for row in others] == ["bad_row"] * 2
    assert "row 2 of the shard: an earlier row has the same uid" in others[1]["detail"]
    assert sum(server.asked.values()) == 1


def test_what_was_retried_makes_what_is_downstream_stale(server: HostileServer, folder: Path) -> None:
    write_list(folder, [server.url("error_then_good", 1), server.url("good", 1)], attempts=1)
    make()
    store = load_settings().opened_store
    before = store.get("raw_samples", SHARD)
    make(force=True)
    after = store.get("raw_samples", SHARD)
    make(force=True)
    again = store.get("raw_samples", SHARD)
    assert before
    assert after
    assert again
    assert before.stamp.fingerprint == after.stamp.fingerprint
    assert before.stamp.identity != after.stamp.identity == again.stamp.identity


def test_a_source_that_fails_from_the_start_is_not_fetched_to_its_end(server: HostileServer, folder: Path) -> None:
    names = ("good", "not_found", "forbidden", "not_found")
    urls = [server.url(name, number) for number in range(50) for name in names]
    write_list(folder, urls, canary_rows=20)
    settings = yaml.safe_load((folder / "dqe.yaml").read_text())
    settings["sources"][0]["min_success_rate"] = 0.5
    change(folder, sources=settings["sources"])
    with pytest.raises(CanaryError) as caught:
        make()
    assert (
        "source web: of its first 20 rows 5 have an image (25.0%, at least 50% required); the others: "
        "http_404 10 (127.0.0.2 10), http_403 5 (127.0.0.2 5). No more were fetched."
    ) in str(caught.value)
    assert sum(server.asked.values()) == 20
    with pytest.raises(CanaryError):
        make()
    assert server.times("good") == [1] * 5, "the images that it found are kept"
    assert server.times("not_found") == [4] * 5, "its failures are asked for again"

    settings["sources"][0]["min_success_rate"] = 0.2
    change(folder, sources=settings["sources"])
    results = make()
    assert results["success_rate"].passed
    assert len(rows()) == 200
    settings["sources"][0]["min_success_rate"] = 0.5
    change(folder, sources=settings["sources"])
    result = make()["success_rate"]
    assert not result.passed, "the first shard is there: it is for the check to say now"
    assert "50 of 200 rows have an image (25.0%, at least 50% required); the others: http_404 100 (127.0.0.2 100)" in (
        result.description
    )
    assert set(server.times("good")) == {1}


def test_hosts_and_the_whole_stay_within_their_limits(server: HostileServer, folder: Path) -> None:
    server.delay = 0.01
    write_list(folder, [server.url("good", number) for number in range(80)], connections_per_host=3)
    make()
    assert set(table()["reason"].to_pylist()) == {"ok"}
    assert server.most_at_once == 3
    with HostileServer(delay=0.01).running() as one, HostileServer(delay=0.01).running() as other:
        urls = [some.url("good", number) for number in range(60) for some in (one, other)]
        redirected = [one.url("redirect_to", f"{number}-{other.port}") for number in range(60)]
        write_list(folder, urls + redirected, connections=8, connections_per_host=5)
        make()
        assert set(table()["reason"].to_pylist()) == {"ok"}
        assert (one.most_at_once, other.most_at_once) == (5, 5), "redirects count for the host that they lead to"


def test_the_time_of_a_shard_is_limited_and_its_rows_stay(server: HostileServer, folder: Path) -> None:
    server.delay = 0.1
    urls = [server.url(name, number) for number in range(100) for name in ("good", "unavailable")]
    write_list(folder, urls, shard_seconds=2, connections_per_host=4, backoff_seconds=0.2)
    started = time.monotonic()
    make()
    assert time.monotonic() - started < 15
    reasons = table()["reason"].value_counts().to_pylist()
    counts = {reason["values"]: reason["counts"] for reason in reasons}
    assert sum(counts.values()) == 200
    assert counts["deadline"] > 100
    assert counts["ok"] > 0
    row = next(row for row in rows() if row["reason"] == "deadline")
    assert row["detail"] == "not ended within fetching.shard_seconds (2)"


def test_a_host_that_never_answers_is_given_up_and_others_are_not(server: HostileServer, folder: Path) -> None:
    dead = [server.url("always_reset", number) for number in range(60)]
    write_list(
        folder, [*dead, *(server.url("good", n) for n in range(3))], host_failures=5, connections_per_host=2, attempts=1
    )
    make()
    assert table()["reason"].to_pylist()[:60] == ["reset"] * 60
    asked = [row["attempts"] for row in rows()[:60]]
    assert 5 <= sum(asked) <= 7
    assert rows()[30]["detail"].startswith(f"not asked: the last 5 requests to 127.0.0.2:{server.port} had no answer; ")


def test_a_busy_host_is_left_alone_as_long_as_it_says(server: HostileServer, folder: Path) -> None:
    urls = [server.url("busy_for_half_a_second", number) for number in range(30)]
    write_list(folder, urls, connections_per_host=2, attempts=3)
    make()
    assert set(table()["reason"].to_pylist()) == {"ok"}
    assert sum(server.asked.values()) <= 34, "those in flight when it said so, and each row once"


def test_the_same_bytes_for_many_urls_are_a_placeholder_unless_they_are_copies(
    server: HostileServer, folder: Path
) -> None:
    stock = [server.url("same_stock_picture", number) for number in range(6)]
    write_list(folder, [*stock, server.url("good")], placeholders={"same_bytes": 6})
    make()
    assert table()["reason"].to_pylist() == ["placeholder"] * 6 + ["ok"]
    write_list(folder, stock, placeholders={"same_bytes": 7})
    make(force=True)
    assert server.times("same_stock_picture") == [1] * 6, "a placeholder is for good"
    (folder / "store").rename(folder / "old")
    make()
    assert table()["reason"].to_pylist() == ["ok"] * 6
    digest = table()["sha256"][0].as_py()
    write_list(folder, stock, placeholders={"same_bytes": None, "sha256": [digest]})
    make()
    assert table()["reason"].to_pylist() == ["placeholder"] * 6
    assert server.times("same_stock_picture") == [2] * 6

    (folder / "list.jsonl").write_text("\n".join(json.dumps({"url": url, "caption": "a bear"}) for url in stock))
    change(folder, fetching=yaml.safe_load((folder / "dqe.yaml").read_text())["fetching"] | {"placeholders": {}})
    make()
    assert table()["reason"].to_pylist() == ["ok"] * 6, "with one caption they are copies of one picture"


def test_rows_with_an_image_of_their_own_and_rows_with_a_url_keep_their_order(
    server: HostileServer, folder: Path
) -> None:
    images = [photo("own") if number % 3 else None for number in range(20)]
    urls = [server.url("good", number) if number % 2 else None for number in range(20)]
    captions = [str(number) for number in range(20)]
    pq.write_table(pa.table({"image": images, "url": urls, "caption": captions}), folder / "pairs.parquet")
    write_list(folder, [])
    source = {"kind": "parquet", "name": "web", "path": "pairs.parquet", "url_column": "url", "min_success_rate": 0}
    change(folder, sources=[source])
    assert all(result.passed for result in make().values())
    assert table()["caption"].to_pylist() == captions
    expected = ["own" if n % 3 else "good" if n % 2 else "missing" for n in range(20)]
    found = [
        row["reason"] if row["image"] is None else "own" if row["image"]["bytes"] == photo("own") else "good"
        for row in rows()
    ]
    assert found == expected
    assert [row["attempts"] for row in rows()] == [1 if kind == "good" else None for kind in expected]


def test_a_table_that_cannot_be_read_is_fetched_again(server: HostileServer, folder: Path) -> None:
    write_list(folder, [server.url("good", number) for number in range(3)])
    make()
    path = folder / "store" / "raw_samples" / f"{SHARD}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    make(force=True)
    assert set(table()["reason"].to_pylist()) == {"ok"}
    assert server.times("good") == [2] * 3


def test_progress_says_how_many_ended_how(server: HostileServer, folder: Path) -> None:
    server.delay = 0.05
    urls = [server.url(name, number) for number in range(30) for name in ("good", "not_found")]
    write_list(folder, urls, connections_per_host=4)
    steps: list[progress.Step] = []
    with progress.listen(steps.append):
        make()
    notes = [(step.done, step.note) for step in steps if step.note]
    assert notes[-1] == (60, "ok 30, http_404 30")
    assert any(0 < done < 60 for done, _ in notes)


def test_failures_are_listed_by_reason_and_host_most_frequent_first() -> None:
    outcomes = [("ok", "a"), *[("http_404", host) for host in "aabbbcde"], ("dns", "x"), ("bad_url", "")]
    assert by_reason_and_host(outcomes) == "http_404 8 (b 3, a 2, c 1, 2 hosts more), bad_url 1, dns 1 (x 1)"
    assert by_reason_and_host([("ok", "a")]) == ""


def test_kept_rows_are_read_from_where_the_newest_is(tmp_path: Path) -> None:
    checkpoint = Checkpoint(Store(str(tmp_path)), "raw_samples", SHARD, "v")
    outcomes = [
        {"uid": f"{n:032x}", "url": f"u{n}", "status": "ok", "reason": "ok", "bytes": 9, "image": {"bytes": b"%d" % n}}
        for n in range(300)
    ]
    order = list(range(300))
    random.Random(0).shuffle(order)
    for start in range(0, 300, 70):
        part = [outcomes[n] for n in order[start : start + 70]]
        checkpoint.append(pa.Table.from_pylist(part, OUTCOMES))
    kept = Ledger()
    kept.add_checkpoint(checkpoint)
    kept.add_checkpoint(checkpoint)
    assert len(kept) == 300
    assert (f"{7:032x}", "u7") in kept
    assert (f"{7:032x}", "u8") not in kept
    wanted = [(f"{n:032x}", f"u{n}") for n in (299, 3, 150, 151)]
    assert [image["bytes"] for image in kept.read(wanted)["image"].to_pylist()] == [b"299", b"3", b"150", b"151"]
    assert kept.read([]).num_rows == 0
    later = Ledger()
    later.add_checkpoint(replace(checkpoint))
    assert later.read(wanted).equals(kept.read(wanted))
    for path in checkpoint.files():
        os.truncate(path, 100)
    with pytest.raises(StorageError, match=r"damaged .* delete it"):
        later.read(wanted)


def test_the_command_says_why_and_what_to_do(server: HostileServer, folder: Path) -> None:
    write_list(folder, [server.url("not_found", number) for number in range(30)], canary_rows=10)
    settings = yaml.safe_load((folder / "dqe.yaml").read_text())
    settings["sources"][0]["min_success_rate"] = 0.5
    change(folder, sources=settings["sources"])
    with instance() as current:
        runner.sync(load_settings(), current)
        outcome = runner.materialize(load_settings(), current, assets=["raw_samples"])
    assert len(outcome.failures) == 1
    assert "of its first 10 rows 0 have an image" in outcome.failures[0]
    assert "http_404 10 (127.0.0.2 10)" in outcome.failures[0]


def make_and_die(folder: str) -> None:
    os.environ["DQE_DATA"] = folder
    raw.ROW_GROUP_BYTES = SMALL
    make()


def without_times(made: pa.Table) -> pa.Table:
    return made.drop_columns(["seconds", "fetched_at"])


def kept_rows(folder: Path) -> int:
    return sum(
        pa.ipc.open_file(path.read_bytes()[:-4]).read_all().num_rows
        for path in folder.glob("store/**/.unfinished/**/[!.]*.arrow")
    )


def test_killed_at_random_moments_it_ends_with_the_same_table(
    server: HostileServer, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.delay = 0.01
    names = ("good", "good", "good", "not_found", "redirect_to_good", "truncated", "good", "same_stock_picture")
    urls = [server.url(name, number) for number in range(50) for name in names]
    lost_at_most = 40
    monkeypatch.setattr(raw, "ROW_GROUP_BYTES", SMALL)
    settings = {"connections": 8, "connections_per_host": 8, "checkpoint_rows": lost_at_most}
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    write_list(undisturbed, urls, **settings)
    monkeypatch.setenv("DQE_DATA", str(undisturbed))
    make()
    expected = table()

    server.asked.clear()
    write_list(folder, urls, **settings)
    monkeypatch.setenv("DQE_DATA", str(folder))
    # Children of a process that has all of it loaded: each begins at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ingest.test_fetched_shard"])
    chance = random.Random(5)
    kept = []
    for _ in range(KILLS):
        before = sum(server.asked.values())
        child = context.Process(target=make_and_die, args=(str(folder),))
        child.start()
        further = chance.randint(5, 60)
        while child.is_alive() and sum(server.asked.values()) < before + further:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        assert child.is_alive(), "a run ended before it was killed"
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        kept.append(kept_rows(folder))
        asked_for = sum(1 for path in server.asked if not path.startswith("/good/by-redirect"))
        assert asked_for - kept[-1] <= lost_at_most
    assert len(set(kept)) >= 2, f"the kills fell into too few moments: {kept}"
    assert kept == sorted(kept)

    make()
    assert without_times(table()).equals(without_times(expected))
    assert set(table()["reason"].to_pylist()) == {"ok", "http_404", "truncated", "placeholder"}
    again = [count for path, count in server.asked.items() if path.startswith("/good/") for _ in range(count - 1)]
    assert len(again) <= KILLS * lost_at_most
    good = server.times("good")
    make(force=True)
    assert server.times("good") == good, "no good image is fetched twice once its shard is written"
    assert not list(folder.glob("store/**/.unfinished/**/*.arrow"))
