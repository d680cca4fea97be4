from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dqe_resources.vectors import (
    AnyVectors,
    EmbeddedQdrant,
    Range,
    ServerQdrant,
    Vectors,
    VectorsBrokenError,
    VectorsBusyError,
    VectorsError,
    VectorsMismatchError,
    parse_where,
)

ROOT = Path(__file__).parents[3]
DIMENSION = 16
NAMES = {"image": DIMENSION, "original": DIMENSION}
KINDS = ["embedded", "server", "local"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect", "ignore:Local mode performs exact", "ignore:Api key is used"
)


class LocalServer(ServerQdrant):
    """The calls of a server, answered by qdrant-client itself: another implementation of what they mean."""

    kind: ClassVar[str] = "local"
    directory: Path

    def _connect(self):
        from qdrant_client import QdrantClient

        return QdrantClient(path=str(self.directory))


@pytest.fixture
def make_store(request):
    """Makes the store of a kind and a directory; on the server, it is a collection with a name of its own."""

    def make(kind: str, directory: Path) -> Vectors:
        if kind == "embedded":
            return EmbeddedQdrant(directory=directory)
        if kind == "local":
            return LocalServer(url="http://local", directory=directory)
        return request.getfixturevalue("qdrant").vectors(uuid.uuid5(uuid.NAMESPACE_URL, str(directory)).hex)

    return make


@pytest.fixture(params=KINDS)
def store(request, make_store, tmp_path) -> Vectors:
    return make_store(request.param, tmp_path / "qdrant")


