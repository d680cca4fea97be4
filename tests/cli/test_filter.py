from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.cli.terminal import STOPPED
from dqe_assets.filtering.subset import format_uids, read_subset
from dqe_resources.locks import file_alone, folder_alone
from tests.conftest import environment
from tests.filtering.make_pool import table, write_part

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def dqe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of DataComp metadata, a part of it as tars, and no settings at all."""
    monkeypatch.setenv("DQE_DATA", str(tmp_path / "no data"))
    monkeypatch.chdir(tmp_path)
    for part in range(3):
        write_part(tmp_path / "metadata", f"{part:08d}", table(200, seed=part))
    (tmp_path / "tars").mkdir()
    for part in range(2):
        uids = table(200, seed=part)["uid"].to_pylist()
        write_tar(tmp_path / "tars" / f"{part:08d}.tar", uids)
    return tmp_path


def write_tar(path: Path, uids: list[str], picture: bytes = b"a picture") -> None:
    with tarfile.open(path, "w") as tar:
        for number, uid in enumerate(uids):
            for extension, content in (("jpg", picture), ("txt", b"text"), ("json", json.dumps({"uid": uid}).encode())):
                info = tarfile.TarInfo(f"{number:012d}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_a_pool_of_datacomp_is_filtered_without_any_settings(nowhere: Path) -> None:
    found = dqe("filter", "metadata", "--expr", "clip_l14_30 & ~clip_score(b32, threshold=0.28)", "--out", "best.npy")
    assert found.exit_code == 0, found.output
    rows = [row for part in range(3) for row in table(200, seed=part).to_pylist()]
    threshold = sorted((row["clip_l14_similarity_score"] for row in rows), reverse=True)[180]
    expected = {
        row["uid"]
        for row in rows
        if row["clip_l14_similarity_score"] >= threshold and not np.float32(row["clip_b32_similarity_score"]) >= 0.28
    }
    assert set(format_uids(read_subset(nowhere / "best.npy")).to_pylist()) == expected
    manifest = json.loads((nowhere / "best.json").read_text())
    assert [step["kept"] for step in manifest["filters"][0]["steps"]] == [181, len(expected)]
    assert len(manifest["pools"][0]["files"]) == 3
    text = said(found)
    assert "metadata 600 " in text
    assert "clip_score(l14, fraction=0.3) 419 181 0.302" in text
    assert f"clip_score(l14, fraction=0.3) became clip_score(l14, threshold={threshold})" in text
    assert text.endswith("Next: dqe reshard best.npy --out shards --from TARS")


def test_the_same_again_gives_the_same_bytes_and_another_is_refused_until_forced(nowhere: Path) -> None:
    arguments = ("filter", "metadata", "--out", "x.npy", "--expr")
    assert dqe(*arguments, "clip_l14_30").exit_code == 0
    before = {name: (nowhere / name).read_bytes() for name in ("x.npy", "x.json")}
    assert dqe(*arguments, " clip_score(l14, fraction = 0.3)").exit_code == 0, "the same in other words"
    assert {name: (nowhere / name).read_bytes() for name in before} == before
    refused = dqe(*arguments, "clip_b32_30")
    assert refused.exit_code == 2
    assert "x.npy: there is another subset; name another file with --out, or overwrite it with --force" in said(refused)
    assert {name: (nowhere / name).read_bytes() for name in before} == before
    assert dqe(*arguments, "clip_b32_30", "--force").exit_code == 0
    assert (nowhere / "x.npy").read_bytes() != before["x.npy"]
    (nowhere / "mine.npy").write_bytes(b"something else")
    assert dqe("filter", "metadata", "--expr", "no_filter", "--out", "mine.npy").exit_code == 2


def test_several_pools_make_one_subset(nowhere: Path) -> None:
    own = table(40, seed=9)["uid"].to_pylist()
    write_part(nowhere / "mine", "a", table(50, uid=table(200)["uid"].to_pylist()[:10] + own))
    found = dqe("filter", "metadata", "mine", "--expr", "no_filter", "--out", "both.npy")
    assert found.exit_code == 0, found.output
    assert len(read_subset(nowhere / "both.npy")) == 640
    assert "mine 50 40 0.062" in said(found)
    assert "10 samples are in several pools; the first pool counts" in said(found)


def test_tars_are_written_with_exactly_the_samples_of_the_subset(nowhere: Path) -> None:
    assert dqe("filter", "metadata", "--expr", "clip_l14_30", "--out", "best.npy").exit_code == 0
    missing = dqe("reshard", "best.npy", "--out", "shards", "--from", "tars")
    assert missing.exit_code == 1
    assert "of the subset's 181 samples are not there, first" in said(missing)
    assert not (nowhere / "shards").exists()
    for part in range(2, 3):
        write_tar(nowhere / "more.tar", table(200, seed=part)["uid"].to_pylist())
    written = dqe(
        "reshard", "best.npy", "--out", "shards", "--from", "tars", "--from", "more.tar", "--samples-per-shard", 100
    )
    assert written.exit_code == 0, written.output
    assert "shards: 181 samples, 2 shards" in said(written)
    webdataset = pytest.importorskip("webdataset")
    urls = sorted(str(path) for path in (nowhere / "shards").glob("*.tar"))
    uids = [json.loads(sample["json"])["uid"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert sorted(uids) == format_uids(read_subset(nowhere / "best.npy")).to_pylist()
    again = dqe("reshard", "best.npy", "--out", "part", "--from", "tars", "--allow-missing")
    assert again.exit_code == 0
    assert "of the subset were missing" in said(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filter", "metadata", "--expr", "basic &", "--out", "x.npy"], "error: not an expression"),
        (["filter", "metadata", "--expr", "basic", "--out", "x.txt"], "x.txt: a subset ends in .npy"),
        (["filter", "store", "--expr", "basic", "--out", "x.npy"], "there is no store here: run this in the project's"),
        (["filter", "nowhere", "--expr", "basic", "--out", "x.npy"], "nowhere: cannot be listed"),
        (["filter", "metadata", "metadata", "--expr", "basic", "--out", "x.npy"], "two pools have one name"),
        (["filter", "tars", "--expr", "basic", "--out", "x.npy"], "there is no .parquet file"),
        (["reshard", "no.npy", "--out", "y"], "no.npy: cannot be read as a subset"),
        (["reshard", "best", "--out", "y"], "best: neither a .npy nor a subset of data/dqe.yaml, which has: none"),
    ],
)
def test_mistakes_are_one_clear_line(nowhere: Path, arguments: list[str], message: str) -> None:
    found = dqe(*arguments)
    assert found.exit_code in {1, 2}
    assert message in said(found)
    assert "Traceback" not in found.output
    assert not (nowhere / "x.npy").exists()


def test_our_own_store_is_a_pool_and_its_subsets_have_names(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(finished).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    found = dqe("filter", "store", "--expr", "best & unique", "--out", "few.npy")
    assert found.exit_code == 0, found.output
    assert "Next: dqe reshard few.npy --out shards" in said(found)
    few = len(read_subset(tmp_path / "few.npy"))
    assert few == 20
    assert f"few: {few} samples, 1 shard" in said(dqe("reshard", "few.npy", "--out", "few"))
    named = dqe("reshard", "best", "--out", "best")
    assert "best: 55 samples, 1 shard" in said(named)
    # What was written is itself a place to take samples from: what it has not, is missed.
    shutil.copytree(tmp_path / "best", tmp_path / "copied")
    assert dqe("reshard", "few.npy", "--out", "again", "--from", "copied").exit_code == 0
    assert "not one of the subset's" not in said(dqe("reshard", "few.npy", "--out", "again", "--from", "copied"))


def test_two_runs_do_not_write_to_one_place(nowhere: Path) -> None:
    chosen = ("filter", "metadata", "--expr", "basic", "--out", "half.npy")
    with file_alone(nowhere / "half.npy"):
        refused = dqe(*chosen)
    assert (refused.exit_code, "half.npy: another run is writing to it" in said(refused)) == (1, True)
    assert dqe(*chosen).exit_code == 0
    exported = ("reshard", "half.npy", "--from", "tars", "--out", "out", "--allow-missing")
    with folder_alone(nowhere / "out"):
        refused = dqe(*exported)
    assert (refused.exit_code, "out: another run is writing to it" in said(refused)) == (1, True)
    assert dqe(*exported).exit_code == 0
    assert not [path for path in nowhere.rglob("*") if path.name.endswith(".lock")]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(nowhere: Path) -> None:
    chance = random.Random(3)
    uids = [f"{chance.getrandbits(128):032x}" for _ in range(3000)]
    (nowhere / "many").mkdir()
    for part in range(3):
        write_tar(nowhere / "many" / f"{part}.tar", uids[part * 1000 : (part + 1) * 1000], b"a picture" * 1000)
    halves = sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in uids[::2])
    np.save(nowhere / "half.npy", np.array(halves, "u8,u8"))
    arguments = ["half.npy", "--from", "many", "--samples-per-shard", "15"]
    assert dqe("reshard", *arguments, "--out", "whole").exit_code == 0

    files = 0
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-m", "dqe_assets.cli", "reshard", *arguments, "--out", "killed"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        further = files + chance.randint(3, 30)
        while process.poll() is None and files < further:
            time.sleep(0.005)
            files = len(list((nowhere / "killed").glob("*.tar"))) if (nowhere / "killed").exists() else 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _, said = process.communicate()
        ended = {signal.SIGKILL: (-signal.SIGKILL, ""), signal.SIGTERM: (143, f"{STOPPED}\n")}[number]
        assert (process.returncode, said) == ended, "it was stopped before its end"
    kept = {path: path.stat().st_mtime_ns for path in (nowhere / "killed").glob("*_stats.json")}
    assert len(kept) >= 6
    assert dqe("reshard", *arguments, "--out", "killed").exit_code == 0
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items()), "what was done is not done again"
    contents = [
        {path.name: path.read_bytes() for path in sorted((nowhere / folder).iterdir())}
        for folder in ("whole", "killed")
    ]
    assert contents[0] == contents[1]
