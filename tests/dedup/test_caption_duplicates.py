"""Clusters of captions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.dedup import near_texts
from dqe_assets.dedup.caption_duplicates import (
    NOTHING_KNOWN,
    SourceCaptions,
    caption_clusters,
    signature_table,
    worded_captions,
)
from dqe_assets.dedup.caption_text import jaccard, normalised_text
from dqe_assets.dedup.near_texts import band_bytes
from dqe_assets.dedup.tables import CAPTION_DUPLICATES, CAPTION_SIGNATURES
from tests.caption_clusters import captions_of, clusters_of_captions

if TYPE_CHECKING:
    from collections.abc import Sequence

SBU = Path("../shared/data/sbu/captions.parquet")
WORDS = st.sampled_from(["dog", "cat", "on", "the", "beach", "red", "car", "über", "海", ".JPG", "DSC_0042", "!"])


def runs(text: str) -> set[str]:
    """The four-letter runs of a normalised text."""
    padded = f" {text} "
    return {padded[i : i + 4] for i in range(max(1, len(padded) - 3))}


def uids_of(count: int, seed: int = 0) -> list[str]:
    """Uids in an order that has nothing to do with that of the rows."""
    return [f"{number:032x}" for number in np.random.default_rng(seed).permutation(count)]


def clusters(texts: Sequence[str | None], threshold: float, kind: str = "near") -> set[frozenset[int]]:
    """The clusters of a kind, as sets of positions."""
    uids = uids_of(len(texts))
    column = pa.chunked_array([uids], pa.string())
    table = clusters_of_captions(column, {"original": pa.array(texts, pa.string())}, threshold)
    table = table.filter(pc.equal(table["kind"], kind))
    place = {uid: position for position, uid in enumerate(uids)}
    groups: dict[str, set[int]] = {}
    for uid, cluster in zip(table["uid"].to_pylist(), table["cluster"].to_pylist(), strict=True):
        groups.setdefault(cluster, set()).add(place[uid])
    return {frozenset(group) for group in groups.values()}


def connected(pairs: Sequence[tuple[int, int]], count: int) -> set[frozenset[int]]:
    """Connected components of two or more, by a plain union-find."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for left, right in pairs:
        parent[root(left)] = root(right)
    groups: dict[int, set[int]] = {}
    for row in range(count):
        groups.setdefault(root(row), set()).add(row)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def all_near(texts: Sequence[str], threshold: float) -> list[tuple[int, int]]:
    """Every pair of texts that is near, by comparing all."""
    every = np.stack(np.triu_indices(len(texts), 1), axis=1)
    worded = [text or "?" for text in texts]
    similar = jaccard(pa.array(worded, pa.string()), every) >= threshold
    return [(int(i), int(j)) for i, j in every[similar] if texts[i] and texts[j]]


@given(st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=25), st.floats(0.7, 1))
@settings(max_examples=60)
def test_clusters_hold_equal_captions_and_what_is_near_them(captions: list[str], threshold: float) -> None:
    normal = [normalised_text(caption) for caption in captions]
    equal = [(normal.index(text), place) for place, text in enumerate(normal) if text]
    assert clusters(captions, threshold, "exact") == connected(equal, len(captions))
    found, wanted = clusters(captions, threshold), connected([*equal, *all_near(normal, threshold)], len(captions))
    assert all(any(cluster <= every for every in wanted) for cluster in found), "no caption is where it does not belong"
    # Of pairs at the threshold itself, three in a thousand may be missed.
    assert found == wanted or len(found) >= len(wanted) - 1


def test_nearly_all_near_captions_are_found() -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))
    words = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(2, 8, 2_000)])
    originals = [" ".join(some) for some in rng.choice(words, (3_000, 12))]
    copies = [
        f"{text.replace(' ', ', ', 1)} {' '.join(rng.choice(words, place % 4))}"
        for place, text in enumerate(originals[:1_000])
    ]
    normal = [normalised_text(text) for text in originals + copies]
    pairs = np.stack([np.arange(1_000), np.arange(3_000, 4_000)], axis=1)
    near = jaccard(pa.array(normal), pairs) >= 0.8
    wanted = {frozenset(pair) for pair in pairs[near].tolist()}
    found = clusters(originals + copies, 0.8)
    assert 500 < len(wanted) < 1_000
    assert found <= wanted
    assert len(found) >= 0.99 * len(wanted)


