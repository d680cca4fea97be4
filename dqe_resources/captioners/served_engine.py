"""A model that lmdeploy serves, as a process of its own that all runs share."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from dqe_resources.cache import in_data_directory
from dqe_resources.captioners.chat import server_url
from dqe_resources.captioners.engine_settings import EngineSettings
from dqe_resources.configurable import ComponentName
from dqe_resources.errors import DataQualityError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_LAST_PORT = 65535


class EngineError(DataQualityError):
    """A served engine cannot be started or stopped: says why and what to do."""


class ServedEngine(EngineSettings):
    """What ``dqe engine up`` starts: ``lmdeploy serve api_server`` with a model and its settings, once or more often.

    Attributes:
        name: Name of the engine in the commands.
        model_name: Name of the model in requests; by default as ``model``.
        host: Interface that it listens on: 127.0.0.1 for this machine alone, 0.0.0.0 for all that can reach it.
        port: Port that it listens on; replicas listen on this one and those after it.
        gpus: Numbers of the GPUs that it may use; by default all. Two engines on one machine need different ones.
        replicas: Servers of the model: one for each GPU, or for each group of ``tp`` GPUs, in the order of ``gpus``.
        proxy: Whether an ``lmdeploy serve proxy`` stands before the replicas, at ``port``. Our captioners need none:
            they ask several servers by themselves.
        urls: Addresses of servers that are started elsewhere. They are watched, and not started or stopped.
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
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    proxy: bool = False
    urls: tuple[Annotated[str, AfterValidator(server_url)], ...] = ()
    environment: str | None = None
    max_concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    proxy_url: str | None = None
    start_seconds: Annotated[float, Field(gt=0)] = 1800.0

    @model_validator(mode="after")
    def _servers_are_sound(self) -> Self:
        if self.urls and {"replicas", "proxy", "gpus", "port", "proxy_url"} & self.model_fields_set:
            raise ValueError("urls are of servers that are started elsewhere: leave out replicas, proxy, gpus and port")
        if self.proxy and self.proxy_url is not None:
            raise ValueError("proxy starts a proxy of its own: leave out proxy_url")
        if self.replicas > 1 and self.gpus and len(self.gpus) < self.replicas * self.tp:
            raise ValueError(
                f"gpus: {self.replicas} replicas with {self.tp} each need {self.replicas * self.tp}, "
                f"and there are {len(self.gpus)}"
            )
        if self.port + self.replicas - 1 + self.proxy > _LAST_PORT:
            raise ValueError(f"port: there are not enough ports after {self.port} for all replicas")
        return self

    @property
    def servers(self) -> tuple[ServedEngine, ...]:
        """The servers that it is made of, the proxy first: each an engine by itself, called NAME.1, NAME.proxy ..."""
        if self.urls:
            return tuple(
                RemoteServer.model_construct(**{**dict(self), "name": f"{self.name}.{number}", "urls": (url,)})
                for number, url in enumerate(self.urls, 1)
            )
        if self.replicas == 1 and not self.proxy:
            return (self,)
        single = {**dict(self), "replicas": 1, "proxy": False}
        replicas = (
            ServedEngine.model_construct(
                **{
                    **single,
                    "name": f"{self.name}.{place + 1}",
                    "port": self.port + place + self.proxy,
                    "gpus": self._gpus_of(place),
                }
            )
            for place in range(self.replicas)
        )
        proxy = [ProxyServer.model_construct(**{**single, "name": f"{self.name}.proxy"})] if self.proxy else []
        return (*proxy, *replicas)

    def _gpus_of(self, replica: int) -> tuple[int, ...]:
        if self.replicas == 1:
            return self.gpus
        group = range(replica * self.tp, (replica + 1) * self.tp)
        return tuple(self.gpus[place] for place in group) if self.gpus else tuple(group)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where captioners ask: at the proxy, or else at each replica."""
        servers = self.servers
        return (servers[0].address,) if self.proxy else tuple(one.address for one in servers)

    @property
    def gpus_needed(self) -> int:
        """How many GPUs one server takes."""
        return self.tp

    @property
    def health(self) -> str:
        """The path that it answers at when it is healthy."""
        return "/health"

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


class ProxyServer(ServedEngine):
    """The ``lmdeploy serve proxy`` before an engine's replicas."""

    @property
    def gpus_needed(self) -> int:
        """None."""
        return 0

    @property
    def health(self) -> str:
        """It has no path for that alone."""
        return "/v1/models"

    def command(self) -> list[str]:
        """The arguments after ``lmdeploy``."""
        # Else it keeps the servers it knows in a file of its package, and asks those of the last time.
        return [
            "serve",
            "proxy",
            *_flags({"server_name": self.host, "server_port": self.port, "disable_cache_status": True}),
        ]


class RemoteServer(ServedEngine):
    """A server that is started elsewhere."""

    @property
    def address(self) -> str:
        """As the settings say."""
        return self.urls[0]


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