def uid(i: int) -> str:
    return f"{i + 1:032x}"


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    vectors = rng.normal(size=(n, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def make_points(numbers: range | list[int], *, seed: int = 0, source: str = "web", without: set[int] = frozenset()):
    """Points whose vectors depend on their number and the seed alone; those in ``without`` have no ``original``."""
    vectors = {name: [unit(np.random.default_rng([seed, k, i]), 1)[0] for i in numbers] for k, name in enumerate(NAMES)}
    return pa.table(
        {
            "uid": [uid(i) for i in numbers],
            "image": pa.array(list(map(list, vectors["image"])), pa.list_(pa.float16())),
            "original": pa.array(
                [None if i in without else list(v) for i, v in zip(numbers, vectors["original"], strict=True)],
                pa.list_(pa.float16()),
            ),
            "image_name": [f"photo {i}.jpg" for i in numbers],
            "source": [source] * len(numbers),
            "caption": [None if i in without else f"caption {i} ö" for i in numbers],
            "width": pa.array([100 + i for i in numbers], pa.int32()),
            "similarity_original": pa.array([None if i in without else i / 100 for i in numbers], pa.float32()),
            "similarity_qwen2.5-vl": pa.array([i / 50 for i in numbers], pa.float32()),
            "flag": [i % 2 == 0 for i in numbers],
            "perceptual_hash": pa.array([2**64 - 1 - i for i in numbers], pa.uint64()),
            "colours": [["red", "blue"]] * len(numbers),
            "flags_qwen2.5-vl": pa.array([flags_of(i) for i in numbers], pa.list_(pa.string())),
            "flagged_qwen2.5-vl": pa.array([None if i % 10 == 7 else bool(flags_of(i)) for i in numbers], pa.bool_()),
        }
    )


def flags_of(i: int) -> list[str] | None:
    return None if i % 10 == 7 else {0: ["cut_off", "refusal"], 5: ["refusal"]}.get(i % 10, [])


def state(collection) -> dict:
    return {
        point.uid: (
            {name: value for name, value in point.payload.items() if name != "shard"},
            {name: np.round(vector, 4).tolist() for name, vector in point.vectors.items()},
        )
        for point in collection.scroll()
    }


class TestReplaceShard:
    def test_points_come_back_as_they_went_in(self, store):
        points = make_points(range(20), without={3})
        with store.open(NAMES) as collection:
            assert collection.replace_shard("web-0", points) == 20
            third, fourth = collection.get(uid(3)), collection.get(uid(4))
            assert collection.get(uid(99)) is None
        assert third.uid == uid(3)
        assert set(third.vectors) == {"image"}
        assert "caption" not in third.payload
        assert "similarity_original" not in third.payload
        assert fourth.payload == {
            "image_name": "photo 4.jpg",
            "source": "web",
            "shard": "web-0",
            "caption": "caption 4 ö",
            "width": 104,
            "similarity_original": 0.04,
            "similarity_qwen2.5-vl": 0.08,
            "flag": True,
            "perceptual_hash": 2**64 - 5,
            "colours": ["red", "blue"],
            "flags_qwen2.5-vl": [],
            "flagged_qwen2.5-vl": False,
        }
        for name in NAMES:
            sent = np.asarray(points.column(name)[4].as_py(), np.float32)
            np.testing.assert_allclose(fourth.vectors[name], sent / np.linalg.norm(sent), atol=3e-4)

    def test_again_changes_nothing(self, store):
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(30)))
            before = state(collection)
        with store.open(NAMES) as collection:
            assert collection.replace_shard("web-0", make_points(range(30))) == 30
            assert state(collection) == before
            assert len(before) == collection.count() == 30

    def test_what_left_the_shard_is_removed_and_other_shards_stay(self, store):
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(30)))
            collection.replace_shard("web-1", make_points(range(100, 110)))
            assert collection.replace_shard("web-0", make_points(range(20, 40), seed=1)) == 20
            assert collection.uids("web-0") == {uid(i) for i in range(20, 40)}
            assert collection.uids("web-1") == {uid(i) for i in range(100, 110)}
            assert collection.count({"shard": "web-0"}) == 20
            assert collection.replace_shard("web-1", make_points([])) == 0
            assert collection.count() == 20

    def test_a_vector_that_is_gone_is_removed(self, store):
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(5)))
            collection.replace_shard("web-0", make_points(range(5), without={2}))
            assert "original" not in collection.get(uid(2)).vectors
            query = unit(np.random.default_rng(0), 1)[0]
            assert uid(2) not in {hit.uid for hit in collection.search(query, "original", 10)}
            assert uid(2) in {hit.uid for hit in collection.search(query, "image", 10)}

    def test_takes_a_stream_of_batches_without_some_vectors(self, store):
        batches = make_points(range(25)).drop_columns(["original"]).to_batches(max_chunksize=10)
        with store.open(NAMES) as collection:
            assert collection.replace_shard("web-0", iter(batches)) == 25
            assert set(collection.get(uid(24)).vectors) == {"image"}

    @pytest.mark.parametrize(
        "kind",
        [pa.list_(pa.float16()), pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 16)],
    )
    def test_every_form_of_a_vector_column(self, make_store, tmp_path, kind):
        points = make_points(range(6), without={0, 5})
        column = points.column("original").cast(pa.list_(pa.float32()))
        points = points.set_column(2, "original", pa.array(column.to_pylist(), kind)).slice(1)
        with make_store("embedded", tmp_path).open(NAMES) as collection:
            collection.replace_shard("web-0", points)
            np.testing.assert_allclose(collection.get(uid(3)).vectors["original"], column[3].as_py(), atol=1e-3)
            assert set(collection.get(uid(5)).vectors) == {"image"}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.drop_columns(["uid"]), "no column 'uid'"),
            (lambda t: t.set_column(0, "uid", pa.array(["x"] * 3)), "'x' is not 32 hex digits"),
            (lambda t: t.set_column(0, "uid", pa.array([uid(1)] * 3)), "comes twice"),
            (lambda t: t.set_column(1, "image", pa.array([[1.0]] * 3)), f"'image' of {uid(0)} has 1 dimensions"),
            (lambda t: t.set_column(1, "image", pa.array([[0.0] * 16] * 3)), f"'image' of {uid(0)} has no direction"),
            (
                lambda t: t.set_column(1, "image", pa.array([[1.0] * 16, None, [float("nan")] * 16])),
                f"'image' of {uid(2)} has no direction",
            ),
            (lambda t: t.set_column(1, "image", pa.array(["a"] * 3)), "of type string instead of a list of floats"),
            (lambda t: t.append_column("new", t.column("image")), "no vector of that name"),
            (lambda t: t.append_column("bad", pa.array([1.0, float("inf"), None])), f"'bad' of {uid(1)}"),
            (lambda t: t.append_column("bad", pa.array([b"x"] * 3)), "type binary cannot be payload"),
            (lambda t: t.append_column("shard", pa.array(["other"] * 3)), "another shard"),
        ],
    )
    def test_points_that_cannot_be_are_refused_by_name(self, make_store, tmp_path, change, message):
        with (
            make_store("embedded", tmp_path).open(NAMES) as collection,
            pytest.raises(ValueError, match=message),
        ):
            collection.replace_shard("web-0", change(make_points(range(3))))


