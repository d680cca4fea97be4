"""The table of training runs: a row for each checkpoint."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import Column, table_schema

LOG = pa.list_(
    pa.struct(
        [
            ("step", pa.int64()),
            ("samples_seen", pa.int64()),
            ("loss", pa.float64()),
            ("learning_rate", pa.float64()),
            ("logit_scale", pa.float64()),
            ("seconds", pa.float64()),
            ("waited", pa.float64()),
        ]
    )
)

TRAINING_RUN = table_schema(
    [
        Column("run", pa.string(), "training run: what is trained on, scale and seed", nullable=False),
        Column("subset", pa.string(), "subset that is trained on; all for every sample with an image", nullable=False),
        Column("captions", pa.string(), "which captions, with weights where there are several", nullable=False),
        Column(
            "data", pa.string(), "name of the subset with its captions: the asset training_data/<data>", nullable=False
        ),
        Column("data_size", pa.int64(), "samples that are trained on", "samples", nullable=False),
        Column("scale", pa.string(), "name of the scale", nullable=False),
        Column("seed", pa.int64(), "of weights and order", nullable=False),
        Column("start", pa.string(), "checkpoint whose weights training started from; null for random ones"),
        Column("schedule", pa.string(), "of the learning rate: cosine or constant_cooldown", nullable=False),
        Column("checkpoint", pa.int32(), "which one, from 1", nullable=False),
        Column("is_final", pa.bool_(), "whether it is the last: the end of the schedule", nullable=False),
        Column("step", pa.int64(), "steps that were taken", "steps", nullable=False),
        Column("samples_seen", pa.int64(), "samples seen, repetitions counted", "samples", nullable=False),
        Column("loss", pa.float64(), "mean logged training loss since the checkpoint before"),
        Column("learning_rate", pa.float64(), "learning rate of its last step", nullable=False),
        Column("logit_scale", pa.float64(), "what a cosine is multiplied by"),
        Column(
            "architecture",
            pa.string(),
            "the model: open_clip's name, or the path of a configuration from the data folder",
            nullable=False,
        ),
        Column("path", pa.string(), "the checkpoint, from the data folder", nullable=False),
        Column("sha256", pa.string(), "hex digest of its weights", nullable=False),
        Column("seconds", pa.float64(), "time in training since the checkpoint before", "seconds"),
        Column("waited", pa.float64(), "of these, for samples to be read", "seconds"),
        Column("samples_per_second", pa.float64(), "of that time", "samples/s"),
        Column("gpus", pa.int32(), "GPUs that it was trained on; 0 for a CPU", nullable=False),
        Column("cost", pa.float64(), "price of that time, on its GPUs or on a CPU; null without a price"),
        Column("log", LOG, "the log since the checkpoint before: what was seen at some steps", nullable=False),
    ]
)
