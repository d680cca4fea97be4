from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.training.reshard import MANIFEST, UNFINISHED, ReshardError, plan_shards, write_shards
from dqe_assets.training.samples import Sample, SamplesError, StoreShard, tars
from dqe_resources.images import cleaned, is_plain

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings


def uid(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def subset_of(uids: list[str]) -> np.ndarray:
    return np.array(sorted((int(one[:16], 16), int(one[16:], 16)) for one in uids), "u8,u8")


@dataclass
class InMemory:
    """A part that counts how often it is read, and may be stopped while it is."""

    name: str
    all_uids: list[str]
    times_read: int = 0
    stop_after: int = 10**9

    def uids(self) -> list[str]:
        return self.all_uids

    def read(self, wanted: Container[str]) -> Iterator[Sample]:
        self.times_read += 1
        for one in self.all_uids:
            if one in wanted:
                if self.stop_after == 0:
                    raise KeyboardInterrupt
                self.stop_after -= 1
                yield Sample(one, {"jpg": one.encode(), "txt": b"a caption", "json": json.dumps({"uid": one}).encode()})


def numbered(*parts: range) -> list[InMemory]:
    return [InMemory(f"part-{place}", [uid(number) for number in part]) for place, part in enumerate(parts)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_tars(folder: Path) -> list[tuple[str, str, str]]:
    """Key, uid and caption of each sample, as the webdataset package reads them."""
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    return [
        (sample["__key__"], json.loads(sample["json"])["uid"], sample["txt"].decode())
        for sample in webdataset.WebDataset(tars, shardshuffle=False)
    ]


def test_every_sample_once_in_the_order_of_the_source_in_shards_of_one_size(tmp_path: Path) -> None:
    samples = numbered(range(7), range(7, 20))
    wanted = [uid(number) for number in range(20) if number % 3]
    manifest = write_shards(plan_shards(subset_of(wanted), samples, 5), tmp_path / "out", {"file": "x.npy"})
    assert read_tars(tmp_path / "out") == [(f"{one}-0", one, "a caption") for one in wanted]
    assert [shard["samples"] for shard in manifest["shards"]] == [5, 5, 3]
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {
        f"{number:08d}.tar": size for number, size in enumerate((5, 5, 3))
    }
    assert json.loads((tmp_path / "out" / "00000002_stats.json").read_text())["successes"] == 3
    for shard in manifest["shards"]:
        data = (tmp_path / "out" / shard["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert manifest["subset"] == {"file": "x.npy"}


def test_a_uid_is_written_as_often_as_the_subset_has_it_and_found_only_once(tmp_path: Path) -> None:
    samples = numbered(range(4), range(2, 6))
    samples[1].all_uids.append(uid(5))
    plan = plan_shards(subset_of([uid(1), uid(3), uid(3), uid(3), uid(5)]), samples, 2)
    manifest = write_shards(plan, tmp_path / "out", {})
    assert [key for key, _, _ in read_tars(tmp_path / "out")] == [
        f"{uid(1)}-0", f"{uid(3)}-0", f"{uid(3)}-1", f"{uid(3)}-2", f"{uid(5)}-0"
    ]  # fmt: skip
    assert manifest["samples"] == 5
    assert manifest["found_again"] == 2


def test_uids_that_share_their_first_half_are_told_apart(tmp_path: Path) -> None:
    uids = [f"{7:016x}{number:016x}" for number in (1, 2**63, 2**64 - 1, 3)]
    samples = [InMemory("part", [*uids, f"{7:016x}{2:016x}", f"{2**64 - 1:016x}{5:016x}"])]
    write_shards(plan_shards(subset_of(uids[1:]), samples), tmp_path / "out", {})
    assert [one for _, one, _ in read_tars(tmp_path / "out")] == uids[1:]


@pytest.mark.parametrize("stop_after", [0, 3, 5, 9, 17])
def test_stopped_anywhere_it_goes_on_and_gives_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    parts = (range(6), range(6, 9), range(9, 20))
    subset = subset_of([uid(number) for number in range(20) if number not in (4, 11)])
    write_shards(plan_shards(subset, numbered(*parts), 4), tmp_path / "whole", {})

    stopped = numbered(*parts)
    left = stop_after
    for part, wanted in zip(stopped, (5, 3, 10), strict=True):
        part.stop_after, left = left, max(left - wanted, 0)
    with pytest.raises(KeyboardInterrupt):
        write_shards(plan_shards(subset, stopped, 4), tmp_path / "out", {})
    assert (tmp_path / "out" / UNFINISHED).exists()
    assert not (tmp_path / "out" / MANIFEST).exists()
    again = numbered(*parts)
    write_shards(plan_shards(subset, again, 4), tmp_path / "out", {})
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert bool(again[0].times_read) == (stop_after < 8), "parts whose shards are there are not read again"


def test_what_is_there_is_left_alone_and_what_is_damaged_is_written_again(tmp_path: Path) -> None:
    samples = numbered(range(12))
    subset = subset_of([uid(number) for number in range(12)])
    first = write_shards(plan_shards(subset, samples, 4), tmp_path / "out", {})
    before = contents(tmp_path / "out")
    samples[0].times_read = 0
    assert write_shards(plan_shards(subset, samples, 4), tmp_path / "out", {}) == first
    assert samples[0].times_read == 0
    (tmp_path / "out" / "00000001.tar").write_bytes(b"cut")
    write_shards(plan_shards(subset, samples, 4), tmp_path / "out", {})
    assert contents(tmp_path / "out") == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    subset = subset_of([uid(number) for number in range(12)])
    write_shards(plan_shards(subset, numbered(range(12))), tmp_path / "out", {})
    before = contents(tmp_path / "out")
    with pytest.raises(ReshardError, match="holds something else, or the export of another subset"):
        write_shards(plan_shards(subset[1:], numbered(range(12))), tmp_path / "out", {})
    assert contents(tmp_path / "out") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ReshardError, match="name an empty folder"):
        write_shards(plan_shards(subset, numbered(range(12))), tmp_path / "other", {})


def test_missing_samples_stop_it_before_anything_is_written(tmp_path: Path) -> None:
    subset = subset_of([uid(number) for number in range(12)])
    plan = plan_shards(subset, numbered(range(9)))
    with pytest.raises(ReshardError, match="part-0: 3 of the subset's 12 samples are not there, first") as error:
        write_shards(plan, tmp_path / "out", {})
    assert min(uid(9), uid(10), uid(11)) in str(error.value)
    assert "--allow-missing" in str(error.value)
    assert not (tmp_path / "out").exists()
    manifest = write_shards(plan, tmp_path / "out", {}, allow_missing=True)
    assert manifest["missing"] == {"count": 3, "first": sorted([uid(9), uid(10), uid(11)])}
    assert len(read_tars(tmp_path / "out")) == manifest["samples"] == 9


def test_a_subset_that_matches_nothing_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    plan = plan_shards(subset_of([uid(99)]), numbered(range(9)))
    with pytest.raises(ReshardError, match=f"not one of the subset's 1 samples is there .looked for {uid(99)}"):
        write_shards(plan, tmp_path / "out", {}, allow_missing=True)
    with pytest.raises(ReshardError, match="the subset is empty"):
        write_shards(plan_shards(subset_of([]), numbered(range(9))), tmp_path / "out", {}, allow_missing=True)


def write_tar(path: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mtime = len(content), 1_700_000_000
                tar.addfile(info, io.BytesIO(content))


def in_tar(number: int, **facts: object) -> tuple[str, dict[str, bytes]]:
    record = {"uid": uid(number), "url": f"https://photos.example/{number}"} | facts
    return f"00000000{number:04d}", {
        "jpg": f"picture {number}".encode(), "txt": "ein Boot, \u8239".encode(), "json": json.dumps(record).encode()
    }  # fmt: skip


def test_tars_are_copied_file_by_file(tmp_path: Path) -> None:
    # As img2dataset writes them: keys count samples, and uids may be in upper case.
    write_tar(tmp_path / "in" / "00000000.tar", [in_tar(number) for number in range(5)])
    write_tar(tmp_path / "in" / "00000001.tar", [in_tar(number, uid=uid(number).upper()) for number in range(5, 8)])
    (tmp_path / "in" / "00000000.parquet").write_bytes(b"a file next to the tars")
    wanted = [uid(number) for number in (1, 4, 6)]
    for url in (str(tmp_path / "in"), f"file://{tmp_path / 'in'}"):
        out = tmp_path / f"out{len(url)}"
        write_shards(plan_shards(subset_of(wanted), tars(url)), out, {})
        with tarfile.open(out / "00000000.tar") as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar}
        expected = {
            f"{uid(number)}-0.{extension}": content
            for number in (1, 4, 6)
            for extension, content in in_tar(number, uid=uid(number).upper() if number > 4 else uid(number))[1].items()
        }
        assert found == expected
    # What was written can be copied from again.
    write_shards(plan_shards(subset_of(wanted), tars(str(out))), tmp_path / "again", {})
    assert (tmp_path / "again" / "00000000.tar").read_bytes() == (out / "00000000.tar").read_bytes()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"there is no \.tar; name a folder or URL"),
        ({"a.tar": [("0000", {"jpg": b"picture"})]}, r"a\.tar: sample 0000 has no \.json"),
        ({"a.tar": [("0000", {"json": b'{"uid": "12"}'})]}, r"a\.tar: the \.json of sample 0000 has no uid of 32 hex"),
        ({"a.tar": [("0000", {"json": b'{"uid": "' + b"z" * 32 + b'"}'})]}, r"sample 0000 has no uid of 32 hex"),
        ({"a.tar": [("0000", {"json": b"[]"})]}, r"sample 0000 has no uid of 32 hex"),
        ({"a.tar": b"<html>gone</html>" * 99}, r"a\.tar: torn or not a tar"),
    ],
)
def test_bad_tars_are_named(
    tmp_path: Path, files: dict[str, bytes | list[tuple[str, dict[str, bytes]]]], message: str
) -> None:
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / "in" / name).write_bytes(content)
        else:
            write_tar(tmp_path / "in" / name, content)
    with pytest.raises(SamplesError, match=message):
        plan_shards(subset_of([uid(1)]), tars(str(tmp_path / "in")))


