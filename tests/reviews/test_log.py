"""The log of decisions: nothing in it is lost, whoever writes at the same time, and whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from dqe_assets.reviews import decide, log
from dqe_resources.errors import UsageError
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    return tmp_path


def rows(*decisions: tuple[str, ...], shard: str = "web-00000", **more: object) -> pa.Table:
    """Decisions as (uid, decision) or (uid, decision, value)."""
    names = ("uid", "decision", "value")
    return pa.Table.from_pylist(
        [{**dict(zip(names, one, strict=False)), "shard": shard, **more} for one in decisions], log.DECISIONS
    )


def standing(*uids: str, gone: tuple[str, ...] = ()) -> list[dict[str, object]]:
    is_gone = pa.chunked_array([[uid in gone for uid in uids]])
    return decide.reviews(pa.chunked_array([list(uids)]), is_gone, log.decisions()).to_pylist()


def test_the_latest_decision_holds_and_the_earlier_are_kept() -> None:
    log.append(rows(("a", "drop"), ("b", "tag", "blurry")), by="ada", why="too dark", said="drop")
    log.append(rows(("a", "keep"), ("b", "tag", "cat"), ("b", "caption", "a cat")), by="bob")
    a, b, c = standing("a", "b", "c")
    assert (a["review"], a["decided_by"], a["why"]) == ("keep", "bob", None)
    assert [(one["by"], one["decision"], one["holds"], one["why"]) for one in a["decisions"]] == [
        ("ada", "drop", False, "too dark"),
        ("bob", "keep", True, None),
    ]
    assert (b["review"], b["review_tags"], b["caption"]) == (None, ["blurry", "cat"], "a cat")
    assert {value for name, value in c.items() if name != "uid"} == {None}


def test_none_takes_back_what_was_decided_before_and_nothing_after() -> None:
    log.append(rows(("a", "drop"), ("a", "tag", "old"), ("b", "drop")), by="ada")
    log.append(rows(("a", "none")), by="ada")
    log.append(rows(("a", "tag", "new")), by="ada")
    a, b = standing("a", "b")
    assert (a["review"], a["review_tags"], b["review"]) == (None, ["new"], "drop")
    assert [one["holds"] for one in a["decisions"]] == [False, False, False, True]


def test_an_undone_import_gives_way_to_what_held_before_and_can_be_done_again() -> None:
    log.append(rows(("a", "keep")), by="ada")
    log.append(rows(("a", "drop")), by="bob", said="drop")
    log.undo(2, by="ada", why="wrong file")
    assert standing("a")[0]["review"] == "keep"
    with pytest.raises(UsageError, match="taken back already"):
        log.undo(2, by="ada")
    log.undo(3, by="bob")
    assert standing("a")[0]["review"] == "drop"
    with pytest.raises(UsageError, match=r"no import 9.*there are 1 to 4"):
        log.undo(9, by="ada")
    assert [(one.number, one.undoes, one.is_undone) for one in log.entries()] == [
        (1, None, False),
        (2, None, False),
        (3, 2, True),
        (4, 3, False),
    ]


def test_only_shards_whose_samples_are_decided_about_change_their_state() -> None:
    log.append(rows(("a", "drop")), by="ada")
    before = log.state_of("web-00000"), log.state_of("web-00001")
    log.append(rows(("x", "drop"), shard="web-00001"), by="ada")
    assert log.state_of("web-00000") == before[0]
    assert log.state_of("web-00001") != before[1]
    undone = log.state_of("web-00001")
    log.undo(2, by="ada")
    assert log.state_of("web-00000") == before[0]
    assert log.state_of("web-00001") != undone


WRITER = """
import sys
import pyarrow as pa
from dqe_assets.reviews import log
name, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    row = {"uid": f"{name}{number}", "shard": "s", "decision": "keep"}
    log.append(pa.Table.from_pylist([row], log.DECISIONS), by=name)
    print(number, flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    environment = os.environ | {"DQE_DATA": str(folder)}
    words = [sys.executable, "-c", WRITER, name, str(count)]
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_imports_at_the_same_time_all_get_their_place(folder: Path) -> None:
    processes = [writer(folder, name, 15) for name in "abc"]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    for process in processes:
        process.stdout.close()  # type: ignore[union-attr]
    assert [one.number for one in log.entries()] == list(range(1, 46))
    assert sorted(log.decisions()["uid"].to_pylist()) == sorted(f"{n}{k}" for n in "abc" for k in range(15))
    assert log.missing_numbers() == []


def test_a_kill_while_it_writes_loses_nothing_that_was_written(folder: Path) -> None:
    process = writer(folder, "a", 100_000)
    said = process.stdout
    assert said is not None
    while int(said.readline()) < 20:
        pass
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    last = [int(line) for line in said.read().split()]
    process.wait(60)
    said.close()
    there = log.decisions()["uid"].to_pylist()
    assert there == [f"a{number}" for number in range(len(there))]
    assert len(there) > max(last, default=20)
    entry = log.append(rows(("b", "drop")), by="ada")
    assert entry.number == len(there) + 1


def test_a_damaged_file_is_named_and_a_missing_one_too() -> None:
    for uid in "abc":
        log.append(rows((uid, "drop")), by="ada")
    (log.log_folder() / "00000002.parquet").unlink()
    assert log.missing_numbers() == [2]
    (log.log_folder() / "00000003.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(log.ReviewLogError, match=r"00000003\.parquet: damaged.*put it back from a copy"):
        log.entries()


def test_texts_of_what_is_taken_down_are_blotted_out_and_nothing_else() -> None:
    log.append(rows(("a", "caption", "her name"), ("b", "caption", "a dog"), ("a", "drop")), by="ada")
    assert [count for _, count in log.places_of({"a"})] == [1]
    assert log.forget({"a"}) == 1
    assert log.places_of({"a"}) == []
    assert b"her name" not in (log.log_folder() / "00000001.parquet").read_bytes()
    assert log.decisions()["value"].to_pylist() == [None, "a dog", None]
    assert log.entries()[0].by == "ada"
    gone, kept = standing("a", "b", gone=("a",))
    assert {value for name, value in gone.items() if name != "uid"} == {None}
    assert kept["caption"] == "a dog"


def test_verdicts_are_the_latest_and_know_how_a_sample_was_drawn() -> None:
    log.append(rows(("a", "drop"), ("b", "keep"), drawn_by="random", weight=4.0), by="ada")
    log.append(rows(("a", "keep"), ("c", "drop"), ("d", "drop")), by="bob")
    log.append(rows(("d", "none")), by="bob")
    found = {row["uid"]: row for row in decide.verdicts(log.decisions()).to_pylist()}
    assert {uid: (row["is_kept"], row["drawn_by"], row["weight"]) for uid, row in found.items()} == {
        "a": (True, "random", 4.0),
        "b": (True, "random", 4.0),
        "c": (False, None, None),
    }


def test_what_an_entry_says_of_itself_is_json_whatever_is_in_it() -> None:
    attack = '\x1b[2J "} \u202e'
    entry = log.append(rows(("a", "drop")), by=attack, why=attack)
    assert (entry.by, entry.why) == (attack, attack)
    assert json.loads(json.dumps(entry.shards)) == {"web-00000": 1}
