"""What tests of fetching share: a data folder with a list of URLs, and the shard made of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from tests.hostile_server import ADDRESS
from tests.stages import handed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from dqe_assets.core.work import CheckResult

QUICK = {
    "allow": [f"{ADDRESS}/32"],
    "connect_seconds": 2.0,
    "idle_seconds": 1.0,
    "request_seconds": 1.5,
    "attempts": 2,
    "backoff_seconds": 0.05,
    "longest_wait_seconds": 1.0,
    "canary_rows": 0,
    "robots_txt": False,
    "tdm_reservation": False,
}
"""Settings of ``fetching`` with which nothing takes long."""

SHARD = "web-00000"


def write_list(folder: Path, urls: Sequence[str], *, top: dict[str, Any] | None = None, **fetching: object) -> None:
    """A data folder whose one source is a list of URLs, each with a caption of its own."""
    lines = (json.dumps({"url": url, "caption": f"a picture, number {number}"}) for number, url in enumerate(urls))
    (folder / "list.jsonl").write_text("\n".join(lines))
    source = {"kind": "urls", "name": "web", "path": "list.jsonl", "min_success_rate": 0.0}
    settings = {"sources": [source], "fetching": QUICK | fetching, **(top or {})}
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings))


def make(*, force: bool = False) -> dict[str, CheckResult]:
    """Make the shard, as a run does; returns the results of its checks."""
    settings = load_settings()
    work = raw_samples.work(settings.opened_store, SHARD, [])
    return raw_samples.make(work, handed(settings, raw_samples), force=force)[2]


def table() -> pa.Table:
    """The shard."""
    return load_settings().opened_store.read("raw_samples", SHARD, RAW_SAMPLES)


def rows() -> list[dict[str, Any]]:
    """The shard's rows."""
    return table().to_pylist()
