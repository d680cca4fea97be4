"""Which samples of a shard are in a reference set: rows of ``CONTAMINATION``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dqe_assets.contamination.compare import COLUMNS, Comparison, Looked
from dqe_assets.contamination.tables import CONTAMINATION, KINDS
from dqe_assets.contamination.texts import Texts, best_matches
from dqe_assets.core.arrow import to_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from dqe_assets.contamination.compare import Nearest, Vectors
    from dqe_assets.contamination.settings import ContaminationRules

ROWS_AT_ONCE = 8_192
"""Rows of a reference set, and samples, that are read at once."""

READ = [*COLUMNS, "texts"]
"""What is read of ``reference_features`` from its beginning to its end."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a shard, n of them.

    Attributes:
        uids: strings [n].
        looked: what their pictures are compared by.
        vectors: gives their features by row.
        dimension: how many numbers those have.
        texts: the texts of a kind (``caption``, ``image_text``), and the sample that each is of, int64 [m].
    """

    uids: pa.Array
    looked: Looked
    vectors: Vectors
    dimension: int
    texts: Mapping[str, tuple[Texts, NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference set as it is stored.

    Attributes:
        name: of the set.
        parts: gives ``READ`` of ``reference_features`` from the beginning, some thousand rows at a time.
        rows: gives columns of some of its rows, by ascending position.
    """

    name: str
    parts: Callable[[], Iterable[pa.RecordBatch]]
    rows: Callable[[NDArray[np.int64], list[str]], pa.Table]

    def vectors(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features by ascending position, float32 [k, d]."""
        return to_matrix(self.rows(positions, ["embedding"])["embedding"])[1]


def contaminated(samples: Samples, reference: Reference, rules: ContaminationRules) -> pa.Table:
    """The samples that are in a reference set, in the schema ``CONTAMINATION``.

    Of each sample and kind, only the row of the set that is most like it. A set is read once, a part at a time.
    """
    texts = {kind: _BestTexts(len(one)) for kind, (one, _) in samples.texts.items()}

    def parts() -> Iterator[pa.RecordBatch]:
        before = 0
        for part in reference.parts():
            wanted, owners = _texts_of(part)
            for kind, best in texts.items():
                best.add(samples.texts[kind][0], wanted, owners + before, rules)
            before += part.num_rows
            yield part

    found = Comparison(samples.looked, samples.vectors, reference.vectors, rules, samples.dimension).with_all(parts())
    ways = {"exact": found.exact, "perceptual": found.perceptual, "semantic": found.semantic}
    rows = [_rows(kind, nearest) for kind, nearest in ways.items()]
    rows += [best.rows(kind, samples.texts[kind][1]) for kind, best in texts.items()]
    return _table(samples.uids, reference, pa.concat_tables(rows))


_FOUND = pa.schema(
    [
        ("sample", pa.int64()),
        ("kind", pa.string()),
        ("position", pa.int64()),
        ("similarity", pa.float32()),
        ("reference_text", pa.string()),
    ]
)


def _rows(kind: str, nearest: Nearest) -> pa.Table:
    samples = np.flatnonzero(nearest.position >= 0)
    columns = {
        "sample": samples,
        "kind": pa.repeat(kind, len(samples)),
        "position": nearest.position[samples],
        "similarity": nearest.measure[samples].astype(np.float32),
        "reference_text": pa.nulls(len(samples), pa.string()),
    }
    return pa.table(columns, _FOUND)


class _BestTexts:
    """The text of a reference set that each text has most of."""

    def __init__(self, count: int) -> None:
        self._position, self._share = np.full(count, -1, np.int64), np.zeros(count, np.float32)
        self._text = np.full(count, None, object)

    def add(self, texts: Texts, wanted: list[str], owners: NDArray[np.int64], rules: ContaminationRules) -> None:
        """Look for more texts, which stand at these positions of the set."""
        best, share = best_matches(texts, wanted, rules.min_words, rules.min_overlap)
        better = np.flatnonzero(share > self._share)
        self._share[better] = share[better]
        self._position[better] = owners[best[better]]
        self._text[better] = np.array([*wanted, None], object)[best[better]]

    def rows(self, kind: str, owners: NDArray[np.int64]) -> pa.Table:
        """What was found, of the sample's texts that which has most."""
        places = np.flatnonzero(self._position >= 0)
        places = places[np.lexsort((places, -self._share[places], owners[places]))]
        samples, first = np.unique(owners[places], return_index=True)
        places = places[first]
        columns = {
            "sample": samples,
            "kind": pa.repeat(kind, len(samples)),
            "position": self._position[places],
            "similarity": self._share[places],
            "reference_text": pa.array(self._text[places], pa.string()),
        }
        return pa.table(columns, _FOUND)


def _texts_of(part: pa.RecordBatch) -> tuple[list[str], NDArray[np.int64]]:
    """The texts of some rows, and the row of each."""
    texts = part["texts"]
    lengths = pc.fill_null(pc.list_value_length(texts), 0).to_numpy(zero_copy_only=False)
    return texts.flatten().to_pylist(), np.repeat(np.arange(part.num_rows), lengths)


def _table(uids: pa.Array, reference: Reference, found: pa.Table) -> pa.Table:
    positions, at = np.unique(found["position"].to_numpy(), return_inverse=True)
    names = reference.rows(positions, ["reference_row", "reference"]).take(pa.array(at))
    columns = {
        "uid": uids.take(found["sample"].combine_chunks()),
        "kind": found["kind"],
        "reference_set": pa.repeat(reference.name, found.num_rows),
        **{name: names[name] for name in names.column_names},
        "similarity": found["similarity"],
        "reference_text": found["reference_text"],
    }
    return pa.table(columns, CONTAMINATION)


def in_order(tables: list[pa.Table]) -> pa.Table:
    """What was found in all sets, in the order of the samples' uids, the kinds and the sets."""
    table = pa.concat_tables([CONTAMINATION.empty_table(), *tables])
    kinds = pc.index_in(table["kind"], pa.array(KINDS))
    ordered = table.append_column("place", kinds).sort_by(
        [("uid", "ascending"), ("place", "ascending"), ("reference_set", "ascending")]
    )
    return ordered.drop_columns(["place"]).combine_chunks()