class TestSearch:
    @pytest.fixture
    def filled(self, store):
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(60), without={7}))
            collection.replace_shard("own-0", make_points(range(60, 90), source="own"))
            yield collection

    def test_finds_the_nearest_by_cosine(self, filled):
        points = make_points(range(90))
        matrix = np.asarray(points.column("image").to_pylist(), np.float32)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        query = np.random.default_rng(9).normal(size=DIMENSION) * 40
        scores = matrix @ (query / np.linalg.norm(query))
        best = np.argsort(-scores)[:10]
        hits = filled.search(query, "image", 10)
        assert [hit.uid for hit in hits] == [uid(i) for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-4)
        assert hits[0].payload["image_name"] == f"photo {best[0]}.jpg"

    @pytest.mark.parametrize(
        ("where", "numbers"),
        [
            (None, range(90)),
            ({}, range(90)),
            ({"source": "own"}, range(60, 90)),
            ({"source": "nobody"}, []),
            ({"image_name": "photo 4.jpg"}, [4]),
            ({"width": 150}, [50]),
            ({"width": Range(150, 155)}, range(50, 55)),
            ({"width": (None, 103)}, range(3)),
            ({"similarity_original": Range(low=0.85)}, range(85, 90)),
            ({"similarity_original": 0.35}, [35]),
            ({"similarity_original": (None, 0.1)}, [0, 1, 2, 3, 4, 5, 6, 8, 9]),
            ({"similarity_qwen2.5-vl": (0.8, 0.84)}, [40, 41]),
            ({"flag": True}, range(0, 90, 2)),
            ({"flag": np.bool_(False)}, range(1, 90, 2)),
            ({"colours": "red", "source": "web", "width": (110, None)}, range(10, 60)),
            ({"no_such_field": "x"}, []),
            ({"uid": frozenset({uid(3), uid(70), uid(5000)})}, [3, 70]),
            ({"uid": frozenset({uid(3), uid(70)}), "source": "own"}, [70]),
            ({"uid": frozenset()}, []),
            ({"flags_qwen2.5-vl": "cut_off"}, range(0, 90, 10)),
            ({"flags_qwen2.5-vl": "refusal", "flagged_qwen2.5-vl": True}, [*range(0, 90, 10), *range(5, 90, 10)]),
            ({"flagged_qwen2.5-vl": False, "width": (None, 108)}, [1, 2, 3, 4, 6]),
        ],
    )
    def test_conditions_hold_for_search_count_and_scroll(self, filled, where, numbers):
        expected = {uid(i) for i in numbers}
        query = np.random.default_rng(3).normal(size=DIMENSION)
        assert filled.count(where) == len(expected)
        assert {hit.uid for hit in filled.search(query, "image", 200, where)} == expected
        assert [point.uid for point in filled.scroll(where)] == sorted(expected)

    @pytest.mark.parametrize(
        ("field", "value"), [("width", float("nan")), ("uid", uid(3)), ("width", frozenset({uid(3)}))]
    )
    def test_a_value_that_is_no_condition(self, filled, field, value):
        with pytest.raises(ValueError, match=f"condition on '{field}': "):
            filled.count({field: value})

    @pytest.mark.parametrize(
        ("vector", "using", "limit", "message"),
        [
            (np.ones(DIMENSION), "labels", 5, "no vector is named 'labels'; the collection has image"),
            (np.ones(3), "image", 5, r"has shape \(16,\), not \(3,\)"),
            (np.zeros(DIMENSION), "image", 5, "no direction"),
            (np.full(DIMENSION, np.nan), "image", 5, "no direction"),
            (np.ones(DIMENSION), "image", 0, "limit is 0"),
        ],
    )
    def test_what_cannot_be_searched_is_refused(self, filled, vector, using, limit, message):
        with pytest.raises(ValueError, match=message):
            filled.search(vector, using, limit)

    def test_copies_come_in_the_order_of_their_uids_wherever_the_limit_falls(self, store):
        vector = [list(unit(np.random.default_rng(0), 1)[0])]
        numbers = random.Random(1).sample(range(50), 50)
        points = pa.table({"uid": [uid(i) for i in numbers], "image": pa.array(vector * 50, pa.list_(pa.float16()))})
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", points)
            for limit in (1, 7, 49, 50, 60):
                hits = collection.search(np.asarray(vector[0], np.float32), "image", limit)
                assert [hit.uid for hit in hits] == [uid(i) for i in range(min(limit, 50))]

    def test_all_kinds_give_the_same(self, make_store, tmp_path):
        points = make_points(range(300), without={1, 2, 3, 250})
        points = pa.concat_tables(
            [points, points.slice(0, 40).set_column(0, "uid", pa.array(map(uid, range(900, 940))))]
        )
        answers = []
        for kind in KINDS:
            with make_store(kind, tmp_path / kind).open(NAMES) as collection:
                collection.replace_shard("web-0", points)
                rng = np.random.default_rng(5)
                answers.append(
                    [
                        collection.search(rng.normal(size=DIMENSION), using, limit, where)
                        for using in NAMES
                        for limit in (1, 10, 100)
                        for where in (None, {"width": (150, 300)}, {"flag": True, "source": "web"})
                    ]
                )
        for embedded, server, local in zip(*answers, strict=True):
            assert embedded == server
            assert [(hit.uid, hit.payload) for hit in embedded] == [(hit.uid, hit.payload) for hit in local]
            np.testing.assert_allclose([h.score for h in embedded], [h.score for h in local], atol=1e-3)


