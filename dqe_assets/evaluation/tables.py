"""The tables of what models can do."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import Column, table_schema

CLASSES = pa.list_(pa.struct([("class_name", pa.string()), ("images", pa.int64()), ("correct", pa.int64())]))

EVALUATION = table_schema(
    [
        Column("run", pa.string(), "training run, or name of a model that was not trained here", nullable=False),
        Column("subset", pa.string(), "subset that it was trained on; null for a model from elsewhere"),
        Column("captions", pa.string(), "which captions it was trained with"),
        Column("data", pa.string(), "name of the subset with its captions"),
        Column("data_size", pa.int64(), "samples that it was trained on", "samples"),
        Column("scale", pa.string(), "name of the scale"),
        Column("seed", pa.int64(), "of weights and order"),
        Column("schedule", pa.string(), "of the learning rate: cosine or constant_cooldown"),
        Column("checkpoint", pa.int32(), "which one, from 1"),
        Column("is_final", pa.bool_(), "whether it is the last checkpoint, or the only one", nullable=False),
        Column("at_peak", pa.bool_(), "whether its learning rate was the scale's highest"),
        Column("samples_seen", pa.int64(), "samples seen in training, repetitions counted", "samples"),
        Column("task", pa.string(), "task, as DataComp's result files call it", nullable=False),
        Column("task_name", pa.string(), "the task's name for people", nullable=False),
        Column("metric", pa.string(), "what is measured", nullable=False),
        Column("value", pa.float64(), "its value; shares are 0 to 1", nullable=False),
        Column("is_main", pa.bool_(), "whether it is the task's score", nullable=False),
        Column("images", pa.int64(), "images that were evaluated", "images", nullable=False),
        Column("left_out", pa.int64(), "samples of the task without a readable image", "samples", nullable=False),
        Column("classes", CLASSES, "images and correct answers of each class that has an image; once a task"),
    ]
)

LEADERBOARD = table_schema(
    [
        Column("scale", pa.string(), "name of the scale", nullable=False),
        Column("score", pa.string(), "a task, or an average of tasks that all runs have", nullable=False),
        Column("data", pa.string(), "the subset with its captions, or the label of its runs", nullable=False),
        Column("data_size", pa.int64(), "samples that were trained on", "samples", nullable=False),
        Column("samples_seen", pa.int64(), "samples seen in training, repetitions counted", "samples", nullable=False),
        Column("seeds", pa.int64(), "training runs that the mean is of", "runs", nullable=False),
        Column("value", pa.float64(), "mean over seeds", nullable=False),
        Column("spread", pa.float64(), "standard deviation over seeds; null for a single one"),
        Column("difference", pa.float64(), "mean of the differences to all, for the same seeds"),
        Column("difference_low", pa.float64(), "lower end of its 95 % interval (Student's t); null for a single seed"),
        Column("difference_high", pa.float64(), "its upper end"),
        Column("rank", pa.int64(), "place by value, from 1; null where the interval holds 0 or there is none"),
        Column("cost", pa.float64(), "mean price of a run; null without a price of an hour"),
        Column("gpu_hours", pa.float64(), "mean GPU hours of a run", "hours"),
        Column("cpu_hours", pa.float64(), "mean hours of a run that was trained on a CPU", "hours"),
    ]
)

CLASS_COUNTS = table_schema(
    [
        Column("class_name", pa.string(), "class of a task", nullable=False),
        Column("item", pa.string(), "image, or the kind of caption: original, best or a captioner", nullable=False),
        Column(
            "beside", pa.string(), "the kinds of captions that the counted samples have, with commas", nullable=False
        ),
        Column("samples", pa.int64(), "samples whose image, or caption of the kind, shows the class", "samples"),
    ]
)

CONCEPT_ACCURACIES = table_schema(
    [
        Column("run", pa.string(), "training run", nullable=False),
        Column("data", pa.string(), "the subset with its captions, or the label of its runs", nullable=False),
        Column("data_size", pa.int64(), "samples that it was trained on", "samples", nullable=False),
        Column("scale", pa.string(), "name of the scale", nullable=False),
        Column("seed", pa.int64(), "of weights and order", nullable=False),
        Column("task", pa.string(), "task", nullable=False),
        Column("class_name", pa.string(), "class of the task", nullable=False),
        Column(
            "caption_samples",
            pa.float64(),
            "samples of the run's own subset whose caption shows the class; of several captions, by their weights",
            "samples",
            nullable=False,
        ),
        Column(
            "image_samples",
            pa.int64(),
            "samples of it whose image shows the class; null for one that is no concept of the vocabulary",
            "samples",
        ),
        Column("images", pa.int64(), "images of the class that were evaluated", "images", nullable=False),
        Column("correct", pa.int64(), "of these, how many the run's last checkpoint gets right", "images"),
        Column("accuracy", pa.float64(), "correct / images", "0 to 1", nullable=False),
    ]
)

TRAINING_CURVES = table_schema(
    [
        Column("pool", pa.string(), "the subset with its captions, or the label of its runs", nullable=False),
        Column("pool_size", pa.int64(), "samples in it", "samples", nullable=False),
        Column("samples_seen", pa.int64(), "samples seen in training, repetitions counted", "samples", nullable=False),
        Column("metric", pa.string(), "task and metric; with the scale where checkpoints of one scale are compared"),
        Column("error", pa.float64(), "1 - value, or the value of a loss; mean over seeds", nullable=False),
        Column("seeds", pa.int64(), "training runs that the mean is of", "runs", nullable=False),
        Column("spread", pa.float64(), "standard deviation over seeds; null for a single one"),
    ]
)
