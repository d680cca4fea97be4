"""Which samples to train on: what each filter keeps, and the subsets made from the filters."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.stage import Stage, stage
from dqe_assets.core.work import Check, CheckResult, Manifest, Work
from dqe_assets.filtering import metadata
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.filters.pool_scores import TARGETS_PREFIX
from dqe_assets.filtering.kept_languages import KeptLanguages
from dqe_assets.filtering.masks import FilterSet, Tally
from dqe_assets.filtering.pool import batch_rows
from dqe_assets.filtering.settings import open_pools, parsed, pool_state
from dqe_assets.filtering.store_pool import STORE, StorePool, StoreShard, inputs_of
from dqe_assets.filtering.subset import (
    UID_TYPE,
    SubsetError,
    manifest_path,
    parse_uids,
    read_subset,
    union,
    write_subset,
)
from dqe_assets.filtering.tables import filter_masks_schema
from dqe_assets.filtering.views import RELATIONS
from dqe_resources.cache import data_directory
from dqe_resources.parallel import ordered_map
from dqe_resources.store import Stamp, StorageError, is_as_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dqe_assets.core.signals import Signal
    from dqe_assets.filtering.expression import Expression
    from dqe_assets.filtering.masks import Masks
    from dqe_assets.filtering.settings import Subset

MASKS = "filter_masks"
_MASKS_VERSION = "1"
_SHARE_TOLERANCE = 0.01


def subset_path(name: str) -> Path:
    """Where a subset of the settings is written; its manifest is next to it."""
    return data_directory() / "subsets" / f"{name}.npy"


def subset_is_there(path: Path, stamp: Stamp) -> bool:
    """Whether a subset and its manifest are as they were written."""
    try:
        written = json.loads(manifest_path(path).read_bytes())["subset"]["sha256"]
        return bool(written == stamp.facts["sha256"] and is_as_written(path, stamp.facts))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_masks(work: Work, shard: str, facts: Mapping[str, Any], columns: Sequence[str] | None = None) -> pa.Table:
    schema = filter_masks_schema({one["filter"]: one["expression"] for one in facts["filters"]})
    return work.store.read(MASKS, shard, schema, columns)


def _every_sample_has_a_row(work: Work, output: Manifest) -> CheckResult:
    rows = wrong = 0
    for shard in work.shards:
        uids = work.of_shard(shard).read("raw_samples", ["uid"])["uid"]
        masks = _read_masks(work, shard, output.facts, ["uid"])["uid"]
        rows += len(masks)
        wrong += not uids.equals(masks)
    return CheckResult(
        wrong == 0 and rows == output.rows,
        f"{output.rows:,} rows were counted, {rows:,} are there; {wrong} shards have other samples than raw_samples",
        {"counted": output.rows, "rows": rows, "shards_wrong": wrong},
    )


def _counts_agree(work: Work, output: Manifest) -> CheckResult:
    counted = {one["filter"]: one["kept"] for one in output.facts["filters"]}
    found = dict.fromkeys(counted, 0)
    for shard in work.shards:
        table = _read_masks(work, shard, output.facts, list(found))
        for name in found:
            found[name] += pc.sum(table[name]).as_py() or 0
    said = ", ".join(f"{name} keeps {kept:,} (counted: {counted[name]:,})" for name, kept in found.items())
    return CheckResult(found == counted, said or "no filters", found)


def _fractions_kept(_: Work, output: Manifest) -> CheckResult:
    samples = output.facts["samples"]
    by_fraction = [one for one in output.facts["leaves"] if "fraction" in one]
    shares = {one["leaf"]: (one["kept"] / max(samples, 1), one["fraction"]) for one in by_fraction}
    off = {
        leaf: share
        for leaf, (share, fraction) in shares.items()
        if samples and abs(share - fraction) > _SHARE_TOLERANCE + 1 / samples
    }
    said = ", ".join(f"{leaf} keeps {share:.2%}" for leaf, (share, _) in shares.items())
    return CheckResult(not off, said or "no filter goes by a fraction", off)


def _something_kept(_: Work, output: Manifest) -> CheckResult:
    empty = [one["filter"] for one in output.facts["filters"] if output.facts["samples"] and not one["kept"]]
    return CheckResult(
        not empty, f"filters that keep nothing: {', '.join(empty) or 'none'}", {"keep_nothing": len(empty)}
    )


def _state(expression: Expression) -> list[Any]:
    """Everything apart from the pools that decides what an expression keeps."""
    return [expression.text, {leaf.text: leaf.versions for leaf in expression.leaves}]


def _inputs(
    expressions: Iterable[str], named: Mapping[str, str], signals: Mapping[str, Signal]
) -> tuple[list[str], list[str]]:
    """The assets of the store that expressions read: those of each shard, and those over all shards."""
    read = [parsed(text, named) for text in expressions]
    by_shard, over_all = inputs_of((column for one in read for column in (*one.columns, *one.may_read)), signals)
    return by_shard, [*over_all, *_targets(read)]


def _targets(expressions: Iterable[Expression]) -> list[str]:
    """The assets of the targets that expressions need."""
    return list(dict.fromkeys(f"{TARGETS_PREFIX}{name}" for one in expressions for name, _ in one.targets))


def _own_pool(work: Work, expressions: Iterable[Expression], signals: Mapping[str, Signal]) -> StorePool:
    """The store, with the languages of captions kept for the filters that ask for them."""
    languages = KeptLanguages.opened(work, [leaf for one in expressions for leaf in one.leaves])
    return StorePool(work.store, work.shards, signals=signals, languages=languages)


def _is_compared(expression: str, named: Mapping[str, str]) -> bool:
    """Whether all that an expression asks is asked by the filters too, so that their masks say what it keeps."""
    asked = {leaf.text for text in named.values() for leaf in parsed(text, named).leaves}
    return asked.issuperset(leaf.text for leaf in parsed(expression, named).leaves)


def _masks_are_there(work: Work, stamp: Stamp) -> bool:
    try:
        stored = [work.store.get(MASKS, shard) for shard in stamp.facts["shards"]]
    except StorageError:
        return False
    return all(one is not None and one.stamp.fingerprint == stamp.fingerprint for one in stored)


def filter_masks_of(named: Mapping[str, str], signals: Mapping[str, Signal]) -> Stage:
    """The asset ``filter_masks``, which reads what its filters do.

    Args:
        named: the filters, by name.
        signals: the signals, by name: it reads the assets of those that the filters compare.
    """
    inputs, corpus_inputs = _inputs(named.values(), named, signals)

    @stage(
        kinds={"parquet", "numpy"},
        relations=RELATIONS,
        code_version=_MASKS_VERSION,
        inputs=dict.fromkeys(["raw_samples", "reviews", *inputs]),
        unpartitioned_inputs=corpus_inputs,
        partitioned=False,
        checks=[
            Check(
                "rows_complete",
                "Every sample of every shard has its row, and no other has any.",
                _every_sample_has_a_row,
            ),
            Check("counts_agree", "Each filter keeps as many samples as were counted.", _counts_agree),
            Check("fraction_kept", "Filters by fraction keep about that fraction.", _fractions_kept, blocking=False),
            Check("keeps_something", "No filter keeps nothing.", _something_kept, blocking=False),
        ],
        metadata=metadata.filter_masks,
        signature=lambda _: [[name, *_state(parsed(text, named))] for name, text in named.items()],
        is_valid=_masks_are_there,
    )
    def filter_masks(work: Work) -> Manifest:
        """What each filter of data/dqe.yaml keeps: a table for each shard, with a column for each filter.

        Made over all shards at once: a fraction, a duplicate or a cluster is one of the whole corpus, so that a new
        shard can change what is kept of every other. A sample without an image is kept by none, and neither is one that
        a person decided to drop.
        """
        expressions = {name: parsed(text, named) for name, text in named.items()}
        pool = _own_pool(work, expressions.values(), signals)
        filters = FilterSet.fitted_to(expressions, [pool])
        schema = filter_masks_schema({name: one.text for name, one in filters.expressions.items()})
        columns = ("uid", *filters.columns)

        def masks_of(part: StoreShard) -> tuple[StoreShard, list[tuple[int, Masks, Masks]]]:
            batches = [(batch.num_rows, filters.leaves(batch)) for batch in part.batches(columns, batch_rows(columns))]
            return part, [(rows, leaves, filters.masks(leaves)) for rows, leaves in batches]

        tally, rows = Tally(filters), 0
        for part, batches in work.track(ordered_map(masks_of, pool.parts, ahead=os.cpu_count() or 1), len(pool.parts)):
            for counted in batches:
                tally.add(*counted)
            table = part.table("raw_samples", ["uid"])
            for name in filters.expressions:
                column = np.zeros(table.num_rows, bool)
                kept = [masks[name] for _, _, masks in batches]
                column[part.is_in.to_numpy(zero_copy_only=False)] = np.concatenate([np.empty(0, bool), *kept])
                table = table.append_column(name, pa.array(column))
            work.store.write_table(MASKS, part.name, table, schema, Stamp(work.version, _MASKS_VERSION, table.num_rows))
            rows += table.num_rows
        return Manifest(rows, {"shards": list(work.shards), **tally.facts()})

    return filter_masks


def subset_of(subset: Subset, named: Mapping[str, str], signals: Mapping[str, Signal]) -> Stage:
    """The asset ``subsets/<name>``: of the store it reads what its expression does, and how captions fit.

    Args:
        subset: its name, expression and pools.
        named: the filters that it may name.
        signals: the signals, by name.
    """
    path = subset_path(subset.name)
    folders = [name for name in subset.pools if name != STORE]
    of_store = len(folders) < len(subset.pools)
    inputs, corpus_inputs = _inputs([subset.expression], named, signals)

    def signature(_: Work) -> Any:
        expression = parsed(subset.expression, named)
        return [_state(expression), [[name, pool_state(name, data_directory())] for name in folders]]

    @stage(
        name=f"subsets/{subset.name}",
        kinds={"numpy"},
        code_version="1",
        inputs=dict.fromkeys(["raw_samples", "reviews", "caption_scores", *inputs]) if of_store else (),
        unpartitioned_inputs=[*corpus_inputs, *([MASKS] if _is_compared(subset.expression, named) else [])]
        if of_store
        else _targets([parsed(subset.expression, named)]),
        partitioned=False,
        checks=[
            NOT_EMPTY,
            UIDS_SORTED,
            Check("agrees_with_masks", "It is what the same filters keep in filter_masks.", _agrees_with_masks),
        ],
        metadata=metadata.subset,
        signature=signature,
        is_valid=lambda _, stamp: subset_is_there(path, stamp),
    )
    def make(work: Work) -> Manifest:
        """A subset to train on: uids as DataComp's resharder takes them, and a manifest of how it came to be."""
        expression = parsed(subset.expression, named)
        store = _own_pool(work, [expression], signals) if of_store else None
        pools = open_pools(subset.pools, store, data_directory())
        made = make_subset(expression, pools)
        write_subset(path, made.uids, made.manifest)
        written = json.loads(manifest_path(path).read_bytes())
        return Manifest(
            len(made.uids),
            {
                "path": str(path.relative_to(data_directory())),
                "bytes": path.stat().st_size,
                "sha256": written["subset"]["sha256"],
                "expression": expression.text,
                "samples": written["samples"],
                "different": written["distinct_uids"],
                "steps": written["filters"][0]["steps"],
                "leaves": written["leaves"],
                "collisions": written["collisions"],
                "pools": [{key: pool[key] for key in ("name", "rows", "kept", "share")} for pool in written["pools"]],
                "dropped_by_people": sum(pool.get("dropped_by_people", 0) for pool in written["pools"]),
            },
        )

    return make


