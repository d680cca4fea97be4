"""The collection on a server over HTTP: many at once, and all that goes wrong on the way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pydantic import BaseModel, ValidationError

from dqe_resources.errors import WholeRunError
from dqe_resources.vectors import (
    AnyVectors,
    EmbeddedQdrant,
    ServerQdrant,
    VectorsBrokenError,
    VectorsError,
    VectorsUnreachableError,
)
from tests.servers.qdrant_app import MAX_REQUEST_BYTES
from tests.servers.qdrant_server import Fault, qdrant_server

if TYPE_CHECKING:
    from dqe_resources.vectors import Collection
    from tests.servers.qdrant_server import QdrantServer

NAMES = {"image": 8, "original": 8}
WHERES = [None, {"source": "web"}, {"width": (105, 120)}, {"flag": True, "similarity_a": (0.2, None)}]
KEY = "hush-0123456789"

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used")


def uid(number: int) -> str:
    return f"{number + 1:032x}"


def points(numbers: range) -> pa.Table:
    """Points that their numbers decide; every fifth has no vector ``original``."""
    made = {name: [np.random.default_rng([k, n]).normal(size=8) for n in numbers] for k, name in enumerate(NAMES)}
    made["original"] = [None if n % 5 == 0 else vector for n, vector in zip(numbers, made["original"], strict=True)]
    return pa.table(
        {
            "uid": [uid(n) for n in numbers],
            **{name: pa.array(vectors, pa.list_(pa.float32())) for name, vectors in made.items()},
            "source": ["web" if n % 2 else "own" for n in numbers],
            "width": [100 + n for n in numbers],
            "flag": [n % 3 == 0 for n in numbers],
            "similarity_a": pa.array([n % 100 / 100 for n in numbers], pa.float32()),
            "caption": [f"caption {n} ö" for n in numbers],
        }
    )


def everything(collection: Collection) -> list:
    """All that it holds, and what searches find."""
    queries = np.random.default_rng(9).normal(size=(3, 8))
    return [
        [(p.uid, p.payload, {name: v.tolist() for name, v in sorted(p.vectors.items())}) for p in collection.scroll()],
        [collection.search(query, name, 7, where) for query in queries for name in NAMES for where in WHERES],
        collection.points_by_shard(),
        collection.count({"source": "web"}),
        collection.get(uid(101)).payload,
    ]


@pytest.fixture
def expected(tmp_path) -> list:
    """What an embedded collection says of two shards."""
    with EmbeddedQdrant(directory=tmp_path / "embedded").open(NAMES) as collection:
        collection.replace_shard("a-0", points(range(30)))
        collection.replace_shard("a-1", points(range(100, 140)))
        return everything(collection)


@pytest.fixture
def vectors(qdrant: QdrantServer, request: pytest.FixtureRequest):
    """A collection of this test's own, on a server on which nothing goes wrong yet."""
    qdrant.goes_wrong()
    yield qdrant.vectors(f"{abs(hash(request.node.name)):x}", wait_s=20)
    qdrant.goes_wrong()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts that a test can afford."""
    monkeypatch.setattr("dqe_resources.vectors.server._FIRST_WAIT_S", 0.02)


def write(vectors: ServerQdrant) -> list:
    with vectors.open(NAMES) as collection:
        assert collection.replace_shard("a-0", points(range(30))) == 30
        collection.replace_shard("a-1", points(range(90, 140)))
        collection.replace_shard("a-1", points(range(100, 140)))
        return everything(collection)


CALLS = {
    "exists": "GET .*/exists",
    "create": "PUT /collections/[^/]+$",
    "info": "GET /collections/[^/]+$",
    "index": "PUT .*/index",
    "upsert": "PUT .*/points",
    "delete": "POST .*/points/delete",
    "retrieve": "POST .*/points$",
    "count": "POST .*/points/count",
    "scroll": "POST .*/points/scroll",
    "query": "POST .*/points/query",
    "facet": "POST .*/facet",
}


@pytest.mark.parametrize("what", ["503", "502", "500", "429", "408", "cut", "lost"])
def test_what_passes_is_waited_for_and_nothing_is_lost_or_doubled(vectors, qdrant, expected, what):
    qdrant.goes_wrong(*(Fault(what, path) for path in CALLS.values()))
    assert write(vectors) == expected
    assert qdrant.told()["left"] == 0
    # Its collection has one identity, though the answer to the making of it was lost.
    with vectors.open(NAMES) as collection, vectors.open() as again:
        assert collection.identity == again.identity
    qdrant.goes_wrong(Fault(what, "DELETE"), Fault(what, CALLS["create"]))
    before = collection.identity
    vectors.recreate(NAMES)
    with vectors.open(NAMES) as collection:
        assert collection.count() == 0
        assert collection.identity != before


def test_the_faults_come_to_every_call_there_is(vectors, qdrant):
    write(vectors)
    vectors.recreate(NAMES)
    calls = {f"{method} /collections/NAME{path}" for method, path in MADE}
    assert set(qdrant.told()["seen"]) == calls


MADE = [
    ("GET", "/exists"),
    *((method, "") for method in ("PUT", "GET", "DELETE")),
    *((method, "/points") for method in ("PUT", "POST")),
    *(("POST", f"/points/{what}") for what in ("delete", "count", "scroll", "query")),
    ("PUT", "/index"),
    ("POST", "/facet"),
]


def test_no_answer_in_time_is_asked_again(vectors, qdrant, expected):
    qdrant.goes_wrong(Fault("silent", CALLS["upsert"]), Fault("silent", CALLS["query"]))
    assert write(vectors.model_copy(update={"timeout_s": 1})) == expected
    assert qdrant.told()["left"] == 0


@pytest.mark.parametrize("header", ["1", "Wed, 21 Oct 2015 07:28:00 GMT", None])
def test_an_overloaded_server_is_given_the_time_that_it_asks_for(vectors, qdrant, header):
    qdrant.goes_wrong(Fault("429", CALLS["info"], retry_after=header))
    began = time.monotonic()
    with vectors.open(NAMES) as collection:
        assert collection.count() == 0
    assert time.monotonic() - began >= (header == "1")


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("401", VectorsUnreachableError, "refuses the API key .HTTP 401.*Set api_key"),
        ("403", VectorsUnreachableError, "refuses the API key .HTTP 403"),
        ("429", VectorsUnreachableError, "is overloaded"),
        ("503", VectorsUnreachableError, "is overloaded, or a part of it is away .HTTP 503 .*it is a test"),
        ("500", VectorsError, "failed: HTTP 500 .*it is a test"),
        ("400", VectorsError, "failed: HTTP 400"),
        ("404", VectorsError, "failed: HTTP 404"),
        ("413", VectorsError, "or a proxy before it, takes no request so large .HTTP 413.*max_request_size_mb"),
        ("507", VectorsError, "failed: HTTP 507"),
        ("302", VectorsError, "failed: HTTP 302"),
        ("html", VectorsUnreachableError, "is no Qdrant server .*Correct the setting url"),
        ("200", VectorsUnreachableError, "is no Qdrant server"),
        ("cut", VectorsUnreachableError, "does not answer"),
    ],
)
def test_what_does_not_pass_says_which_server_and_what_to_do(vectors, qdrant, what, error, message):
    with vectors.open(NAMES):
        pass
    qdrant.goes_wrong(Fault(what, CALLS["info"], times=1000))
    began = time.monotonic()
    with (
        pytest.raises(error, match=f"{qdrant.url},? {message}") as caught,
        vectors.model_copy(update={"wait_s": 0.3}).open(NAMES),
    ):
        pass
    assert time.monotonic() - began < 5
    # What is of the server ends the run; what may be of one request ends its shard only.
    assert isinstance(caught.value, WholeRunError) == (error is VectorsUnreachableError)


def test_a_server_that_was_never_there_is_not_waited_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(VectorsUnreachableError, match=f"{url} does not answer.*Start it"):  # noqa: SIM117
        with ServerQdrant(url=url, timeout_s=2).open(NAMES):
            pass
    assert time.monotonic() - began < 2


def test_a_server_that_restarts_in_the_middle(tmp_path, expected):
    with qdrant_server(tmp_path / "served") as server:
        vectors = server.vectors(wait_s=60)
        with vectors.open(NAMES) as collection:
            collection.replace_shard("a-0", points(range(30)))
            server.kill()
            server.start(wait=False)
            collection.replace_shard("a-1", points(range(100, 140)))
            assert everything(collection) == expected
        server.kill()
        with pytest.raises(VectorsUnreachableError, match="does not answer"):  # noqa: SIM117
            with vectors.model_copy(update={"wait_s": 0}).open(NAMES):
                pass
        server.start()
        with vectors.open() as collection:
            assert everything(collection) == expected


WRITER = """
import sys
from dqe_resources.vectors import ServerQdrant
from tests.resources.vectors.test_server import NAMES, points
vectors, shards = ServerQdrant(url=sys.argv[1], collection=sys.argv[2]), sys.argv[3:]
print("ready", flush=True)
sys.stdin.readline()
with vectors.open(NAMES) as collection:
    for shard in shards:
        first = 100 * int(shard)
        collection.replace_shard(f"a-{shard}", points(range(first, first + 70)))
