"""The tables of concepts: what each sample shows, how often, and what follows from that."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import INTERVAL_ENDS, UID, Column, table_schema

CONCEPT_HITS = table_schema(
    [
        UID,
        Column("item", pa.string(), "image, or the caption source: original or a captioner's name", nullable=False),
        Column(
            "concepts",
            pa.list_(pa.string()),
            "concepts that it shows, were the shard the whole corpus; null where there is no such image or caption",
        ),
        Column("words", pa.list_(pa.string()), "words of concepts that a caption has; null for an image"),
        Column("counted_by", pa.string(), "digest of the concepts and of how they are counted", nullable=False),
    ]
)


CONCEPT_FREQUENCY = table_schema(
    [
        Column("concept", pa.string(), "concept of the vocabulary", nullable=False),
        Column("tasks", pa.list_(pa.string()), "the lists that it comes from", nullable=False),
        Column("position", pa.int32(), "place in the vocabulary, from 0", nullable=False),
        Column("item", pa.string(), "image, or the caption source: original or a captioner's name", nullable=False),
        Column("samples", pa.int64(), "samples whose image, or caption, shows it", "samples", nullable=False),
        Column("agreed", pa.int64(), "samples whose caption and image both show it; null for the image", "samples"),
        Column("searched", pa.int64(), "samples that have such an image, or caption", "samples", nullable=False),
        Column("rank", pa.int32(), "place by samples, 1 is the most frequent; equal ones share it", nullable=False),
        Column("absent_words", pa.list_(pa.string()), "words of it that no caption has; null for the image"),
        Column(
            "provisional_shards",
            pa.list_(pa.string()),
            "shards whose hits do not count: they lack a word of it that another shard has (absent_words: ignore)",
            nullable=False,
        ),
    ]
)


MISALIGNMENT = table_schema(
    [
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("samples", pa.int64(), "samples of the shard", "samples", nullable=False),
        Column("comparable", pa.int64(), "samples with a concept in the caption and one in the image", nullable=False),
        Column("misaligned", pa.int64(), "those of them that have none in common", "samples", nullable=False),
        Column("misaligned_uids", pa.list_(pa.string()), "their uids", nullable=False),
    ]
)


_LINE = {"slope": "accuracy gained for each e-fold of the count", "intercept": "accuracy at a count of 1"}


_FITS = {"": "fit to the bins", "unbinned_": "fit to the single concepts"}


CONCEPT_PERFORMANCE = table_schema(
    [
        Column("model", pa.string(), "model whose accuracies were measured", nullable=False),
        Column("concepts", pa.int32(), "concepts measured", nullable=False),
        *(
            Column(
                f"{fit}{name}{suffix}",
                pa.float64(),
                f"{meaning}, {how}" + (f": {ends} of its 95 % interval" if ends else ""),
                nullable=False,
            )
            for fit, how in _FITS.items()
            for name, meaning in _LINE.items()
            for suffix, ends in INTERVAL_ENDS.items()
        ),
        Column(
            "r", pa.float64(), "Pearson's r of ln(count) and mean accuracy over the bins without the first and last"
        ),
        Column("p_value", pa.float64(), "its p-value"),
        Column("unbinned_r", pa.float64(), "Pearson's r of ln(count) and accuracy over the concepts"),
        Column("unbinned_p_value", pa.float64(), "its p-value"),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
        Column("bin_counts", pa.list_(pa.float64()), "upper end of each bin, as a count", "samples", nullable=False),
        Column("bin_accuracy", pa.list_(pa.float64()), "mean accuracy of each bin; null where it is empty", "0 to 1"),
        Column("bin_concepts", pa.list_(pa.int64()), "concepts in each bin", nullable=False),
        Column("measured_counts", pa.list_(pa.int64()), "samples that show each measured concept", "samples"),
        Column("measured_accuracy", pa.list_(pa.float64()), "accuracy measured on each", "0 to 1"),
    ]
)


CONCEPT_PLAN = table_schema(
    [
        Column("model", pa.string(), "model whose accuracies were measured", nullable=False),
        Column("concept", pa.string(), "concept of the vocabulary", nullable=False),
        Column("item", pa.string(), "what was counted: a caption source, or image", nullable=False),
        Column("place", pa.int32(), "place among the concepts, 1 is the rarest", nullable=False),
        Column("samples", pa.int64(), "samples that show it", "samples", nullable=False),
        Column("predicted_accuracy", pa.float64(), "zero-shot accuracy that its count predicts", "0 to 1"),
        Column("predicted_low", pa.float64(), "lower end of the line's 95 % interval there", "0 to 1"),
        Column("predicted_high", pa.float64(), "upper end of the line's 95 % interval there", "0 to 1"),
        Column("target_accuracy", pa.float64(), "the accuracy wanted", "0 to 1", nullable=False),
        Column(
            "samples_needed",
            pa.float64(),
            "samples to add for the target; infinite where more samples do not help",
            "samples",
        ),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
    ]
)


RARE_CONCEPT_RETRIEVAL = table_schema(
    [
        Column("concept", pa.string(), "one of the rarest concepts", nullable=False),
        Column("item", pa.string(), "what is near it: the image, or the caption of a source", nullable=False),
        Column("place", pa.int32(), "1 is the nearest", nullable=False),
        UID,
        Column("score", pa.float32(), "cosine with the concept in the scorer's joint space", "-1 to 1", nullable=False),
    ]
)


REBALANCED_SUBSET = table_schema(
    [
        UID,
        Column("weight", pa.float64(), "draws of the sample in a pass, 1 on average", "draws", nullable=False),
    ]
)


CURRICULUM = table_schema(
    [
        UID,
        Column("rank", pa.int64(), "place in the order from easy to hard, 1 is the easiest", nullable=False),
        Column(
            "difficulty",
            pa.float64(),
            "weighted mean of the percentiles of rarity, misalignment and length",
            "0 to 1",
            nullable=False,
        ),
    ]
)