class TestContents:
    def test_counts_of_every_shard_from_one_opening(self, store):
        assert store.contents(NAMES).points == {}
        with store.open(NAMES) as collection:
            for shard in range(7):
                collection.replace_shard(f"web-{shard}", make_points(range(100 * shard, 100 * shard + shard)))
            identity = collection.identity
        found = store.contents(NAMES)
        assert found.identity == identity
        assert found.points == {f"web-{shard}": shard for shard in range(1, 7)}

    def test_more_shards_than_are_asked_for_at_once(self, store, monkeypatch):
        monkeypatch.setattr("dqe_resources.vectors.protocol._MOST_SHARDS", 2)
        with store.open(NAMES) as collection:
            for shard in range(11):
                collection.replace_shard(f"web-{shard}", make_points(range(shard, shard + 1)))
        assert store.contents(NAMES).points == {f"web-{shard}": 1 for shard in range(11)}

    def test_the_embedded_one_is_opened_again_only_once_it_has_changed(self, tmp_path, monkeypatch):
        store = EmbeddedQdrant(directory=tmp_path)
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(5)))
        opened = []
        load = EmbeddedQdrant._load
        monkeypatch.setattr(EmbeddedQdrant, "_load", lambda *given: opened.append(1) or load(*given))
        for _ in range(50):
            assert store.contents(NAMES).points == {"web-0": 5}
        assert len(opened) == 1
        # Another process, killed while it wrote: what was remembered counts no more.
        process = start(WRITER, tmp_path, 0, 0, until="ready")
        before = store._last_change()
        while store._last_change() == before:
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = store.contents(NAMES)
        with store.open(NAMES) as collection:
            assert after.points == collection.points_by_shard()
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(4)))
        assert store.contents(NAMES).points == {"web-0": 4}
        store.recreate(NAMES)
        assert store.contents(NAMES).points == {}
        assert store.contents(NAMES).identity != after.identity


class TestParseWhere:
    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ("source=sample", {"source": "sample"}),
            (" image_name = a, b.jpg ,width>=200", {"image_name": "a, b.jpg", "width": Range(200, None)}),
            ("image_name=x=y", {"image_name": "x=y"}),
            (["similarity_original>=0.3", "similarity_original<0.5"], {"similarity_original": Range(0.3, 0.5)}),
            ("similarity_qwen2.5-vl<0.5", {"similarity_qwen2.5-vl": Range(None, 0.5)}),
            ("width=640", {"width": 640.0}),
            ("flags_qwen2.5-vl=cut_off", {"flags_qwen2.5-vl": "cut_off"}),
            ("flagged_labels=false", {"flagged_labels": False}),
            ("image_name=640", {"image_name": "640"}),
            ([], {}),
        ],
    )
    def test_reads_conditions(self, text, where):
        assert parse_where(text) == where

    def test_truth_values(self):
        assert parse_where("flag=True", {"flag": "bool"}) == {"flag": True}
        with pytest.raises(ValueError, match="'flag' is true or false, not 'maybe'"):
            parse_where("flag=maybe", {"flag": "bool"})

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("source", "'source' is not a condition; write FIELD OPERATOR VALUE, operator =, >= and <"),
            ("", "'' is not a condition"),
            ("colour=red", "'colour' cannot be searched; allowed: image_name, source, .*similarity_"),
            ("width>200", "operator > is not known; allowed: =, >= and <"),
            ("source!=web", "operator != is not known"),
            ("source>=web", "'source' is not a number"),
            ("width=wide", "'width' is a number, not 'wide'"),
            ("width>=nan", "'width' is a number, not 'nan'"),
            ("width=1,width>=0", "already has a condition"),
            ("width>=1,width>=2", "already has a condition"),
        ],
    )
    def test_says_what_is_wrong_and_what_is_allowed(self, text, message):
        with pytest.raises(ValueError, match=message):
            parse_where(text)

    @given(st.text(max_size=40))
    @settings(max_examples=300)
    def test_any_text_is_read_or_refused(self, text):
        with contextlib.suppress(ValueError):
            assert isinstance(parse_where(text), dict)


