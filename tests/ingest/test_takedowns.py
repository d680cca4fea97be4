"""What is listed under takedowns is not asked for, and goes from the store; all else stays as it was."""

from __future__ import annotations

import hashlib
import io
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.outcomes import OUTCOMES
from dqe_assets.ingest.takedowns.memory import MEMORY, remembered
from dqe_assets.orchestration import runner
from dqe_assets.orchestration.settings import load_settings
from dqe_resources.store import Checkpoint, StorageError, Store
from tests.hostile_server import HostileServer, noise, photo
from tests.ingest.fetching import make, rows, write_list
from tests.stages import handed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT = {"uid", "source", "shard", "row", "image_name", "status", "reason", "detail"}
"""The columns in which a row that was taken down has anything."""


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer().running() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    (tmp_path / "removals.txt").write_text("")
    return tmp_path


def take_down(folder: Path, *lines: str, copies: bool = False) -> None:
    (folder / "removals.txt").write_text("".join(f"{line}\n" for line in lines))
    settings = yaml.safe_load((folder / "dqe.yaml").read_text())
    settings["takedowns"] = {"files": ["removals.txt"], "copies": copies} if copies else ["removals.txt"]
    (folder / "dqe.yaml").write_text(yaml.safe_dump(settings))


def nothing_left(row: dict[str, Any]) -> bool:
    return row["image_name"] == row["uid"] and {name for name, value in row.items() if value is not None} == KEPT


def reasons() -> list[str]:
    return [row["reason"] for row in rows()]


def test_what_is_listed_is_never_asked_for(server: HostileServer, folder: Path) -> None:
    urls = [server.url("good", "kept"), server.url("good", "listed"), "http://img.gone.org/good/by-host"]
    urls += ["http://gone.org/good/by-host", "http://notgone.org/good/other", server.url("good", "by-uid")]
    write_list(
        folder,
        urls,
        connect_to=dict.fromkeys(("gone.org", "img.gone.org", "notgone.org"), f"127.0.0.2:{server.port}"),
    )
    make()
    uid = rows()[5]["uid"]
    assert set(reasons()) == {"ok"}
    (folder / "store" / "raw_samples" / "web-00000.parquet").unlink()
    server.asked.clear()

    take_down(folder, server.url("good", "listed").replace("http", "HTTP") + "#top", "Gone.org", uid)
    results = make()
    assert reasons() == ["ok", "taken_down", "taken_down", "taken_down", "ok", "taken_down"]
    assert sorted(server.asked) == ["/good/kept", "/good/other"]
    assert all(nothing_left(row) for row in rows() if row["reason"] == "taken_down")
    assert results["success_rate"].passed
    assert "2 of 2 rows have an image (100.0%" in results["success_rate"].description
    make(force=True)
    assert set(server.asked.values()) == {1}, "every later run honours it"


def test_a_redirect_to_what_is_listed_is_not_followed_then_or_later(server: HostileServer, folder: Path) -> None:
    urls = [server.url("redirect_to", 1), server.url("redirect_to", 2), server.url("redirect_to_private_name", 3)]
    write_list(folder, urls)
    take_down(folder, server.url("good", "redirected-1"), "localhost.localdomain", "localhost.org")
    make()
    assert reasons()[:2] == ["taken_down", "ok"]
    assert server.times("good") == [1], "the second's target"
    assert nothing_left(rows()[0])
    make(force=True)
    assert server.times("redirect_to") == [1, 1], "it is known by its uid"


def test_what_is_stored_goes_and_nothing_else_is_asked_again(server: HostileServer, folder: Path) -> None:
    urls = [server.url("good", number) for number in range(3)] + [server.url("redirect_to", 3)]
    write_list(folder, urls)
    make()
    before = rows()
    take_down(folder, urls[1], server.url("good", "redirected-3"))
    make()
    assert reasons() == ["ok", "taken_down", "ok", "taken_down"]
    assert [row for row in rows() if row["reason"] == "ok"] == [before[0], before[2]]
    gone = [row for row in rows() if row["reason"] != "ok"]
    assert all(map(nothing_left, gone))
    assert [row["uid"] for row in gone] == [before[1]["uid"], before[3]["uid"]]
    assert set(server.times("good")) == {1}

    take_down(folder)
    make()
    assert [row["image"] for row in rows()] == [row["image"] for row in before], "what is no longer listed comes back"
    assert server.asked["/good/1"] == 2
    assert server.asked["/good/0"] == 1


