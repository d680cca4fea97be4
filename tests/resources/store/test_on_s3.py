"""The store on a real S3 server: how often it is asked, replaced while it is read, refused, killed, and away."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest

from dqe_resources.store import Checkpoint, ReplacedError, Stamp, StorageError, Store, StoreAwayError, verified_dataset
from tests.servers.relay import Relay
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = pa.schema([pa.field("value", pa.int64(), nullable=False)])
ROWS = 50_000


def version(number: int) -> tuple[pa.Table, Stamp]:
    """A table of which every row says which version it is, and its stamp."""
    return pa.table({"value": [number] * ROWS}, SCHEMA), Stamp(f"{number:032x}", "1", ROWS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def ask(server: S3, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], Store]:
    """The store of a bucket, asked with another environment."""
    import s3fs

    def opened(environment: dict[str, str]) -> Store:
        s3fs.S3FileSystem.clear_instance_cache()
        for name, value in {**server.environment(), "AWS_MAX_ATTEMPTS": "1", **environment}.items():
            monkeypatch.setenv(name, value)
        return Store("s3://bucket/store")

    return opened


def test_a_table_that_is_replaced_again_and_again_is_read_as_one_of_those(
    ask: Callable[[dict[str, str]], Store],
) -> None:
    store = ask({})
    store.write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            made, stamp = version(number)
            store.write_table("scores", "s-00000", made, SCHEMA, stamp)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = set()
        for _ in range(60):
            (value,) = store.read("scores", "s-00000", SCHEMA)["value"].unique().to_pylist()
            (part,) = store.read_rows("scores", "s-00000", SCHEMA, [0, ROWS - 1], ["value"])["value"].unique()
            stored = store.get("scores", "s-00000")
            assert stored is not None
            assert value <= part.as_py() <= int(stored.stamp.fingerprint, 16)
            found.add(value)
    finally:
        ended.set()
        writer.join()
    assert len(found) > 3, "it was replaced meanwhile"


def test_what_a_server_refuses_is_one_clear_line(ask: Callable[[dict[str, str]], Store]) -> None:
    ask({}).write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    reader = ask({"AWS_ACCESS_KEY_ID": "reader"})
    assert reader.read("scores", "s-00000", SCHEMA).num_rows == ROWS
    with pytest.raises(StoreAwayError, match=r"s-00001\.parquet: cannot be written \(.*valid credentials, with rights"):
        reader.write_table("scores", "s-00001", version(1)[0], SCHEMA, version(1)[1])
    stranger = ask({"AWS_ACCESS_KEY_ID": "nobody"})
    with pytest.raises(StoreAwayError, match=r"^the store s3://bucket/store cannot be used: .*valid credentials"):
        stranger.read("scores", "s-00000", SCHEMA)


@pytest.mark.parametrize("what", ["credentials", "server"])
def test_without_credentials_or_server_everything_says_so(
    ask: Callable[[dict[str, str]], Store], what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    ask({}).write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    store = ask({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"} if what == "server" else {})
    if what == "credentials":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
    kept = Checkpoint(store, "scores", "s-00000", "v")
    asked: list[Callable[[], object]] = [
        lambda: store.get("scores", "s-00000"),
        lambda: store.read("scores", "s-00000", SCHEMA),
        lambda: store.read_rows("scores", "s-00000", SCHEMA, [0], ["value"]),
        lambda: list(store.batches("scores", "s-00000", SCHEMA, ["value"], 10)),
        lambda: store.partitions("scores"),
        lambda: store.files("scores", ["s-00000"]),
        store.all_files,
        lambda: kept.rows(SCHEMA),
        lambda: kept.read("bucket/store/scores/.unfinished/s-00000/v/0.arrow", SCHEMA),
        kept.clear,
        lambda: store.remove({"s-00000"}, last="raw_samples"),
        lambda: store.write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1]),
    ]
    fix = "start its server" if what == "server" else "give valid credentials"
    for one in asked:
        with pytest.raises(StoreAwayError, match=rf"bucket/store.*cannot be .*\(.*{fix}.*run the same command again"):
            one()


def test_a_server_that_comes_back_while_it_is_asked_again_is_not_noticed(
    ask: Callable[[dict[str, str]], Store], server: S3
) -> None:
    (table, stamp), later = version(1), ("s-00001", "s-00002")
    with Relay(server.url) as relay:
        # More attempts than by default, so that it is back in time whatever the waits, which are drawn.
        store = ask({"AWS_ENDPOINT_URL": relay.url, "AWS_MAX_ATTEMPTS": "12"})
        store.write_table("back", "s-00000", table, SCHEMA, stamp)
        asked: list[Callable[[], object]] = [
            lambda: store.read("back", "s-00000", SCHEMA),
            lambda: store.get("back", "s-00000"),
            *(partial(store.write_table, "back", key, table, SCHEMA, stamp) for key in later),
        ]
        for one in asked:
            relay.go()
            back = threading.Timer(0.5, relay.come)
            back.start()
            assert one() is not None
            back.join()
        assert store.partitions("back") == {"s-00000", *later}


REFUSAL = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"""


