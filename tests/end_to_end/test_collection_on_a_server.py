"""The whole platform with its collection on a server: what it finds, what goes from it, and what comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.orchestration.settings import load_settings
from tests.conftest import environment

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from dqe_resources.vectors import Vectors
    from tests.servers.qdrant_server import QdrantServer

THINGS = (
    "a red cat",
    "an old boat",
    "a church in snow",
    "two dogs",
    "a market",
    "a bridge at night",
    "a bird",
    "a tree",
)
SEARCHES = (
    ["a cat", "--limit", "20"],
    ["a boat on the river", "--in", "original", "--limit", "3"],
    ["a church", "--in", "labels", "--where", "width>=201"],
    ["night", "--where", "similarity_original>=-0.5", "--where", "source=one"],
    ["--like", "picture3.png"],
    ["a dog", "--unique"],
)


def dqe(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.output


def everything(vectors: Vectors) -> dict[str, Any]:
    with vectors.open() as collection:
        return {
            point.uid: (point.payload, {name: vector.tolist() for name, vector in point.vectors.items()})
            for point in collection.scroll()
        }


def is_current() -> bool:
    return json.loads(CliRunner().invoke(app, ["status", "--json"]).stdout)["is_current"]


def found() -> list[Any]:
    return [json.loads(dqe("search", *search, "--json")) for search in SEARCHES]


def test_a_whole_run_on_a_server(
    qdrant: QdrantServer, tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant.goes_wrong()
    folder = tmp_path / "data"
    (folder / "one").mkdir(parents=True)
    for number, thing in enumerate(THINGS):
        small = np.random.default_rng(1 if number == 4 else number).integers(0, 255, (6, 6, 3), np.uint8)
        size = (200 + number, 150)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(folder / "one" / f"picture{number}.png")
        (folder / "one" / f"picture{number}.txt").write_text(f"A secret painting of {thing}")
    (folder / "cache").symlink_to(model_cache)
    (folder / "removals.txt").write_text("")
    (folder / "dqe.yaml").write_text(
        yaml.safe_dump(
            {
                "sources": [{"kind": "folder", "name": "one", "path": "one", "shard_size": 2}],
                "captioners": [{"kind": "labels", "name": "labels"}],
                "image_text": None,
                "takedowns": {"files": ["removals.txt"]},
                "vectors": {"kind": "server", "url": qdrant.url, "collection": "whole_run"},
            }
        )
    )
    for name, value in environment(folder).items():
        monkeypatch.setenv(name, value)
    dqe("materialize")
    assert not (folder / "qdrant").exists()
    assert is_current()
    served = load_settings().vectors
    on_server, hits = everything(served), found()
    assert len(on_server) == len(THINGS)

    # The embedded collection of the same store holds, and finds, the same.
    with monkeypatch.context() as patch:
        patch.setenv("DQE_VECTORS", "{kind: embedded}")
        dqe("materialize", "caption_collection")
        assert everything(load_settings().vectors) == on_server
        assert found() == hits

    # What is taken down has no point any more, and the map and the search do not know it.
    gone = next(uid for uid, (payload, _) in on_server.items() if payload["image_name"] == "picture3.png")
    (folder / "removals.txt").write_text(f"{gone}\n")
    assert f"point {gone}" in dqe("takedown", "--check", gone)
    dqe("materialize")
    left = everything(served)
    assert left.keys() == on_server.keys() - {gone}
    assert "point" not in CliRunner().invoke(app, ["takedown", "--check", gone]).output
    assert gone not in dqe("search", "two dogs", "--limit", "20", "--json")

    # A source that has become smaller takes its shards along.
    for number in (6, 7):
        (folder / "one" / f"picture{number}.png").unlink()
        (folder / "one" / f"picture{number}.txt").unlink()
    dqe("materialize")
    fewer = everything(served)
    assert {payload["image_name"] for payload, _ in fewer.values()} == {
        f"picture{number}.png" for number in (0, 1, 2, 4, 5)
    }

    # One that was deleted on the server is made again.
    from qdrant_client import QdrantClient

    QdrantClient(url=qdrant.url, check_compatibility=False).delete_collection("whole_run")
    assert not is_current()
    dqe("materialize")
    assert everything(served) == fewer
    assert is_current()
