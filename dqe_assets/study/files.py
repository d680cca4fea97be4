"""What is written into the folders of a study: dqe.yaml, the true captions, and the task to evaluate on."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import yaml

from dqe_assets.study.plan import CONCEPTS, TASK, TASK_SEED, TRUTH
from dqe_resources.sources.world_scenes import DRAWN, World, names
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from dqe_assets.study.plan import Study
    from dqe_resources.sources.world import WorldSource

TEMPLATES = ("a {c}", "a photo of a {c}")


def write_seed(study: Study, seed: int) -> None:
    """Write what is not there of a seed, or is of another study; what has not changed keeps its time.

    Raises:
        SourceError: the drawings or their names are not installed.
    """
    scorer, folder = study.scorer_folder(seed), study.seed_folder(seed)
    cache = study.folder / "cache"
    for one in (folder, scorer, cache):
        one.mkdir(parents=True, exist_ok=True)
    for one in (folder, scorer):
        link = one / "cache"
        if not link.is_symlink():
            # Converted models are made once for all seeds.
            link.symlink_to(Path("/".join([".."] * len(one.relative_to(study.folder).parts))) / "cache")
    _write(scorer / TRUTH, _true_captions(study.pairs(seed)))
    _write(folder / TRUTH, _true_captions(study.web(seed)))
    for name, content in _task(seed, study.size.images).items():
        _write(folder / "tasks" / TASK / name, content)
    _write(scorer / "dqe.yaml", _as_yaml(study.scorer_settings(seed)))
    _write(folder / "dqe.yaml", _as_yaml(study.settings(seed, names()[:CONCEPTS])))


def _write(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return

    def write(target: BinaryIO) -> None:
        target.write(content)

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)


def _as_yaml(settings: Mapping[str, Any]) -> bytes:
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return f"# Written by dqe study, which writes it again.\n{text}".encode()


def _true_captions(source: WorldSource) -> bytes:
    world, text = source.world, io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image_name", "caption"])
    for number in range(source.rows_made):
        table.writerow([f"{number:08d}.png", world.true_caption(world.scene(number))])
    return text.getvalue().encode()


def _task(seed: int, images: int) -> dict[str, bytes]:
    """Scenes of one object, which is to be named among all, as DataComp has its tasks: contents by path."""
    world = World(TASK_SEED + seed, CONCEPTS)

    def members() -> Iterator[tuple[str, bytes]]:
        for concept in range(len(DRAWN)):
            for number in range(images):
                picture = io.BytesIO()
                world.image(world.single(concept, number)).save(picture, "PNG")
                yield f"{concept:03d}-{number:03d}.cls", str(concept).encode()
                yield f"{concept:03d}-{number:03d}.png", picture.getvalue()

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return {
        "classnames.txt": "\n".join(names()).encode(),
        "zeroshot_classification_templates.txt": "\n".join(TEMPLATES).encode(),
        "test/0.tar": file.getvalue(),
    }
