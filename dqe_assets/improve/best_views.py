"""What the warehouse says of the best caption of each sample."""

from __future__ import annotations

from dqe_assets.core.relations import Table, View, columns
from dqe_assets.improve.tables import BEST_CAPTIONS

_TYPES = {
    "caption": "VARCHAR",
    "caption_source": "VARCHAR",
    "similarity": "FLOAT",
    "original_similarity": "FLOAT",
    "judgement": "FLOAT",
    "independent": "BOOLEAN",
    "reason": "VARCHAR",
    "runner_up_source": "VARCHAR",
    "runner_up_caption": "VARCHAR",
    "runner_up_similarity": "FLOAT",
    "runner_up_judgement": "FLOAT",
    "set_aside": "VARCHAR[]",
}

BEST_READ = {"best_captions": (BEST_CAPTIONS, " ".join(["uid", *_TYPES]))}
"""The columns that are read of the asset."""

BEST_VIEW_OF = {"best_captions": "stored_best_captions"}
"""What the asset is called while the warehouse is built: its table has its name."""

BEST_TABLE = Table(
    "best_captions",
    "The best caption of each sample, by the rule of data/dqe.yaml, with the reason and the next best",
    columns(BEST_CAPTIONS, uid="VARCHAR", **_TYPES),
    f"""
    SELECT uid, {", ".join(f"b.{name}" for name in _TYPES)} FROM raw_samples r JOIN stored_best_captions b USING (uid)
    ORDER BY r.shard, r."row"
    """,  # noqa: S608 - names of columns
)

BEST_REASONS = View(
    "best_reasons",
    "Why captions are the best: how many of each source for each reason, and how much better they fit",
    """
    SELECT caption_source, reason, independent, count(*) AS samples, avg(similarity) AS mean_similarity,
        avg(similarity - original_similarity) AS mean_gain
    FROM best_captions GROUP BY ALL ORDER BY samples DESC, caption_source, reason
    """,
    {
        "samples": "samples with such a best caption",
        "mean_similarity": "mean similarity of the best captions and the images [-1 to 1]",
        "mean_gain": "mean of that less the original's, where both have one",
    },
)