def _not_empty(_: Work, output: Manifest) -> CheckResult:
    return CheckResult(output.rows > 0, f"{output.rows:,} samples", {"samples": output.rows})


def _uids_sorted(_: Work, output: Manifest) -> CheckResult:
    try:
        found = len(read_subset(data_directory() / output.facts["path"]))
    except SubsetError as error:
        return CheckResult(False, str(error))
    return CheckResult(found == output.rows, f"{output.rows:,} uids were counted, {found:,} are in the file, sorted")


NOT_EMPTY = Check("not_empty", "The subset has samples.", _not_empty, blocking=False)
UIDS_SORTED = Check("uids_sorted", "The file holds as many uids as were counted, sorted.", _uids_sorted)


def _agrees_with_masks(work: Work, output: Manifest) -> CheckResult:
    masks = work.store.get(MASKS, None)
    expression = parse(output.facts["expression"])
    filters = {one["expression"]: one["filter"] for one in masks.stamp.facts["filters"]} if masks else {}
    names = {leaf.text: filters[leaf.text] for leaf in expression.leaves if leaf.text in filters}
    if (
        masks is None
        or [pool["name"] for pool in output.facts["pools"]] != [STORE]
        or len(names) < len(expression.leaves)
    ):
        return CheckResult(True, "nothing to compare: it is not made of the store by filters of data/dqe.yaml alone")
    kept = [np.empty(0, UID_TYPE)]
    keeps_others = expression.mask(dict.fromkeys(names, np.zeros(1, bool)))[0]
    for shard in masks.stamp.facts["shards"]:
        table = _read_masks(work, shard, masks.stamp.facts, ["uid", *dict.fromkeys(names.values())])
        mask = expression.mask({text: table[name].to_numpy() for text, name in names.items()})
        if keeps_others:
            # A sample that is not in the pool is not in the subset, whatever the expression says.
            (part,) = StorePool(work.store, (shard,)).parts
            mask = mask & part.is_in.to_numpy(zero_copy_only=False)
        kept.append(parse_uids(table["uid"].filter(pa.array(mask))))
    expected, found = union(kept)[0], read_subset(data_directory() / output.facts["path"])
    if expression.repeats:
        # Masks say of a sample that it is drawn, and not how often.
        found = np.unique(found)
    return CheckResult(
        bool(np.array_equal(expected, found)),
        f"{len(found):,} uids, {len(expected):,} by the stored masks",
        {"uids": len(found), "by_masks": len(expected)},
    )