def test_by_the_hash_of_the_file(server: HostileServer, folder: Path) -> None:
    urls = [server.url("good", number) for number in range(2)]
    write_list(folder, urls)
    take_down(folder, hashlib.sha256(photo("/good/1")).hexdigest())
    make()
    assert reasons() == ["ok", "taken_down"]
    assert nothing_left(rows()[1])
    make(force=True)
    assert set(server.times("good")) == {1}, "it is not asked for to see whether it is still the same"


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def smooth(seed: int) -> Image.Image:
    """A picture with large shapes, as photos have."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((240, 180), Image.Resampling.BICUBIC)


def write_images(folder: Path, images: list[bytes], shard_size: int = 2, **top: object) -> None:
    names = [f"image {number}" for number in range(len(images))]
    pq.write_table(pa.table({"id": names, "image": pa.array(images, pa.binary()), "text": names}), folder / "a.parquet")
    source = {"kind": "parquet", "name": "web", "path": "a.parquet", "key_column": "id", "image_column": "image"}
    source |= {"caption_column": "text", "shard_size": shard_size, "min_success_rate": 0}
    (folder / "dqe.yaml").write_text(yaml.safe_dump({"sources": [source], "takedowns": ["removals.txt"], **top}))


def states(*, made: bool = False) -> list[str]:
    """Whether each shard of raw samples is current; made first if so asked."""
    settings = load_settings()
    found = []
    for shard in [source.key(shard.index) for source in settings.sources for shard in source.shards()]:
        if made:
            raw_samples.make(raw_samples.work(settings.opened_store, shard, []), handed(settings, raw_samples))
        found.append(runner.state(settings, raw_samples, shard, []))
    return found


def all_rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "store" / "raw_samples").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_a_changed_list_makes_stale_what_it_hits_and_nothing_else(folder: Path) -> None:
    write_images(folder, [png(smooth(number)) for number in range(6)])
    assert states(made=True) == ["current"] * 3
    uid = all_rows(folder)[3]["uid"]
    take_down(folder, uid, "elsewhere.org", "http://elsewhere.org/a.jpg", "0" * 32)
    assert states() == ["current", "stale", "current"]
    assert states(made=True) == ["current"] * 3
    (gone,) = (row for row in all_rows(folder) if row["reason"] != "ok")
    assert nothing_left(gone)
    assert gone["uid"] == uid
    take_down(folder, uid, "one.more.org")
    assert states() == ["current"] * 3
    take_down(folder)
    assert states() == ["current", "stale", "current"]


def test_copies_go_in_all_shards_by_hashes_alone_and_only_if_asked(folder: Path) -> None:
    original = smooth(0)
    recompressed = io.BytesIO()
    original.resize((200, 150)).save(recompressed, "JPEG", quality=80)
    with_text = io.BytesIO()
    original.save(with_text, "PNG", compress_level=1)
    images = [
        png(original),
        png(smooth(1)),
        png(original),
        with_text.getvalue(),
        recompressed.getvalue(),
        png(smooth(2)),
    ]
    assert len({*images}) == 5
    write_images(folder, images)
    states(made=True)
    uids = [row["uid"] for row in all_rows(folder)]

    take_down(folder, uids[0])
    assert states(made=True) == ["current"] * 3
    assert [row["reason"] for row in all_rows(folder)] == ["taken_down", *["ok"] * 5]
    (memory,) = remembered(load_settings().opened_store).to_pylist()
    assert (memory["uid"], memory["is_copy"], memory["sha256"]) == (
        uids[0],
        False,
        hashlib.sha256(images[0]).hexdigest(),
    )

    take_down(folder, uids[0], copies=True)
    assert states() == ["current", "stale", "current"], "the same file; of the others' pixels nothing is stored yet"
    write_images(folder, [*images, recompressed.getvalue(), png(smooth(3))])
    take_down(folder, uids[0], copies=True)
    for path in (folder / "store" / "raw_samples").glob("*-0000[12].parquet"):
        path.unlink()
    assert states(made=True) == ["current"] * 4
    down = [row["reason"] == "taken_down" for row in all_rows(folder)]
    assert down == [True, False, True, True, True, False, True, False]
    assert all(nothing_left(row) for row in all_rows(folder) if row["reason"] == "taken_down")

    take_down(folder, uids[0])
    assert states(made=True) == ["current"] * 4
    assert [row["reason"] == "taken_down" for row in all_rows(folder)] == [True, *[False] * 7]


def test_a_flat_picture_has_no_perceptual_copies(folder: Path) -> None:
    write_images(
        folder, [png(Image.new("RGB", (40, 30), "white")), png(Image.new("RGB", (50, 30), "white")), png(noise())]
    )
    states(made=True)
    take_down(folder, all_rows(folder)[0]["uid"], copies=True)
    states(made=True)
    assert [row["reason"] for row in all_rows(folder)] == ["taken_down", "ok", "ok"]


def test_the_hashes_outlast_a_change_of_entries_and_a_damaged_memory_is_named(folder: Path) -> None:
    image = png(smooth(0))
    write_images(folder, [image, png(smooth(1))])
    states(made=True)
    uid = all_rows(folder)[0]["uid"]
    take_down(folder, hashlib.sha256(image).hexdigest())
    states(made=True)
    take_down(folder, uid, copies=True)
    states(made=True)
    write_images(folder, [image, png(smooth(1)), image, png(smooth(2))])
    take_down(folder, uid, copies=True)
    states(made=True)
    assert [row["reason"] for row in all_rows(folder)] == ["taken_down", "ok", "taken_down", "ok"]
    for path in (folder / "store" / MEMORY).iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(StorageError, match="hashes of images that were taken down"):
        remembered(load_settings().opened_store)


class Killed(BaseException):
    """A process that ends at once."""


def test_killed_before_or_after_any_write_the_next_run_ends_the_same(
    server: HostileServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.url("good", number) for number in range(4)]
    write_list(folder, urls, checkpoint_rows=1)
    make()
    uids = [row["uid"] for row in rows()]
    store = shutil.copytree(folder / "store", folder / "kept")
    take_down(folder, urls[1], uids[2])
    make()
    undisturbed, hashes = rows(), sorted(row["sha256"] for row in remembered(load_settings().opened_store).to_pylist())
    write = Store.write_file
    for count in range(1, 20):
        shutil.rmtree(folder / "store")
        shutil.copytree(store, folder / "store")
        done = 0

        def killed(*arguments: Any, count: int = count) -> None:
            nonlocal done
            done += 1
            if done == count:
                raise Killed
            write(*arguments)
            if done == count - 1:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_file", killed)
            try:
                make()
            except Killed:
                pass
            else:
                break
        make()
        assert rows() == undisturbed
        memory = remembered(load_settings().opened_store).to_pylist()
        assert sorted({row["sha256"] for row in memory}) == hashes, "the hashes were taken before the images went"
    assert count > 2


def dqe(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_the_command_finds_what_was_fetched_by_url_and_by_host_also_in_an_unfinished_shard(
    server: HostileServer, folder: Path
) -> None:
    urls = [f"http://img.gone.org/good/{number}" for number in range(2)] + [server.url("good", 2)]
    write_list(folder, urls, connect_to={"img.gone.org": f"127.0.0.2:{server.port}"})
    assert dqe("takedown", "--check", urls[0]) == (0, f"takedowns does not list it Nothing is left of {urls[0]}.")
    assert dqe("materialize", "raw_samples")[0] == 0
    for text in (urls[0] + "#top", "gone.org"):
        code, said = dqe("takedown", "--check", text)
        assert (code, "left: raw_samples/web-00000.parquet" in said) == (1, True), said
    (stored,) = (folder / "store" / "raw_samples").glob("*.parquet")
    unfinished = pq.read_table(stored).select(OUTCOMES.names).slice(0, 2)
    stored.unlink()
    Checkpoint(load_settings().opened_store, "raw_samples", "web-00000", "v").append(unfinished)
    assert ".arrow (1 row)" in dqe("takedown", "--check", urls[0])[1]

    take_down(folder, "gone.org")
    assert dqe("materialize", "raw_samples")[0] == 0
    assert reasons() == ["taken_down", "taken_down", "ok"]
    for text in (*urls[:2], "gone.org", "img.gone.org"):
        code, said = dqe("takedown", "--check", text)
        assert (code, "Nothing is left" in said) == (0, True)
        assert "takedowns lists it its source lists it still: shard web-00000" in said
    assert dqe("takedown", "--check", urls[2])[0] == 1
    Checkpoint(load_settings().opened_store, "raw_samples", "web-00000", "v").append(unfinished)
    code, said = dqe("materialize", "raw_samples")
    assert (code, said.count("it had something of what is taken down")) == (0, 1)
    assert dqe("takedown", "--check", "gone.org")[0] == 0


def test_a_list_that_cannot_be_read_stops_everything_before_anything_is_fetched(
    server: HostileServer, folder: Path
) -> None:
    write_list(folder, [server.url("good", 0)])
    take_down(folder, "example.org", "nonsense")
    for command in ("materialize", "status", "takedown"):
        code, said = dqe(command)
        assert (code, "line 2: 'nonsense': expected a URL" in said) == (2, True), said
    assert not server.asked