class NoBucket(BaseHTTPRequestHandler):
    """Answers as Amazon S3 does where there is no bucket: SeaweedFS makes it as something is written."""

    # So that it answers who first asks whether to send what is to be written.
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Refuse."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(404)
        self.send_header("Content-Length", str(len(REFUSAL)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(REFUSAL.encode())

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - as the base class calls them

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("who", ["SeaweedFS", "Amazon"])
def test_a_bucket_that_is_not_there_is_empty_until_something_is_written(
    ask: Callable[[dict[str, str]], Store], who: str
) -> None:
    ask({})
    with ThreadingHTTPServer(("127.0.0.1", 0), NoBucket) as amazon:
        threading.Thread(target=amazon.serve_forever, daemon=True).start()
        if who == "Amazon":
            ask({"AWS_ENDPOINT_URL": f"http://127.0.0.1:{amazon.server_port}"})
        store = Store(f"s3://not-there-{who.lower()}/store")
        assert store.get("scores", "s-00000") is None
        assert store.partitions("scores") == set()
        assert store.files("scores", ["s-00000"]) == store.all_files() == []
        store.remove({"s-00000"}, last="raw_samples")
        Checkpoint(store, "scores", "s-00000", "v").clear()
        with pytest.raises(StorageError, match=r"s-00000\.parquet: not there; run: dqe materialize"):
            store.read("scores", "s-00000", SCHEMA)
        table, stamp = version(0)
        if who == "Amazon":
            for write in (
                lambda: store.write_table("scores", "s-00000", table, SCHEMA, stamp),
                lambda: Checkpoint(store, "scores", "s-00000", "v").append(table),
                lambda: store.owned("scores", print).__enter__(),
            ):
                with pytest.raises(StoreAwayError, match=r"cannot be written .*; make the bucket, or correct its name"):
                    write()
        else:
            store.write_table("scores", "s-00000", table, SCHEMA, stamp)
            assert store.partitions("scores") == {"s-00000"}
        amazon.shutdown()


def asked(server: S3, ask: Callable[[], object]) -> int:
    """How many requests the server gets for that."""
    before = server.requests().total()
    ask()
    return server.requests().total() - before


@pytest.mark.parametrize("shards", [4, 8])
def test_a_store_that_is_looked_at_once_asks_once_for_each_partition(
    ask: Callable[[dict[str, str]], Store], server: S3, shards: int
) -> None:
    store = ask({})
    keys = [f"s-{number:05d}" for number in range(shards)]
    table, stamp = version(shards)
    for key in keys:
        store.write_table(f"of {shards}", key, table.slice(0, 9), SCHEMA, stamp)
        store.write_manifest(f"manifests of {shards}", key, stamp)

    def look() -> None:
        for _ in range(2):
            for asset in (f"of {shards}", f"manifests of {shards}"):
                assert all(now.get(asset, key) is not None for key in keys)
                assert now.get(asset, "s-99999") is None
                assert now.partitions(asset) == set(keys)

    now = store.as_it_is_now()
    # Each, and of each asset, one by its name and the list.
    assert asked(server, look) == 2 * shards + 4
    assert asked(server, lambda: now.read(f"of {shards}", keys[0], SCHEMA)) == 1


def test_one_partition_takes_few_requests(ask: Callable[[dict[str, str]], Store], server: S3) -> None:
    store, (table, stamp) = ask({}), version(1)
    assert asked(server, lambda: store.write_table("few", "s-00000", table, SCHEMA, stamp)) == 1
    assert asked(server, lambda: store.get("few", "s-00000")) == 2
    assert asked(server, lambda: store.get("few", "s-00001")) == 1
    assert asked(server, lambda: store.read("few", "s-00000", SCHEMA)) == 2
    assert asked(server, lambda: Checkpoint(store, "few", "s-00000", "v").clear()) == 1


def test_large_tables_are_read_in_parts(ask: Callable[[dict[str, str]], Store], server: S3) -> None:
    store = ask({})
    schema = pa.schema([pa.field("uid", pa.int64(), nullable=False), pa.field("image", pa.binary())])
    noise = random.Random(1)
    batches = [
        pa.record_batch({"uid": range(first, first + 500), "image": [noise.randbytes(5_000)] * 500}, schema)
        for first in range(0, 2_000, 500)
    ]
    path = store.write_batches("raw_samples", "s-00000", batches, schema, lambda: version(1)[1])
    whole = pa.Table.from_batches(batches, schema)
    before = server.sent()
    assert store.read("raw_samples", "s-00000", schema, ["uid"]).equals(whole.select(["uid"]))
    assert store.read_rows("raw_samples", "s-00000", schema, [3, 501], ["uid"])["uid"].to_pylist() == [3, 501]
    with duckdb.connect() as connection:
        connection.register("samples", verified_dataset([path], schema, ["uid", "image"], store.place))
        assert connection.execute("SELECT sum(uid) FROM samples WHERE uid < 1000").fetchone() == (999 * 500,)
    assert server.sent() - before < 1 << 20, "no image is read for the uids"
    kept = Checkpoint(store, "raw_samples", "s-00001", "v")
    kept.append(whole)
    before = server.sent()
    assert Checkpoint(store, "raw_samples", "s-00001", "v").rows(schema.remove(1)).equals(whole.select(["uid"]))
    assert server.sent() - before < 1 << 20, "and none for those of what is not finished"
    assert store.read("raw_samples", "s-00000", schema).equals(whole)
    read = list(store.batches("raw_samples", "s-00000", schema, ["uid"], 300))
    assert pa.Table.from_batches(read).equals(whole.select(["uid"]))


def test_what_duckdb_reads_of_a_store_that_is_away_says_so(ask: Callable[[dict[str, str]], Store], server: S3) -> None:
    with Relay(server.url) as relay, duckdb.connect() as connection:
        store = ask({"AWS_ENDPOINT_URL": relay.url})
        path = store.write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1])
        connection.register("scores", verified_dataset([path], SCHEMA, ["value"], store.place))
        relay.go()
        with pytest.raises(duckdb.Error) as caught:
            connection.execute("SELECT sum(value) FROM scores").fetchall()
        away = StoreAwayError.told_in(str(caught.value))
        assert str(away).startswith("the store s3://bucket/store cannot be used: bucket/store/scores/s-00000.parquet: ")
        assert str(away).endswith("then run the same command again")