def test_a_torn_tar_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [in_tar(number) for number in range(5)])
    whole = (tmp_path / "in" / "a.tar").read_bytes()
    (tmp_path / "in" / "a.tar").write_bytes(whole[:1700])
    with pytest.raises(SamplesError, match=r"a\.tar: torn or not a tar"):
        plan_shards(subset_of([uid(1)]), tars(str(tmp_path / "in")))


def test_the_stores_images_are_copied_as_they_are_or_made_upright(opened: Settings, tmp_path: Path) -> None:
    store = opened.opened_store
    shards = tuple(f"sample-{index:05d}" for index in range(4))
    rows = {
        row["uid"]: row
        for shard in shards
        for row in store.read("raw_samples", shard, RAW_SAMPLES).to_pylist()
        if row["status"] == "ok"
    }
    samples = [StoreShard(store, shard) for shard in shards]
    manifest = write_shards(plan_shards(subset_of(list(rows)), samples, 100), tmp_path / "out", {})
    assert [shard["samples"] for shard in manifest["shards"]] == [100, 100, len(rows) - 200]
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    encoded = Counter()
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        facts = json.loads(sample["json"])
        row = rows.pop(facts["uid"])
        assert sample["__key__"] == f"{row['uid']}-0"
        assert sample["txt"].decode() == (row["caption"] or "") == (facts["caption"] or "")
        assert facts["url"] == row["url"]
        extension = next(name for name in ("jpg", "png", "webp") if name in sample)
        is_copied = row["format"] in {"jpeg", "png", "webp"} and is_plain(row["image"]["bytes"])
        # Pixel for pixel; what else a file says stays behind.
        same = is_copied and sample[extension] == cleaned(row["image"]["bytes"])
        encoded[row["truth"]["image"]] += not same
        # What is plain, tests/resources/images/test_decoding.py holds.
        assert same == is_copied
        assert not same or row["exif_orientation"] == 1
        with Image.open(io.BytesIO(sample[extension])) as image:
            assert image.size == (row["width"], row["height"]) == (facts["original_width"], facts["original_height"])
            assert image.getexif().get(0x0112, 1) == 1
        assert facts["sha256"] == hashlib.sha256(sample[extension]).hexdigest()
    assert rows == {}
    assert encoded["rotated_exif"] == 6
    assert manifest["encoded_anew"] == encoded.total()
