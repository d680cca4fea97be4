"""The metadata of these assets in the UI: figures, a preview, and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.core.metadata import Metadata, markdown_table, picture, valid_values
from dqe_assets.core.work import facts_of
from dqe_assets.search import plots

if TYPE_CHECKING:
    from dqe_assets.core.work import Manifest, Work
    from dqe_resources.vectors.protocol import Vectors


def caption_collection(_: Work, output: Manifest, vectors: Vectors) -> Metadata:
    """How many points, in which collection, and whether another kind of it is better by now."""
    told = {name: output.facts[name] for name in ("collection", "advice") if name in output.facts}
    return {"points": output.rows, **told, "kind": vectors.kind}


def collection_map(_: Work, table: pa.Table) -> Metadata:
    """The topics with their sizes and scores, and the map coloured by topic, source and score.

    ``neighbours_kept`` says how far near means alike: the share of the ten images most alike to an image that are among
    the ten nearest to it on the map, 0 to 1.
    """
    rows = []
    for topic in range((pc.max(table["topic"]).as_py() or 0) + 1 if table.num_rows else 0):
        part = table.filter(pc.equal(table["topic"], topic))
        scores = valid_values(part["similarity"])
        rows.append([part["topic_name"][0].as_py(), len(part), f"{scores.mean():.3f}" if scores.size else ""])
    shown = plots.sample_map(table)
    facts = facts_of(table)
    kept = facts["neighbours_kept"]
    return {
        **({} if kept is None else {"neighbours_kept": round(kept, 3)}),
        "stayed_from_the_map_before": facts["stayed"],
        "images_when_last_laid_out": facts["laid_out_of"],
        "topics": markdown_table(["topic", "samples", "mean similarity"], rows),
        "map_by_topic": picture(plots.map_by_topic(shown), "the images by topic"),
        "map_by_source": picture(plots.map_by_source(shown), "the images by source"),
        "map_by_score": picture(plots.map_by_score(shown), "the images by similarity of their captions"),
    }
