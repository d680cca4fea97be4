"""The assets of repeated captions: signatures of each shard, clusters over all of them, and what is kept for those."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.caption.texts import source_captions
from dqe_assets.core import kept_tables
from dqe_assets.dedup import kept_captions
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.orchestration.takedowns import left_of
from dqe_resources.store import Stamp
from tests.caption_clusters import clusters_of_captions
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LABELS = "synthetic_captions/labels"
TEMPLATE = "holiday photo {} of the harbour at night"
SHARDS: dict[str, list[tuple[str | None, str | None]]] = {
    "a": [("A dog &amp; a cat", "a dog"), ("no caption", "a dog"), (None, None), (TEMPLATE.format(1), "a cat")],
    "b": [("No caption!", "a cow"), ("a  dog & a cat", None), ("", "a tree"), (TEMPLATE.format(2), "A cat.")],
    "c": [("!!!", "a house"), ("something else", "a car")],
}


def uids(shard: str) -> list[str]:
    # In the order of their shards turned round.
    return [f"{100 * (200 - ord(shard)) + row:032x}" for row in range(len(SHARDS[shard]))]


def put(shard: str, captions: Sequence[tuple[str | None, str | None]]) -> None:
    """Store a shard's captions, each the original and the captioner's."""
    same = {"source": "folder", "shard": shard, "image_name": "a.jpg", "status": "ok", "reason": "ok"}
    raw = [
        {"uid": uid, "row": row, "caption": original, **same}
        for row, (uid, (original, _)) in enumerate(zip(uids(shard), captions, strict=True))
    ]
    labels = [
        {"uid": uid, "caption": caption, "finish_reason": "stop", "model": "labels", "flags": None}
        for uid, (_, caption) in zip(uids(shard), captions, strict=True)
    ]
    store = load_settings().opened_store
    for asset, rows, schema in (("raw_samples", raw, RAW_SAMPLES), (LABELS, labels, SYNTHETIC_CAPTIONS)):
        table = pa.Table.from_pylist(rows, schema)
        store.write_table(asset, shard, table, schema, Stamp(str(captions), "1", len(rows)))


def make(shards: str, *, force: bool = False) -> tuple[pa.Table, list[str]]:
    """Make the signatures of these shards and the clusters; returns these, and the shards that were not current."""
    settings, made = load_settings(), []
    for name, partitions in (("caption_signatures", [*shards]), ("caption_duplicates", [None])):
        stage = stage_named(settings, name)
        for partition in partitions:
            work = stage.work(settings.opened_store, partition, [*shards])
            forced = force and partition is None
            _, metadata, results = stage.make(work, handed(settings, stage), force=forced)
            assert all(result.passed for result in results.values()), results
            made += [partition] if partition and not metadata["reused"] else []
    return table_of(settings, "caption_duplicates"), made


@pytest.fixture(autouse=True)
def three_shards(data: Path) -> None:
    (data / "dqe.yaml").write_text(
        "sources: [{kind: folder, name: folder, path: photos}]\ncaptioners: [{kind: labels, name: labels}]\n"
    )
    (data / "photos").mkdir()
    for shard, captions in SHARDS.items():
        put(shard, captions)


def expected(shards: str, of: dict[str, list[tuple[str | None, str | None]]]) -> pa.Table:
    rows = [(uid, row) for shard in shards for uid, row in zip(uids(shard), of[shard], strict=True)]
    unescaped = [original and original.replace("&amp;", "&") for _, (original, _) in rows]
    captions = {"original": pa.array(unescaped), "labels": pa.array([caption for _, (_, caption) in rows])}
    return clusters_of_captions(pa.chunked_array([[uid for uid, _ in rows]]), captions, 0.8)


def test_the_clusters_over_all_shards_are_those_of_all_captions_at_once() -> None:
    found, made = make("abc")
    assert made == ["a", "b", "c"]
    assert found.equals(expected("abc", SHARDS))
    sizes = {(row["caption_source"], row["kind"]): row["size"] for row in found.to_pylist()}
    assert sizes == {("original", "exact"): 2, ("original", "near"): 2, ("labels", "exact"): 2, ("labels", "near"): 2}
    assert found.num_rows == 2 * (2 + 3) + 2 * (2 + 2)


def test_a_shard_that_changes_is_read_again_alone_and_one_that_goes_is_gone() -> None:
    make("abc")
    changed = {**SHARDS, "c": [("a dog, a cat", "a house"), ("no caption", "a cow")]}
    put("c", changed["c"])
    found, made = make("abc")
    assert made == ["c"]
    assert found.equals(expected("abc", changed))
    found, made = make("bc")
    assert made == []
    assert found.equals(expected("bc", changed))
    assert found.num_rows


def test_without_captions_there_are_no_clusters() -> None:
    put("a", [(None, None)] * 4)
    assert make("a")[0].num_rows == 0


MANY = "cdefgh"
"""Shards with many captions that are equal, nearly equal, or share no more than some words."""


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("dog", "cat", "red fox")
    for place, shard in enumerate(MANY):
        captions: list[tuple[str | None, str | None]] = []
        for number in range(60 * place, 60 * place + 60):
            kind = kinds[number % 3]
            original = f"a {kind} at lake number {number * number % 7} of the {'old ' * (number % 5)}mountains"
            captions.append((original, f"photo {number % 23:03d} of the holiday in the {kind} house, by the sea"))
        monkeypatch.setitem(SHARDS, shard, captions)
        put(shard, captions)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts how often captions of each source are read from the store."""
    counted: Counter[str] = Counter()
    monkeypatch.setattr(
        kept_captions,
        "source_captions",
        lambda work, source: counted.update([work.partition]) or source_captions(work, source),
    )
    return counted


