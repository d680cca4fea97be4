"""A data set on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.places.bucket import write_locally
from dqe_assets.publish.places.protocol import url_alone
from dqe_assets.training.reshard import parse_record, record_bytes
from dqe_resources.errors import UsageError, one_line
from dqe_resources.store import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from dqe_assets.publish.places.protocol import File, Written

_SCHEME = "hf://"
_URL = re.compile(r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]+))?/?")
_MADE_BY_THE_HUB = ".gitattributes"
_FILES_IN_A_COMMIT = 50
_BYTES_IN_A_COMMIT = 1 << 30


def is_of_hub(target: str) -> bool:
    """Whether a URL is one of the hub."""
    return target.startswith(_SCHEME)


@dataclass
class Hub:
    """A data set on the hub, made if it is not there; its methods are those of ``Place``.

    Files are sent as they are made, and become part of the data set in commits of many files: the hub allows some
    hundred commits an hour.

    Attributes:
        url: ``hf://datasets/OWNER/NAME@REVISION``.
        repository: ``OWNER/NAME``.
        revision: the branch; None for the main one.
        is_public: whether it is public if it is new.
    """

    url: str
    repository: str
    revision: str | None
    is_public: bool
    _pending: list[CommitOperationAdd] = field(default_factory=list)
    _pending_bytes: int = 0
    _folder: str = ""

    @classmethod
    def at(cls, url: str, *, is_public: bool) -> Hub:
        """The data set of a URL.

        Raises:
            UsageError: it names no data set.
        """
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        match = _URL.fullmatch(url)
        if match is None:
            raise UsageError(f"{url}: expected hf://datasets/OWNER/NAME, or hf://datasets/OWNER/NAME@BRANCH")
        try:
            validate_repo_id(match["repository"])
        except HFValidationError as error:
            raise UsageError(f"{url}: {one_line(error)}") from error
        return cls(url, match["repository"], match["revision"], is_public)

    @property
    def name(self) -> str:
        """Its URL."""
        return self.url

    @property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))

    @property
    def _repository(self) -> dict[str, Any]:
        return {"repo_id": self.repository, "repo_type": "dataset"}

    @property
    def _at(self) -> dict[str, Any]:
        return {**self._repository, "revision": self.revision}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """As ``Place.alone``."""
        from huggingface_hub.utils import disable_progress_bars

        # There is one of samples already.
        disable_progress_bars()
        with url_alone(self.url), tempfile.TemporaryDirectory() as self._folder:
            self._pending, self._pending_bytes = [], 0
            with self._asking():
                self._api.create_repo(**self._repository, private=not self.is_public, exist_ok=True)
                if self.revision is not None:
                    self._api.create_branch(**self._repository, branch=self.revision, exist_ok=True)
            yield

    def record(self, name: str) -> dict[str, Any] | None:
        """As ``Place.record``."""
        from huggingface_hub.errors import EntryNotFoundError

        with self._asking(), tempfile.TemporaryDirectory() as folder:
            try:
                path = self._api.hf_hub_download(**self._at, filename=name, local_dir=folder)
                return parse_record(Path(path).read_bytes())
            except EntryNotFoundError:
                return None

    def sizes(self) -> dict[str, int]:
        """As ``Place.sizes``, without what the hub itself puts there."""
        from huggingface_hub.hf_api import RepoFile

        with self._asking():
            tree = list(self._api.list_repo_tree(**self._at, recursive=True))
        return {one.path: one.size for one in tree if isinstance(one, RepoFile) and one.path != _MADE_BY_THE_HUB}

    def write(self, file: File) -> Written:
        """As ``Place.write``."""
        from huggingface_hub import CommitOperationAdd

        path = Path(self._folder) / file.name
        written = write_locally(file, path)
        operation = CommitOperationAdd(file.name, path)
        with self._asking():
            self._api.preupload_lfs_files(**self._at, additions=[operation])
        if not operation.path_or_fileobj:
            # It was sent; a small file is sent with the commit.
            path.unlink()
        self._pending.append(operation)
        self._pending_bytes += written.bytes
        return written

    def keep(self, name: str, record: dict[str, Any]) -> None:
        """As ``Place.keep``: once there are enough files for a commit."""
        if len(self._pending) >= _FILES_IN_A_COMMIT or self._pending_bytes >= _BYTES_IN_A_COMMIT:
            self._commit([self._json(name, record)], "Add files")

    def finish(self, name: str, record: dict[str, Any], unfinished: str) -> None:
        """As ``Place.finish``, in one commit."""
        from huggingface_hub import CommitOperationDelete

        there = self.sizes()
        if self._pending or unfinished in there or self.record(name) != record:
            gone = [CommitOperationDelete(unfinished)] if unfinished in there else []
            self._commit([self._json(name, record), *gone], "Finish the data set")

    def reopen(self, name: str, unfinished: str, record: dict[str, Any]) -> None:
        """As ``Place.reopen``, in one commit."""
        from huggingface_hub import CommitOperationDelete

        self._commit(
            [self._json(unfinished, record), CommitOperationDelete(name)],
            "Make files again that are not as they were written",
        )

    def _commit(self, more: Sequence[CommitOperationAdd | CommitOperationDelete], message: str) -> None:
        with self._asking():
            self._api.create_commit(**self._at, operations=[*self._pending, *more], commit_message=message)
        self._pending, self._pending_bytes = [], 0

    @staticmethod
    def _json(name: str, record: dict[str, Any]) -> CommitOperationAdd:
        from huggingface_hub import CommitOperationAdd

        return CommitOperationAdd(name, record_bytes(record))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Say of what the hub answers which data set it is of, and what to do."""
        import httpx2

        try:
            yield
        # What the hub says of single files is a ValueError.
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise StorageError(
                f"{self.url}: {type(error).__name__}: {one_line(error)}; what is finished is kept: once that is mended "
                "(network, HF_TOKEN or hf auth login, rights to write), run the same command again"
            ) from error