@pytest.mark.skipif(not SBU.exists(), reason=f"{SBU} is not there")
@pytest.mark.parametrize(("column", "clustered"), [("original_caption", 30), ("cogvlm2_caption", 0)])
def test_of_real_captions_all_are_found_that_comparing_all_finds(column: str, clustered: int) -> None:
    captions = normalise_captions(pq.read_table(SBU, columns=[column])[column].slice(2_600, 1_500)).to_pylist()
    normal = [normalised_text(text or "") for text in captions]
    sets = [runs(text) if text else set() for text in normal]
    number = {run: place for place, run in enumerate(sorted(set().union(*sets)))}
    ends = np.cumsum([0, *map(len, sets)])
    has = csr_array((np.ones(ends[-1], np.int32), [number[run] for one in sets for run in one], ends))
    shared = (has @ has.T).toarray()
    sizes = np.diff(ends)
    near = np.argwhere(shared >= 0.8 * np.maximum(1, sizes[:, None] + sizes[None, :] - shared))
    wanted = connected([(int(i), int(j)) for i, j in near if i < j], len(normal))
    assert sum(map(len, wanted)) >= clustered
    assert clusters(captions, 0.8) == wanted


def test_a_caption_of_many_images_and_a_template_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    measured = near_texts.jaccard
    monkeypatch.setattr(near_texts, "_CONNECTED_AT_ONCE", 1_000)
    monkeypatch.setattr(
        near_texts, "jaccard", lambda texts, pairs: compared.append(len(pairs)) or measured(texts, pairs)
    )
    template = [
        f"photo number {number:05d} of the summer holiday in the mountains of the north" for number in range(4_000)
    ]
    found = clusters([*["No caption!"] * 20_000, *["no caption"] * 20_000, *template], 0.8)
    assert sorted(map(len, found)) == [4_000, 40_000]
    assert sum(compared) < 5 * 4_000, "not all pairs"


def test_the_order_of_the_samples_is_no_matter() -> None:
    rng = np.random.default_rng(1)
    texts = [
        f"a {kind} dog number {number % 7} at the lake of {'xyz'[number % 3] * 9}"
        for number in range(300)
        for kind in ("small", "large")
    ]
    texts[7] = texts[90] = None
    uids = uids_of(len(texts))
    table = clusters_of_captions(pa.chunked_array([uids]), {"original": pa.array(texts)}, 0.7)
    order = rng.permutation(len(texts))
    turned = clusters_of_captions(
        pa.chunked_array([[uids[row] for row in order]]), {"original": pa.array([texts[row] for row in order])}, 0.7
    )
    assert table.num_rows
    assert turned.equals(table)


def test_what_is_known_changes_nothing_and_is_not_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    measured = near_texts.jaccard
    monkeypatch.setattr(
        near_texts, "jaccard", lambda texts, pairs: compared.append(len(pairs)) or measured(texts, pairs)
    )
    texts = [f"photo {number % 97:02d} of the {'summer' * (number % 5)} at lake {number % 13}" for number in range(600)]
    known = NOTHING_KNOWN
    # Shards come, go, come in another order, and come again.
    for rows in ([*range(200)], [*range(400)], [*range(100, 600)], [*range(599, -1, -1)], [*range(600)]):
        uids = pa.chunked_array([[uids_of(len(texts))[row] for row in rows]])
        found = captions_of(uids, pa.array([texts[row] for row in rows]))
        anew, _ = caption_clusters("original", found, 0.8)
        table, known = caption_clusters("original", found, 0.8, known)
        assert table.num_rows
        assert table.equals(anew)
        compared.clear()
        again, still = caption_clusters("original", found, 0.8, known)
        assert again.equals(anew)
        assert sum(compared) == 0, "they were all compared the time before"
        assert np.array_equal(still.compared, known.compared)


SENTENCES = st.builds(
    lambda words, times: " ".join(words * times), st.lists(WORDS, min_size=1, max_size=5), st.integers(1, 3)
)


