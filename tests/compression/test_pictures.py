"""What the gallery shows of clusters, and the plot of scores."""

import io

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image

from dqe_assets.compression import plots
from dqe_assets.compression.pictures import gallery_clusters
from dqe_assets.compression.selection import select_from_clusters
from dqe_assets.compression.views import RELATIONS
from dqe_assets.core.hashing import draw_keys
from dqe_assets.core.relations import sql_of
from dqe_assets.core.uids import uid_halves
from dqe_assets.filtering.filters.cluster_share import Tldr


def test_the_gallery_marks_what_a_quarter_keeps() -> None:
    random = np.random.default_rng(0)
    uids = pa.array([random.bytes(16).hex() for _ in range(100)])
    labels = np.repeat([0, 1, 2, 3], [50, 30, 19, 1])
    table = pa.table({"uid": uids, "code_cluster": labels, "code_distance": np.zeros(100)})
    kept = Tldr(share=0.25).mask(table)
    np.testing.assert_array_equal(
        kept, select_from_clusters(labels, 0.25, "uniform", keys=draw_keys(*uid_halves(uids)))
    )
    connection = duckdb.connect()
    connection.register("code_clusters", table)
    (sizes,) = RELATIONS.views
    connection.execute(f"CREATE VIEW code_cluster_sizes AS {sql_of(sizes.select)}")
    groups = list(gallery_clusters(connection, 3))
    assert [group.heading for group in groups] == ["50 images, 12 kept", "30 images, 7 kept", "19 images, 5 kept"]
    is_kept = dict(zip(uids.to_pylist(), kept.tolist(), strict=True))
    for group in groups:
        assert [one.is_marked for one in group.members] == [True, True, False, False, False, False]
        assert all(is_kept[one.picture] == one.is_marked for one in group.members)


def test_scores_are_drawn_beside_those_of_all() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=300)
    drawn = plots.scores({"all": scores, "kept": scores[scores > 0], "random": [*scores[:50], np.nan, None]})
    with Image.open(io.BytesIO(drawn)) as image:
        assert image.width > 500
    assert drawn != plots.scores({"all": scores, "kept": scores[scores > 1], "random": scores[:50]})
    assert plots.scores({"all": []}) == plots.scores({"all": [np.nan]})
