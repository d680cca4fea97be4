"""What fails for the whole run ends that asset once, in one line; what does not depend on it is made."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from aiohttp import web

from dqe_assets.core.asset import asset
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.resources import dagster_resources
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.captioners.protocol import NoCaptionerError
from dqe_resources.errors import DataQualityError, WholeRunError, of_whole_run
from dqe_resources.keyed_table import TableError, UnreadableTableError
from dqe_resources.models.image_towers import ImageTowerError
from dqe_resources.models.packages import PackageError
from dqe_resources.store import StorageError
from tests.caption_server import CaptionServer, caption_of, jpeg
from tests.conftest import environment
from tests.hostile_server import HostileServer
from tests.ingest.fetching import QUICK
from tests.stages import stage_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.runner import Outcome
    from dqe_assets.orchestration.settings import Settings

SHARDS = [f"photos-{number:05d}" for number in range(3)]
CAPTIONS = "synthetic_captions/vlm"


@pytest.fixture
def photos(data: Path) -> Path:
    """Nine photos, three to a shard."""
    folder = data / "photos"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(jpeg(number + 40))
        (folder / f"{number}.txt").write_text(f"a stripe, number {number}")
    configure(data)
    return data


def configure(data: Path, **settings: Any) -> None:
    source = {"kind": "folder", "name": "photos", "path": "photos", "shard_size": 3}
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "image_text": None, **settings}))


def run_of_dagster(settings: Settings, stages: Sequence[Stage], first: str, last: str) -> dg.ExecuteInProcessResult:
    """One run of Dagster over all shards from one to another."""
    with dg.DagsterInstance.ephemeral() as ephemeral:
        runner.sync(settings, ephemeral)
        return dg.materialize(
            [asset(one, shards_per_run=9) for one in stages],
            instance=ephemeral,
            resources=dagster_resources(settings),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )


def vlm(url: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "openai", "name": "vlm", "url": url, "model": "tiny", "start_seconds": 0.1, **settings}


def materialize(*assets: str) -> Outcome:
    settings = load_settings()
    with instance(settings.concurrency) as current:
        runner.sync(settings, current)
        return runner.materialize(settings, current, assets=assets)


def made(outcome: Outcome, asset: str) -> list[str | None]:
    return [partition for name, partition in outcome.made if name == asset]


def test_a_captioner_whose_server_is_away_is_asked_for_once_and_the_rest_is_made(photos: Path) -> None:
    configure(photos, captioners=[vlm("http://user:s3cret@127.0.0.1:9"), {"kind": "labels", "name": "labels"}])
    outcome = materialize("raw_samples", CAPTIONS, "synthetic_captions/labels", "image_features", "joint_embeddings")
    assert set(outcome.ended) == {CAPTIONS}
    assert not outcome.failures
    for name in ("raw_samples", "image_features", "synthetic_captions/labels"):
        assert made(outcome, name) == SHARDS
    (line,) = runner.ended_in_words(outcome, load_settings())
    assert line.startswith(f"{CAPTIONS}: http://127.0.0.1:9: no server answered within 0.1 s (start_seconds)")
    assert "Nothing more of it was made in this run, nor what depends on it: best_captions, " in line
    assert "s3cret" not in line


def test_a_server_that_refuses_for_all_is_asked_by_the_first_shard_alone(photos: Path) -> None:
    async def answer(_: int) -> web.Response:
        return web.Response(status=401, text="a key that is wrong")

    with CaptionServer(answer) as server:
        configure(photos, captioners=[vlm(server.url)])
        outcome = materialize("raw_samples", CAPTIONS)
        assert len(server.asked) <= 3
    assert made(outcome, "raw_samples") == SHARDS
    assert "HTTP 401 Unauthorized a key that is wrong" in outcome.ended[CAPTIONS]
    assert not outcome.failures


def test_what_fails_for_a_shard_alone_is_asked_for_of_every_shard(photos: Path) -> None:
    async def answer(number: int) -> str | web.Response:
        return web.Response(status=400, text="too dark") if number < 43 else caption_of(number)

    with CaptionServer(answer) as server:
        configure(photos, captioners=[vlm(server.url)])
        outcome = materialize("raw_samples", CAPTIONS)
    assert not outcome.ended
    assert len(outcome.failures) == 1
    assert f"{CAPTIONS}, shard {SHARDS[0]}: check " in outcome.failures[0]
    assert made(outcome, CAPTIONS) == SHARDS


def test_a_source_whose_first_rows_fail_is_given_up_and_no_other(photos: Path) -> None:
    with HostileServer().running() as server:
        urls = [server.url("not_found", number) for number in range(30)]
        (photos / "list.csv").write_text("url,caption\n" + "".join(f"{url},a picture\n" for url in urls))
        web = {"kind": "urls", "name": "web", "path": "list.csv", "shard_size": 10}
        folder = {"kind": "folder", "name": "photos", "path": "photos", "shard_size": 3}
        fetching = QUICK | {"canary_rows": 5}
        configure(photos, sources=[web, folder], captioners=[], fetching=fetching)
        outcome = materialize("raw_samples", "image_features")
        assert sum(server.asked.values()) == 5
        (line,) = outcome.failures
        assert line.startswith("raw_samples, shard web-00000: source web: of its first 5 rows 0 have an image")
        assert made(outcome, "image_features") == SHARDS

        raw_samples = stage_named(load_settings(), "raw_samples")
        result = run_of_dagster(load_settings(), [raw_samples], "web-00000", "web-00002")
        assert "PartitionsError: 1 of 3 failed: web-00000: source web: of its first 5 rows 0" in error_of(result)
        assert sum(server.asked.values()) == 10


def test_a_missing_package_ends_the_asset(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = {"kind": "open_clip", "architecture": "ViT-B-32", "weights": "openai"}
    configure(photos, captioners=[], scorer=scorer)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    outcome = materialize("raw_samples", "joint_embeddings", "image_features")
    assert outcome.ended == {"joint_embeddings": "open_clip is not installed: pip install '.[clip]'"}
    assert made(outcome, "image_features") == SHARDS


FULL = """
mount -t tmpfs -o size=3m none "$1" || exit 77
shift
"$@" raw_samples image_features concept_performance
echo "first: $?"
"""

READ_ONLY = """
mount -t tmpfs none "$1" && mount -o remount,ro "$1" || exit 77
shift
"$@" raw_samples image_features concept_performance
echo "first: $?"
"""


@pytest.mark.parametrize(
    ("script", "kept", "said"), [(FULL, 1, "No space left on device"), (READ_ONLY, 0, "Read-only file system")]
)
def test_a_disk_that_takes_no_more_is_said_once(data: Path, tmp_path: Path, script: str, kept: int, said: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or not sys.platform.startswith("linux"):
        pytest.skip("only Linux has mount namespaces")
    (data / "photos").mkdir()
    for number in range(9):
        (data / "photos" / f"{number}.jpg").write_bytes(jpeg(number) + os.urandom(600_000))
    disk = tmp_path / "disk"
    disk.mkdir()
    configure(data, captioners=[], store=str(disk / "store"))
    command = [sys.executable, "-m", "dqe_assets.cli", "materialize"]
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", script, "sh", str(disk), *command],
        env=environment(data),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    assert done.stdout.endswith("first: 1\n"), done.stdout + done.stderr
    failed = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    (raw,) = [line for line in failed if line.startswith("failed: raw_samples: ")]
    assert said in raw
    assert "nor what depends on it: " in raw
    assert all(line.startswith(("failed: raw_samples: ", "failed: concept_performance: ")) for line in failed)
    assert done.stdout.count("✓ raw_samples") == kept
    assert "Traceback" not in done.stderr


def failing(write: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as found:  # noqa: PT011 - each library has its own
        write()
    return found.value


# Only by file descriptors: libraries that are given a path replace or remove what is there when they fail.
def to_full_device() -> None:
    with Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")


def to_full_device_by_arrow(table: pa.Table) -> None:
    with pa.OSFile("/dev/full", "wb") as device:
        pq.write_table(table, device)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_known_by_whatever_library_writes() -> None:
    table = pa.table({"x": list(range(100_000))})
    full = [
        failing(to_full_device),
        failing(lambda: to_full_device_by_arrow(table)),
    ]
    for error in full:
        assert "No space left on device" in (of_whole_run(error) or ""), error
        wrapped = StorageError("store/x.parquet: cannot be written")
        wrapped.__cause__ = error
        assert of_whole_run(wrapped) == "store/x.parquet: cannot be written"


class ClientError(Exception):
    """As boto has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"An error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "is_of_whole_run"),
    [
        (ModuleNotFoundError("No module named 'x'"), True),
        (PackageError("x is not there"), True),
        (NoCaptionerError("away"), True),
        (ImageTowerError("timm cannot load it"), True),
        (UnreadableTableError("captions.csv: cannot be read"), True),
        (TableError("captions.csv: rows 1 and 2 have the same key"), False),
        (ClientError(403), True),
        (ClientError(404), False),
        (PermissionError(13, "Access Denied"), True),
        (PermissionError(13, "Permission denied", "store/x.parquet"), False),
        (FileNotFoundError(2, "No such file", "x"), False),
        (StorageError("x: torn"), False),
        (KeyError("uid"), False),
    ],
)
def test_only_what_comes_for_every_shard_is_of_the_whole_run(error: Exception, is_of_whole_run: bool) -> None:
    assert (of_whole_run(error) is not None) == is_of_whole_run
    assert isinstance(NoCaptionerError("x").with_progress(1, 2, "captions"), WholeRunError)


