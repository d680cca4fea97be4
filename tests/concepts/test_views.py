"""The views of concepts, on rows made for the purpose."""

from __future__ import annotations

import duckdb

from dqe_assets.concepts.views import RELATIONS

HITS = """
    ('a', 'original', ['cat', 'dog']), ('a', 'vlm', ['dog', 'sky']), ('a', 'image', ['dog']),
    ('b', 'original', ['sea']), ('b', 'vlm', ['sea']),
    ('c', 'original', NULL), ('c', 'vlm', ['sky']),
    ('d', 'original', ['sky']), ('d', 'vlm', NULL)
"""


def test_what_captions_keep_of_the_concepts_of_the_originals():
    view = next(view for view in RELATIONS.views if view.name == "kept_concepts")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE concept_hits AS FROM (VALUES {HITS}) AS rows(uid, item, concepts)")
        assert connection.execute(str(view.select)).fetchall() == [("vlm", 2, 3, 2, 2 / 3)]