class TestOpen:
    def test_the_collection_stays_with_its_identity_until_recreated(self, store):
        with store.open(NAMES) as collection:
            identity = collection.identity
            collection.replace_shard("web-0", make_points(range(3)))
        with store.open() as collection:
            assert collection.identity == identity
            assert collection.vectors == NAMES
            assert collection.count() == 3
        store.recreate({**NAMES, "labels": 4})
        with store.open() as collection:
            assert collection.identity != identity
            assert collection.vectors == {**NAMES, "labels": 4}
            assert collection.count() == 0

    def test_two_collections_have_two_identities(self, make_store, tmp_path):
        stores = [make_store(kind, tmp_path / f"{kind}{i}") for kind in KINDS for i in range(2)]
        identities = set()
        for store in stores:
            with store.open(NAMES) as collection:
                identities.add(collection.identity)
        assert len(identities) == len(stores)

    def test_none_there(self, store):
        with pytest.raises(VectorsError, match="dqe materialize caption_collection"), store.open():
            pass

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ({**NAMES, "labels": 8}, r"'labels' \(8\) is absent"),
            ({"image": DIMENSION}, r"'original' \(16\) is no longer wanted"),
            ({"image": 8, "original": DIMENSION}, "'image' has 16 dimensions instead of 8"),
        ],
    )
    def test_other_named_vectors(self, store, wanted, message):
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(3)))
        with pytest.raises(VectorsMismatchError, match=f"{message}.*[Dd]elete .*dqe materialize"), store.open(wanted):
            pass
        with store.open(NAMES) as collection:
            assert collection.count() == 3

    @pytest.mark.parametrize("names", [{}, {"": 3}, {"a/b": 3}, {"..": 3}, {"a": 0}])
    def test_names_that_cannot_be(self, store, names):
        with pytest.raises(ValueError, match="collection"), store.open(names):
            pass

    def test_an_error_inside_closes_the_collection(self, store):
        def fail():
            raise KeyError("inside")

        with pytest.raises(KeyError), store.open(NAMES) as collection:  # noqa: PT012
            collection.replace_shard("web-0", make_points(range(3)))
            fail()
        with store.open(NAMES) as collection:
            assert collection.count() == 3


class TestConfiguration:
    class Settings(BaseModel):
        vectors: AnyVectors

    def test_chosen_by_kind(self):
        assert isinstance(self.Settings(vectors={"kind": "embedded"}).vectors, EmbeddedQdrant)
        server = self.Settings(vectors={"kind": "server", "url": "http://localhost:6333", "api_key": "hush"}).vectors
        assert isinstance(server, ServerQdrant)
        assert "hush" not in repr(server)
        assert "hush" not in server.model_dump_json()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"kind": "server"},
            {"kind": "server", "url": "localhost:6333"},
            {"kind": "server", "url": "http://x", "collection": "a/b"},
            {"kind": "embedded", "wait_s": -1},
            {"kind": "embedded", "url": "http://x"},
        ],
    )
    def test_wrong_settings_are_refused(self, wrong):
        with pytest.raises(ValidationError):
            self.Settings(vectors=wrong)

    def test_the_default_directory_is_in_the_data_directory(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DQE_DATA", str(tmp_path))
        assert str(tmp_path / "qdrant") in EmbeddedQdrant().location

    def test_a_large_embedded_collection_advises_a_server(self):
        assert EmbeddedQdrant().advice(1_000_000) is None
        assert "has 2,000,000 points. From 1,500,000 on" in (EmbeddedQdrant().advice(2_000_000) or "")
        assert ServerQdrant(url="http://localhost:6333").advice(2_000_000) is None

    def test_importing_loads_no_engine(self):
        code = "import sys, dqe_resources.vectors; print([m for m in sys.modules if m.startswith('qdrant')])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


WRITER = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(ROOT)!r}]
import qdrant_edge
from test_vectors import NAMES, EmbeddedQdrant, written
store = EmbeddedQdrant(directory=Path(sys.argv[1]))
first, seed = int(sys.argv[2]), int(sys.argv[3])
points = written(first, seed)
print("ready", flush=True)
with store.open(NAMES) as collection:
    collection.replace_shard(sys.argv[4] if len(sys.argv) > 4 else "web-0", points)
