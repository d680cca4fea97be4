"""Object stores: how they are opened, and what the packages that reach them raise."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from dqe_resources.errors import causes, is_refused
from dqe_resources.store.atomic import StoreAwayError

if TYPE_CHECKING:
    import fsspec

_ERRORS = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
}
"""Beside OSError, by module."""

_AWAY = {
    "aiohttp": ("ClientConnectionError",),
    "azure.core.exceptions": ("ServiceRequestError",),
    "botocore.exceptions": ("ConnectionError", "HTTPClientError"),
}

_OF_A_GATEWAY = frozenset({"502", "503", "504"})
"""What stands for a code where an answer has none, so that it is of no S3 server, but of what stands before it."""

_ATTEMPTS = 4
"""After so many a server that refuses connections is away: 3.5 seconds on average, 7 at most."""

_S3FS_ATTEMPTS = 2
"""At least one more to read what broke off. They are nested in themselves, and botocore's are nested in them."""


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that a URL is on, and the path there.

    A server of S3 that is away is asked for a few seconds. ``AWS_MAX_ATTEMPTS`` and ``AWS_RETRY_MODE`` change that.

    Raises:
        ImportError: the package that reaches it is missing.
        ValueError: nothing reaches such URLs.
        StoreAwayError: ``AWS_MAX_ATTEMPTS`` is no number.
    """
    import fsspec

    # Other machines write there too: what was listed before tells nothing.
    options: dict[str, Any] = {"use_listings_cache": False}
    is_s3 = url.startswith(("s3://", "s3a://"))
    if is_s3:
        # By itself botocore waits up to 15 seconds, for each request.
        retries = {
            "mode": os.environ.get("AWS_RETRY_MODE", "standard"),
            "total_max_attempts": _attempts(),
        }
        configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"retries": retries, **configured}
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    if is_s3:
        filesystem.retries = _S3FS_ATTEMPTS
    return filesystem, path


def _attempts() -> int:
    said = os.environ.get("AWS_MAX_ATTEMPTS", str(_ATTEMPTS))
    if not re.fullmatch("[1-9][0-9]*", said):
        raise StoreAwayError(f"the environment variable AWS_MAX_ATTEMPTS is {said!r}: give a whole number from 1 on")
    return int(said)


def package_errors() -> tuple[type[Exception], ...]:
    """What the packages that are loaded raise, and is no OSError, if a store cannot be reached or refuses."""
    return _loaded(_ERRORS)


def storage_errors() -> tuple[type[Exception], ...]:
    """All that is raised if a store cannot be reached or refuses."""
    return OSError, *package_errors()


def is_replaced(error: Exception) -> bool:
    """Whether a file could not be read on since another one is in its place."""
    return isinstance(error, _loaded({"s3fs.utils": ("FileExpired",)}))


def is_away(error: BaseException) -> bool:
    """Whether no server could be reached, or a gateway says so."""
    away = _loaded(_AWAY)
    return any(isinstance(one, away) or _code(one) in _OF_A_GATEWAY for one in causes(error))


def what_helps(error: BaseException) -> str | None:
    """What helps if no file of a store can be read or written; None if the error is of one file, as far as one sees."""
    if is_away(error):
        return "start its server, or correct its address or the network"
    if any(map(is_refused, causes(error))):
        # Some servers say so of a bucket that is not there, too.
        return (
            "give valid credentials, with rights to list, read, write and delete there, and make the bucket if need be"
        )
    if any(_code(one) == "NoSuchBucket" for one in causes(error)):
        return "make the bucket, or correct its name: the key store of dqe.yaml, or DQE_STORE"
    return None


def _code(error: BaseException) -> str | None:
    """The code that a server of S3 has answered with, or what stands for it."""
    answer: Any = getattr(error, "response", None)
    return answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None


def _loaded(names: dict[str, tuple[str, ...]]) -> tuple[type[Exception], ...]:
    """The classes of these names in those of the modules that are loaded."""
    there = [(sys.modules[module], classes) for module, classes in names.items() if module in sys.modules]
    return tuple(getattr(module, name) for module, classes in there for name in classes)
