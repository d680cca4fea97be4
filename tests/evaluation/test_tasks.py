"""Tasks as they are published, and what may be wrong with them."""

from pathlib import Path

import pytest

from dqe_assets.evaluation.settings import Evaluation
from dqe_assets.evaluation.tasks import Task, TaskError
from tests.evaluation.made_tasks import COLOURS, classification, npy, parquet, picture, retrieval, write_tar

RED = COLOURS["red"]


def test_a_classification_task_is_read_as_published(tmp_path: Path) -> None:
    task = Task(str(classification(tmp_path / "wds_colours_test")))
    assert task.kind == "classification"
    assert task.class_names == list(COLOURS)
    assert task.templates == ["a photo of {c}.", "{c}"]
    images = list(task.labelled())
    assert [one.key for one in images[:3]] == ["s0000", "s0002", "s0004"]
    assert [one.label for one in images[:3]] == [0, 2, 1]
    assert images[1].image == picture(COLOURS["blue"], 2)
    assert images[1].about.tolist() == [0, 7]
    assert len(images) == 24


def test_ten_tars_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    task = Task(str(classification(tmp_path, images=22, shards=11)))
    assert [one.key for one in task.labelled()][:4] == ["s0000", "s0011", "s0001", "s0012"]


def test_a_retrieval_task_is_of_tars_or_of_parquet(tmp_path: Path) -> None:
    task = Task(str(retrieval(tmp_path / "tars")))
    assert task.kind == "retrieval"
    first = next(iter(task.captioned()))
    assert (first.key, first.captions) == ("000", ("a picture of red number 0", "red 0"))
    rows = [
        {"image": {"bytes": picture(RED, 0), "path": "a.png"}, "caption": ["red", " "]},
        {"image": {"bytes": picture(RED, 1), "path": "b.png"}, "caption": ["more red", "and more"]},
    ]
    task = Task(str(parquet(tmp_path / "parquet", rows)))
    assert [one.captions for one in task.captioned()] == [("red",), ("more red", "and more")]


def test_a_task_can_be_of_some_scales(tmp_path: Path) -> None:
    classification(tmp_path / "colours")
    retrieval(tmp_path / "pairs")
    tasks = [{"path": str(tmp_path / "colours")}, {"path": str(tmp_path / "pairs"), "scales": ["large", "small"]}]
    evaluation = Evaluation.model_validate({"tasks": tasks})
    assert [one.key for one in evaluation.planned_of("small")] == ["colours", "pairs"]
    assert [one.key for one in evaluation.planned_of("medium")] == ["colours"]


def test_an_association_has_its_candidates(tmp_path: Path) -> None:
    images = [{"bytes": picture(colour, 0), "path": None} for colour in COLOURS.values()]
    row = {"candidate_images": images, "candidates": list("abcd"), "cue": "Apple", "associations": ["b", "d"]}
    task = Task(str(parquet(tmp_path, [row])))
    (found,) = task.associations()
    assert task.kind == "association"
    assert (found.cue, found.belongs.tolist(), len(found.images)) == ("Apple", [False, True, False, True], 4)


def test_a_task_can_be_at_any_url(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(classification(tmp_path / "there")), "/tasks/colours", recursive=True)
    task = Task("memory://tasks/colours")
    assert len(list(task.labelled())) == 24
    assert task.state == Task("memory://tasks/colours").state


def test_a_changed_task_has_another_state(tmp_path: Path) -> None:
    before = Task(str(classification(tmp_path))).state
    (tmp_path / "classnames.txt").write_text("a\nb\nc\nd\n")
    assert Task(str(tmp_path)).state != before


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x.png": picture(RED, 0)}, "sample x: has no .cls"),
        ({"x.png": b"", "x.cls": b"4"}, "sample x: class 4; classnames.txt has 4"),
        ({"x.png": b"", "x.cls": b"cat"}, "sample x: invalid literal"),
        ({"x.png": b"", "x.cls": b"1", "x.npy": b"\x93NUMPY"}, "sample x: "),
    ],
)
def test_a_wrong_sample_is_named(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    task = Task(str(classification(tmp_path, more=files)))
    with pytest.raises(TaskError, match=said):
        list(task.labelled())


def test_a_missing_shard_is_noticed_before_anything_is_read(tmp_path: Path) -> None:
    (classification(tmp_path) / "test" / "1.tar").unlink()
    with pytest.raises(TaskError, match=r"says that there are 2 tars; found 1"):
        next(iter(Task(str(tmp_path)).labelled()))


def test_a_torn_tar_is_named(tmp_path: Path) -> None:
    path = classification(tmp_path, shards=1) / "test" / "0.tar"
    whole = path.read_bytes()
    for length, said in ((5_000, "is cut off after 5,000 bytes"), (5 * 512, "cannot be read")):
        path.write_bytes(whole[:length])
        with pytest.raises(TaskError, match=rf"0\.tar: {said}"):
            list(Task(str(tmp_path)).labelled())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classnames.txt", "a\nb\na\n", "'a' is there twice"),
        ("classnames.txt", "a\n\nb\n", "line 2: is empty"),
        ("zeroshot_classification_templates.txt", "a photo", "line 1: 'a photo' has no {c}"),
        ("zeroshot_classification_templates.txt", "\n", "is empty"),
    ],
)
def test_wrong_lists_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (classification(tmp_path) / name).write_text(text)
    task = Task(str(tmp_path))
    with pytest.raises(TaskError, match=said):
        _ = task.class_names + task.templates


def test_what_is_no_task_says_so(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no such folder"):
        _ = Task(str(tmp_path / "nowhere")).kind
    (tmp_path / "notes.md").write_text("hello")
    with pytest.raises(TaskError, match=r"no task: .* found: notes\.md"):
        _ = Task(str(tmp_path)).kind
    write_tar(tmp_path / "tars" / "0.tar", {"a.png": picture(RED, 0), "a.npy": npy([1])})
    with pytest.raises(TaskError, match="sample a: has no caption"):
        list(Task(str(tmp_path / "tars")).captioned())