print("done", flush=True)
"""

SETTLER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dqe_resources.vectors.embedded import EmbeddedCollection, EmbeddedQdrant
settle = EmbeddedCollection.settle
def settle_aloud(collection):
    print("settling", flush=True)
    settle(collection)
    print("settled", flush=True)
EmbeddedCollection.settle = settle_aloud
with EmbeddedQdrant(directory=Path(sys.argv[1])).open() as collection:
    collection._mark_changed()
    collection.settle()
"""

HOLDER = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from dqe_resources.vectors import EmbeddedQdrant
with EmbeddedQdrant(directory=Path(sys.argv[1])).open({{"image": 16, "original": 16}}):
    print("open", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def written(first: int, seed: int) -> pa.Table:
    """The points that the writer writes."""
    return make_points(range(first, first + 1500), seed=seed, without=set(range(seed, 3000, 7)))


def start(code: str, *arguments: object, until: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == until
    return process


MANY = 24_000
"""Points of 512 numbers that are settled where ``_SETTLED_KB`` is ``SETTLED_KB``."""
SETTLED_KB = 10_000


def many_points() -> tuple[pa.Table, np.ndarray]:
    """Points with a vector ``image``, and the vectors."""
    vectors = np.random.default_rng(0).normal(size=(MANY, 512)).astype(np.float16)
    numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 512)
    return pa.table({"uid": list(map(uid, range(MANY))), "image": numbers, "width": list(range(MANY))}), vectors


def queries() -> np.ndarray:
    """What is looked for."""
    return np.random.default_rng(1).normal(size=(5, 512))


def answers(collection) -> list:
    """What a few searches find, with and without a filter."""
    return [
        collection.search(query, "image", 20, where) for query in queries() for where in (None, {"width": (0, 9000)})
    ]


class TestEmbedded:
    def test_killed_at_any_moment_the_next_run_makes_it_whole(self, tmp_path):
        directory = tmp_path / "qdrant"
        store = EmbeddedQdrant(directory=directory)
        process = start(WRITER, directory, 0, 0, until="ready")
        began = time.monotonic()
        assert process.stdout.readline().strip() == "done"
        duration = time.monotonic() - began
        process.wait()
        moments = random.Random(4)
        kills = 0
        for run in range(1, 15):
            if run % 4 == 0:
                shutil.rmtree(directory)  # so that the making of a collection is killed too
            process = start(WRITER, directory, 100 * run, run, until="ready")
            time.sleep(moments.uniform(0, duration * (0.15 if run % 4 == 0 else 0.9)))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            if run % 2:
                continue
            with store.open(NAMES) as collection:
                assert collection.count() == len(state(collection))
                last = make_points(range(50 * run, 50 * run + 1200), seed=run, without=set(range(run, 3000, 5)))
                assert collection.replace_shard("web-0", last) == 1200
            with store.open(NAMES) as collection, EmbeddedQdrant(directory=tmp_path / f"new{run}").open(NAMES) as new:
                new.replace_shard("web-0", last)
                assert state(collection) == state(new)
                for where in (
                    {"source": "web"},
                    {"shard": "web-0"},
                    {"width": (0, 1e9)},
                    {"similarity_original": (0, 99)},
                ):
                    assert collection.count(where) == new.count(where)
        assert kills >= 10

    @pytest.mark.parametrize("leftover", ["collection.new", "collection.old"])
    def test_leftovers_of_a_killed_making_are_cleared(self, tmp_path, leftover):
        (tmp_path / leftover / "segments").mkdir(parents=True)
        (tmp_path / leftover / "segments" / "half").write_bytes(b"x")
        with EmbeddedQdrant(directory=tmp_path).open(NAMES) as collection:
            assert collection.count() == 0
        assert not (tmp_path / leftover).exists()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda d: next(d.glob("segments/*/segment.json")).write_bytes(b""),
            lambda d: next(d.glob("segments/*/vector_storage-image/vectors/status.dat")).write_bytes(b""),
            lambda d: (d / "collection.json").unlink(),
            lambda d: (d / "collection.json").write_text("[]"),
            lambda d: (d / "edge_config.json").write_text("{"),
        ],
    )
    def test_an_unreadable_collection_says_what_to_do_and_can_be_made_again(self, tmp_path, damage):
        store = EmbeddedQdrant(directory=tmp_path)
        with store.open(NAMES) as collection:
            collection.replace_shard("web-0", make_points(range(3)))
        damage(tmp_path / "collection")
        with (
            pytest.raises(VectorsBrokenError, match=r"cannot be read .*delete .*then run: dqe materialize"),
            store.open(NAMES),
        ):
            pass
        store.recreate(NAMES)
        with store.open(NAMES) as collection:
            assert collection.replace_shard("web-0", make_points(range(3))) == 3

    def test_many_changes_are_settled_into_segments_that_search_as_well(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dqe_resources.vectors.embedded._SETTLED_KB", SETTLED_KB)
        names = {"image": 512}
        points, vectors = many_points()
        matrix = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        best = [{uid(i) for i in np.argsort(-(matrix @ query))[:20]} for query in queries()]
        with EmbeddedQdrant(directory=tmp_path).open(names) as collection:
            with monkeypatch.context() as patch:
                patch.setattr("dqe_resources.vectors.embedded.EmbeddedCollection.settle", lambda _: None)
                collection.replace_shard("web-0", points)
            segments = collection._shard.info().segments_count
            before = answers(collection)
            collection.settle()
            assert collection._shard.info().segments_count > segments
            assert collection.count() == MANY
            after = answers(collection)
            # Of few enough points the vectors are compared; of more, their codes come first.
            assert after[1::2] == before[1::2]
            for found in (before[::2], after[::2]):
                kept = [len({hit.uid for hit in hits} & wanted) for hits, wanted in zip(found, best, strict=True)]
                assert sum(kept) >= 0.95 * 20 * len(best)
            monkeypatch.setattr("dqe_resources.vectors.embedded._COMPARED_WITH_ALL", MANY)
            assert [{hit.uid for hit in hits} for hits in answers(collection)[::2]] == best

    def test_what_is_settled_is_not_written_again_for_each_shard(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dqe_resources.vectors.embedded._SETTLED_KB", 60)
        monkeypatch.setattr("dqe_resources.vectors.embedded._LARGEST_KB", 90)
        store = EmbeddedQdrant(directory=tmp_path)
        points = {shard: make_points(range(1000 * shard, 1000 * shard + 1000)) for shard in range(4)}

        def settled() -> set[str]:
            return {path.parent.name for path in tmp_path.glob("collection/segments/*/vector_index-image")}

        seen: list[set[str]] = []
        for shard, rows in points.items():
            with store.open(NAMES) as collection:
                collection.replace_shard(f"web-{shard}", rows)
            seen.append(settled())
        assert len(seen[-1]) == 2
        assert all(before <= after for before, after in pairwise(seen))
        # What is written anew leaves no empty segments behind.
        for shard, rows in points.items():
            with store.open(NAMES) as collection:
                collection.replace_shard(f"web-{shard}", rows)
        with store.open(NAMES) as collection:
            assert collection.points_by_shard() == {f"web-{shard}": 1000 for shard in points}
            assert collection._shard.info().segments_count <= 3

    def test_killed_while_it_settles_nothing_is_lost_and_the_next_run_settles_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dqe_resources.vectors.embedded._SETTLED_KB", SETTLED_KB)
        monkeypatch.setattr("dqe_resources.vectors.embedded._COMPARED_WITH_ALL", MANY)
        points, _ = many_points()
        unsettled = EmbeddedQdrant(directory=tmp_path / "unsettled")
        with monkeypatch.context() as patch:
            patch.setattr("dqe_resources.vectors.embedded.EmbeddedCollection.settle", lambda _: None)
            with unsettled.open({"image": 512}) as collection:
                collection.replace_shard("web-0", points)
                expected = answers(collection)
                segments = collection._shard.info().segments_count

        def settling(name: str) -> tuple[EmbeddedQdrant, subprocess.Popen]:
            copy = shutil.copytree(unsettled.directory, tmp_path / name)
            return EmbeddedQdrant(directory=copy), start(SETTLER, copy, until="settling")

        _, process = settling("whole")
        began = time.monotonic()
        assert process.stdout.readline().strip() == "settled"
        duration = time.monotonic() - began
        assert process.wait() == 0
        kills = 0
        for part in (0.1, 0.4):
            store, process = settling(f"killed at {part}")
            time.sleep(part * duration)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL and not process.stdout.read()
            with store.open() as collection:
                assert answers(collection) == expected
                assert collection.replace_shard("web-0", points) == MANY
            with store.open() as collection:
                assert collection._shard.info().segments_count > segments
                assert collection.points_by_shard() == {"web-0": MANY}
                assert answers(collection) == expected
        assert kills

    def test_several_processes_at_once_lose_nothing(self, tmp_path):
        runs = [(f"web-{n}", 2000 * n, n) for n in range(3)]
        processes = [
            start(WRITER, tmp_path / "at once", first, seed, shard, until="ready") for shard, first, seed in runs
        ]
        assert [process.wait(60) for process in processes] == [0] * len(runs)
        assert [process.stdout.read().strip() for process in processes] == ["done"] * len(runs)
        at_once, in_turn = (EmbeddedQdrant(directory=tmp_path / name) for name in ("at once", "in turn"))
        with at_once.open() as collection, in_turn.open(NAMES) as other:
            for shard, first, seed in runs:
                other.replace_shard(shard, written(first, seed))
            assert collection.points_by_shard() == {shard: 1500 for shard, _, _ in runs}
            assert state(collection) == state(other)

    def test_a_second_process_waits_and_then_succeeds(self, tmp_path):
        holder = start(HOLDER, tmp_path, 1.0, until="open")
        with EmbeddedQdrant(directory=tmp_path).open(NAMES) as collection:
            assert holder.wait(10) == 0
            assert collection.replace_shard("web-0", make_points(range(3))) == 3

    def test_a_second_process_fails_clearly_after_its_wait(self, tmp_path):
        holder = start(HOLDER, tmp_path, 60, until="open")
        try:
            began = time.monotonic()
            with pytest.raises(VectorsBusyError, match=r"did not finish within 0\.3 s"):  # noqa: SIM117
                with EmbeddedQdrant(directory=tmp_path, wait_s=0.3).open(NAMES):
                    pass
            assert time.monotonic() - began < 5
        finally:
            holder.kill()
            holder.wait()
        with EmbeddedQdrant(directory=tmp_path, wait_s=5).open(NAMES) as collection:
            assert collection.count() == 0

    def test_two_threads_wait_for_each_other(self, tmp_path):
        store = EmbeddedQdrant(directory=tmp_path)

        def write(shard: int) -> None:
            with store.open(NAMES) as collection:
                collection.replace_shard(f"web-{shard}", make_points(range(100 * shard, 100 * shard + 50)))

        threads = [threading.Thread(target=write, args=(shard,)) for shard in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.open(NAMES) as collection:
            assert [collection.count({"shard": f"web-{shard}"}) for shard in range(4)] == [50] * 4

    def test_a_directory_that_cannot_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(VectorsError, match="cannot be used"):  # noqa: SIM117
            with EmbeddedQdrant(directory=tmp_path / "file" / "qdrant").open(NAMES):
                pass

    def test_an_almost_full_disk_is_refused_before_anything_breaks(self, tmp_path):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(tmp_path)], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("mounting a small file system needs privileges that are absent here")
        try:
            store = EmbeddedQdrant(directory=tmp_path)
            ballast = tmp_path / "ballast"
            with store.open(NAMES) as collection:
                collection.replace_shard("web-0", make_points(range(3)))
                ballast.write_bytes(bytes(160 * 2**20))
                with pytest.raises(VectorsError, match="almost full"):
                    collection.replace_shard("web-0", make_points(range(5)))
            with pytest.raises(VectorsError, match="almost full"), store.open(NAMES):
                pass
            ballast.unlink()
            with store.open(NAMES) as collection:
                assert collection.uids("web-0") == {uid(i) for i in range(3)}
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)


class TestServer:
    def test_a_collection_made_by_others_is_neither_used_nor_deleted(self, tmp_path):
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(tmp_path))
        client.create_collection("captions", {"image": models.VectorParams(size=4, distance=models.Distance.COSINE)})
        client.close()
        store = LocalServer(url="http://local", directory=tmp_path)
        with pytest.raises(VectorsBrokenError, match="not made here"), store.open({"image": 4}):
            pass
        with pytest.raises(VectorsBrokenError, match="not made here"):
            store.recreate({"image": 4})


def test_the_files_forget_what_was_deleted_and_nothing_else(make_store, tmp_path):
    def files() -> bytes:
        return b"".join(path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file())

    store = make_store("embedded", tmp_path / "qdrant")
    store.forget_deleted()
    with store.open(NAMES) as collection:
        collection.replace_shard("web-0", make_points(range(30), without={3}))
        collection.replace_shard("web-1", make_points(range(30, 40)))
    with store.open(NAMES) as collection:
        collection.replace_shard("web-0", make_points([i for i in range(30) if i != 7], without={3}))
        before, identity = state(collection), collection.identity
    assert b"photo 7.jpg" in files()
    store.forget_deleted()
    assert b"photo 7.jpg" not in files()
    assert b"photo 8.jpg" in files()
    with store.open(NAMES) as collection:
        assert state(collection) == before
        assert collection.identity == identity
        assert collection.points_by_shard() == {"web-0": 29, "web-1": 10}
        assert collection.count({"source": "web"}) == 39
    change = (tmp_path / "qdrant" / "collection" / "change").read_text()
    store.forget_deleted()
    assert (tmp_path / "qdrant" / "collection" / "change").read_text() == change, "there is nothing to forget"