def test_no_dataset_is_made_of_a_store_that_is_away(ask: Callable[[dict[str, str]], Store], server: S3) -> None:
    with Relay(server.url) as relay:
        store = ask({"AWS_ENDPOINT_URL": relay.url})
        path = store.write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1])
        relay.go()
        with pytest.raises(StoreAwayError, match=r"s-00000\.parquet: cannot be read .*start its server"):
            verified_dataset([path], SCHEMA, ["value"], store.place)


@pytest.mark.parametrize("where", ["s3", "local"])
def test_what_is_looked_at_once_is_one_version_or_an_error(
    ask: Callable[[dict[str, str]], Store], where: str, tmp_path: Path
) -> None:
    store = ask({}) if where == "s3" else Store(str(tmp_path))
    store.write_table("raced", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.03):
            number += 1
            store.write_table("raced", "s-00000", version(number)[0], SCHEMA, version(number)[1])

    writer = threading.Thread(target=write)
    writer.start()
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + 60
    try:
        while min(outcomes["one version"], outcomes["replaced"]) < 5 and time.monotonic() < end:
            now = store.as_it_is_now()
            stored = now.get("raced", "s-00000")
            assert stored is not None
            try:
                first = now.read("raced", "s-00000", SCHEMA)["value"].unique().to_pylist()
                time.sleep(0.02)
                rest = now.read_rows("raced", "s-00000", SCHEMA, [0, ROWS - 1], ["value"])["value"].unique().to_pylist()
                batches = now.batches("raced", "s-00000", SCHEMA, ["value"], ROWS)
                again = pa.Table.from_batches(batches)["value"].unique().to_pylist()
            except ReplacedError as error:
                assert "s-00000.parquet: was replaced while it was" in str(error)  # noqa: PT017
                outcomes["replaced"] += 1
                continue
            assert first == rest == again == [int(stored.stamp.fingerprint, 16)]
            outcomes["one version"] += 1
    finally:
        ended.set()
        writer.join()
    assert min(outcomes["one version"], outcomes["replaced"]) >= 5, outcomes


