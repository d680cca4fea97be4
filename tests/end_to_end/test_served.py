"""Dagster as a team has it: PostgreSQL, and code server, daemon and webserver apart, with the store on an S3 server."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.conftest import dqe, make_data_folder
from tests.end_to_end.test_ui import write_photos
from tests.servers.dagster_services import BACKFILL_SECONDS, FINISHED, Services, dagster_services, poll
from tests.servers.postgres import postgres_server
from tests.servers.seaweed import S3, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = [f"photos-{number:05d}" for number in range(8)]
STORE = "s3://bucket/store"
ASSETS = ["raw_samples", "image_features", "synthetic_captions/labels", "joint_embeddings", "caption_scores"]


def configure(data: Path, photos: Path) -> None:
    (data / "dqe.yaml").write_text(
        yaml.safe_dump(
            {
                "sources": [{"kind": "folder", "name": "photos", "path": str(photos), "shard_size": 2}],
                "captioners": [{"kind": "labels", "name": "labels"}],
                "image_text": None,
                "shards_per_run": 2,
                "concurrency": {"steps": 1, "pools": {"model": 2}},
            }
        )
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "photos"
    write_photos(folder, 2 * len(SHARDS))
    return folder


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def services(photos: Path, s3: S3, tmp_path: Path, model_cache: Path) -> Iterator[Services]:
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    data = make_data_folder(tmp_path / "data", model_cache)
    configure(data, photos)
    # No server of a collection: what is made here does without.
    more = {"DQE_STORE": STORE, "DQE_QDRANT_URL": "http://127.0.0.1:9", **s3.environment()}
    with postgres_server() as postgres, dagster_services(data, postgres, more) as running:
        yield running


def test_a_backfill_goes_on_when_the_daemon_is_killed_and_is_what_one_machine_makes(
    services: Services, photos: Path, s3: S3, tmp_path: Path, model_cache: Path
) -> None:
    local = make_data_folder(tmp_path / "local", model_cache)
    configure(local, photos)
    poll("shards", lambda: services.shards() == SHARDS, 120)
    services.backfill(ASSETS, SHARDS)
    poll("first shard", lambda: made(services)["raw_samples"] > 1, BACKFILL_SECONDS)
    services.kill("daemon")
    before = sum(made(services).values())
    assert before < len(ASSETS) * len(SHARDS), "there is something left to do"
    # The runs that it has started are the code server's.
    poll("progress without the daemon", lambda: sum(made(services).values()) > before, 120)
    services.start("daemon")
    ended = poll("end", lambda: [one for one in services.backfills() if one["status"] in FINISHED], BACKFILL_SECONDS)
    assert ended[0]["status"] == "COMPLETED_SUCCESS", (ended, services.logs())
    assert made(services) == dict.fromkeys(ASSETS, len(SHARDS)), "each once"

    done = dqe(local, "materialize", *ASSETS)
    assert done.returncode == 0, done.stderr
    assert objects(s3) == {
        path.relative_to(local / "store").as_posix(): path.read_bytes() for path in (local / "store").rglob("*.*")
    }

    limits = services.ask("{instance {concurrencyLimits {concurrencyKey limit}}}")["instance"]["concurrencyLimits"]
    assert {one["concurrencyKey"]: one["limit"] for one in limits} == {"collection": 1, "model": 2}


def made(services: Services) -> Counter[str]:
    """How often each asset was made, over all of its partitions."""
    fields = "assetKey {path} assetMaterializations {partition}"
    answer = services.ask(f"{{assetNodes {{{fields}}}}}")["assetNodes"]
    return Counter({"/".join(one["assetKey"]["path"]): len(one["assetMaterializations"]) for one in answer}) + Counter()


def objects(s3: S3) -> dict[str, bytes]:
    """Everything in the store on the server."""
    import fsspec

    storage = fsspec.filesystem(
        "s3", key="writer", secret="secret", endpoint_url=s3.url, skip_instance_cache=True, use_listings_cache=False
    )
    root = STORE.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): storage.cat_file(path) for path in storage.find(root)}