def anew(data: Path, shards: str) -> pa.Table:
    """The clusters of these shards, made with nothing kept."""
    shutil.rmtree(data / "duplicates", ignore_errors=True)
    return make(shards, force=True)[0]


@pytest.mark.usefixtures("many")
def test_whatever_comes_changes_and_goes_the_clusters_are_those_made_from_nothing(
    data: Path, read: Counter[str]
) -> None:
    steps = ["c", "cd", "cde", "cdeh", "cdegh", "bcdegh", "bcegh", "bceg", "bcefg", "gh", "abcdefgh"]
    found = {}
    for shards in steps:
        read.clear()
        found[shards], made = make(shards)
        assert set(read.values()) <= {2}, "captions of each source"
        assert len(read) <= 2 or shards == steps[-1], "of the shards that were not there"
    for shards in steps:
        assert anew(data, shards).equals(found[shards])
        assert found[shards].num_rows
    make("cd")
    changed = [*SHARDS["e"][30:], *SHARDS["c"][:30]]
    make("cdef")
    put("e", changed)
    read.clear()
    table, made = make("cdef")
    assert made == ["e"]
    assert read == {"e": 2}
    assert anew(data, "cdef").equals(table)


@pytest.mark.usefixtures("many")
def test_another_threshold_starts_over(data: Path) -> None:
    make("cde")
    with (data / "dqe.yaml").open("a") as file:
        file.write("duplicates: {min_jaccard: 0.6}\n")
    found = make("cdef")[0]
    assert found.equals(anew(data, "cdef"))
    (data / "dqe.yaml").write_text((data / "dqe.yaml").read_text().replace("0.6", "0.95"))
    fewer = make("cdefg")[0]
    assert fewer.equals(anew(data, "cdefg"))
    assert fewer.num_rows != found.num_rows


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "foreign": lambda path: path.write_bytes(b"something else entirely" * 50),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a byte": lambda path: path.write_bytes(changed_byte(path.read_bytes())),
}


def changed_byte(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_kept_file_that_is_not_as_it_was_written_changes_nothing(data: Path, damage: str) -> None:
    wanted = anew(data, "cdef")
    make("cde")
    for path in sorted((data / "duplicates").rglob("*.arrow")):
        DAMAGES[damage](path)
    assert make("cdef")[0].equals(wanted)
    assert make("cdef", force=True)[0].equals(wanted)


@pytest.mark.usefixtures("many")
def test_a_file_of_another_table_is_not_taken(data: Path) -> None:
    wanted = anew(data, "cdef")
    make("cde")
    (shard, *_), (known,) = (
        sorted((data / "duplicates" / "captions" / "labels").glob(f"{name}.*.arrow")) for name in ("d", "known")
    )
    contents = shard.read_bytes(), known.read_bytes()
    known.write_bytes(contents[0])
    shard.write_bytes(contents[1])
    assert make("cdef")[0].equals(wanted)
    # What is known of one source is nothing of another.
    known.write_bytes((data / "duplicates" / "captions" / "original" / known.name).read_bytes())
    assert make("cdefg")[0].equals(anew(data, "cdefg"))


@pytest.mark.usefixtures("many")
def test_a_kill_at_any_moment_is_mended_by_the_next_run(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, write = anew(data, "cd"), kept_tables.replace_file
    for writes in count():
        anew(data, "c")
        left = writes

        def killed(*arguments: Any) -> None:
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            write(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(kept_tables, "replace_file", killed)
            try:
                assert make("cd")[0].equals(wanted)
                break
            except KeyboardInterrupt:
                pass
        assert make("cd")[0].equals(wanted)
    # The captions of the new shard, and what is known, of two sources.
    assert writes == 4


@pytest.mark.usefixtures("many")
def test_only_what_is_needed_is_kept_and_what_left_a_shard_is_in_no_file_any_more(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data / "duplicates" / "captions"
    folder.mkdir(parents=True)
    (folder / "original.1.npy").write_bytes(b"of an earlier version")
    make("cde")
    uid = uids("d")[40]
    monkeypatch.setitem(SHARDS, "d", SHARDS["d"][:20])
    put("d", SHARDS["d"])
    assert [number for _, number in kept_captions.places_of([uid])] == [1, 1]
    assert [place for place in left_of(load_settings(), "uid", uid).places if "captions/original/d." in place]
    make("de")
    assert kept_captions.places_of([uid]) == []
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert [name.partition(".")[0] for name in kept] == [
        f"{source}/{name}" for source in ("labels", "original") for name in ("d", "e", "known")
    ]
