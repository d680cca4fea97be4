"""Tables and views of training runs in the warehouse."""

from __future__ import annotations

from dqe_assets.core.relations import Read, Relations, ReportSection, Table, View, columns
from dqe_assets.training.tables import TRAINING_RUN

_COLUMNS = columns(
    TRAINING_RUN,
    run="VARCHAR",
    subset="VARCHAR",
    captions="VARCHAR",
    data="VARCHAR",
    data_size="BIGINT",
    scale="VARCHAR",
    seed="BIGINT",
    start="VARCHAR",
    schedule="VARCHAR",
    checkpoint="INTEGER",
    is_final="BOOLEAN",
    step="BIGINT",
    samples_seen="BIGINT",
    loss="DOUBLE",
    learning_rate="DOUBLE",
    logit_scale="DOUBLE",
    architecture="VARCHAR",
    path="VARCHAR",
    sha256="VARCHAR",
    seconds="DOUBLE",
    waited="DOUBLE",
    samples_per_second="DOUBLE",
    gpus="INTEGER",
    cost="DOUBLE",
)

_LOG = {
    "run": _COLUMNS["run"],
    "checkpoint": ("INTEGER", "the checkpoint that came next, from 1"),
    "step": ("BIGINT", "steps that were taken [steps]"),
    "samples_seen": ("BIGINT", "samples seen, repetitions counted [samples]"),
    "loss": ("DOUBLE", "training loss"),
    "learning_rate": ("DOUBLE", "learning rate of this step"),
    "logit_scale": ("DOUBLE", "what a cosine is multiplied by"),
    "seconds": ("DOUBLE", "time since the line before [seconds]"),
    "waited": ("DOUBLE", "of these, for samples to be read [seconds]"),
}

RELATIONS = Relations(
    reads=(Read("training_run", TRAINING_RUN, " ".join([*_COLUMNS, "log"])),),
    tables=(
        Table(
            "training_checkpoints",
            "The checkpoints of each training run",
            _COLUMNS,
            f"SELECT {', '.join(_COLUMNS)} FROM stored_training_run ORDER BY run, checkpoint",  # noqa: S608
        ),
        Table(
            "training_log",
            "What was seen at some of the steps of each training run",
            _LOG,
            f"""
            SELECT {", ".join(_LOG)}
            FROM (SELECT run, checkpoint, unnest(log, recursive := true) FROM stored_training_run)
            ORDER BY run, step
            """,  # noqa: S608
        ),
    ),
    views=(
        View(
            "training_runs",
            "Each training run: what it was trained on, how long it took, and its loss in the end",
            """
            SELECT run, any_value(subset) AS subset, any_value(captions) AS captions, any_value(scale) AS scale,
                any_value(seed) AS seed, any_value(data_size) AS data_size, max(samples_seen) AS samples_seen,
                max(samples_seen) / any_value(data_size) AS passes, arg_max(loss, checkpoint) AS final_loss,
                sum(seconds) AS total_seconds, sum(waited) / sum(seconds) AS share_waited,
                max(samples_seen) / sum(seconds) AS rate, any_value(gpus) AS gpus, sum(cost) AS total_cost
            FROM training_checkpoints GROUP BY run ORDER BY run
            """,
            {
                "passes": "how often each sample was seen on average [epochs]",
                "final_loss": "mean logged training loss from the last checkpoint but one to the last",
                "total_seconds": "time in training [seconds]",
                "share_waited": "share of that time in which the trainer waited for samples to be read [0 to 1]",
                "rate": "samples seen in a second of training [samples/s]",
                "total_cost": "price of that time, on its GPUs or on a CPU; null without a price",
            },
        ),
    ),
    report_sections=(
        ReportSection(
            "Training runs",
            "What was trained on, for how long, and the loss in the end. A lower loss is no better model: "
            "it is measured on each subset's own samples.",
            "SELECT run, data_size, samples_seen, passes, final_loss, total_seconds, share_waited FROM training_runs",
            order=140,
            only_with="training_checkpoints",
        ),
    ),
)
