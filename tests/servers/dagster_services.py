"""Dagster in processes of its own: ``dqe ui``, or code server, daemon and webserver apart, as a team has them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import ROOT, environment
from tests.servers.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.servers.postgres import Postgres

# The backfill daemon looks every 30 s; a backfill needs three or four of its looks.
BACKFILL_SECONDS = 600
FINISHED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


@dataclass
class Dagster:
    """A running UI and its data folder."""

    url: str
    data: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer to a GraphQL query."""
        asked = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", asked, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def answers(self) -> bool:
        """Whether it has loaded the platform."""
        try:
            nodes = self.ask("{repositoriesOrError {... on RepositoryConnection {nodes {name}}}}")
        except OSError:
            return False
        return bool(nodes["repositoriesOrError"].get("nodes"))

    def shards(self) -> list[str]:
        """The partition keys that Dagster knows of ``raw_samples``."""
        node = self.ask('{assetNodeOrError(assetKey: {path: ["raw_samples"]}) {... on AssetNode {partitionKeys}}}')
        return sorted(node["assetNodeOrError"]["partitionKeys"])

    def backfill(self, assets: list[str], shards: list[str]) -> None:
        """Ask for assets of some shards."""
        selection = ", ".join(f"{{path: {json.dumps(name.split('/'))}}}" for name in assets)
        what = f"{{assetSelection: [{selection}], partitionNames: {json.dumps(shards)}}}"
        answer = "{__typename ... on PythonError {message}}"
        launched = self.ask(f"mutation {{launchPartitionBackfill(backfillParams: {what}) {answer}}}")
        assert launched["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", launched

    def launch(self, assets: list[str], shards: list[str]) -> str:
        """Ask for one run that makes assets of a range of shards; returns its id."""
        where = "{nodes {name location {name}}}"
        (node,) = self.ask(f"{{repositoriesOrError {{... on RepositoryConnection {where}}}}}")["repositoriesOrError"][
            "nodes"
        ]
        tags = {"dagster/asset_partition_range_start": shards[0], "dagster/asset_partition_range_end": shards[-1]}
        parameters = {
            "selector": {
                "repositoryName": node["name"],
                "repositoryLocationName": node["location"]["name"],
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": name.split("/")} for name in assets],
            },
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        answer = "{__typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}"
        query = f"mutation ($run: ExecutionParams!) {{launchPipelineExecution(executionParams: $run) {answer}}}"
        launched = self.ask(query, run=parameters)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def terminate(self, run: str) -> None:
        """Ask for the end of a run, as a person does who clicks on it."""
        answer = "{__typename ... on TerminateRunFailure {message} ... on PythonError {message}}"
        ended = self.ask(f"mutation {{terminateRun(runId: {json.dumps(run)}) {answer}}}")["terminateRun"]
        assert ended["__typename"] == "TerminateRunSuccess", ended

    def status(self, run: str) -> str:
        """What has become of a run."""
        return str(
            self.ask(f"{{runOrError(runId: {json.dumps(run)}) {{... on Run {{status}}}}}}")["runOrError"]["status"]
        )

    def events(self, run: str) -> list[dict[str, Any]]:
        """The events of a run, with level, message and, of a step that failed, the error and what has caused it."""
        error = "message stack"
        failed = f"error {{{error} causes {{{error}}}}}"
        fields = f"__typename ... on MessageEvent {{message level}} ... on ExecutionStepFailureEvent {{{failed}}}"
        return self.ask(f"{{logsForRun(runId: {json.dumps(run)}) {{... on EventConnection {{events {{{fields}}}}}}}}}")[
            "logsForRun"
        ]["events"]

    def backfills(self) -> list[dict[str, Any]]:
        """All backfills, the newest first."""
        fields = "id status error {message} runs {status}"
        return self.ask(f"{{partitionBackfillsOrError {{... on PartitionBackfills {{results {{{fields}}}}}}}}}")[
            "partitionBackfillsOrError"
        ]["results"]


def poll(what: str, found: Callable[[], Any], seconds: float) -> Any:
    """What ``found`` returns, once that is true of it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.5)
    pytest.fail(f"no {what} in {seconds} s")


@contextlib.contextmanager
def dagster_dev(data: Path) -> Iterator[Dagster]:
    """``dqe ui`` on a data folder; whatever it started is gone afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "dqe_assets.cli", "ui", "--port", str(port)]
    ui = Dagster(f"http://127.0.0.1:{port}", data)
    with (data / "dev.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(data), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:

            def ready() -> bool:
                assert process.poll() is None, (data / "dev.log").read_text()
                return ui.answers()

            poll("answer of dagster dev", ready, 90)
            yield ui
        finally:
            # Its children ignore what ends their parent and live on until a heartbeat is missed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class Services(Dagster):
    """Code server, daemon and webserver, each a process of its own.

    Attributes:
        environment: what the processes have in their environment.
        commands: what ``start`` starts, by the name of the service.
        processes: what runs.
    """

    environment: dict[str, str]
    commands: dict[str, list[str]]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a service; what it prints goes to NAME.log in the data folder."""
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """End a service and all that it has started, as a machine that fails would."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def logs(self) -> str:
        """The end of what each service has printed."""
        return "\n".join(path.read_text(errors="replace")[-5000:] for path in sorted(self.data.glob("*.log")))


@contextlib.contextmanager
def dagster_services(
    data: Path, postgres: Postgres, more: Mapping[str, str] | None = None, **instance: Any
) -> Iterator[Services]:
    """The services on a data folder, with docker/dagster.yaml but for containers; whatever they have started ends.

    Args:
        data: the data folder, with its dqe.yaml.
        postgres: where Dagster keeps what it knows.
        more: further variables of the environment, such as those of an S3 server.
        instance: keys of dagster.yaml that are other than in docker/, such as ``run_launcher``. By default runs are
            processes of the code server, and the output of their steps is not kept.
    """
    variables = {**environment(data), **postgres.environment(), **(more or {})}
    write_instance(data, **instance)
    code, web = free_port(), free_port()
    where = {"grpc_server": {"host": "127.0.0.1", "port": code, "location_name": "dqe"}}
    (data / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [where]}))
    loaded = ["--workspace", str(data / "workspace.yaml")]
    listen = ["--host", "127.0.0.1", "--port"]
    commands = {
        "code": ["dagster", "code-server", "start", "--module-name", "dqe_assets.definitions", *listen, str(code)],
        "webserver": ["dagster_webserver", *listen, str(web), *loaded],
        "daemon": ["dagster._daemon", "run", *loaded],
    }
    services = Services(f"http://127.0.0.1:{web}", data, variables, commands)
    try:
        services.start("code")
        poll("code server", lambda: _listens(code), 120)
        services.start("webserver")
        poll("webserver", services.answers, 90)
        services.start("daemon")
        yield services
    finally:
        for name in list(services.processes):
            services.kill(name)


def write_instance(data: Path, **other: Any) -> None:
    """Write docker/dagster.yaml to the Dagster folder of a data folder, with other keys, and no containers."""
    home = data / "dagster_home"
    home.mkdir(exist_ok=True)
    settings = yaml.safe_load((ROOT / "docker" / "dagster.yaml").read_text(encoding="utf-8"))
    del settings["run_launcher"], settings["compute_logs"]
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings | other))


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        tried.settimeout(0.5)
        return tried.connect_ex(("127.0.0.1", port)) == 0
