"""How many samples of what runs train on show each class of the tasks, and how well each run knows the class."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.concepts.lists import flat
from dqe_assets.concepts.vocabulary import same_name
from dqe_assets.core.schema import IMAGE
from dqe_assets.evaluation.leaderboard import arm_of
from dqe_assets.evaluation.tables import CLASS_COUNTS, CONCEPT_ACCURACIES
from dqe_assets.evaluation.tasks import TaskError
from dqe_assets.filtering.subset import order_of, parse_uids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from dqe_assets.concepts.counting import ConceptCounts, ConceptIndex

_ROWS = 16_384


def caption_counts(samples: Iterable[tuple[str, str]], kinds: Sequence[str], index: ConceptIndex) -> pa.Table:
    """How many captions show each class, by the kind of caption and the kinds that its sample has.

    Of several captions a sample is trained with one at a time, drawn by weights among those that it has. So the counts
    are apart by what a sample has, and any weights give the number of samples that a pass shows the class with.

    Args:
        samples: key and text; with several kinds, the text is a JSON object of captions by kind.
        kinds: the kinds of captions that are chosen from.
        index: the classes.

    Returns:
        ``CLASS_COUNTS``: rows of captions.
    """
    counted: dict[tuple[tuple[str, ...], str], ConceptCounts] = {}
    rest = iter(samples)
    while batch := list(islice(rest, _ROWS)):
        texts: dict[tuple[tuple[str, ...], str], list[str]] = defaultdict(list)
        for _, text in batch:
            captions = {kinds[0]: text} if len(kinds) == 1 else json.loads(text)
            for kind, caption in captions.items():
                texts[tuple(sorted(captions)), kind].append(caption)
        for place, captions in texts.items():
            found = index.count(captions)
            counted[place] = index.merge(counted[place], found) if place in counted else found
    # A word that only other captions have is a word of the corpus all the same.
    seen = np.any([one.seen for one in counted.values()], axis=0) if counted else np.zeros(len(index.words), bool)
    tables = [CLASS_COUNTS.empty_table()]
    for (there, kind), one in sorted(counted.items()):
        settled = np.where(index.settled(one.seen, seen), one.counts, 0)
        tables.append(_rows(index.concepts, kind, ",".join(there), settled))
    return pa.concat_tables(tables)


def image_counts(keys: Iterable[str], hits: Iterable[pa.Table], classes: Sequence[str]) -> pa.Table:
    """How many images show each class, by the tagger that looked for the concepts of the vocabulary.

    Args:
        keys: of the samples that are trained on: a uid and, after a dash, which copy of it.
        hits: uid, item and concepts of ``CONCEPT_HITS``, a shard at a time.
        classes: the classes.

    Returns:
        ``CLASS_COUNTS``: rows of images.
    """
    rest = iter(keys)
    parts = [np.empty(0, "u8,u8")]
    while batch := [key.partition("-")[0] for key in islice(rest, _ROWS)]:
        parts.append(parse_uids(pa.array(batch, pa.string())))
    uids = np.concatenate(parts)
    uids = uids[order_of(uids)]
    names = [same_name(name) for name in classes]
    position: dict[str, int] = {}
    for name in names:
        position.setdefault(name, len(position))
    counts = np.zeros(len(position), np.int64)
    for table in hits:
        shown = table.filter(pc.equal(table["item"], IMAGE))
        mine = parse_uids(shown["uid"])
        copies = np.searchsorted(uids, mine, "right") - np.searchsorted(uids, mine, "left")
        concepts = shown["concepts"].combine_chunks()
        encoded = concepts.flatten().dictionary_encode()
        known = [position.get(same_name(name), -1) for name in encoded.dictionary.to_pylist()]
        places = np.array([*known, -1])[encoded.indices.to_numpy()]
        rows, _ = flat(pa.ListArray.from_arrays(concepts.offsets, encoded.indices, mask=concepts.is_null()))
        counts += np.bincount(places[places >= 0], copies[rows[places >= 0]], len(counts)).astype(np.int64)
    return _rows(classes, IMAGE, "", counts[[position[name] for name in names]])


def _rows(classes: Sequence[str], item: str, beside: str, counts: NDArray[np.int64]) -> pa.Table:
    return pa.table(
        {
            "class_name": pa.array(classes, pa.string()),
            "item": pa.repeat(item, len(classes)),
            "beside": pa.repeat(beside, len(classes)),
            "samples": pa.array(counts, pa.int64()),
        },
        schema=CLASS_COUNTS,
    )


def concept_accuracies(
    evaluation: pa.Table,
    counts: Mapping[str, pa.Table],
    weights: Mapping[str, Mapping[str, float]],
    vocabulary: Iterable[str],
) -> pa.Table:
    """Each class that the last checkpoint of a run was evaluated on: ``CONCEPT_ACCURACIES``.

    Args:
        evaluation: rows of ``EVALUATION``, of training runs.
        counts: ``CLASS_COUNTS`` of what runs train on, by its name.
        weights: of the kinds of captions, by run.
        vocabulary: the concepts that are looked for in images.

    Raises:
        TaskError: a run was evaluated on a class that was not counted.
    """
    looked_for = {same_name(name) for name in vocabulary}
    by_class = {name: _by_class(table) for name, table in counts.items()}
    rows: list[dict[str, Any]] = []
    final = evaluation.filter(pc.and_(evaluation["is_final"], pc.is_valid(evaluation["classes"])))
    for row in final.to_pylist():
        of_data = by_class[row["data"]]
        for one in row["classes"]:
            found = of_data.get(one["class_name"])
            if found is None:
                raise TaskError(
                    f"{row['run']}: was evaluated on the class {one['class_name']!r} of {row['task']}, which no task "
                    f"has any more; run: dqe materialize evaluation --run {row['run']}"
                )
            has_images = IMAGE in {item for item, _ in found} and same_name(one["class_name"]) in looked_for
            rows.append(
                {
                    "run": row["run"],
                    "data": arm_of(row),
                    "data_size": row["data_size"],
                    "scale": row["scale"],
                    "seed": row["seed"],
                    "task": row["task"],
                    "class_name": one["class_name"],
                    "caption_samples": _expected(found, weights[row["run"]]),
                    "image_samples": found[IMAGE, ""] if has_images else None,
                    "images": one["images"],
                    "correct": one["correct"],
                    "accuracy": one["correct"] / one["images"],
                }
            )
    rows.sort(key=lambda row: (row["run"], row["task"], row["class_name"]))
    return pa.Table.from_pylist(rows, CONCEPT_ACCURACIES)


def _by_class(table: pa.Table) -> dict[str, dict[tuple[str, str], int]]:
    found: dict[str, dict[tuple[str, str], int]] = {}
    for row in table.to_pylist():
        found.setdefault(row["class_name"], {})[row["item"], row["beside"]] = row["samples"]
    return found


def _expected(found: Mapping[tuple[str, str], int], weights: Mapping[str, float]) -> float:
    """The samples that a pass shows the class with, on average over draws of captions."""
    return sum(
        samples * weights[item] / sum(weights[kind] for kind in there.split(","))
        for (item, there), samples in found.items()
        if item != IMAGE
    )