def in_one_run(data: Path, fail: Callable[[str], None]) -> tuple[dg.ExecuteInProcessResult, Sequence[str]]:
    """A run of Dagster over all shards, in which making features of a shard does what is given."""
    settings, tried = load_settings(), []
    features = stage_named(settings, "image_features")
    function = features.function

    def image_features(work, **arguments):
        tried.append(work.partition)
        fail(work.partition)
        return function(work, **arguments)

    image_features.__signature__ = inspect.signature(function)
    stages = [stage_named(settings, "raw_samples"), replace(features, function=image_features)]
    return run_of_dagster(settings, stages, SHARDS[0], SHARDS[-1]), tried


def error_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_step_failure_events()
    return event.step_failure_data.error.cause.message


def test_in_a_run_of_dagster_a_shard_that_fails_holds_up_no_other(photos: Path) -> None:
    def fail(partition: str) -> None:
        if partition != SHARDS[1]:
            raise ValueError(f"{partition} is odd")

    result, tried = in_one_run(photos, fail)
    assert tried == SHARDS
    assert not result.success
    expected = f"PartitionsError: 2 of 3 failed: {SHARDS[0]}: ValueError('{SHARDS[0]} is odd'); {SHARDS[2]}: "
    assert expected in error_of(result)
    store = load_settings().opened_store
    assert [shard for shard in SHARDS if store.get("image_features", shard)] == [SHARDS[1]]


def test_in_a_run_of_dagster_what_is_of_the_whole_run_ends_the_asset_at_once(photos: Path) -> None:
    def fail(partition: str) -> None:
        raise DataQualityError(f"{partition}: no server") from ModuleNotFoundError("No module named 'x'")

    result, tried = in_one_run(photos, fail)
    assert tried == SHARDS[:1]
    assert error_of(result).strip().endswith(f"WholeRunError: {SHARDS[0]}: no server")
