"""A model that lmdeploy serves, as a process of its own that all runs share."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from dqe_resources.cache import in_data_directory
from dqe_resources.captioners.engine_settings import EngineSettings
from dqe_resources.configurable import ComponentName
from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Iterator


class EngineError(DataQualityError):
    """A served engine cannot be started or stopped: says why and what to do."""


class ServedEngine(EngineSettings):
    """What ``dqe engine up`` starts: ``lmdeploy serve api_server`` with a model and its settings.

    Attributes:
        name: Name of the engine in the commands.
        model_name: Name of the model in requests; by default as ``model``.
        host: Interface that it listens on: 127.0.0.1 for this machine alone, 0.0.0.0 for all that can reach it.
        port: Port that it listens on.
        gpus: Numbers of the GPUs that it may use; by default all. Two engines on one machine need different ones.
        environment: Folder of the Python environment that has lmdeploy, from the data folder; by default lmdeploy is
            looked for on the PATH.
        max_concurrent_requests: Requests that it works on at once; others wait. By default all.
        proxy_url: Address of an ``lmdeploy serve proxy`` that it registers with, for several engines behind one
            address.
        start_seconds: Seconds that the start may take: weights are read, and downloaded the first time.
    """

    name: ComponentName
    model_name: str | None = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 23333
    gpus: tuple[int, ...] = ()
    environment: str | None = None
    max_concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    proxy_url: str | None = None
    start_seconds: Annotated[float, Field(gt=0)] = 1800.0

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def served_name(self) -> str:
        """What requests call the model."""
        return self.model_name or self.model

    def executable(self) -> str:
        """Path of the ``lmdeploy`` command.

        Raises:
            EngineError: it is not there.
        """
        named = None if self.environment is None else in_data_directory(self.environment)
        folder = None if named is None else str(named / "bin")
        found = shutil.which("lmdeploy", path=folder)
        if found is None:
            where = f"in {folder}" if folder else "on the PATH"
            raise EngineError(
                f"engine {self.name}: there is no lmdeploy {where}; install the extra 'gpu' in an environment of its "
                "own and name its folder as engines.environment in data/dqe.yaml (docs/gpu.md)"
            )
        return found

    def command(self) -> list[str]:
        """The arguments after ``lmdeploy``."""
        values = {
            **self.fields_of("turbomind"),
            "server_name": self.host,
            "server_port": self.port,
            "model_name": self.model_name,
            "max_concurrent_requests": self.max_concurrent_requests,
            "proxy_url": self.proxy_url,
            "backend": None if self.engine == "auto" else self.engine,
            "revision": self.revision,
            "chat_template": self.chat_template,
            "trust_remote_code": self.trust_remote_code,
            "vision_max_batch_size": self.vision_max_batch_size,
        }
        return ["serve", "api_server", self.model, *_flags(values)]

    def variables(self) -> dict[str, str]:
        """The environment that it is started with."""
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus))} if self.gpus else {}
        return {**os.environ, **visible, "PYTHONUNBUFFERED": "1"}


def _flags(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif isinstance(value, dict):
            yield from (flag, json.dumps(value))
        elif isinstance(value, list):
            yield from (flag, *map(str, value))
        elif value is not None and value is not False:
            yield from (flag, str(value))
