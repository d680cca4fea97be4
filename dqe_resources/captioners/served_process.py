"""Served engines: started, watched and stopped, each a process of its own with its state in data/engine/."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from dqe_resources.cache import data_directory
from dqe_resources.captioners.served_engine import EngineError, RemoteServer, ServedEngine
from dqe_resources.locks import HeldError, held
from dqe_resources.processes import process, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOG_LINES = 30
"""Lines of an engine's log that are shown where it fails."""

_ASK_EVERY_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
_STOP_SECONDS = 30.0

State = Literal["up", "starting", "unhealthy", "down", "away"]
"""Of a server here; and ``away``, of one elsewhere that does not answer."""


class NotHealthyError(EngineError):
    """An engine was started and did not become healthy; ``log`` is the end of what it said."""

    def __init__(self, engine: ServedEngine, what: str) -> None:
        super().__init__(f"engine {engine.name}: lmdeploy {what}; all that it said is in {log_path(engine)}")
        self.log = log_tail(engine)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as nvidia-smi sees it, memory in MiB; None if it does not say."""

    index: int
    name: str
    used: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A process that was started for an engine.

    Attributes:
        pid: its process, which leads a session of its own.
        began: when the process began, in the kernel's ticks: this shows if another process has got the same pid since.
        since: the same in seconds since 1970.
        command: what was started.
        gpus: on which GPUs; empty for all.
        was_healthy: whether it has answered as healthy.
    """

    pid: int
    began: str
    since: float
    command: list[str]
    gpus: list[int]
    was_healthy: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of an engine; ``models`` are those that it says it serves."""

    engine: ServedEngine
    state: State
    running: EngineProcess | None = None
    models: tuple[str, ...] = ()


def all_up(engine: ServedEngine, show: Callable[[str], None] = lambda _: None) -> bool:
    """Start all servers of an engine side by side, and wait until each is healthy.

    Args:
        engine: the engine.
        show: as for ``up``, each line with the name of its server before it where there are several.

    Returns:
        False if all were up already.

    Raises:
        EngineError: as for ``up``; or a server that is started elsewhere does not answer. Servers that are up stay up.
    """
    servers = engine.servers
    if engine.urls:
        _require_all_answer(engine)
        return False
    running = [name for name in _names(engine) if name not in {one.name for one in servers}]
    if any(_running(engine.model_copy(update={"name": name})) for name in running):
        raise EngineError(f"engine {engine.name}: runs with other settings; run: dqe engine down {engine.name}")
    if len(servers) == 1:
        return up(engine, show)
    is_ending = threading.Event()

    def start(one: ServedEngine) -> bool:
        def shown(line: str) -> None:
            if is_ending.is_set():
                raise EngineError(f"engine {one.name}: its start was ended")
            show(f"{one.name}: {line}")

        return up(one, shown)

    # What is refused is refused before anything is started.
    for one in servers:
        require_gpu(one)
    with ThreadPoolExecutor(len(servers), thread_name_prefix="engines") as threads:
        started = [threads.submit(start, one) for one in servers]
        try:
            wait(started)
        except BaseException:
            is_ending.set()
            raise
    new = [future.result() for future in started]
    if engine.proxy:
        _register(servers[0], servers[1:])
    return any(new)


def all_down(engine: ServedEngine) -> bool:
    """Stop all servers of an engine, those of earlier settings too; returns False if none was running."""
    stopped = [name for name in _names(engine) if down(engine.model_copy(update={"name": name}))]
    return bool(stopped)


def up(engine: ServedEngine, show: Callable[[str], None] = lambda _: None) -> bool:
    """Start an engine, or find it starting, and wait until it is healthy.

    Args:
        engine: the engine.
        show: is told again and again, while it waits, the last line of the engine's log.

    Returns:
        False if it was up already.

    Raises:
        EngineError: there is no GPU or no lmdeploy, the port is taken, or it runs with other settings.
        NotHealthyError: it ended or took too long; nothing of it is left running.
    """
    require_gpu(engine)
    command = [engine.executable(), *engine.command()]
    folder = _path(engine, "").parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with held(_path(engine, ".lock"), wait=0):
            running = _running(engine)
            if running is None:
                running = _start(engine, command)
            elif (running.command, running.gpus) != (command, list(engine.gpus)):
                raise EngineError(f"engine {engine.name}: runs with other settings; run: dqe engine down {engine.name}")
            elif _is_healthy(engine):
                return False
            _wait(engine, running, show)
    except HeldError:
        raise EngineError(f"engine {engine.name}: another dqe engine up is starting it") from None
    return True


def down(engine: ServedEngine) -> bool:
    """Stop an engine with all its processes; returns False if it was not running."""
    running = _running(engine)
    if running is not None:
        _stop(running)
    _path(engine, ".json").unlink(missing_ok=True)
    return running is not None


def status(engine: ServedEngine) -> Status:
    """The status of an engine with one server, as the server itself reports it."""
    if isinstance(engine, RemoteServer):
        return Status(engine, "up" if _answers(engine) else "away", models=_models(engine))
    running = _running(engine)
    if running is None:
        return Status(engine, "down")
    if not _is_healthy(engine):
        return Status(engine, "unhealthy" if running.was_healthy else "starting", running)
    return Status(engine, "up", running, _models(engine))


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine; none if nvidia-smi is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in asked.stdout.splitlines() if line.strip()]
    return [Gpu(int(index), name, _mib(used), _mib(total)) for index, name, used, total in rows]


def _mib(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def require_gpu(engine: ServedEngine) -> None:
    """Refuse if the GPUs that an engine needs are not there.

    Raises:
        EngineError: says what is there and what to do.
    """
    there = {gpu.index: gpu for gpu in gpus()}
    usable = [gpu for index, gpu in there.items() if not engine.gpus or index in engine.gpus]
    missing = set(engine.gpus) - set(there)
    needed = engine.gpus_needed
    if needed and (missing or len(usable) < needed):
        wanted = f"GPU {min(missing)}" if missing else f"{needed} NVIDIA GPU{'s' if needed > 1 else ''}"
        found = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in there.values()) or "none that nvidia-smi shows"
        raise EngineError(
            f"engine {engine.name}: needs {wanted}; there: {found}. Start it on a machine that has one, and give its "
            "url to a captioner of kind openai (docs/gpu.md)"
        )


def log_path(engine: ServedEngine) -> Path:
    """Where an engine's output goes; each start begins a new file."""
    return _path(engine, ".log")


