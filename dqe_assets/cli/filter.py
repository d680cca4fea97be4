"""The commands ``dqe filter`` and ``dqe reshard``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dqe_assets.cli.terminal import (
    ExitCode,
    clear_errors,
    counting,
    errors,
    fail,
    json_option,
    print_json,
    print_table,
    say,
    say_next,
)
from dqe_assets.training import SAMPLES_PER_SHARD
from dqe_resources.printable import command, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.filtering.expression import Expression
    from dqe_assets.filtering.store_pool import StorePool
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.training.samples import SamplePart

PoolNames = Annotated[
    list[str], typer.Argument(metavar="POOL...", help="Folders or URLs of DataComp metadata, or store for our own.")
]
ExpressionText = Annotated[
    str, typer.Option("--expr", help="What to keep: basic, 'clip_l14_30 & nsfw < 0.1', 'clip_score(l14, fraction=0.3)'")
]


def filter_pool(
    pools: PoolNames,
    expression: ExpressionText,
    out: Annotated[Path, typer.Option(help="Where to write the subset: a .npy; its .json goes next to it.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite another subset.")] = False,
    as_json: Annotated[bool, json_option("file, samples, and manifest, which is also written next to it.")] = False,
) -> None:
    """Choose samples of one or more pools, and write their uids in the format of DataComp's resharder."""
    with clear_errors():
        from dqe_assets.filtering.build_subset import make_subset
        from dqe_assets.filtering.settings import open_pools, parsed
        from dqe_assets.filtering.store_pool import STORE
        from dqe_assets.filtering.subset import manifest_path, write_subset
        from dqe_resources.locks import file_alone
        from dqe_resources.progress import listen

        settings = _settings_if_any()
        parsed_expression = parsed(expression, settings.filters if settings else {})
        _require_free(out, parsed_expression.text, pools, force=force)
        opened = open_pools(pools, _store_pool(settings, parsed_expression) if STORE in pools else None, Path.cwd())
        with (
            file_alone(out),
            counting("rows") as progress,
            # A score over the whole pool goes over its rows first.
            listen(lambda step: progress(step.done, step.total)),
        ):
            made = make_subset(parsed_expression, opened, progress)
            write_subset(out, made.uids, made.manifest)
        if as_json:
            manifest = json.loads(manifest_path(out).read_bytes())
            print_json({"file": out, "samples": len(made.uids), "manifest": manifest})
            return
        print_manifest(made.manifest)
        say("[b]{}[/b]: {} samples", out, f"{len(made.uids):,}")
        tars = "" if pools == [STORE] else " --from TARS"
        say_next(f"{command('dqe reshard', str(out))} --out shards{tars}")


def reshard(
    subset: Annotated[str, typer.Argument(help="A .npy of uids, or the name of a subset of data/dqe.yaml.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write the shards to: an empty one, or one where this export began.")
    ],
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", help="Folder or URL of WebDataset tars, or store (the default); may be repeated."),
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Samples in each shard.")] = SAMPLES_PER_SHARD,
    *,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without the samples that are missing.")
    ] = False,
) -> None:
    """Write WebDataset shards with exactly the samples of a subset. A stopped run continues where it was."""
    with clear_errors():
        from dqe_assets.filtering.store_pool import STORE
        from dqe_assets.filtering.subset import manifest_path, read_subset
        from dqe_assets.training.reshard import plan_shards, read_record, write_shards
        from dqe_assets.training.shards_card import CARD, described, shards_card
        from dqe_resources.store import replace_file

        path = _subset_path(subset)
        uids = read_subset(path)
        parts = _parts(sources or [STORE])
        with counting("looking for samples") as progress:
            plan = plan_shards(uids, parts, samples_per_shard, track=progress)
        about = {"file": path.name, "uids": len(uids), **described(read_record(manifest_path(path)) or {})}
        with counting("writing samples") as progress:
            manifest = write_shards(plan, out, about, allow_missing=allow_missing, track=progress)
        card = shards_card(manifest).encode()
        replace_file(out / CARD, lambda target: target.write(card))
        missing, shards = manifest["missing"]["count"], len(manifest["shards"])
        say(
            f"[b]{{}}[/b]: {manifest['samples']:,} samples, {shards:,} shard{'s' if shards > 1 else ''}"
            + (f"; [yellow]{missing:,} of the subset were missing[/yellow]" if missing else ""),
            out,
        )
        if manifest["encoded_anew"]:
            say(f"{manifest['encoded_anew']:,} images were encoded again, to stand upright", style="dim")
        tars = f"/{{{0:08d}..{shards - 1:08d}}}.tar"
        say("Next: train on them, with webdataset or open_clip: {}{}", quoted(str(out)), tars)


def _settings_if_any() -> Settings | None:
    """The settings, where there are any: a pool of DataComp's needs none."""
    from dqe_assets.orchestration.settings import configuration_path, load_settings

    return load_settings(sources_may_be_away=True) if configuration_path().exists() else None


