"""Views and report sections of scaling laws: what pools of data are worth, and how many of the best to train on."""

from __future__ import annotations

from dqe_assets.core.relations import Read, Relations, Table, View, columns
from dqe_assets.scaling.tables import FILTER_RECOMMENDATION, MEASURED_MIXTURES, POOL_UTILITIES

_POOLS = columns(
    POOL_UTILITIES,
    metric="VARCHAR",
    pool="VARCHAR",
    rank="INTEGER",
    pool_size="BIGINT",
    **{f"{name}{suffix}": "DOUBLE" for name in ("a", "b", "tau", "d") for suffix in ("", "_low", "_high")},
    fall="DOUBLE",
    fall_p="DOUBLE",
    falls="BOOLEAN",
    unit="BIGINT",
    points="INTEGER",
    least_samples_seen="BIGINT",
    most_samples_seen="BIGINT",
    epochs="DOUBLE",
    residual="DOUBLE",
    warning="VARCHAR",
    source="VARCHAR",
)
_MIXTURES = columns(
    MEASURED_MIXTURES,
    metric="VARCHAR",
    mixture="VARCHAR",
    pools="VARCHAR[]",
    samples_seen="BIGINT",
    error="DOUBLE",
    predicted="DOUBLE",
    predicted_low="DOUBLE",
    predicted_high="DOUBLE",
    difference="DOUBLE",
    source="VARCHAR",
)
_RECOMMENDED = columns(
    FILTER_RECOMMENDATION,
    metric="VARCHAR",
    samples_seen="BIGINT",
    keep="INTEGER",
    pools="VARCHAR[]",
    kept_samples="BIGINT",
    epochs="DOUBLE",
    error="DOUBLE",
    error_low="DOUBLE",
    error_high="DOUBLE",
    mixtures_measured="INTEGER",
    is_best="BOOLEAN",
    share_best="DOUBLE",
    is_measured="BOOLEAN",
    source="VARCHAR",
)

RELATIONS = Relations(
    reads=(
        Read("pool_utilities", POOL_UTILITIES, " ".join(_POOLS)),
        Read("measured_mixtures", MEASURED_MIXTURES, " ".join(_MIXTURES)),
        Read("filter_recommendation", FILTER_RECOMMENDATION, " ".join(_RECOMMENDED)),
    ),
    tables=(
        Table(
            "pool_utilities",
            "The fitted scaling law of each pool of data: what its samples are worth, and how fast repetition uses "
            "them up",
            _POOLS,
            "SELECT * FROM stored_pool_utilities ORDER BY metric, rank",
        ),
        Table(
            "measured_mixtures",
            "What was measured of mixtures of pools beside what the scaling law predicts of them",
            _MIXTURES,
            "SELECT * FROM stored_measured_mixtures ORDER BY metric, mixture, samples_seen",
        ),
        Table(
            "filter_recommendation",
            "For each compute, the error predicted of keeping the best 1, 2 ... pools, and which is best",
            _RECOMMENDED,
            "SELECT * FROM stored_filter_recommendation ORDER BY metric, samples_seen, keep",
        ),
    ),
    views=(
        View(
            "best_filters",
            "How many of the best pools to train on for each compute, and the error that is predicted",
            """
            SELECT metric, samples_seen, keep, pools, kept_samples, epochs, error, error_low, error_high,
                mixtures_measured, share_best, is_measured, source
            FROM filter_recommendation WHERE is_best ORDER BY metric, samples_seen
            """,
        ),
    ),
)
