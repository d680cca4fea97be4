"""The files of a folder and of all folders below it, in an order that does not depend on the file system."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import is_away
from dqe_resources.sources.left_out import HIDDEN, SYSTEM, LeftOut, by_suffix
from dqe_resources.sources.protocol import NoRowsError, Source, SourceError
from dqe_resources.sources.texts import readable, readable_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SYSTEM_NAMES = frozenset(
    {
        *(".ds_store", ".spotlight-v100", ".trashes", ".fseventsd", ".localized", "__macosx", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("lost+found", "@eadir", ".directory"),
    }
)
"""Files and folders that operating systems and file servers leave in folders, in lower case."""

_LINKED_FOLDERS = "links to folders"
_CLOSED_FOLDERS = "folders that cannot be read"
_OUTSIDE = "links that lead out of the folder (allow_outside: true reads them)"
_SPECIAL = "neither files nor folders"


class LocalSource(Source):
    """A source in files of this machine.

    Attributes:
        allow_outside: Whether links, and paths in tables, may lead out of the source's folder. By default what they
            lead to is not read.
    """

    allow_outside: bool = False

    def inside(self, folder: Path) -> Path | None:
        """The folder that files which its data names must be in; None for anywhere."""
        return None if self.allow_outside else folder


def _matching_path(path: Path) -> Path:
    resolved = in_data_directory(path)
    if is_away(resolved) and not glob.glob(str(resolved), recursive=True):  # noqa: PTH207
        msg = f"there is nothing at {resolved}: give the path of an existing file or folder, or a pattern such as *.csv"
        raise ValueError(msg)
    return resolved


FilesPath = Annotated[Path, AfterValidator(_matching_path)]
"""A file, a folder, or a pattern (``*``, ``?``, ``[]``, ``**``); a relative one counts from the folder of dqe.yaml."""


@dataclass(frozen=True)
class Files:
    """The files that a FilesPath means.

    Attributes:
        folder: what they are in.
        files: each with its name within the source, in order of their names.
        left_out: what else is in the folder.
    """

    folder: Path
    files: list[tuple[Path, str]]
    left_out: LeftOut = field(default_factory=LeftOut)


def require_there(*paths: Path) -> None:
    """Refuse a path of the settings at which there is nothing now.

    Raises:
        SourceError: which it is.
    """
    for path in paths:
        if not path.exists():
            raise SourceError(f"there is nothing at {readable(str(path))}: mount its disk, or correct the path")


def find_files(path: Path, suffixes: Sequence[str], *, allow_outside: bool = True) -> Files:
    """The files that a FilesPath means.

    Of a folder, those below it with one of the suffixes (in lower case); a file or a pattern is taken at its word.

    Args:
        path: the FilesPath.
        suffixes: of the files that are meant.
        allow_outside: whether links may lead out of the folder.

    Raises:
        NoRowsError: there is none.
    """
    if path.is_file():
        return Files(path.parent, [(path, path.name)])
    left_out = LeftOut()
    if path.is_dir():
        root, expected = path, f"ends in {', '.join(suffixes)}"
        found = []
        for folder in walk(path, left_out, allow_outside=allow_outside):
            for name in folder.files:
                if name.lower().endswith(tuple(suffixes)):
                    found.append(path / folder.name / name)
                else:
                    left_out.add(by_suffix(name), f"{folder.name}{name}")
    else:
        root, expected = Path(*_before_pattern(path)), f"matches {path.relative_to(Path(*_before_pattern(path)))}"
        found = [Path(name) for name in glob.glob(str(path), recursive=True) if not os.path.isdir(name)]  # noqa: PTH207, PTH112
    files = []
    for one in sorted(found):
        name = one.relative_to(root).as_posix()
        if not one.is_file():
            left_out.add(_SPECIAL, name)
        elif not allow_outside and not _leads_into(one, root):
            left_out.add(_OUTSIDE, name)
        else:
            files.append((one, readable_name(name)))
    if not files:
        also = f"; left out: {left_out}" if left_out else ""
        raise NoRowsError(f"{readable(str(root))}: no file in this folder {expected}{also}")
    return Files(root, files, left_out)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder below the one that is walked.

    Attributes:
        name: its path from there, with a slash at its end; empty for that folder itself.
        files: names of what is in it and no folder, sorted.
    """

    name: str
    files: list[str]


def walk(root: Path, left_out: LeftOut, *, allow_outside: bool = False) -> Iterator[Folder]:
    """A folder and those below it, each before what is below it, in order of their names.

    Hidden files and folders and those of operating systems are left out, and so are links to folders: unless they may
    lead out of the folder, and do so. Each folder is walked once.

    Args:
        root: where to begin.
        left_out: counts what is left out.
        allow_outside: whether links may lead out of the folder.
    """
    linked: set[str] = set()
    waiting = [""]
    while waiting:
        name = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(root / name) as entries:
                for entry in sorted(entries, key=lambda one: one.name):
                    if reason := _left_out(entry.name):
                        left_out.add(reason, name + entry.name)
                    elif not _is_folder(entry):
                        files.append(entry.name)
                    elif not entry.is_symlink():
                        folders.append(entry.name)
                    else:
                        target = os.path.realpath(entry.path)
                        if allow_outside and target not in linked and not _leads_into(Path(entry.path), root):
                            linked.add(target)
                            folders.append(entry.name)
                        else:
                            left_out.add(_LINKED_FOLDERS, f"{name}{entry.name}/")
        except OSError:
            left_out.add(_CLOSED_FOLDERS, name or str(root))
            continue
        yield Folder(name, files)
        waiting += [f"{name}{one}/" for one in reversed(folders)]


def is_of_system(name: str) -> bool:
    """Whether an operating system or a file server has left a file or folder of this name."""
    return name.lower() in _SYSTEM_NAMES or name.startswith("._")


def _left_out(name: str) -> str | None:
    if is_of_system(name):
        return SYSTEM
    return HIDDEN if name.startswith(".") else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_into(path: Path, folder: Path) -> bool:
    base = os.path.realpath(folder)
    return os.path.commonpath([os.path.realpath(path), base]) == base


def _before_pattern(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts[:-1]:
        if any(character in part for character in "*?["):
            break
        parts.append(part)
    return parts
