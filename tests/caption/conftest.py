"""What the caption tests share: a real server of a tiny vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dqe_resources.models.torchvision_cpu import ensure_torchvision
from tests.servers.tiny_vlm import build_tiny_vlm
from tests.servers.transformers_server import TransformersServer, skip_unless_installed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def started_vlm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServer]:
    skip_unless_installed()
    ensure_torchvision()
    folder = tmp_path_factory.mktemp("vlm")
    build_tiny_vlm(folder / "model")
    server = TransformersServer(folder / "model", folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def vlm_server(started_vlm_server: TransformersServer) -> TransformersServer:
    """``transformers serve`` with a tiny model; up, whatever the test before did to it."""
    if not started_vlm_server.is_up:
        started_vlm_server.start()
    return started_vlm_server
