"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.metadata import Metadata, markdown_table, picture, valid_values
from dqe_assets.dedup.plots import cluster_sizes, duplicate_thresholds
from dqe_assets.ingest.planted import pair_similarity

if TYPE_CHECKING:
    from dqe_assets.core.work import Work
    from dqe_assets.dedup.settings import PairRules


def duplicate_pairs(_: Work, table: pa.Table, rules: PairRules) -> Metadata:
    """Pairs of each kind: of equal images, and of those that are nearly so."""
    rows = []
    for kind in pc.unique(table["kind"]).to_pylist():
        similarity = valid_values(table.filter(pc.equal(table["kind"], kind))["similarity"])
        rows.append([kind, int((similarity == 1).sum()), int((similarity < 1).sum())])
    return {
        "pairs": markdown_table(["kind", "equal", "near"], rows),
        "max_distance": rules.max_distance,
        "min_cosine": rules.min_cosine,
    }


def duplicate_clusters(work: Work, table: pa.Table, rules: PairRules) -> Metadata:
    """Clusters and redundant samples of each kind, how large the clusters are, and what was planted, if any was."""
    rows, sizes = [], {}
    for kind in pc.unique(table["kind"]).to_pylist():
        part = table.filter(pc.equal(table["kind"], kind))
        sizes[kind] = part.filter(part["is_representative"])["size"].to_pylist()
        rows.append([kind, len(sizes[kind]), len(part) - len(sizes[kind]), max(sizes[kind])])
    return {
        "clusters": markdown_table(["kind", "clusters", "redundant samples", "largest"], rows),
        "sizes": picture(cluster_sizes(sizes), "sizes of clusters"),
        **_planted_duplicates(work, rules),
    }


def _planted_duplicates(work: Work, rules: PairRules) -> Metadata:
    """How alike planted copies are, and the thresholds; nothing if nothing was planted."""
    raws, features = [], []
    for shard in work.shards:
        of_shard = work.of_shard(shard)
        truth = of_shard.read("raw_samples", ["truth"])["truth"]
        if truth.null_count < len(truth):
            raws.append(of_shard.read("raw_samples", ["uid", "status", "reason", "width", "height", "truth"]))
            features.append(of_shard.read("image_features", ["uid", "embedding", "perceptual_hash"]))
    if not raws:
        return {}
    alike = pair_similarity(pa.concat_tables(raws), pa.concat_tables(features))
    drawn = duplicate_thresholds(alike, rules.min_cosine, rules.max_distance)
    return {"thresholds": picture(drawn, "similarity of planted copies, of other photos, and the thresholds")}


def caption_signatures(_: Work, table: pa.Table) -> Metadata:
    """Captions with words of each source, and how many of them are different."""
    rows = []
    for source in pc.unique(table["caption_source"]).to_pylist():
        digests = table.filter(pc.equal(table["caption_source"], source))["text_digest"].drop_null()
        rows.append([source, len(digests), len(pc.unique(digests))])
    return {"captions": markdown_table(["caption source", "with words", "different"], rows)}


def caption_duplicates(_: Work, table: pa.Table) -> Metadata:
    """How many captions of each source are repeated, and the most frequent."""
    counts, largest = [], []
    for source in pc.unique(table["caption_source"]).to_pylist():
        of_source = table.filter(pc.equal(table["caption_source"], source))
        for kind in ("exact", "near"):
            part = of_source.filter(pc.equal(of_source["kind"], kind))
            counts.append([source, kind, pc.count_distinct(part["cluster"]).as_py(), len(part)])
        firsts = of_source.filter(pc.and_(of_source["is_representative"], pc.equal(of_source["kind"], "near")))
        first = firsts.sort_by([("size", "descending"), ("cluster", "ascending")]).slice(0, 5)
        largest += [[source, row["representative"], row["size"]] for row in first.to_pylist()]
    return {
        "repeated": markdown_table(["caption source", "kind", "clusters", "captions in them"], counts),
        "largest": markdown_table(["caption source", "representative", "captions"], largest),
    }