def log_tail(engine: ServedEngine, lines: int = LOG_LINES) -> str:
    """The last lines of an engine's log; empty if there is none."""
    try:
        with log_path(engine).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1000 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def _start(engine: ServedEngine, command: list[str]) -> EngineProcess:
    with socket.socket() as probe:
        if probe.connect_ex((urlsplit(engine.address).hostname, engine.port)) == 0:
            raise EngineError(
                f"engine {engine.name}: port {engine.port} is taken by a process that dqe engine did not start; end "
                "it, or set another port in data/dqe.yaml"
            )
    with log_path(engine).open("wb") as log:
        started = subprocess.Popen(  # noqa: S603
            command,
            env=engine.variables(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = process(started.pid)
    running = EngineProcess(started.pid, found.began if found else "", time.time(), command, list(engine.gpus))
    _save(engine, running)
    return running


def _wait(engine: ServedEngine, running: EngineProcess, show: Callable[[str], None]) -> None:
    try:
        _until_healthy(engine, running, show)
    except BaseException:
        _stop(running)
        _path(engine, ".json").unlink(missing_ok=True)
        raise
    _save(engine, replace(running, was_healthy=True))


def _until_healthy(engine: ServedEngine, running: EngineProcess, show: Callable[[str], None]) -> None:
    deadline = time.monotonic() + engine.start_seconds
    while not _is_healthy(engine):
        if not _is_alive(running):
            raise NotHealthyError(engine, "ended before it was healthy")
        if time.monotonic() > deadline:
            raise NotHealthyError(engine, f"was not healthy within start_seconds ({engine.start_seconds:g} s)")
        show(log_tail(engine, 1))
        time.sleep(_ASK_EVERY_SECONDS)


def _is_healthy(engine: ServedEngine) -> bool:
    try:
        with urllib.request.urlopen(engine.address + engine.health, timeout=_ANSWER_SECONDS):  # noqa: S310
            return True
    except OSError:
        return False


def _answers(server: RemoteServer) -> bool:
    """Whether a server that is started elsewhere is there; one that wants a key is."""
    try:
        with urllib.request.urlopen(f"{server.address}/v1/models", timeout=_ANSWER_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def _require_all_answer(engine: ServedEngine) -> None:
    away = [one.engine.address for one in map(status, engine.servers) if one.state == "away"]
    if away:
        raise EngineError(f"engine {engine.name}: {', '.join(away)} does not answer; start it where it runs")


def _register(proxy: ServedEngine, replicas: Sequence[ServedEngine]) -> None:
    """Tell a proxy of the replicas that it does not know.

    Raises:
        EngineError: it does not take one.
    """
    try:
        with urllib.request.urlopen(f"{proxy.address}/nodes/status", timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
            known = set(json.load(answer))
        for one in replicas:
            if one.address not in known:
                request = urllib.request.Request(  # noqa: S310
                    f"{proxy.address}/nodes/add",
                    json.dumps({"url": one.address}).encode(),
                    {"Content-Type": "application/json"},
                )
                with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                    said = answer.read().decode(errors="replace")
                if "uccess" not in said:
                    raise EngineError(f"engine {proxy.name}: does not take {one.address}: {said}")
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"engine {proxy.name}: cannot be told of its replicas: {error}") from error


def _models(engine: ServedEngine) -> tuple[str, ...]:
    try:
        with urllib.request.urlopen(f"{engine.address}/v1/models", timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
            return tuple(str(model["id"]) for model in json.load(answer)["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _names(engine: ServedEngine) -> list[str]:
    """Names of an engine's servers that were started, by their files."""
    folder = _path(engine, "").parent
    return [
        path.name.removesuffix(".json")
        for path in sorted(folder.glob(f"{engine.name}*.json"))
        if path.name.split(".")[0] == engine.name
    ]


def _path(engine: ServedEngine, suffix: str) -> Path:
    return data_directory() / "engine" / f"{engine.name}{suffix}"


def _save(engine: ServedEngine, running: EngineProcess) -> None:
    partial = _path(engine, ".json.partial")
    partial.write_text(json.dumps(asdict(running), indent=1), encoding="utf-8")
    partial.replace(_path(engine, ".json"))


def _running(engine: ServedEngine) -> EngineProcess | None:
    """The process that was started for an engine, if it is still that one."""
    try:
        kept: dict[str, Any] = json.loads(_path(engine, ".json").read_text(encoding="utf-8"))
        running = EngineProcess(**kept)
    except (OSError, ValueError, TypeError):
        return None
    return running if _is_alive(running) else None


def _is_alive(running: EngineProcess) -> bool:
    found = process(running.pid)
    return found is not None and found.began == running.began


def _stop(running: EngineProcess) -> None:
    """End everything of an engine's session: it starts processes of its own, some in groups of their own."""
    asked, deadline = signal.SIGTERM, time.monotonic() + _STOP_SECONDS
    while members := [one.pid for one in processes() if one.session == running.pid]:
        if time.monotonic() > deadline:
            asked = signal.SIGKILL
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, asked)
        time.sleep(_ASK_EVERY_SECONDS)
