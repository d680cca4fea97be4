from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.core.figures import DARK, LIGHT
from dqe_assets.core.work import with_facts
from dqe_assets.search import metadata as search_metadata
from dqe_assets.search import plots as topic_plots
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_assets.search.topics import collection_map, k_means, layout, topic_names

GROUPS = {"cat": 60, "bridge": 40, "boat": 20}


@pytest.fixture(scope="module")
def grouped() -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Samples around three directions, their vectors, and the group of each."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(len(GROUPS)), list(GROUPS.values()))
    vectors = rng.normal(size=(len(GROUPS), 32))[groups] + 0.3 * rng.normal(size=(len(groups), 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = list(GROUPS)
    samples = pa.table(
        {
            "uid": [f"{row:032x}" for row in range(len(groups))],
            "source": ["web" if row % 2 else "own" for row in range(len(groups))],
            "caption": [
                None if row % 10 == 0 else f"photo number {row} of the {words[group]} in summer"
                for row, group in enumerate(groups)
            ],
            "similarity": pa.array([None if row % 10 == 0 else row / 200 for row in range(len(groups))], pa.float32()),
        }
    )
    return samples, vectors.astype(np.float32), groups


@pytest.fixture(scope="module")
def mapped(grouped) -> pa.Table:
    samples, vectors, _ = grouped
    return collection_map(samples, vectors, len(GROUPS))


def test_topics_are_the_groups_the_largest_first_named_by_what_sets_them_apart(grouped, mapped):
    assert mapped.schema.equals(COLLECTION_MAP)
    assert mapped["topic"].to_pylist() == grouped[2].tolist()
    names = dict(zip(mapped["topic"].to_pylist(), mapped["topic_name"].to_pylist(), strict=True))
    assert [names[topic].split(", ")[0] for topic in range(3)] == list(GROUPS)
    assert mapped["uid"].to_pylist() == grouped[0]["uid"].to_pylist()


def test_what_is_alike_is_near_on_the_map(grouped, mapped):
    places = np.stack([mapped["x"].to_numpy(), mapped["y"].to_numpy()], axis=1)
    assert np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:6]
    assert (grouped[2][nearest] == grouped[2][:, None]).mean() > 0.98


def test_the_same_samples_give_the_same_map(grouped, mapped):
    assert collection_map(grouped[0], grouped[1], len(GROUPS)).equals(mapped)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_few_samples(grouped, count):
    samples, vectors, _ = grouped
    table = collection_map(samples.slice(0, count), vectors[:count])
    assert len(table) == count
    assert np.isfinite(table["x"].to_numpy()).all()


def test_copies_have_places_too():
    same = np.tile(np.eye(1, 8, dtype=np.float32), (50, 1))
    assert np.isfinite(layout(same)).all()
    assert k_means(same, 5).tolist() == [0] * 50


def test_a_name_is_neither_a_list_of_keywords_nor_a_copied_caption():
    captions = [
        "the tabby sleeps",
        "a tabby kitten",
        "tabby sofa",
        *["stock stock stock stock"] * 9,
        "bridge",
        "bridge x",
    ]
    labels = np.array([0] * 12 + [1] * 2)
    assert topic_names(captions, labels)[0] == "tabby"
    assert topic_names([None, "the and of"], np.array([0, 1])) == ["topic 0", "topic 1"]


@pytest.mark.parametrize("draw", [topic_plots.map_by_topic, topic_plots.map_by_source, topic_plots.map_by_score])
def test_pictures_are_drawn_for_light_and_dark_also_of_nothing(mapped, draw, tmp_path):
    shown = topic_plots.sample_map(mapped)
    pictures = [draw(shown, theme) for theme in (LIGHT, DARK)]
    assert pictures[0] == draw(shown, LIGHT) != pictures[1]
    (tmp_path / "x.png").write_bytes(pictures[0])
    with Image.open(tmp_path / "x.png") as image:
        assert image.width == 840
    assert draw(topic_plots.sample_map(mapped.slice(0, 0)))


def test_the_map_is_in_the_gallery_and_in_the_metadata(opened, finished):
    page = (finished / "gallery" / "figures.html").read_text()
    for title in ("What the images show, by topic", "How well the captions fit", "Where the images come from"):
        assert title in page
    stored = opened.opened_store.get("collection_map", None)
    table = with_facts(opened.opened_store.read("collection_map", None, COLLECTION_MAP), stored.stamp.facts)
    metadata = search_metadata.collection_map(None, table)
    assert {"topics", "map_by_topic", "map_by_source", "map_by_score"} <= set(metadata)


def test_labels_do_not_cover_each_other():
    rng = np.random.default_rng(0)
    figure, axes = topic_plots.new_figure(topic_plots.HEIGHT, LIGHT)
    axes.scatter(*rng.normal(size=(2, 200)))
    texts = [axes.text(0, 0.01 * place, f"topic {place}, its words, and more", ha="center") for place in range(9)]
    labels = dict.fromkeys(texts, "#000000")
    topic_plots._separate(figure, axes, labels)
    boxes = [label.get_window_extent() for label in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
