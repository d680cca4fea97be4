"""What people read of the best caption of each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.core.figures import PLOTTED
from dqe_assets.core.relations import Explanation, GalleryPlots, Read, Relations, Table, View, columns
from dqe_assets.improve.best_plots import before_and_after
from dqe_assets.improve.tables import BEST_CAPTIONS

if TYPE_CHECKING:
    import duckdb

    from dqe_assets.core.relations import Drawing

_TYPES = {
    "caption": "VARCHAR",
    "caption_source": "VARCHAR",
    "similarity": "FLOAT",
    "original_similarity": "FLOAT",
    "judgement": "FLOAT",
    "vqa": "FLOAT",
    "independent": "BOOLEAN",
    "reason": "VARCHAR",
    "runner_up_source": "VARCHAR",
    "runner_up_caption": "VARCHAR",
    "runner_up_similarity": "FLOAT",
    "runner_up_judgement": "FLOAT",
    "runner_up_vqa": "FLOAT",
    "set_aside": "VARCHAR[]",
}


def _before_and_after(connection: duckdb.DuckDBPyConnection, _: int) -> list[Drawing]:
    best = connection.execute(
        "SELECT original_similarity, similarity, coalesce(independent, true) AS independent FROM best_captions "
        "WHERE similarity IS NOT NULL ORDER BY uid LIMIT ?",
        [PLOTTED],
    ).fetchnumpy()
    before, after = (np.ma.filled(best[name], np.nan) for name in ("original_similarity", "similarity"))
    return [
        (
            "How well the original captions fit, and the best of each sample",
            lambda theme: before_and_after(before, after, best["independent"], theme),
        )
    ]


RELATIONS = Relations(
    reads=(Read("best_captions", BEST_CAPTIONS, " ".join(["uid", *_TYPES])),),
    tables=(
        Table(
            "best_captions",
            "The best caption of each sample, by the rule of data/dqe.yaml, with the reason and the next best",
            columns(BEST_CAPTIONS, uid="VARCHAR", **_TYPES),
            f"""
            SELECT uid, {", ".join(f"b.{name}" for name in _TYPES)}
            FROM stored_raw_samples r JOIN stored_best_captions b USING (uid) ORDER BY r.shard, r."row"
            """,  # noqa: S608 - names of columns
            by_shard=True,
        ),
    ),
    views=(
        View(
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
        ),
    ),
    gallery_plots=(GalleryPlots(_before_and_after, order=10),),
    explanations=(
        Explanation(
            "Best caption",
            ("best_captions",),
            """
            SELECT * EXCLUDE (uid, set_aside), nullif(array_to_string(set_aside, '; '), '') AS set_aside
            FROM best_captions WHERE uid = ?
            """,
            order=90,
            upright=True,
            glance=True,
        ),
    ),
)
