"""``dqe compress``: a share of alike images, after TL;DR."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from dqe_assets.cli.terminal import (
    clear_errors,
    counting,
    errors,
    fail,
    json_option,
    print_json,
    print_table,
    progress_bars,
    say,
    say_next,
)
from dqe_resources.printable import command

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from dqe_assets.filtering.build_subset import Made
    from dqe_assets.filtering.store_pool import StorePool
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.publish.blip import Written

NAME = "tldr"


def compress(
    share: Annotated[float, typer.Option(min=0.0001, max=1, help="Share of each cluster to keep.")] = 0.25,
    rule: Annotated[str, typer.Option(help="Which: uniform, every_nth, nearest, farthest or best_score.")] = "uniform",
    itm_keep: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="Then keep only this share of all samples, by how well the caption fits."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the subset's file in the folder subsets.")] = NAME,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    blip: Annotated[
        Path | None, typer.Option(help="Also write images and annotations.json for BLIP's readers into this folder.")
    ] = None,
    captions: Annotated[
        str, typer.Option(help="With --blip: join (original; generated), replace, or original.")
    ] = "original",
    captioner: Annotated[
        str | None, typer.Option(help="With --captions join or replace: whose captions; by default the first's.")
    ] = None,
    *,
    as_json: Annotated[bool, json_option("file, manifest and comparison.")] = False,
) -> None:
    """Keep a share of the images that a codebook describes alike (TL;DR), and show how the kept differ from the rest.

    It makes the codebook, the codes of all images and their clusters, where they are not current.
    """
    with clear_errors():
        from dqe_assets.cli.filter import finished_pool, print_manifest
        from dqe_assets.cli.materialize import stop_if_failed
        from dqe_assets.compression.assets import CLUSTERS
        from dqe_assets.compression.settings import Compression
        from dqe_assets.filtering.assets import subset_path
        from dqe_assets.filtering.build_subset import make_subset
        from dqe_assets.filtering.settings import parsed
        from dqe_assets.filtering.subset import write_subset
        from dqe_assets.orchestration import runner
        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings
        from dqe_assets.report.subset_comparison import compared
        from dqe_resources.locks import file_alone

        settings = load_settings()
        if settings.compression is None:
            say(
                "compression is off in dqe.yaml: defaults are taken. To keep them, add: {}",
                "compression: {}",
                to=errors,
            )
            settings = settings.model_copy(update={"compression": Compression()})
        said = "" if rule == "uniform" else f", rule={rule}"
        text = f"tldr(share={share}{said}{f', seed={seed}' if seed else ''})"
        text += f" & score_top(share={itm_keep})" if itm_keep else ""
        expression = parsed(text, {})
        pool = finished_pool(settings, expression)
        with instance(settings.concurrency) as current, progress_bars():
            outcome = runner.materialize(settings, current, assets=["codebook", "image_codes", CLUSTERS])
        stop_if_failed(outcome.failures)
        out = subset_path(name)
        with file_alone(out), counting("choosing") as progress:
            made = make_subset(expression, [pool], progress)
            write_subset(out, made.uids, made.manifest)
            kept = len(made.uids) / max(made.manifest["samples"], 1)
            asked = settings.compression.clustering.clusters if settings.compression else None
            others = {"random": "", "kmeans_embeddings": f", clusters={asked}" if asked else "", "score_top": ""}
            baselines = {
                other: make_subset(parsed(f"{other}(share={kept}, seed={seed}{more})", {}), [pool]).uids
                for other, more in (others.items() if kept else ())
            }
            shown = name if name not in {*baselines, "all"} else f"{name} (this subset)"
            table = compared(pool, {shown: made.uids, **baselines})
            pictures = _write_pictures(out, pool, {shown: made.uids, **baselines})
        written = _write_blip(blip, captions, captioner, settings, pool, made.uids) if blip else None
        if as_json:
            print_json({"file": out, "manifest": made.manifest, "comparison": table.to_pylist(), "pictures": pictures})
            return
        print_manifest(made.manifest)
        _say_differences(made, table)
        say(f"[b]{{}}[/b]: {len(made.uids):,} of {made.manifest['samples']:,} samples ({kept:.1%})", out)
        if written is not None:
            say(
                f"[b]{{}}[/b]: {written.samples:,} images with captions, {written.joined:,} of them joined; "
                f"{written.without_room:,} not, as both do not fit the text encoder; "
                f"{written.without_caption:,} samples without a caption are left out",
                blip,
            )
        say("Pictures: {}: how well captions fit; {}: the largest clusters, what is kept in frames", *pictures)
        say_next(f"{command('dqe reshard', str(out))} --out shards")


def _say_differences(made: Made, table: pa.Table) -> None:
    from dqe_assets.report.subset_comparison import MEANINGS

    clusters = made.manifest["leaves"][0]["clusters"]
    say("The images are in {} clusters by their codes (compression.clustering in dqe.yaml).", f"{clusters:,}")
    say("What is kept, next to all samples and to other ways of keeping as many:")
    print_table(table)
    for column, meaning in MEANINGS.items():
        say("  {}: {}", column.replace("_", " "), meaning)


def _write_pictures(subset: Path, pool: StorePool, uids: Mapping[str, NDArray[np.void]]) -> list[Path]:
    """Two pictures next to a subset, the first of those named: its scores beside others', and its clusters."""
    from dqe_assets.compression.pictures import cluster_sheet
    from dqe_assets.compression.plots import scores
    from dqe_assets.core.figures import LIGHT, placeholder
    from dqe_assets.filtering.store_pool import scores_of
    from dqe_assets.filtering.subset import contains, parse_uids
    from dqe_resources.store import replace_file

    kept = next(iter(uids.values()))
    sheet = cluster_sheet(pool.store, pool.shards, lambda members, _: contains(kept, parse_uids(members)))
    pictures = {
        subset.with_name(f"{subset.stem}_similarity.png"): scores(scores_of(pool, uids)),
        subset.with_name(f"{subset.stem}_clusters.jpg"): sheet or placeholder("no image has codes", LIGHT),
    }
    for path, picture in pictures.items():
        replace_file(path, partial(_write, picture))
    return list(pictures)


def _write(content: bytes, target: IO[bytes]) -> None:
    target.write(content)


def _write_blip(
    folder: Path,
    captions: str,
    captioner: str | None,
    settings: Settings,
    pool: StorePool,
    uids: NDArray[np.void],
) -> Written:
    from typing import get_args

    from dqe_assets.compression.captions import Captions
    from dqe_assets.publish.blip import BlipCaptions, write_blip

    if captions not in get_args(Captions):
        fail(f"--captions {captions}: allowed: {', '.join(get_args(Captions))}")
    chosen = None if captions == "original" else captioner or next(iter(settings.captioner_names), None)
    if captions != "original" and chosen not in settings.captioner_names:
        fail(f"--captioner {chosen}: allowed: {', '.join(settings.captioner_names) or 'none; list one in dqe.yaml'}")
    which = BlipCaptions(captions, chosen, settings.scorer)  # type: ignore[arg-type] # checked above
    with counting("writing images") as progress:
        return write_blip(folder, pool.store, pool.shards, uids, which, progress)
