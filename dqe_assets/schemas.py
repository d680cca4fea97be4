"""The contract between stages: the Arrow schema of every table, each column with its meaning and unit.

Every per-shard table has exactly one row for each row of ``raw_samples``, in the same order and with the same
``uid`` (tables with a second key column, such as ``caption_source``, have a fixed number of rows for each). What
could not be measured is null and never missing. ``caption_judgements`` alone has rows for only a draw of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ORIGINAL = "original"
"""The caption source that every sample has: the caption it came with."""

IMAGE = "image"
"""The item of ``joint_embeddings`` that is the picture itself, beside the caption sources."""


REFINED = "refined"
"""The caption source of captions that were asked for again, and fit better than what was there."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, Arrow type, meaning and, where it is a quantity, unit."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True

    def field(self) -> pa.Field:
        """The Arrow field, its description and unit kept as field metadata."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


def table_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a list of columns."""
    return pa.schema([column.field() for column in columns])


UID = Column("uid", pa.string(), "128-bit hex digest of the source's own key of the row", nullable=False)
EMBEDDING = pa.list_(pa.float16())

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""What Hugging Face datasets calls an Image feature."""

TRUTH_TYPE = pa.struct([("photo", pa.string()), ("image", pa.string()), ("caption", pa.string())])

RAW_SAMPLES = table_schema(
    [
        UID,
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("row", pa.int32(), "position in the shard, from 0", nullable=False),
        Column("image_name", pa.string(), "the source's own name of the row", nullable=False),
        Column("url", pa.string(), "where the image came from, if the source says"),
        Column("caption", pa.string(), "the caption as found, untouched"),
        Column(
            "image",
            IMAGE_TYPE,
            "the image file's bytes, as found unless images.longest_side made it smaller, and its name; "
            "null unless status is ok",
        ),
        Column("sha256", pa.string(), "hex digest of the bytes as found, also of a broken file"),
        Column("format", pa.string(), "image format: jpeg, png, webp, gif ..."),
        Column("bytes", pa.int64(), "size of the file as stored, or of a broken one as found", "bytes"),
        Column("width", pa.int32(), "width once the EXIF orientation is applied", "pixels"),
        Column("height", pa.int32(), "height once the EXIF orientation is applied", "pixels"),
        Column("exif_orientation", pa.int8(), "EXIF orientation of the file as stored, 1 to 8; 1 is upright"),
        Column("original_bytes", pa.int64(), "size of the file as found; null if it is stored as found", "bytes"),
        Column("original_width", pa.int32(), "width as found; null if it is stored as found", "pixels"),
        Column("original_height", pa.int32(), "height as found; null if it is stored as found", "pixels"),
        Column("status", pa.string(), "ok or failed", nullable=False),
        Column(
            "reason",
            pa.string(),
            "ok, or why the row failed: http_404, dns, timeout, truncated ... (docs/ingest.md has all)",
            nullable=False,
        ),
        Column("detail", pa.string(), "the error in full, if the row failed"),
        Column("attempts", pa.int16(), "how often the URL was asked for; null where the image came with the source"),
        Column("http_status", pa.int16(), "status of the last answer; null if none came"),
        Column("final_url", pa.string(), "the last URL that was asked for, after redirects"),
        Column("seconds", pa.float32(), "that the requests took, without waiting for their turn", "seconds"),
        Column("fetched_at", pa.timestamp("us", tz="UTC"), "when fetching ended"),
        Column("source_metadata", pa.string(), "JSON of what else the source says of the row: sizes, scores ..."),
        Column(
            "truth",
            TRUTH_TYPE,
            "what was planted in the embedded sample: photo, kind of image, kind of caption. "
            "Nothing is decided by it: tests, benchmarks and the warehouse's table of filters measure against it",
        ),
    ]
)

IMAGE_FEATURES = table_schema(
    [
        UID,
        Column("embedding", EMBEDDING, "pooled features of the backbone, not normalised"),
        Column("label_ids", pa.list_(pa.int16()), "the 20 most probable ImageNet classes, most probable first"),
        Column("label_probabilities", pa.list_(pa.float32()), "their probabilities", "0 to 1"),
        Column("top_label", pa.string(), "name of the most probable class"),
        Column("pixel_digest", pa.string(), "128-bit hex digest of the decoded pixels and their size"),
        Column("perceptual_hash", pa.uint64(), "64-bit DCT hash (pHash) of the luminance"),
        Column("sharpness", pa.float32(), "variance of the Laplacian of the luminance at the features' common size"),
        Column("brightness", pa.float32(), "mean luminance (Rec. 601)", "0 to 1"),
        Column("contrast", pa.float32(), "standard deviation of the luminance", "0 to 1"),
        Column("colourfulness", pa.float32(), "Hasler and Süsstrunk 2003, from pixels in 0 to 255"),
        Column("colours", pa.list_(pa.string()), "names of the colours that cover the most area, largest first"),
        Column("focus_x", pa.float32(), "centre of the detail (gradient energy) from the left", "0 to 1"),
        Column("focus_y", pa.float32(), "centre of the detail (gradient energy) from the top", "0 to 1"),
    ]
)

SYNTHETIC_CAPTIONS = table_schema(
    [
        UID,
        Column("text", pa.string(), "the caption as generated; null where none was"),
        Column("caption", pa.string(), "the straightforward caption: opening formula stripped, entities unescaped"),
        Column("finish_reason", pa.string(), "stop, length (cut), error, or no_image", nullable=False),
        Column(
            "flags",
            pa.list_(pa.string()),
            "what is wrong with the caption: cut_off, empty, refusal, repetition_loop, boilerplate_only, not_english; "
            "null where there is none",
        ),
        Column("model", pa.string(), "model that wrote it", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt", pa.string(), "name and version of the prompt; null where no model was asked"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the prompt's text"),
        Column("prompt_tokens", pa.int32(), "tokens of prompt and image, as the engine counts them", "tokens"),
        Column("completion_tokens", pa.int32(), "tokens of the text, as the engine counts them", "tokens"),
        Column("seconds", pa.float64(), "from asking to the whole answer; null where no model ran", "seconds"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the answer was whole; null where no model ran"),
        Column("attempts", pa.int32(), "how often the model was asked"),
        Column("error", pa.string(), "the last error, if finish_reason is error"),
    ]
)

JOINT_EMBEDDINGS = table_schema(
    [
        UID,
        Column("item", pa.string(), "image, or the caption source: original or a captioner's name", nullable=False),
        Column("embedding", EMBEDDING, "unit vector in the scorer's joint space; null where there is nothing to embed"),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included; null for an image", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads; null for an image"),
        Column(
            "parts",
            pa.list_(EMBEDDING),
            "unit vectors of the sentences of a caption longer than the encoder reads, in order; "
            "null where it was not, or where scorer.long_captions is truncate",
        ),
    ]
)

_LONG = "of a caption longer than the encoder reads; else null"

CAPTION_SCORES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column(
            "similarity",
            pa.float32(),
            "cosine of caption and image in the scorer's joint space; "
            "of a caption longer than the encoder reads, as scorer.long_captions says",
            "-1 to 1",
        ),
        Column("tokens", pa.int32(), "tokens of the caption, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether the caption was longer than the encoder reads"),
        Column("similarity_truncated", pa.float32(), f"cosine of its beginning, {_LONG}", "-1 to 1"),
        Column("similarity_sentences_mean", pa.float32(), f"mean cosine of the sentences, {_LONG}", "-1 to 1"),
        Column("similarity_sentences_max", pa.float32(), f"highest cosine of a sentence, {_LONG}", "-1 to 1"),
    ]
)

CAPTION_PREFERENCE = table_schema(
    [
        UID,
        Column("source_a", pa.string(), "caption source a", nullable=False),
        Column("source_b", pa.string(), "caption source b", nullable=False),
        Column(
            "probability_a",
            pa.float32(),
            "softmax over the two captions of logit scale x similarity, or as imported",
            "0 to 1",
        ),
        Column("probability_b", pa.float32(), "1 - probability_a, or as imported", "0 to 1"),
        Column(
            "independent",
            pa.bool_(),
            "false where the scorer shares a backbone with one of the captioners: the preference then proves nothing",
            nullable=False,
        ),
        Column("scorer", pa.string(), "model that preferred", nullable=False),
    ]
)

BEST_CAPTIONS = table_schema(
    [
        UID,
        Column("caption", pa.string(), "the caption to use; null where there is no image or no caption"),
        Column("caption_source", pa.string(), "where it is from: original, a captioner's name, or refined"),
        Column("similarity", pa.float32(), "its similarity to the image", "-1 to 1"),
        Column("original_similarity", pa.float32(), "similarity of the original caption and the image", "-1 to 1"),
        Column("judgement", pa.float32(), "its mean mark by the judge; null where it was not judged", "1 to 5"),
        Column("independent", pa.bool_(), "false where the scorer shares a backbone with who wrote it"),
        Column("reason", pa.string(), "why this one, or why there is none", nullable=False),
        Column("runner_up_source", pa.string(), "where the next best is from; null where there is no other"),
        Column("runner_up_caption", pa.string(), "the next best caption"),
        Column("runner_up_similarity", pa.float32(), "its similarity to the image", "-1 to 1"),
        Column("runner_up_judgement", pa.float32(), "its mean mark by the judge", "1 to 5"),
        Column("set_aside", pa.list_(pa.string()), "captions that are taken only if no other is left, and why"),
    ]
)

_REQUEST = "of the request, which asks about all captions of the sample: count it once for a sample"
_MARK = "mark of the judge; null where its answer could not be used"

CAPTION_JUDGEMENTS = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("faithful", pa.int8(), f"whether what it says is true: {_MARK}", "1 to 5"),
        Column("complete", pa.int8(), f"whether it says what matters: {_MARK}", "1 to 5"),
        Column("fluent", pa.int8(), f"whether it is clear, correct language: {_MARK}", "1 to 5"),
        Column("invents_nothing", pa.int8(), f"whether it keeps to what can be seen: {_MARK}", "1 to 5"),
        Column("overall", pa.float32(), "mean of the four marks", "1 to 5"),
        Column(
            "reasons",
            pa.struct([(name, pa.string()) for name in ("faithful", "complete", "fluent", "invents_nothing")]),
            "the judge's reason for each mark, cut at 300 characters",
        ),
        Column("stratum", pa.int8(), "quantile stratum of similarity that the sample was drawn from, 0 is the lowest"),
        Column("place", pa.int8(), "place in the order in which the captions were shown, from 1", nullable=False),
        Column("finish_reason", pa.string(), "stop, length (cut), unparsable, or error", nullable=False),
        Column("error", pa.string(), "what was wrong with the last answer, if finish_reason is unparsable or error"),
        Column("text", pa.string(), "the last answer, cut at 2,000 characters, if finish_reason is unparsable"),
        Column("model", pa.string(), "model that judged", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the rubric", nullable=False),
        Column(
            "prompt_tokens",
            pa.int64(),
            "tokens of rubric, captions and image in all attempts, the most that they can be where the server does "
            f"not count them; {_REQUEST}",
            "tokens",
            nullable=False,
        ),
        Column(
            "completion_tokens",
            pa.int64(),
            "tokens of the answers in all attempts, the most that they can be where the server does not count them; "
            f"{_REQUEST}",
            "tokens",
            nullable=False,
        ),
        Column("attempts", pa.int32(), f"how often the judge was asked; {_REQUEST}", nullable=False),
        Column("seconds", pa.float64(), f"from asking to the whole last answer; {_REQUEST}", "seconds"),
        Column("cost", pa.float64(), f"price of the tokens; null without prices; {_REQUEST}"),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the last answer was whole", nullable=False),
    ]
)

TEXT_QUALITY = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("language", pa.string(), "likeliest language, ISO 639; null where the caption has no letter"),
        Column("language_probability", pa.float32(), "how likely: low where the caption is short", "0 to 1"),
        Column("words", pa.int32(), "words between white space; null where there is no caption", "words"),
        Column("characters", pa.int32(), "length of the caption as found", "characters"),
        Column(
            "special_ratio",
            pa.float32(),
            "share of the characters other than spaces that are neither letter nor digit",
            "0 to 1",
        ),
        Column("digit_ratio", pa.float32(), "share of the characters other than spaces that are digits", "0 to 1"),
        Column(
            "repetition",
            pa.float32(),
            "share of the words that lie in a run of three words that came before in the caption",
            "0 to 1",
        ),
        Column(
            "patterns",
            pa.list_(pa.string()),
            "what the caption is or holds that is no description: file_name, placeholder, boilerplate, credit, url, "
            "email, price, product_code, markup, only_hashtags, no_letters",
        ),
    ]
)

REGION_TYPE = pa.struct(
    [("corners", pa.list_(pa.float32())), ("score", pa.float32()), ("text", pa.string()), ("confidence", pa.float32())]
)

IMAGE_TEXT = table_schema(
    [
        UID,
        Column(
            "regions",
            pa.list_(REGION_TYPE),
            "each line of text in the image, from the top: its four corners clockwise from the upper left as x, y, x, "
            "y ... in shares of width and height, the detector's score, and what it reads with its confidence, null "
            "where it was not read; null where there is no image",
        ),
        Column("text", pa.string(), "what the regions read, in their order; null where nothing was read"),
        Column("text_area", pa.float32(), "share of the image that the regions cover", "0 to 1"),
    ]
)

MASKED_SIMILARITY = table_schema(
    [
        UID,
        Column(
            "masked_similarity",
            pa.float32(),
            "cosine of the original caption and the image with its text painted over; where it has none, the "
            "similarity",
            "-1 to 1",
        ),
        Column("similarity", pa.float32(), "cosine of the original caption and the image as it is", "-1 to 1"),
        Column("text_area", pa.float32(), "share of the image that was painted over", "0 to 1"),
    ]
)

DUPLICATE_PAIRS = table_schema(
    [
        Column("kind", pa.string(), "exact, perceptual or semantic", nullable=False),
        Column("uid_a", pa.string(), "the sample of the two with the smaller uid", nullable=False),
        Column(
            "uid_b",
            pa.string(),
            "the other; of samples that are equal, only the first by uid is paired with others",
            nullable=False,
        ),
        Column(
            "similarity",
            pa.float32(),
            "1 where they are equal, the share of equal bits of their hashes, or the cosine of their features",
            "0 to 1",
            nullable=False,
        ),
    ]
)

DUPLICATE_CLUSTERS = table_schema(
    [
        UID,
        Column("kind", pa.string(), "exact, perceptual, semantic, or any (their union)", nullable=False),
        Column("cluster", pa.string(), "smallest uid of the cluster", nullable=False),
        Column("representative", pa.string(), "uid of the sample to keep", nullable=False),
        Column("is_representative", pa.bool_(), "whether this is the sample to keep", nullable=False),
        Column("similarity", pa.float32(), "cosine of the features of this sample and the representative", "-1 to 1"),
        Column("size", pa.int32(), "samples in the cluster, 2 or more", "samples", nullable=False),
    ]
)

CAPTION_DUPLICATES = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("kind", pa.string(), "exact (the same words), or near (or nearly the same)", nullable=False),
        Column("cluster", pa.string(), "smallest uid of the cluster", nullable=False),
        Column("representative", pa.string(), "uid of the sample whose caption stands for the others", nullable=False),
        Column("is_representative", pa.bool_(), "whether this is that sample", nullable=False),
        Column("similarity", pa.float32(), "Jaccard similarity of this caption and the representative's", "0 to 1"),
        Column("size", pa.int32(), "captions in the cluster, 2 or more", "captions", nullable=False),
    ]
)

_LAW = {
    "a": "scale of the law, common to a metric's pools: error above d after 100,000 new samples",
    "b": "utility of a new sample of the pool, below 0: the lower, the better",
    "tau": "half-life of that utility: passes over the pool after which it has halved; inf for no decay",
    "d": "error that no amount of data removes, common to a metric's pools",
}

_ENDS = {"": "", "_low": "lower end", "_high": "upper end"}

POOL_UTILITIES = table_schema(
    [
        Column("metric", pa.string(), "what was measured", nullable=False),
        Column("pool", pa.string(), "pool of data", nullable=False),
        Column("rank", pa.int32(), "place by utility among the metric's pools, 1 is best", nullable=False),
        Column("pool_size", pa.int64(), "samples in the pool", "samples", nullable=False),
        *(
            Column(
                f"{name}{suffix}",
                pa.float64(),
                f"{name}: {ends} of its 95 % interval" if ends else meaning,
                "epochs" if name == "tau" else "",
                nullable=False,
            )
            for name, meaning in _LAW.items()
            for suffix, ends in _ENDS.items()
        ),
        Column("points", pa.int32(), "measured points of the pool's training curve", nullable=False),
        Column("least_samples_seen", pa.int64(), "samples seen at its first point", "samples", nullable=False),
        Column("most_samples_seen", pa.int64(), "samples seen at its last point", "samples", nullable=False),
        Column("epochs", pa.float64(), "passes over the pool at its last point", "epochs", nullable=False),
        Column("residual", pa.float64(), "root mean square of fitted less measured error", nullable=False),
        Column("warning", pa.string(), "what the data cannot say; null if they say everything"),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
        Column("measured_samples_seen", pa.list_(pa.float64()), "samples seen at each point", "samples"),
        Column("measured_error", pa.list_(pa.float64()), "error measured at each point", "0 to 1"),
        *(
            Column(f"drawn_{name}", pa.list_(pa.float64()), f"{name} in each fit to resampled errors, for intervals")
            for name in _LAW
        ),
    ]
)

FILTER_RECOMMENDATION = table_schema(
    [
        Column("metric", pa.string(), "what is predicted", nullable=False),
        Column("samples_seen", pa.int64(), "compute: samples seen in training", "samples", nullable=False),
        Column("keep", pa.int32(), "how many of the best pools are kept", "pools", nullable=False),
        Column("pools", pa.list_(pa.string()), "their names, the best first", nullable=False),
        Column("kept_samples", pa.int64(), "samples in them", "samples", nullable=False),
        Column("epochs", pa.float64(), "passes over them", "epochs", nullable=False),
        Column("error", pa.float64(), "predicted error", nullable=False),
        Column("error_low", pa.float64(), "predicted error: lower end, 95 % interval", nullable=False),
        Column("error_high", pa.float64(), "predicted error: upper end, 95 % interval", nullable=False),
        Column("is_best", pa.bool_(), "whether no other number of pools has a lower predicted error", nullable=False),
        Column("share_best", pa.float64(), "share of the resampled fits in which it is best", "0 to 1", nullable=False),
        Column("is_measured", pa.bool_(), "whether the compute lies within the measured curves", nullable=False),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
    ]
)


def filter_masks_schema(filters: Mapping[str, str]) -> pa.Schema:
    """The schema of ``filter_masks``: a column for each filter.

    Args:
        filters: what each filter is, by its name.
    """
    return table_schema(
        [UID, *(Column(name, pa.bool_(), f"whether {text} keeps it", nullable=False) for name, text in filters.items())]
    )


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
            for suffix, ends in _ENDS.items()
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

SEARCH_HITS = table_schema(
    [
        UID,
        Column("score", pa.float32(), "cosine of what was looked for and what was found", "-1 to 1", nullable=False),
        Column("image_name", pa.string(), "the source's own name of the row", nullable=False),
        Column("caption", pa.string(), "the caption"),
        Column("caption_source", pa.string(), "original, or a captioner's name", nullable=False),
        Column("similarity", pa.float32(), "cosine of that caption and the image", "-1 to 1"),
        Column("language", pa.string(), "language of the original caption, ISO 639"),
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("shard", pa.string(), "partition key", nullable=False),
        Column("url", pa.string(), "where the image came from"),
        Column("width", pa.int32(), "width of the image", "pixels"),
        Column("height", pa.int32(), "height of the image", "pixels"),
    ]
)

COLLECTION_MAP = table_schema(
    [
        UID,
        Column("x", pa.float32(), "place on the map: no unit, near means alike", nullable=False),
        Column("y", pa.float32(), "place on the map: no unit, near means alike", nullable=False),
        Column("topic", pa.int32(), "number of the topic, 0 is the largest", nullable=False),
        Column("topic_name", pa.string(), "the words that set the topic's captions apart", nullable=False),
        Column("source", pa.string(), "name of the source in data/dqe.yaml", nullable=False),
        Column("similarity", pa.float32(), "cosine of image and original caption", "-1 to 1"),
    ]
)

REFINED_CAPTIONS = table_schema(
    [
        UID,
        Column("caption_source", pa.string(), "whose caption was asked for again", nullable=False),
        Column("round", pa.int32(), "from 1", nullable=False),
        Column("candidate", pa.int32(), "which of the answers of the round, from 0", nullable=False),
        Column(
            "reason",
            pa.string(),
            "why it was asked for: no_caption, below, below_original, or flags of the caption that there was",
            nullable=False,
        ),
        Column("text", pa.string(), "the answer as generated; null where there is none"),
        Column("caption", pa.string(), "the straightforward caption made of it"),
        Column("flags", pa.list_(pa.string()), "what is wrong with it, as in synthetic_captions"),
        Column(
            "veto",
            pa.string(),
            "why it is not accepted whatever its similarity: a flag, unchanged, word_list (hardly a sentence), or "
            "too_long; null where nothing speaks against it",
        ),
        Column("finish_reason", pa.string(), "stop, length (cut) or error", nullable=False),
        Column("error", pa.string(), "the last error, if finish_reason is error"),
        Column("similarity", pa.float32(), "cosine of the answer and the image, as in caption_scores", "-1 to 1"),
        Column("previous_similarity", pa.float32(), "that of the caption that there was before the round", "-1 to 1"),
        Column(
            "accepted",
            pa.bool_(),
            "whether it took the place of that caption: the best of its round, and better than what was there",
            nullable=False,
        ),
        Column("words", pa.int32(), "words of the answer", "words"),
        Column("previous_words", pa.int32(), "words of the caption that there was before the round", "words"),
        Column("tokens", pa.int32(), "tokens of the answer for the scorer, special ones included", "tokens"),
        Column("truncated", pa.bool_(), "whether it was longer than the scorer reads"),
        Column(
            "independent",
            pa.bool_(),
            "false where the scorer shares a backbone with the captioner, or with the labels that the prompt says: "
            "a higher similarity then proves nothing",
            nullable=False,
        ),
        Column("model", pa.string(), "model that wrote it", nullable=False),
        Column("revision", pa.string(), "revision of the model, where the settings say which"),
        Column("prompt", pa.string(), "name and version of the prompt"),
        Column("prompt_hash", pa.string(), "first 16 hex digits of the SHA-256 of the prompt's text"),
        Column("temperature", pa.float32(), "of the sampling"),
        Column("prompt_tokens", pa.int32(), "tokens of prompt and image, as the engine counts them", "tokens"),
        Column("completion_tokens", pa.int32(), "tokens of the answer, as the engine counts them", "tokens"),
        Column("seconds", pa.float64(), "from asking to the whole answer", "seconds"),
        Column("attempts", pa.int32(), "how often the model was asked"),
        Column(
            "cost",
            pa.float64(),
            "by its tokens, or its share of the time that the round took, at the price configured when it was asked; "
            "null without a price",
        ),
        Column("finished_at", pa.timestamp("us", tz="UTC"), "when the answer was whole"),
    ]
)
"""Only samples that were asked about have rows: one for each round and candidate. A sample's refined caption is that
of its accepted row of the highest round; where there is none, nothing better was found."""

SYNTHETIC_CAPTIONS_PREFIX = "synthetic_captions/"

_TABLES = {
    "raw_samples": RAW_SAMPLES,
    "image_features": IMAGE_FEATURES,
    "joint_embeddings": JOINT_EMBEDDINGS,
    "caption_scores": CAPTION_SCORES,
    "caption_preference": CAPTION_PREFERENCE,
    "best_captions": BEST_CAPTIONS,
    "caption_judgements": CAPTION_JUDGEMENTS,
    "text_quality": TEXT_QUALITY,
    "image_text": IMAGE_TEXT,
    "masked_similarity": MASKED_SIMILARITY,
    "duplicate_pairs": DUPLICATE_PAIRS,
    "duplicate_clusters": DUPLICATE_CLUSTERS,
    "collection_map": COLLECTION_MAP,
    "caption_duplicates": CAPTION_DUPLICATES,
    "pool_utilities": POOL_UTILITIES,
    "filter_recommendation": FILTER_RECOMMENDATION,
    "concept_hits": CONCEPT_HITS,
    "concept_frequency": CONCEPT_FREQUENCY,
    "misalignment": MISALIGNMENT,
    "concept_performance": CONCEPT_PERFORMANCE,
    "concept_plan": CONCEPT_PLAN,
    "rare_concept_retrieval": RARE_CONCEPT_RETRIEVAL,
    "rebalanced_subset": REBALANCED_SUBSET,
    "curriculum": CURRICULUM,
    "refined_captions": REFINED_CAPTIONS,
}


def schema_of(asset: str) -> pa.Schema:
    """The schema of an asset's table.

    Raises:
        KeyError: the asset is not a table.
    """
    return SYNTHETIC_CAPTIONS if asset.startswith(SYNTHETIC_CAPTIONS_PREFIX) else _TABLES[asset]
