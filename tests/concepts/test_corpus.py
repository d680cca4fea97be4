from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.concepts.corpus import (
    CorpusHits,
    StaleHitsError,
    concept_frequency,
    frequencies,
    misalignment,
    numbered,
    shard_hits,
    usable_samples,
)
from dqe_assets.concepts.counting import count_concepts
from dqe_assets.concepts.lists import as_lists
from dqe_assets.concepts.settings import Counting
from dqe_assets.concepts.tables import CONCEPT_FREQUENCY, CONCEPT_HITS, MISALIGNMENT
from dqe_assets.concepts.vocabulary import gather_concepts
from dqe_assets.core.schema import IMAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.concepts.counting import AbsentWords

WORDS = ["cat", "tabby", "fly", "agaric", "kite", "prey", "dog"]
NAMES = ["cat", "tabby cat", "fly agaric", "kite (bird of prey)", "dogs"]


def counting(absent_words: AbsentWords = "zero", names: Sequence[str] = NAMES) -> Counting:
    return Counting(gather_concepts({"own": names}), "lemmatized", absent_words)


def hits(
    count: Counting, captions: Sequence[str | None], images: Sequence[Sequence[int] | None], first: int = 0
) -> pa.Table:
    """The hits of a shard whose images show concepts by position; None if there is no image."""
    rows = [row for row, shown in enumerate(images) if shown is not None]
    pairs = [(place, value) for place, row in enumerate(rows) for value in images[row] or ()]
    places, values = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    uids = pa.chunked_array([pa.array([f"{first + row:032x}" for row in range(len(captions))], pa.string())])
    texts = {"original": pa.array(captions, pa.string())}
    return shard_hits(uids, texts, as_lists(places, values, len(rows)), np.array(rows, np.int64), count)


def corpus(count: Counting, *shards: pa.Table) -> CorpusHits:
    sources = ["original"]
    return CorpusHits(
        count, sources, lambda: ((f"s{n}", numbered(f"s{n}", table, count, sources)) for n, table in enumerate(shards))
    )


def test_a_shard_says_what_each_image_and_caption_shows() -> None:
    table = hits(counting(), ["a tabby cat", None, ""], [[0, 1], None, []])
    assert table.schema.equals(CONCEPT_HITS)
    shown = {(row["item"], row["uid"][-1]): row for row in table.to_pylist()}
    assert shown[IMAGE, "0"]["concepts"] == ["cat", "tabby cat"]
    assert shown[IMAGE, "1"]["concepts"] is None
    assert shown[IMAGE, "2"]["concepts"] == []
    assert shown[IMAGE, "0"]["words"] is None
    assert shown["original", "0"]["concepts"] == ["cat", "tabby cat"]
    assert shown["original", "0"]["words"] == ["cat", "tabby"]
    assert shown["original", "1"]["concepts"] is None
    assert shown["original", "2"]["concepts"] == []


def test_frequencies_say_samples_agreement_rank_and_absent_words() -> None:
    count = counting()
    first = hits(count, ["a tabby cat", "cats and dogs", None], [[0], [4], [0]])
    second = hits(count, ["a kite", "dog"], [None, [4]], first=3)
    table = concept_frequency(corpus(count, first, second))
    assert table.schema.equals(CONCEPT_FREQUENCY)
    rows = {(row["item"], row["concept"]): row for row in table.to_pylist()}
    assert {name: rows["original", name]["samples"] for name in NAMES} == dict(zip(NAMES, [2, 1, 0, 0, 2], strict=True))
    assert {name: rows["original", name]["agreed"] for name in NAMES} == dict(zip(NAMES, [1, 0, 0, 0, 2], strict=True))
    assert {name: rows[IMAGE, name]["samples"] for name in NAMES} == dict(zip(NAMES, [2, 0, 0, 0, 2], strict=True))
    assert {row["searched"] for row in table.to_pylist()} == {4}
    assert [rows["original", name]["rank"] for name in NAMES] == [1, 3, 4, 4, 1]
    assert rows["original", "fly agaric"]["absent_words"] == ["fly", "agaric"]
    assert rows["original", "kite (bird of prey)"]["absent_words"] == ["bird", "of", "prey"]
    assert rows[IMAGE, "cat"]["absent_words"] is None
    assert frequencies(table, ["original"])["original"].tolist() == [2, 1, 0, 0, 2]


