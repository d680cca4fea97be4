"""What people read of an image's own features."""

from __future__ import annotations

from dqe_assets.core.relations import Explanation, Read, Relations
from dqe_assets.features.tables import IMAGE_FEATURES

RELATIONS = Relations(
    reads=(
        Read(
            "image_features",
            IMAGE_FEATURES,
            "uid sharpness brightness contrast colourfulness top_label label_probabilities",
        ),
    ),
    explanations=(
        Explanation(
            "Measured of the image",
            ("image_features",),
            """
            SELECT sharpness, brightness, contrast, colourfulness, top_label, top_label_probability
            FROM samples WHERE uid = ? AND status = 'ok'
            """,
            order=20,
            upright=True,
        ),
    ),
)
