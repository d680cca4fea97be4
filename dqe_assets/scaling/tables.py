"""The tables of scaling laws: what each pool is worth, and which to train on."""

from __future__ import annotations

import pyarrow as pa

from dqe_assets.core.schema import INTERVAL_ENDS, Column, table_schema

_LAW = {
    "a": "scale of the law, common to a metric's pools: error above d after a unit of new samples",
    "b": "utility of a new sample of the pool, below 0: the lower, the better",
    "tau": "half-life of that utility: passes over the pool after which it has halved; inf for no decay",
    "d": "error that no amount of data removes, common to a metric's pools",
}


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
            )
            for name, meaning in _LAW.items()
            for suffix, ends in INTERVAL_ENDS.items()
        ),
        Column("fall", pa.float64(), "how far its own curve falls, in error; null with fewer than three points"),
        Column("fall_p", pa.float64(), "probability that noise around a flat curve falls as clearly", "0 to 1"),
        Column(
            "falls",
            pa.bool_(),
            "whether that is below 0.025; a pool whose curve does not fall is neither fitted nor recommended",
            nullable=False,
        ),
        Column("unit", pa.int64(), "samples are counted in this many", "samples", nullable=False),
        Column("points", pa.int32(), "measured points of the pool's training curve", nullable=False),
        Column("least_samples_seen", pa.int64(), "samples seen at its first point", "samples", nullable=False),
        Column("most_samples_seen", pa.int64(), "samples seen at its last point", "samples", nullable=False),
        Column("epochs", pa.float64(), "passes over the pool at its last point", "epochs", nullable=False),
        Column("residual", pa.float64(), "root mean square of fitted less measured error"),
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


MEASURED_MIXTURES = table_schema(
    [
        Column("metric", pa.string(), "what was measured", nullable=False),
        Column("mixture", pa.string(), "name of the mixture", nullable=False),
        Column("pools", pa.list_(pa.string()), "the pools that it is the union of", nullable=False),
        Column("samples_seen", pa.int64(), "samples seen in training", "samples", nullable=False),
        Column("error", pa.float64(), "measured error", nullable=False),
        Column("predicted", pa.float64(), "error that the law predicts; null where a pool's own curve does not fall"),
        Column("predicted_low", pa.float64(), "predicted: lower end of its 95 % interval, by noise alone"),
        Column("predicted_high", pa.float64(), "predicted: upper end of its 95 % interval, by noise alone"),
        Column("difference", pa.float64(), "error less predicted"),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
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
        Column(
            "error_low",
            pa.float64(),
            "predicted error: lower end, 95 % interval; with the error of the law, where mixtures were measured",
            nullable=False,
        ),
        Column("error_high", pa.float64(), "predicted error: upper end, as the lower one", nullable=False),
        Column(
            "mixtures_measured",
            pa.int32(),
            "measured mixtures that this error of the law comes from; 0: nothing has shown that the advice holds",
            nullable=False,
        ),
        Column("is_best", pa.bool_(), "whether no other number of pools has a lower predicted error", nullable=False),
        Column("share_best", pa.float64(), "share of the resampled fits in which it is best", "0 to 1", nullable=False),
        Column("is_measured", pa.bool_(), "whether the compute lies within the measured curves", nullable=False),
        Column("source", pa.string(), "file of the measurements, or that they are made up", nullable=False),
    ]
)
