"""What docs/running.md says of who can reach the UI, asked of the UI itself."""

from __future__ import annotations

import http.client
import importlib.util
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import psutil
import pytest
import yaml

from tests.conftest import make_data_folder
from tests.servers.dagster_services import Dagster, dagster_dev

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("dagster_webserver") is None, reason="not installed: dagster_webserver: extra ui"
)

FOREIGN = {"Host": "evil.example", "Origin": "http://evil.example"}


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[Dagster]:
    data = make_data_folder(tmp_path_factory.mktemp("reach") / "data", model_cache)
    (data / "dqe.yaml").write_text(yaml.safe_dump({"sources": [{"kind": "sample"}], "captioners": []}))
    with dagster_dev(data) as running:
        yield running


def answer(ui: Dagster, path: str, body: str, headers: dict[str, str]) -> str:
    connection = http.client.HTTPConnection(urlsplit(ui.url).netloc, timeout=30)
    connection.request("POST", path, body, headers)
    return connection.getresponse().read().decode()


def test_it_listens_on_this_machine_alone(ui: Dagster) -> None:
    port = urlsplit(ui.url).port
    listening = [
        one.laddr.ip for one in psutil.net_connections("inet") if one.status == "LISTEN" and one.laddr.port == port
    ]
    assert listening == ["127.0.0.1"]


def test_it_looks_neither_at_host_nor_at_origin(ui: Dagster) -> None:
    """If this fails, Dagster protects itself better than docs/running.md says: say so there."""
    query = "{version}"
    found = answer(ui, "/graphql", json.dumps({"query": query}), {"Content-Type": "application/json"} | FOREIGN)
    assert "version" in json.loads(found)["data"]
    # What a page of any site can have a browser send without asking first.
    found = answer(ui, f"/graphql?query={quote(query)}", "", {"Content-Type": "text/plain"} | FOREIGN)
    assert "version" in json.loads(found)["data"]
