"""The command ``dqe publish``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dqe_assets.cli.terminal import ExitCode, clear_errors, counting, fail, print_table, say, say_next
from dqe_assets.publish.options import BEST, Format
from dqe_assets.training import SAMPLES_PER_SHARD

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings


def publish(
    target: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Where to write to: a folder, s3://BUCKET/PATH or another fsspec URL, or hf://datasets/OWNER/NAME. It "
            "is empty, or this publication began there.",
        ),
    ],
    where: Annotated[
        str, typer.Option(help='SQL condition over the table samples of the warehouse: "NOT is_duplicate" ...')
    ] = "true",
    caption: Annotated[str, typer.Option(help="best, original, or the name of a captioner or a mix.")] = BEST,
    file_format: Annotated[Format, typer.Option("--format", help="Format of the dataset.")] = "hf",
    shard_size: Annotated[
        int, typer.Option(min=1, help="Samples in each file, or images in each folder.")
    ] = SAMPLES_PER_SHARD,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=NUMBER",
            help="How often a caption source is to be drawn, relative to the others that are named; may be repeated. "
            "By default all are alike.",
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With llava and sharegpt: the questions that captions answer, in the form of "
            "dqe_assets/publish/questions.yaml; by default those.",
        ),
    ] = None,
    *,
    vectors: Annotated[bool, typer.Option("--vectors", help="Also write the vectors, for another Qdrant.")] = False,
    sign_key: Annotated[
        Path | None, typer.Option(help="PEM file of the Ed25519 key that signs manifest.json; dqe verify checks it.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A dataset that is new on the hub is public; else it is private.")
    ] = False,
) -> None:
    """Write the samples that a condition chooses as a dataset to train on. A stopped run continues where it was."""
    with clear_errors():
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.publish.dataset import Request, opening
        from dqe_assets.publish.dataset import publish as write

        settings = load_settings(sources_may_be_away=True)
        _require_current(settings)
        with counting("samples") as progress:
            manifest = write(
                settings,
                target,
                Request(where, caption, file_format, shard_size, vectors, _weights(weight or []), questions),
                progress,
                is_public=public,
                key=sign_key,
            )
        _print_manifest(manifest)
        data = sum(file["samples"] > 0 and not file["name"].startswith("vectors/") for file in manifest["files"])
        say(
            f"[b]{{}}[/b]: {manifest['samples']:,} samples, {data:,} file{'s' if data > 1 else ''}; "
            "README.md says how they were chosen and how to open them",
            target,
        )
        opened = opening(manifest, target)
        if file_format == "datacomp":
            say_next(opened)
        else:
            say("Next: {}", opened)


def _weights(given: list[str]) -> tuple[tuple[str, float], ...]:
    """Caption sources with their weights, as they are typed."""
    from dqe_resources.errors import UsageError

    weights: dict[str, float] = {}
    for one in given:
        name, sign, number = one.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            sign = ""
        if not sign or not name or not 0 < weights[name] < math.inf:
            raise UsageError(f"--weight {one}: expected a caption source and a number above 0, such as original=0.3")
    return tuple(sorted(weights.items()))


def _require_current(settings: Settings) -> None:
    """Refuse a warehouse that is older than the data in the store."""
    from dqe_assets.core.partitions import registered_shards
    from dqe_assets.orchestration import graph, runner
    from dqe_assets.orchestration.instance import instance

    with instance(settings.concurrency) as current:
        shards = registered_shards(current)
    (warehouse,) = (stage for stage in graph.stages(settings) if stage.name == "warehouse")
    if runner.state(settings, warehouse, None, shards) != "current":
        fail("the warehouse is not there, or older than what it is made of; run: dqe materialize", ExitCode.FAILED)


def _print_manifest(manifest: dict[str, Any]) -> None:
    import pyarrow as pa

    selection = manifest["selection"]
    steps = [("samples with an image", selection["samples"], selection["samples"])]
    steps += [(step["condition"], step["alone"], step["left"]) for step in selection["steps"]]
    if selection["without_caption"]:
        steps.append((f"has a caption of {manifest['caption']}", None, manifest["samples"]))
    terms, alone, left = zip(*steps, strict=True)
    print_table(
        pa.table({"term": pa.array(terms, pa.string()), "alone": pa.array(alone, pa.int64()), "left": pa.array(left)})
    )