def _store_pool(settings: Settings | None, expression: Expression) -> StorePool | None:
    from dqe_assets.filtering.settings import check_comparisons

    if settings is None:
        return None
    check_comparisons(expression, settings.signal_types, settings.metadata_signals.left_out)
    return finished_pool(settings, expression)


def finished_pool(settings: Settings, expression: Expression) -> StorePool:
    """Our own store, with the shards that are finished and have the signals that an expression reads."""
    from dqe_assets.filtering.store_pool import StorePool, inputs_of
    from dqe_assets.orchestration.graph import signals

    known = signals(settings)
    shards = _finished_shards(settings, inputs_of((*expression.columns, *expression.may_read), known)[0])
    return StorePool(settings.opened_store, shards, signals=known)


def _finished_shards(settings: Settings, more: Sequence[str] = ()) -> tuple[str, ...]:
    """The shards of which all is there that filters read, and more assets."""
    from dqe_assets.core.partitions import registered_shards
    from dqe_assets.filtering.assets import MASKS
    from dqe_assets.orchestration.graph import stages
    from dqe_assets.orchestration.instance import instance

    masks = next(one for one in stages(settings) if one.name == MASKS)
    masks = replace(masks, inputs=(*masks.inputs, *more))
    with instance(settings.concurrency) as current:
        work = masks.work(settings.opened_store, None, registered_shards(current))
    if not work.shards:
        fail(f"{settings.opened_store.root}: no shard is finished; run: dqe materialize", ExitCode.FAILED)
    if work.left_out:
        say("[yellow]left out, as they are not finished:[/yellow] {}", ", ".join(work.left_out), to=errors)
    return work.shards


def _require_free(out: Path, expression: str, pools: Sequence[str], *, force: bool) -> None:
    """Refuse to overwrite another subset, before hours are spent on it."""
    from dqe_assets.filtering.subset import manifest_path

    if out.suffix != ".npy":
        fail(f"{out}: a subset ends in .npy")
    if force or not (out.exists() or manifest_path(out).exists()):
        return
    try:
        there = json.loads(manifest_path(out).read_bytes())
        same = there["expression"] == expression and [pool["name"] for pool in there["pools"]] == list(pools)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        fail(f"{out}: there is another subset; name another file with --out, or overwrite it with --force")


def print_manifest(manifest: dict[str, Any]) -> None:
    """Print what each step of a subset's manifest leaves."""
    import pyarrow as pa

    pools = manifest["pools"]
    print_table(
        pa.table(
            {
                "pool": pa.array([pool["name"] for pool in pools], pa.string()),
                "samples": pa.array([pool["rows"] for pool in pools], pa.int64()),
                "kept": pa.array([pool["kept"] for pool in pools], pa.int64()),
                "share_of_subset": pa.array([pool["share"] for pool in pools], pa.float64()),
            }
        )
    )
    if dropped := sum(pool.get("dropped_by_people", 0) for pool in pools):
        say(f"{dropped:,} more samples are in no pool, as people decided to drop them: dqe review list")
    samples, steps = manifest["samples"], manifest["filters"][0]["steps"]
    before = [samples, *(step["kept"] for step in steps)]
    print_table(
        pa.table(
            {
                "step": pa.array([step["condition"] for step in steps], pa.string()),
                "removed": pa.array([was - step["kept"] for was, step in zip(before, steps, strict=False)], pa.int64()),
                "left": pa.array([step["kept"] for step in steps], pa.int64()),
                "share": pa.array([step["kept"] / max(samples, 1) for step in steps], pa.float64()),
            }
        )
    )
    for leaf in manifest["leaves"]:
        if leaf["fitted"] != leaf["leaf"]:
            say("{} became {}", leaf["leaf"], leaf["fitted"], style="dim", wrap=True)
        if missing := leaf.get("missing"):
            mixed = ", ".join(f"{name} {weight:g}" for name, weight in leaf["weights"].items())
            say("[yellow]{} lacks {}[/yellow]; mixed: {}", leaf["leaf"], ", ".join(missing), mixed, wrap=True)
    if manifest["collisions"]:
        say(f"{manifest['collisions']:,} samples are in several pools; the first pool counts", style="dim")


def _subset_path(subset: str) -> Path:
    """A file, or that of a subset of the settings."""
    from dqe_assets.filtering.assets import subset_path

    if subset.endswith(".npy"):
        return Path(subset)
    settings = _settings_if_any()
    names = settings.subset_names if settings else []
    if subset not in names:
        fail(f"{subset}: neither a .npy nor a subset of data/dqe.yaml, which has: {', '.join(names) or 'none'}")
    return subset_path(subset)


def _parts(sources: Sequence[str]) -> list[SamplePart]:
    from dqe_assets.filtering.store_pool import STORE
    from dqe_assets.training.samples import StoreShard, tars

    parts: list[SamplePart] = []
    for source in sources:
        if source != STORE:
            parts += tars(source)
        elif settings := _settings_if_any():
            parts += [StoreShard(settings.opened_store, shard) for shard in _finished_shards(settings)]
        else:
            fail("there is no store here: name the tars that hold the samples with --from")
    return parts
