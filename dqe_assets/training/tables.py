"""The table of training runs: a row for each checkpoint."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import Column, table_schema

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
        Column("loss", pa.float64(), "mean training loss of the logged steps since the checkpoint before"),
        Column("learning_rate", pa.float64(), "learning rate of its last step", nullable=False),
        Column("logit_scale", pa.float64(), "what a cosine is multiplied by"),
        Column("architecture", pa.string(), "the model's configuration, from the data folder", nullable=False),
        Column("path", pa.string(), "the checkpoint, from the data folder", nullable=False),
        Column("sha256", pa.string(), "hex digest of its weights", nullable=False),
        Column("seconds", pa.float64(), "time in training since the checkpoint before", "seconds", nullable=False),
        Column("gpus", pa.int32(), "GPUs that it was trained on; 0 for a CPU", nullable=False),
    ]
)
