"""Publications in a bucket of a real S3 server, elsewhere by fsspec, and on a stand-in for the hub."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from dqe_assets.orchestration.published import published
from dqe_assets.publish.dataset import Request, opening, publish
from dqe_assets.publish.output import write_files
from dqe_assets.publish.places import hub as hub_module
from dqe_assets.publish.places import place_of
from dqe_assets.publish.places.protocol import File
from dqe_assets.publish.selection import PublishError
from dqe_resources.errors import UsageError
from dqe_resources.store import StorageError
from tests.conftest import dqe, environment
from tests.servers.seaweed import s3_server
from tests.servers.writable_hub import hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from dqe_assets.orchestration.settings import Settings
    from tests.servers.seaweed import S3
    from tests.servers.writable_hub import HubState

ABOUT = {"what": "numbers"}
NAMES = ["data/0.parquet", "data/1.parquet", "README.md"]


class StoppedError(Exception):
    """What stands for a kill between two files."""


def files(made: list[str], *, stop_at: str | None = None) -> list[File]:
    """Three files, which note that they are made."""

    def file(name: str) -> File:
        def write(target: BinaryIO) -> None:
            if name == stop_at:
                raise StoppedError
            made.append(name)
            target.write(name.encode() * 100)

        return File(name, 0 if name == "README.md" else 5, write)

    return [file(name) for name in NAMES]


@pytest.fixture
def bucket(data: Path) -> Iterator[str]:
    url = "memory://bucket/published"
    yield url
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def on_hub(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    with hub() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield state


def test_a_url_is_written_to_and_what_stopped_goes_on(bucket: str) -> None:
    made: list[str] = []
    with pytest.raises(StoppedError):
        write_files(place_of(bucket), ABOUT, files(made, stop_at=NAMES[1]))
    there = fsspec.filesystem("memory").find("/bucket/published")
    assert [path.rpartition("published/")[2] for path in there] == [NAMES[0], "unfinished.json"], "it is not finished"
    manifest = write_files(place_of(bucket), ABOUT, files(made))
    assert made == NAMES, "what was sent is not made again"
    sizes = place_of(bucket).sizes()
    assert sorted(sizes) == sorted([*NAMES, "manifest.json"])
    assert place_of(bucket).record("manifest.json") == manifest
    for file in manifest["files"]:
        content = fsspec.filesystem("memory").cat_file(f"/bucket/published/{file['name']}")
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert write_files(place_of(bucket), ABOUT, files(made)) == manifest
    assert made == NAMES
    fsspec.filesystem("memory").pipe_file(f"/bucket/published/{NAMES[1]}", b"cut")
    assert write_files(place_of(bucket), ABOUT, files(made)) == manifest
    assert made == [*NAMES, NAMES[1]]
    with pytest.raises(PublishError, match="memory://bucket/published: holds something else"):
        write_files(place_of(bucket), {"what": "letters"}, files(made))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s4://bucket/path", "s4://bucket/path: .*s4"),
        ("memory://", "names no folder"),
        ("hf://datasets/me", "expected hf://datasets/OWNER/NAME"),
        ("hf://me/name", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/me/name/part", "expected hf://datasets/OWNER/NAME"),
        ("hf://datasets/me/a--b", "hf://datasets/me/a--b: "),
    ],
)
def test_a_url_that_names_no_place_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        place_of(url)


def test_a_url_of_a_file_is_a_folder(data: Path, tmp_path: Path) -> None:
    write_files(place_of(f"file://{tmp_path}/out"), ABOUT, files([]))
    assert (tmp_path / "out" / "manifest.json").exists()


def test_the_hub_gets_each_file_once_and_is_finished_by_one_commit(on_hub: HubState) -> None:
    url, made = "hf://datasets/me/name", []
    manifest = write_files(place_of(url), ABOUT, files(made))
    assert on_hub.created["visibility"] == "private"
    assert on_hub.created["type"] == "dataset"
    assert sorted(on_hub.files) == sorted([*NAMES, "manifest.json", ".gitattributes"])
    assert json.loads(on_hub.files["manifest.json"]) == manifest
    assert on_hub.files[NAMES[0]] == NAMES[0].encode() * 100
    assert on_hub.commits == [[*NAMES, "manifest.json"]]
    assert write_files(place_of(url), ABOUT, files(made)) == manifest
    assert len(on_hub.commits) == 1
    assert made == NAMES
    on_hub.files[NAMES[1]] = b"cut"
    write_files(place_of(url), ABOUT, files(made))
    assert made == [*NAMES, NAMES[1]]
    assert sorted(on_hub.files) == sorted([*NAMES, "manifest.json", ".gitattributes"])
    with pytest.raises(PublishError, match="hf://datasets/me/name: holds something else"):
        write_files(place_of(url), {"what": "letters"}, files([]))


def test_a_revision_is_a_branch_and_a_new_dataset_public_if_asked(on_hub: HubState) -> None:
    write_files(place_of("hf://datasets/me/name@week-2", is_public=True), ABOUT, files([]))
    assert on_hub.created["visibility"] == "public"
    assert on_hub.branches == ["main", "week-2"]


@pytest.mark.parametrize(
    "failure",
    [
        ("/commit/", 429),
        ("/commit/", 500),
        ("/commit/", 503),
        ("/commit/", 0),
        ("/lfs/", 0),
        ("/lfs/", 403),
        ("/preupload/", 401),
    ],
)
def test_a_hub_that_refuses_is_named_and_the_same_command_goes_on(
    on_hub: HubState, monkeypatch: pytest.MonkeyPatch, failure: tuple[str, int]
) -> None:
    monkeypatch.setattr(hub_module, "_FILES_IN_A_COMMIT", 1)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    url, made = "hf://datasets/me/name", []
    write_first = files(made, stop_at=NAMES[1])
    with pytest.raises(StoppedError):
        write_files(place_of(url), ABOUT, write_first)
    on_hub.failures = [failure] * 20
    with pytest.raises(StorageError, match=r"hf://datasets/me/name: .*what is finished is kept.*run the same command"):
        write_files(place_of(url), ABOUT, files(made))
    assert "manifest.json" not in on_hub.files
    on_hub.failures.clear()
    manifest = write_files(place_of(url), ABOUT, files(made))
    assert json.loads(on_hub.files["manifest.json"]) == manifest
    assert "unfinished.json" not in on_hub.files
    assert made.count(NAMES[0]) == 1
    assert len(on_hub.uploads) == len(set(on_hub.uploads)), "nothing is sent twice"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def test_a_dataset_in_a_bucket_is_the_one_of_a_folder(
    s3: S3, finished: Path, opened: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    request = Request("NOT is_duplicate", "best", "hf", 40)
    url = "s3://published/set"
    publish(opened, tmp_path / "out", request)
    done = dqe(finished, "publish", url, "--where", request.condition, "--shard-size", "40")
    assert done.returncode == 0, done.stderr
    store = place_of(url)
    expected = {
        path.relative_to(tmp_path / "out").as_posix(): path.stat().st_size
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert store.sizes() == expected
    manifest = store.record("manifest.json")
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert opening(manifest, url) in done.stdout
    assert url in {one.place for one in published()}
    assert not (finished.parent / "s3:").exists()
    table: Any = pytest.importorskip("pyarrow.dataset").dataset(
        [f"published/set/{name}" for name in expected if name.endswith(".parquet")],
        filesystem=fsspec.filesystem("s3"),
    )
    assert table.count_rows() == manifest["samples"]


def test_a_bucket_that_denies_or_is_away_is_one_clear_line(
    s3: S3, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**environment(finished), **s3.environment("reader")}.items():
        monkeypatch.setenv(name, value)
    denied = dqe(finished, "publish", "s3://denied/set")
    assert denied.returncode == 1
    assert "s3://denied/set: PermissionError" in denied.stderr
    assert "Traceback" not in denied.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = dqe(finished, "publish", "s3://denied/set")
    assert away.returncode == 1
    assert "s3://denied/set: " in away.stderr
    assert "run the same command again" in " ".join(away.stderr.split())
    assert "Traceback" not in away.stderr


@pytest.mark.parametrize("error", [PermissionError("denied"), ConnectionResetError("cut off")])
@pytest.mark.parametrize("at", range(8))
def test_wherever_a_bucket_fails_nothing_counts_as_finished_and_the_same_command_goes_on(
    bucket: str, monkeypatch: pytest.MonkeyPatch, at: int, error: Exception
) -> None:
    memory = fsspec.filesystem("memory")
    put, sent = memory.put_file, []

    def failing(local: str, remote: str, **more: Any) -> None:
        sent.append(remote)
        if len(sent) == at + 1:
            raise error
        put(local, remote, **more)

    monkeypatch.setattr(memory, "put_file", failing)
    made: list[str] = []
    with pytest.raises(StorageError, match=r"memory://bucket/published: .*run the same command again"):
        write_files(place_of(bucket), ABOUT, files(made))
    assert "manifest.json" not in place_of(bucket).sizes()
    manifest = write_files(place_of(bucket), ABOUT, files(made))
    assert place_of(bucket).record("manifest.json") == manifest
    assert sorted(place_of(bucket).sizes()) == sorted([*NAMES, "manifest.json"])
    assert all(made.count(name) <= 2 for name in NAMES)