@settings(max_examples=60, deadline=None)
@given(
    captions=st.lists(
        st.lists(
            st.none()
            | st.lists(st.sampled_from(["cat", "tabby", "fly", "agaric", "kite", "prey", "dog"])).map(" ".join)
        ),
        max_size=4,
    ),
    absent_words=st.sampled_from(["ignore", "zero"]),
)
def test_shards_add_up_to_the_corpus(captions: list[list[str | None]], absent_words: AbsentWords) -> None:
    count = counting(absent_words)
    tables = [hits(count, shard, [None] * len(shard)) for shard in captions]
    found = concept_frequency(corpus(count, *tables))
    whole = count_concepts([text for shard in captions for text in shard], NAMES, "lemmatized", absent_words)
    assert frequencies(found, ["original"])["original"].tolist() == whole["count"].to_pylist()


def test_hits_that_a_shard_only_seemed_to_have_are_named() -> None:
    count = counting("ignore")
    tables = [hits(count, ["a fly", "a cat"], [None, None]), hits(count, ["fly agaric", "agarics"], [None, None])]
    assert tables[0]["concepts"].to_pylist()[2] == ["fly agaric"]
    rows = {
        row["concept"]: row for row in concept_frequency(corpus(count, *tables)).to_pylist() if row["item"] != IMAGE
    }
    assert rows["fly agaric"]["samples"] == 1
    assert rows["fly agaric"]["provisional_shards"] == ["s0"]
    assert rows["cat"]["provisional_shards"] == []


def test_misaligned_samples_are_listed_by_shard() -> None:
    count = counting()
    first = hits(count, ["a cat", "a dog", "a cat", "nothing", None], [[0], [0], [0, 4], [0], [4]])
    second = hits(count, ["a dog"], [[1]], first=5)
    table = misalignment(corpus(count, first, second))
    assert table.schema.equals(MISALIGNMENT)
    assert table.to_pylist() == [
        {"shard": "s0", "caption_source": "original", "samples": 5, "comparable": 3, "misaligned": 1,
         "misaligned_uids": [f"{1:032x}"]},
        {"shard": "s1", "caption_source": "original", "samples": 1, "comparable": 1, "misaligned": 1,
         "misaligned_uids": [f"{5:032x}"]},
    ]  # fmt: skip


NOBODY = pa.array([], pa.string())


def test_usable_samples_have_an_image_and_a_caption() -> None:
    count = counting()
    table = hits(count, ["a cat", None, "dogs", ""], [[0, 1], [4], None, [4]])
    for item, expected in (("original", [[0], []]), (IMAGE, [[0, 1], [4]])):
        uids, shown = usable_samples(corpus(count, table), item, "original", NOBODY)
        assert uids.to_pylist() == [f"{0:032x}", f"{3:032x}"]
        assert shown.to_pylist() == expected
        uids, shown = usable_samples(corpus(count, table), item, "original", pa.array([f"{0:032x}"]))
        assert (uids.to_pylist(), shown.to_pylist()) == ([f"{3:032x}"], expected[1:])


def test_hits_of_other_concepts_are_refused_with_the_fix() -> None:
    table = hits(counting(), ["a cat"], [None])
    with pytest.raises(StaleHitsError, match=r"shard s0: counted with other concepts .* dqe materialize concept_hits"):
        concept_frequency(corpus(counting(names=["cat"]), table))


def test_nothing_gives_empty_tables() -> None:
    count = counting()
    assert frequencies(concept_frequency(corpus(count)), ["original"])["original"].tolist() == [0] * len(NAMES)
    assert len(misalignment(corpus(count))) == 0
    uids, shown = usable_samples(corpus(count), IMAGE, "original", NOBODY)
    assert (len(uids), len(shown)) == (0, 0)
