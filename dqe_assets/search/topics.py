"""A map of the samples: topics by k-means, named by their words, and a place for each sample by t-SNE."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field

from dqe_assets.search.neighbours import nearest
from dqe_assets.search.tables import COLLECTION_MAP
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SEED = 0
_MOST_TOPICS = 24
_ITERATIONS = 25
_PERPLEXITY = 30.0
_NEIGHBOURS = 90
_ITERATIONS_MORE = 20
_AROUND = 5
_COMPARED = 10
_ASKED = 1_000
_WORD = re.compile(r"[^\W\d_]{3,}")
_WORDS_NAMED = 3
_LEAST_CAPTIONS = 2
_STOP_WORDS = frozenset(
    """
    the and with from for this that are was were his her its our your their has had have into onto over under
    out off one two three all some very near next behind front top back down but not you she him they them
    who what when where which while than then there here about after before between through during just like
    can will would could photo picture image photograph img jpg jpeg png www com http https
    """.split()  # noqa: SIM905
)
"""Words that name nothing, and words for pictures and files themselves."""


class MapSettings(Strict):
    """How the map of the samples is made.

    Attributes:
        samples: Samples on the map at most: those with the lowest uids, which are digests, so that it is a fair draw.
        topics: Number of topics; by default about the square root of half the samples, 24 at most.
    """

    samples: Annotated[int, Field(ge=100)] = 10_000
    topics: Annotated[int, Field(ge=1, le=200)] | None = None


def collection_map(
    samples: pa.Table,
    vectors: NDArray[np.floating],
    topics: int | None = None,
    earlier: NDArray[np.float32] | None = None,
) -> pa.Table:
    """Topics and places of samples: ``COLLECTION_MAP``, a row for each, in order.

    The topics are spherical k-means of the vectors. The places are t-SNE (van der Maaten and Hinton 2008, by openTSNE)
    from the first two principal components, so that what is far apart keeps its arrangement as with UMAP (Kobak and
    Linderman 2021, doi 10.1038/s41587-020-00809-z); UMAP itself compiles for longer than everything here runs.

    Args:
        samples: n rows of uid, source, caption (to name the topics by) and similarity; both null if there is none.
        vectors: n vectors of unit length, floats [n, d].
        topics: how many, or None to choose by n.
        earlier: places of an earlier map, as ``layout`` takes them.
    """
    unit = np.ascontiguousarray(vectors, np.float32)
    wanted = topics or max(1, min(_MOST_TOPICS, round(np.sqrt(len(unit) / 2))))
    labels = k_means(unit, wanted)
    names = topic_names(samples["caption"].to_pylist(), labels)
    places = layout(unit, earlier)
    return pa.table(
        {
            "uid": samples["uid"],
            "x": pa.array(places[:, 0], pa.float32()),
            "y": pa.array(places[:, 1], pa.float32()),
            "topic": pa.array(labels, pa.int32()),
            "topic_name": pa.array([names[label] for label in labels.tolist()], pa.string()),
            "source": samples["source"],
            "similarity": samples["similarity"],
        },
        schema=COLLECTION_MAP,
    )


def k_means(unit: NDArray[np.float32], topics: int) -> NDArray[np.int64]:
    """Topics by spherical k-means: int64 [n], numbered from 0 by size, the largest first, none empty.

    Args:
        unit: vectors of unit length, float32 [n, d].
        topics: how many at most.
    """
    import faiss

    if not len(unit):
        return np.empty(0, np.int64)
    means = faiss.Kmeans(
        unit.shape[1],
        min(topics, len(unit)),
        niter=_ITERATIONS,
        nredo=3,
        spherical=True,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=max(256, len(unit)),
    )
    means.train(unit)
    found = means.index.search(unit, 1)[1][:, 0]
    numbers, first, counts = np.unique(found, return_index=True, return_counts=True)
    by_size = numbers[np.lexsort((first, -counts))]
    place = np.zeros(numbers.max() + 1, np.int64)
    place[by_size] = np.arange(len(by_size))
    return place[found]


def topic_names(captions: Sequence[str | None], labels: NDArray[np.int64]) -> list[str]:
    """A name for each topic: the words most characteristic of its captions.

    By class-based TF-IDF (Grootendorst 2022, arXiv 2203.05794): the share of a topic's captions that have the word,
    times log(1 + mean words of a topic / occurrences of the word anywhere). A word counts once a caption, and a caption
    once a topic, so that neither a list of keywords nor a copy names a topic.
    """
    words: list[Counter[str]] = [Counter() for _ in range(int(labels.max(initial=-1)) + 1)]
    distinct = dict.fromkeys(
        (label, " ".join(caption.lower().split()))
        for label, caption in zip(labels.tolist(), captions, strict=True)
        if caption
    )
    for label, caption in distinct:
        words[label].update(set(_WORD.findall(caption)) - _STOP_WORDS)
    total: Counter[str] = sum(words, Counter())
    mean = total.total() / max(1, len(words))
    names = []
    for number, counted in enumerate(words):
        ranked = sorted(counted, key=lambda word: (-counted[word] * np.log1p(mean / total[word]), word))
        # A word of a single caption says what that caption is about, not the topic, unless there is nothing else.
        common = [word for word in ranked if counted[word] >= _LEAST_CAPTIONS] or ranked
        names.append(", ".join(common[:_WORDS_NAMED]) or f"topic {number}")
    return names


def layout(unit: NDArray[np.float32], earlier: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """A place in the plane for each vector, float32 [n, 2]: near on the map means alike.

    The same vectors give the same places. Fewer than four samples lie where their principal components put them.

    Args:
        unit: vectors of unit length, float32 [n, d].
        earlier: places of an earlier layout, float32 [n, 2], NaN where a vector has none. These stay about where they
            are, and the others find their places among them, in a twentieth of the time. If all have one, they stay as
            they are.
    """
    count = len(unit)
    centred = unit - unit.mean(axis=0) if count else unit
    if count < 4:
        return np.pad(centred, ((0, 0), (0, 2)))[:, :2].astype(np.float32)
    if earlier is not None and np.isfinite(earlier).all():
        return earlier
    from openTSNE import TSNE, TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    near, apart = nearest(unit, min(count - 1, _NEIGHBOURS, int(3 * perplexity)))
    distances = np.sqrt(2 * apart)
    # One thread: sums in another order would give another map.
    affinities = PerplexityBasedNN(knn_index=PrecomputedNeighbors(near, distances), perplexity=perplexity, n_jobs=1)
    if earlier is not None:
        begun = put_among(unit, earlier).astype(np.float64)
        started = TSNEEmbedding(begun, affinities, random_state=_SEED, n_jobs=1)
        return np.asarray(started.optimize(_ITERATIONS_MORE), np.float32)
    _, directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    start = centred @ directions[:, :-3:-1]
    start *= 1e-4 / max(float(start[:, 0].std()), 1e-12)
    placed = TSNE(random_state=_SEED, n_jobs=1).fit(affinities=affinities, initialization=start)
    return np.asarray(placed, np.float32)


def put_among(unit: NDArray[np.float32], earlier: NDArray[np.float32]) -> NDArray[np.float32]:
    """The places of an earlier layout, and amid the five most alike that have one, places for those that have none.

    Args:
        unit: vectors of unit length, float32 [n, d].
        earlier: their places, float32 [n, 2], NaN where there is none.
    """
    import faiss

    is_new = np.isnan(earlier[:, 0])
    there, found = np.flatnonzero(~is_new), earlier.copy()
    if is_new.any() and len(there):
        _, near = faiss.knn(unit[is_new], unit[there], min(_AROUND, len(there)), metric=faiss.METRIC_INNER_PRODUCT)
        found[is_new] = np.median(earlier[there[near]], axis=1)
    return found


def neighbours_kept(unit: NDArray[np.float32], places: NDArray[np.float32]) -> float | None:
    """How far near on the map means alike: the share of the ten most alike that are among the ten nearest on the map.

    Of the first thousand samples at most, among all. Of random places it is 10 / n.

    Args:
        unit: vectors of unit length, float32 [n, d].
        places: theirs, float32 [n, 2].

    Returns:
        The share, 0 to 1; None of ten samples or fewer.
    """
    import faiss

    if len(unit) <= _COMPARED:
        return None
    asked = slice(_ASKED)
    _, alike = faiss.knn(unit[asked], unit, _COMPARED + 1, metric=faiss.METRIC_INNER_PRODUCT)
    _, near = faiss.knn(places[asked], places, _COMPARED + 1)
    own = np.arange(len(alike))
    shared = [len({*one} & {*other} - {row}) for one, other, row in zip(alike, near, own, strict=True)]
    return min(1.0, float(np.mean(shared)) / _COMPARED)