"""


def test_processes_that_make_and_fill_it_at_once(vectors, qdrant, tmp_path):
    shards = [[0, 1, 2, 4], [2, 1, 3, 0]]
    command = [sys.executable, "-c", WRITER, vectors.url, vectors.collection]
    writers = [
        subprocess.Popen(
            [*command, *map(str, some)],
            cwd=Path(__file__).parents[3],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for some in shards
    ]
    for writer in writers:
        assert writer.stdout.readline().strip() == "ready"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with vectors.open() as collection, EmbeddedQdrant(directory=tmp_path / "in turn").open(NAMES) as other:
        for shard in range(5):
            other.replace_shard(f"a-{shard}", points(range(100 * shard, 100 * shard + 70)))
        assert everything(collection) == everything(other)


def test_threads_that_write_and_search_at_once(vectors, qdrant, expected):
    with vectors.open(NAMES) as collection:
        collection.replace_shard("a-0", points(range(30)))
    done = threading.Event()

    def search(seed: int) -> int:
        asked = 0
        with vectors.open() as collection:
            while not done.is_set() or not asked:
                query = np.random.default_rng([seed, asked]).normal(size=8)
                assert len(collection.search(query, "image", 30, {"shard": "a-0"})) == 30
                asked += 1
        return asked

    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(search, seed) for seed in range(3)]
        with vectors.open() as collection:
            for _ in range(5):
                collection.replace_shard("a-1", points(range(100, 140)))
        done.set()
        assert all(one.result(60) > 0 for one in searches)
    assert qdrant.told()["most_at_once"] > 1
    with vectors.open() as collection:
        assert everything(collection) == expected


def test_batches_of_long_vectors_and_captions_are_requests_that_a_server_takes(qdrant):
    size, count = 1024, 1500
    numbers = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    table = pa.table(
        {
            "uid": [uid(n) for n in range(count)],
            "image": pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), size),
            "caption": ["ö" * 8000] * count,
        }
    )
    qdrant.goes_wrong()
    with qdrant.vectors("long").open({"image": size}) as collection:
        assert collection.replace_shard("a-0", table) == count
        assert collection.count() == count
    assert qdrant.told()["seen"]["PUT /collections/NAME/points"] >= count * size * 20 / MAX_REQUEST_BYTES


def test_requests_that_are_too_large_for_what_stands_before_the_server_are_halved(vectors, qdrant, expected):
    with vectors.open(NAMES) as collection:
        qdrant.goes_wrong(Fault("413", CALLS["upsert"], times=1000, above=2500))
        collection.replace_shard("a-0", points(range(30)))
        left = qdrant.told()["left"]
        assert left < 1000, "some were"
        collection.replace_shard("a-1", points(range(100, 140)))
        assert qdrant.told()["left"] == left, "what was too large once is not tried again"
        assert everything(collection) == expected


def test_a_point_that_is_too_large_by_itself_ends_its_shard_and_says_what_to_do(vectors, qdrant):
    with vectors.open(NAMES) as collection:
        qdrant.goes_wrong(Fault("413", CALLS["upsert"], times=1000))
        with pytest.raises(VectorsError, match=r"takes no request so large .HTTP 413.*client_max_body_size"):
            collection.replace_shard("a-0", points(range(30)))
        assert qdrant.told()["seen"]["PUT /collections/NAME/points"] == 5, "30, 15, 7, 3, 1"
        assert collection.count() == 0


def test_the_points_of_shards_are_counted_once_for_many_questions(vectors, qdrant):
    write(vectors)
    qdrant.goes_wrong()
    for _ in range(20):
        assert vectors.contents(NAMES).points == {"a-0": 30, "a-1": 40}
    assert qdrant.told()["seen"]["POST /collections/NAME/facet"] == 1
    with qdrant.vectors(vectors.collection).open() as collection:
        collection.replace_shard("a-1", points(range(100, 139)))
    assert vectors.contents(NAMES).points == {"a-0": 30, "a-1": 39}
    identity = vectors.contents(NAMES).identity
    qdrant.vectors(vectors.collection).recreate(NAMES)
    assert vectors.contents(NAMES).points == {}
    assert vectors.contents(NAMES).identity != identity


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory):
    """A server that wants a key."""
    with qdrant_server(tmp_path_factory.mktemp("locked"), KEY) as server:
        yield server


class TestKey:
    def test_the_right_one(self, locked, expected):
        assert write(locked.vectors()) == expected
        assert write(ServerQdrant(url=locked.url, api_key=f" {KEY}\n")) == expected

    @pytest.mark.parametrize("key", ["wrong-key", None])
    def test_another_or_none_is_refused(self, locked, key):
        vectors = ServerQdrant(url=locked.url, api_key=key)
        refused = r"refuses the API key .*Invalid API key.*Set api_key"
        with pytest.raises(VectorsUnreachableError, match=refused) as caught, vectors.open(NAMES):
            pass
        assert "wrong-key" not in shown(caught.value)

    @pytest.mark.parametrize("what", ["echo", "html", "cut", "503"])
    def test_it_is_never_shown_not_even_where_an_answer_repeats_it(self, locked, what):
        vectors = locked.vectors(wait_s=0)
        locked.goes_wrong(Fault(what, times=1000))
        with pytest.raises(VectorsError) as caught, vectors.open(NAMES):
            pass
        locked.goes_wrong()
        assert KEY not in shown(caught.value)
        if what == "echo":
            assert '"api-key": "<api_key>"' in str(caught.value)
        assert KEY not in f"{vectors!r}{vectors}{vectors.model_dump()}{vectors.model_dump_json()}{vectors.location}"

    @pytest.mark.parametrize(
        "vectors",
        [
            {"kind": "server", "url": "http://x", "api_key": 123456789},
            {"kind": "server", "url": "http://x", "api_key": ["123456789"]},
            {"kind": "server", "url": "http://x", "api_key": "123456789 ключ"},
            {"kind": "server", "url": "http://x", "api_key": "1234\n56789"},
            {"kind": "server", "url": "http://x", "apikey": "123456789"},
            {"kind": "server", "api_key": "123456789"},
            {"kind": "serve", "url": "http://x", "api_key": "123456789"},
            {"kind": "embedded", "api_key": "123456789"},
        ],
    )
    def test_wrong_settings_do_not_show_it(self, data, monkeypatch, vectors):
        from dqe_assets.orchestration.settings import SettingsError, load_settings

        monkeypatch.setenv("DQE_VECTORS", json.dumps(vectors))
        with pytest.raises(SettingsError, match="vectors") as caught:
            load_settings()
        assert "56789" not in str(caught.value)

    def test_it_comes_from_the_environment_too(self, data, monkeypatch, locked):
        from dqe_assets.orchestration.settings import load_settings

        monkeypatch.setenv("DQE_QDRANT_URL", locked.url)
        monkeypatch.setenv("DQE_QDRANT_API_KEY", f"{KEY}\n")
        with load_settings().vectors.open(NAMES) as collection:
            assert collection.count() >= 0
        monkeypatch.setenv("DQE_QDRANT_API_KEY", "")
        assert load_settings().vectors.api_key is None


def shown(error: BaseException) -> str:
    """All that a run's page may show of an error."""
    return "".join(traceback.format_exception(error))


