"""``dqe compress``: a share of alike images, after TL;DR."""

from __future__ import annotations

from typing import Annotated

import typer

from dqe_assets.cli.terminal import (
    clear_errors,
    counting,
    errors,
    json_option,
    print_json,
    print_table,
    progress_bars,
    say,
    say_next,
)
from dqe_resources.printable import command

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
        with instance(settings.concurrency) as current, progress_bars():
            outcome = runner.materialize(settings, current, assets=["codebook", "image_codes", CLUSTERS])
        stop_if_failed(outcome.failures)
        pool = finished_pool(settings)
        out = subset_path(name)
        with file_alone(out), counting("choosing") as progress:
            made = make_subset(expression, [pool], progress)
            write_subset(out, made.uids, made.manifest)
            kept = len(made.uids) / max(made.manifest["samples"], 1)
            baselines = {
                other: make_subset(parsed(f"{other}(share={kept}, seed={seed})", {}), [pool]).uids
                for other in (("random", "kmeans_embeddings", "score_top") if kept else ())
            }
        table = compared(pool, {name: made.uids, **baselines})
        if as_json:
            print_json({"file": out, "manifest": made.manifest, "comparison": table.to_pylist()})
            return
        print_manifest(made.manifest)
        say("What is kept, next to all samples and to other ways of keeping as many:")
        print_table(table)
        say(f"[b]{{}}[/b]: {len(made.uids):,} of {made.manifest['samples']:,} samples ({kept:.1%})", out)
        say_next(f"{command('dqe reshard', str(out))} --out shards")
