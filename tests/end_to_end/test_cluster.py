"""A team's Dagster with workers on two machines: one machine is lost in the middle, and then the daemon."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from dqe_resources.cluster.board import at_work
from tests.conftest import dqe, make_data_folder
from tests.end_to_end.test_served import ASSETS, STORE, made, objects
from tests.end_to_end.test_ui import write_photos
from tests.resources.cluster.two_nodes import HEAD, kill_other, on_other, two_nodes
from tests.servers.dagster_services import BACKFILL_SECONDS, FINISHED, dagster_services, poll
from tests.servers.ports import free_port
from tests.servers.postgres import postgres_server
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HANDED_ON = [
    *("DQE_DATA", "DQE_STORE", "DQE_QDRANT_URL"),
    *("DQE_POSTGRES_HOST", "DQE_POSTGRES_PORT", "DQE_POSTGRES_PASSWORD"),
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
]
SHARDS = [f"photos-{number:05d}" for number in range(16)]


def configure(data: Path, photos: Path, cluster: dict[str, Any] | None = None) -> None:
    settings = {
        "sources": [{"kind": "folder", "name": "photos", "path": str(photos), "shard_size": 2}],
        "captioners": [{"kind": "labels", "name": "labels"}],
        "image_text": None,
        "shards_per_run": 8,
        "concurrency": {"steps": 1, "runs": 2, "pools": {"model": 2}},
    }
    (data / "dqe.yaml").write_text(yaml.safe_dump({**settings, "cluster": cluster}))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    write_photos(folder, 2 * len(SHARDS))
    return folder


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    (tmp_path / "s3").mkdir()
    with s3_server(tmp_path / "s3") as running:
        running.make_bucket("bucket")
        running.keep_versions("bucket")
        yield running


def writes(s3: S3) -> Counter[str]:
    """How often each shard's table was written."""
    root = f"{STORE.removeprefix('s3://bucket/')}/"
    written = Counter(name.removeprefix(root) for name in s3.versions("bucket"))
    return Counter({name: count for name, count in written.items() if name.endswith(".parquet")})


def test_one_of_two_machines_and_then_the_daemon_are_lost_and_all_files_are_those_of_one_machine_written_once(
    s3: S3, photos: Path, tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    data, local = (make_data_folder(tmp_path / name, model_cache) for name in ("data", "local"))
    monkeypatch.setenv("DQE_DATA", str(data))
    total = len(ASSETS) * len(SHARDS)
    with two_nodes(cores=2) as nodes, postgres_server() as postgres:
        configure(data, photos, {"kind": "ray", "address": nodes.address, "workers": {"default": {"count": 2}}})
        # No server of a collection: what is made here does without.
        more = {"DQE_STORE": STORE, "DQE_QDRANT_URL": "http://127.0.0.1:9", **s3.environment()}
        with dagster_services(data, postgres, more) as services:
            poll("shards", lambda: services.shards() == SHARDS, 120)
            services.backfill(ASSETS, SHARDS)
            poll("a quarter", lambda: sum(writes(s3).values()) > total / 4, BACKFILL_SECONDS)
            poll(
                "shard in the making on the other machine",
                lambda: on_other(nodes) & {one.pid for one in at_work()},
                BACKFILL_SECONDS,
            )
            kill_other(nodes)
            before = sum(writes(s3).values())
            assert before < total, "there is something left to do"
            services.kill("daemon")
            poll("progress without the daemon", lambda: sum(writes(s3).values()) > before, 180)
            services.start("daemon")
            ended = poll("end", lambda: [b for b in services.backfills() if b["status"] in FINISHED], BACKFILL_SECONDS)
            assert ended[0]["status"] == "COMPLETED_SUCCESS", (ended, services.logs())
            assert made(services) == dict.fromkeys(ASSETS, len(SHARDS)), "each once"

    written = writes(s3)
    assert len(written) == total
    assert set(written.values()) == {1}, "no shard is made twice after it was written"
    configure(local, photos)
    done = dqe(local, "materialize", *ASSETS)
    assert done.returncode == 0, done.stderr
    assert objects(s3) == {
        path.relative_to(local / "store").as_posix(): path.read_bytes() for path in (local / "store").rglob("*.*")
    }


def test_ray_starts_the_process_of_a_run_and_workers_of_the_same_cluster_make_its_shards(
    s3: S3, photos: Path, tmp_path: Path, model_cache: Path
) -> None:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    pytest.importorskip("dagster_ray", reason="the extra 'ray' is not installed")
    from ray.job_submission import JobStatus, JobSubmissionClient

    data = make_data_folder(tmp_path / "data", model_cache)
    port = free_port()
    launcher = {
        "module": "dagster_ray",
        "class": "RayRunLauncher",
        "config": {"ray": {"address": f"http://{HEAD}:{port}", "num_cpus": 1, "env_vars": HANDED_ON}},
    }
    shards = SHARDS[:4]
    with two_nodes(cores=2, dashboard=port), postgres_server() as postgres:
        configure(data, photos, {"kind": "ray", "address": "auto", "workers": {"default": {"count": 2}}})
        more = {"DQE_STORE": STORE, "DQE_QDRANT_URL": "http://127.0.0.1:9", **s3.environment()}
        with dagster_services(data, postgres, more, run_launcher=launcher) as services:
            poll("shards", lambda: services.shards() == SHARDS, 120)
            run = services.launch(ASSETS[:2], shards)
            ended = poll("end", lambda: (now := services.status(run)) in {"SUCCESS", "FAILURE"} and now, 300)
            assert ended == "SUCCESS", (services.events(run), services.logs())
            ray = JobSubmissionClient(f"http://{HEAD}:{port}")
            poll("end of the job", lambda: ray.get_job_status(f"dagster-run-{run}") == JobStatus.SUCCEEDED, 60)
    assert writes(s3) == {f"{name}/{key}.parquet": 1 for name in ASSETS[:2] for key in shards}