class TestStandIn:
    """It refuses what Qdrant's interface does not have, and what it does not know itself."""

    @pytest.mark.parametrize(
        ("call", "arguments"),
        [
            ("count", {"count_filter": {"should": [{"key": "a", "match": {"value": "b"}}]}}),
            ("query_points", {"query": [0.0] * 8, "using": "image", "score_threshold": 0.5}),
            ("scroll", {"order_by": "width"}),
            ("delete", {"points_selector": {"must": []}}),
        ],
    )
    def test_calls_that_are_not_made_here(self, vectors, call, arguments):
        from qdrant_client import QdrantClient, models
        from qdrant_client.http.exceptions import UnexpectedResponse

        write(vectors)
        if "count_filter" in arguments or "points_selector" in arguments:
            arguments = {name: models.Filter(**value) for name, value in arguments.items()}
        client = QdrantClient(url=vectors.url, check_compatibility=False)
        with pytest.raises(UnexpectedResponse, match="400"):
            getattr(client, call)(vectors.collection, **arguments)

    def test_a_collection_that_was_not_made_here(self, qdrant):
        from qdrant_client import QdrantClient, models

        client = QdrantClient(url=qdrant.url, check_compatibility=False)
        params = models.VectorParams(size=8, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16)
        client.create_collection("others", {"image": params}, hnsw_config=models.HnswConfigDiff(m=0))
        for call in (
            lambda: qdrant.vectors("others").open({"image": 8}).__enter__(),
            lambda: qdrant.vectors("others").recreate(NAMES),
        ):
            with pytest.raises(VectorsBrokenError, match="not made here"):
                call()


def test_the_settings_name_a_server():
    class Settings(BaseModel):
        vectors: AnyVectors

    with pytest.raises(ValidationError, match="wait_s"):
        Settings(vectors={"kind": "server", "url": "http://x", "wait_s": -1})