def test_a_writer_that_is_killed_leaves_what_was_there(ask: Callable[[dict[str, str]], Store]) -> None:
    store = ask({})
    store.write_table("killed", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    program = """
import os, sys
import pyarrow as pa
from dqe_resources.store import Stamp, Store
schema = pa.schema([pa.field("value", pa.binary(), nullable=False)])
print("writes", flush=True)
while True:
    table = pa.table({"value": [os.urandom(10_000_000) for _ in range(12)]}, schema)
    Store("s3://bucket/store").write_table("killed", "s-00000", table, schema, Stamp("f" * 32, "1", 12))
"""
    schema = pa.schema([pa.field("value", pa.binary(), nullable=False)])
    for wait in (0.4, 0.8, 1.2):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.kill()
        stored = store.get("killed", "s-00000")
        assert stored is not None
        if stored.stamp.rows == ROWS:
            assert store.read("killed", "s-00000", SCHEMA).equals(version(0)[0])
        else:
            assert store.read("killed", "s-00000", schema).num_rows == 12


def test_a_server_that_is_killed_is_an_error_until_it_is_back(
    ask: Callable[[dict[str, str]], Store], server: S3
) -> None:
    store = ask({})
    store.write_table("away", "s-00000", version(0)[0], SCHEMA, version(0)[1])
    killer = threading.Timer(0.5, server.kill)
    killer.start()
    written = 0

    def write_on() -> None:
        nonlocal written
        while True:
            store.write_table("away", f"s-{written + 1:05d}", version(1)[0], SCHEMA, version(1)[1])
            written += 1

    try:
        with pytest.raises(StoreAwayError, match=r"away/.*cannot be written \(.*start its server"):
            write_on()
    finally:
        killer.join()
        server.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # It answers before it has found all that it has.
        with suppress(StorageError, StoreAwayError):
            if store.read("away", "s-00000", SCHEMA).num_rows == ROWS:
                break
        time.sleep(0.2)
    assert store.partitions("away") >= {f"s-{number:05d}" for number in range(written + 1)}
    for number in range(1, written + 1):
        assert store.read("away", f"s-{number:05d}", SCHEMA).equals(version(1)[0])
    store.write_table("away", f"s-{written + 1:05d}", version(1)[0], SCHEMA, version(1)[1])
    assert store.read("away", f"s-{written + 1:05d}", SCHEMA).equals(version(1)[0])


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_no_message_tells_a_secret(ask: Callable[[dict[str, str]], Store], key: str) -> None:
    store = ask({"AWS_SECRET_ACCESS_KEY": "hidden-0123456789"} | ({} if "SECRET" in key else {key: "nobody"}))
    for call in (
        lambda: store.get("scores", "s-00000"),
        lambda: store.partitions("scores"),
        lambda: store.write_table("scores", "s-00000", version(0)[0], SCHEMA, version(0)[1]),
    ):
        with pytest.raises(StoreAwayError) as caught:
            call()
        assert "hidden-0123456789" not in str(caught.value)
    assert "hidden-0123456789" not in repr(store)


def test_without_the_package_it_says_which() -> None:
    program = """
import sys
sys.modules["s3fs"] = None
from dqe_resources.store import StorageError, Store
try:
    Store("s3://bucket/store").partitions("scores")
except StorageError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("s3://bucket/store: cannot be opened ("), said
    assert "pip install '.[s3]'" in said
