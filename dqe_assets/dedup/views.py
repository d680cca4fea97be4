"""What the warehouse says of captions that are repeated."""

from __future__ import annotations

from dqe_assets.core.relations import Table, View, columns
from dqe_assets.dedup.tables import CAPTION_DUPLICATES

CAPTION_DUPLICATE_TABLE = Table(
    "caption_duplicates",
    "Every caption that other images have too, in the same words or nearly, once for each kind of cluster it is in",
    columns(
        CAPTION_DUPLICATES,
        uid="VARCHAR",
        caption_source="VARCHAR",
        kind="VARCHAR",
        cluster="VARCHAR",
        representative="VARCHAR",
        is_representative="BOOLEAN",
        similarity="FLOAT",
        size="INTEGER",
    ),
    """
    SELECT uid, caption_source, kind, cluster, representative, is_representative, similarity, size
    FROM captions_repeated ORDER BY caption_source, kind, cluster, NOT is_representative, uid
    """,
)

REPEATED_CAPTIONS = View(
    "repeated_captions",
    "Captions given to several images in the same words, or nearly, the most frequent first",
    """
    WITH same AS (
        SELECT caption_source, uid, size FROM caption_duplicates WHERE kind = 'exact'
    )
    SELECT arg_max(c.caption, d.is_representative) AS text, d.caption_source, d.size AS captions,
        coalesce(max(same.size), 1) AS exact, list_slice(list(s.image_name ORDER BY s.image_name), 1, 5) AS examples
    FROM caption_duplicates d
    JOIN captions c USING (uid, caption_source)
    JOIN samples s USING (uid)
    LEFT JOIN same USING (uid, caption_source)
    WHERE d.kind = 'near' GROUP BY d.caption_source, d.cluster, d.size ORDER BY captions DESC, d.caption_source, text
    """,
    {
        "text": "one of the captions",
        "captions": "images with it, in the same words or nearly [captions]",
        "exact": "most of them in the same words [captions]",
        "examples": "names of up to five of the images",
    },
)