@given(st.lists(st.lists(SENTENCES, max_size=12), min_size=1, max_size=5), st.sampled_from([0.15, 0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_shard_after_shard_gives_what_all_at_once_gives(shards: list[list[str]], threshold: float) -> None:
    known = NOTHING_KNOWN
    for count in range(1, len(shards) + 1):
        parts, first = [], 0
        for shard in shards[:count]:
            uids = pa.chunked_array([[f"{number:032x}" for number in range(first, first + len(shard))]], pa.string())
            first += len(shard)
            texts = pa.array(shard, pa.string())
            parts.append(worded_captions(signature_table(uids, {"original": texts}), texts))
        table, known = caption_clusters("original", SourceCaptions(parts), threshold, known)
        anew, found = caption_clusters("original", SourceCaptions(parts), threshold)
        assert table.equals(anew)
        assert known.texts == found.texts


def test_many_texts_of_a_band_are_linked_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Groups of hundreds that share a band, of which only some are near: whom a text is linked to decides what is found.
    rng = np.random.default_rng(3)
    words = [f"{'word' * (number % 3)}{number}" for number in range(40)]
    texts = ["a view of the old harbour at night with " + " ".join(rng.choice(words, 4)) for _ in range(1_500)]
    uids = uids_of(len(texts))
    linked: list[int] = []
    add = near_texts._Found.add
    monkeypatch.setattr(
        near_texts._Found, "add", lambda found, links: linked.append(links.shape[1]) or add(found, links)
    )
    parts = []
    for start in range(0, 1_500, 250):
        table = signature_table(
            pa.chunked_array([uids[start : start + 250]]), {"original": pa.array(some := texts[start : start + 250])}
        )
        parts.append(worded_captions(table, pa.array(some)))
    known = NOTHING_KNOWN
    for count in range(1, 7):
        linked.clear()
        table, known = caption_clusters("original", SourceCaptions(parts[:count]), 0.8, known)
    of_last = sum(linked)
    linked.clear()
    anew, _ = caption_clusters("original", SourceCaptions(parts), 0.8)
    assert table.equals(anew)
    assert 0 < of_last < sum(linked) / 4, "only what is new is linked"


def test_what_awaits_comparison_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"photo number {number:04d} of the summer holiday in the mountains" for number in range(500)]
    wanted = clusters(texts, 0.8)
    monkeypatch.setattr(near_texts, "_CANDIDATES", 100)
    monkeypatch.setattr(near_texts, "_CONNECTED_AT_ONCE", 50)
    monkeypatch.setattr(near_texts, "_COMPARED_AT_ONCE", 30)
    assert clusters(texts, 0.8) == wanted == {frozenset(range(500))}


@pytest.mark.parametrize(("threshold", "size"), [(1, 8), (0.8, 8), (0.7, 5), (0.5, 3), (0.2, 1)])
def test_the_bands_are_as_long_as_the_threshold_allows(threshold: float, size: int) -> None:
    assert band_bytes(threshold) == size
    assert (1 - threshold**size) ** (256 // size) <= 0.003
    assert size == 8 or (1 - threshold ** (size + 1)) ** (256 // (size + 1)) > 0.003


@pytest.mark.parametrize("threshold", [0.0, 1.1, float("nan")])
def test_a_threshold_that_is_no_similarity_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="Jaccard"):
        caption_clusters("original", SourceCaptions([]), threshold)


def test_nulls_and_captions_without_words_take_no_part() -> None:
    assert clusters([None, "", "!!", None, "a cat", "…"], 0.8) == set()
    assert clusters([], 0.8) == set()
    table = signature_table(pa.chunked_array([uids_of(3)]), {"original": pa.array([None, "!", "a cat"])})
    assert table.schema.equals(CAPTION_SIGNATURES)
    assert (
        table["signature"].is_valid().to_pylist() == table["text_digest"].is_valid().to_pylist() == [False, False, True]
    )


def test_clusters_are_of_one_source_and_say_how_near_they_are() -> None:
    uids = pa.chunked_array([[f"{n:032x}" for n in (4, 3, 2, 1)]])
    captions = {
        "original": pa.array(["A dog!", "a dog", "a dog on the beach of the lake", "a dog on the beach of a lake"]),
        "model": pa.array(["a dog", None, "a cat", "a cow"]),
    }
    table = clusters_of_captions(uids, captions, 0.7)
    assert table.schema.equals(CAPTION_DUPLICATES)
    rows = [(row["caption_source"], row["kind"], int(row["uid"], 16), row["size"]) for row in table.to_pylist()]
    assert rows == [
        *(("original", "exact", uid, 2) for uid in (3, 4)),
        *(("original", "near", uid, 2) for uid in (1, 2, 3, 4)),
    ]
    similar = {(row["kind"], row["uid"]): row["similarity"] for row in table.to_pylist()}
    wanted = jaccard(pa.array(["a dog on the beach of the lake", "a dog on the beach of a lake"]), np.array([[0, 1]]))
    assert similar["near", f"{2:032x}"] == pytest.approx(wanted[0])
    assert similar["exact", f"{3:032x}"] == 1
    assert {row["representative"] for row in table.to_pylist()} == {f"{n:032x}" for n in (1, 3)}
