"""Engines as processes: real ones, with a small program on the PATH where lmdeploy would be."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import signal
import socket
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import ValidationError

from dqe_assets.cli import engine as commands
from dqe_assets.orchestration.settings import SettingsError
from dqe_resources.captioners import served_process as engines
from dqe_resources.captioners.served_engine import EngineError, ServedEngine
from dqe_resources.processes import processes
from tests.conftest import dqe

# Says a line, starts a process of its own in a group of its own, and is healthy after a while, as lmdeploy is.
LMDEPLOY = """#!{python}
import http.server, json, os, subprocess, sys, time, urllib.request
arguments = sys.argv[1:]
port = int(arguments[arguments.index("--server-port") + 1]) if "--server-port" in arguments else 0
nodes = {{}}

class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        models = [{{"id": one}} for found in nodes.values() for one in found["models"]]
        self.say(nodes if self.path == "/nodes/status" else {{"data": models}})

    def do_POST(self):
        node = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with urllib.request.urlopen(node["url"] + "/v1/models") as answer:
            nodes[node["url"]] = {{"models": [one["id"] for one in json.load(answer)["data"]]}}
        self.say("Added successfully")

    def say(self, what):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(what).encode())

if arguments[:2] == ["serve", "proxy"]:
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Proxy).serve_forever()
if arguments[:2] != ["serve", "api_server"]:
    sys.exit(f"unknown command: {{arguments}}")
print("loading", arguments[2], "in process", os.getpid(), "on GPU", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
if arguments[2] == "broken":
    sys.exit("RuntimeError: CUDA out of memory")
healthy = time.monotonic() + float(os.environ.get("HEALTHY_AFTER", "0.3"))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() > healthy else 503)
        self.end_headers()
        self.wfile.write(json.dumps({{"data": [{{"id": arguments[2]}}]}}).encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
NVIDIA_SMI = """#!/bin/sh
echo "0, NVIDIA A100-SXM4-80GB, 1024, 81920"
echo "1, NVIDIA A100-SXM4-80GB, 7, 81920"
"""


@pytest.fixture
def programs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with a program for lmdeploy and one for nvidia-smi."""
    folder = tmp_path / "programs" / "bin"
    folder.mkdir(parents=True)
    for name, text in (("lmdeploy", LMDEPLOY.format(python=sys.executable)), ("nvidia-smi", NVIDIA_SMI)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def engine(programs: Path):
    """An engine that is stopped in the end."""
    one = an_engine()
    yield one
    engines.down(one)


def ports(count: int) -> int:
    """The first of so many free ports, one after the other, which the system gives to nobody who asks for any port."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = random.randrange(20_000, 30_000)
            for place in range(count):
                stack.enter_context(socket.create_server(("127.0.0.1", first + place)))
            return first


def an_engine(**settings) -> ServedEngine:
    return ServedEngine.model_validate({"name": "vlm", "model": "tiny", "port": ports(1), **settings})


def session_of(pid: int) -> list[int]:
    return [one.pid for one in processes() if one.session == pid]


def test_up_status_down(engine):
    assert engines.status(engine) == engines.Status(engine, "down")
    lines = set()
    assert engines.up(engine, lines.add) is True
    assert any("loading tiny" in line for line in lines)
    found = engines.status(engine)
    assert (found.state, found.models) == ("up", ("tiny",))
    assert len(session_of(found.running.pid)) == 2
    assert abs(found.running.since - time.time()) < 60

    assert engines.up(engine) is False
    assert engines.status(engine).running.pid == found.running.pid

    assert engines.down(engine) is True
    assert session_of(found.running.pid) == []
    assert engines.status(engine).state == "down"
    assert engines.down(engine) is False


def test_replicas_are_servers_of_their_own_behind_a_proxy_that_knows_them_all(programs):
    one = an_engine(replicas=2, proxy=True, port=ports(3))
    try:
        lines = set()
        assert engines.all_up(one, lines.add) is True
        assert any(line.startswith("vlm.2: loading tiny") for line in lines)
        states = {found.engine.name: found for found in map(engines.status, one.servers)}
        assert list(states) == ["vlm.proxy", "vlm.1", "vlm.2"]
        assert {found.state for found in states.values()} == {"up"}
        assert states["vlm.proxy"].models == ("tiny", "tiny")
        assert one.addresses == (f"http://127.0.0.1:{one.port}",)
        assert [engines.log_tail(server)[-1] for server in one.servers[1:]] == ["0", "1"]

        os.killpg(states["vlm.2"].running.pid, signal.SIGKILL)
        assert engines.all_up(one) is True
        assert engines.status(one.servers[1]).running.pid == states["vlm.1"].running.pid
        assert engines.all_up(one) is False
        with pytest.raises(EngineError, match="runs with other settings; run: dqe engine down vlm"):
            engines.all_up(one.model_copy(update={"replicas": 1, "proxy": False}))
    finally:
        assert engines.all_down(one.model_copy(update={"replicas": 1, "proxy": False})) is True
        for pid in [pid for found in states.values() for pid in session_of(found.running.pid)]:
            os.kill(pid, signal.SIGKILL)
    assert {engines.status(server).state for server in one.servers} == {"down"}
    assert engines.all_down(one) is False


def test_one_replica_that_fails_is_named_and_the_others_stay_up(programs, monkeypatch):
    one = an_engine(replicas=2, port=ports(2))
    with socket.create_server(("127.0.0.1", one.port + 1)):
        with pytest.raises(EngineError, match=rf"engine vlm\.2: port {one.port + 1} is taken"):
            engines.all_up(one)
        assert [engines.status(server).state for server in one.servers] == ["up", "down"]
    assert engines.all_up(one) is True
    assert engines.all_down(one) is True


def test_replicas_have_gpus_of_their_own():
    def groups(**settings):
        return [server.gpus for server in an_engine(**settings).servers]

    assert groups(replicas=2) == [(0,), (1,)]
    assert groups(replicas=2, tp=2) == [(0, 1), (2, 3)]
    assert groups(replicas=2, tp=2, gpus=[4, 5, 6, 7]) == [(4, 5), (6, 7)]
    assert groups() == [()]
    assert groups(gpus=[3], proxy=True) == [(3,), (3,)]
    one = an_engine(replicas=3)
    assert one.addresses == tuple(f"http://127.0.0.1:{one.port + place}" for place in range(3))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"replicas": 2, "tp": 2, "gpus": [0, 1, 2]}, "2 replicas with 2 each need 4, and there are 3"),
        ({"replicas": 2, "port": 65535}, "not enough ports"),
        ({"proxy": True, "proxy_url": "http://a:1"}, "leave out proxy_url"),
        ({"urls": ["http://a:1"], "replicas": 2}, "leave out replicas, proxy, gpus and port"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, fault):
    with pytest.raises(ValidationError, match=fault):
        an_engine(**settings)


def test_servers_elsewhere_are_watched_and_not_started(programs, engine, data):
    engines.up(engine)
    away = f"http://127.0.0.1:{ports(1)}"
    remote = ServedEngine.model_validate({"name": "far", "model": "tiny", "urls": [engine.address, f"{away}/v1"]})
    found = [engines.status(server) for server in remote.servers]
    assert [(one.engine.name, one.state, one.models) for one in found] == [
        ("far.1", "up", ("tiny",)),
        ("far.2", "away", ()),
    ]
    with pytest.raises(EngineError, match=rf"engine far: {away} does not answer; start it where it runs"):
        engines.all_up(remote)
    with (data / "dqe.yaml").open("a") as configuration:
        configuration.write(f"\nengines:\n  - {{name: far, model: tiny, urls: [{engine.address}]}}\n")
    told = dqe(data, "engine", "up")
    assert told.returncode == 0, told.stderr
    assert "far.1: runs elsewhere" in told.stdout
    assert "runs elsewhere, and is not stopped" in dqe(data, "engine", "down").stdout
    assert engines.status(engine).state == "up"


def test_a_failure_shows_what_it_said_and_leaves_nothing_running(programs):
    with pytest.raises(engines.NotHealthyError, match=r"engine vlm: lmdeploy ended before it was healthy") as failure:
        engines.up(an_engine(model="broken"))
    assert "CUDA out of memory" in failure.value.log
    pid = int(re.search(r"in process (\d+)", failure.value.log)[1])
    assert session_of(pid) == []
    assert engines.status(an_engine()).state == "down"


def test_too_slow_a_start_is_ended(programs, monkeypatch):
    monkeypatch.setenv("HEALTHY_AFTER", "60")
    with pytest.raises(engines.NotHealthyError, match=r"not healthy within start_seconds \(0\.4 s\)"):
        engines.up(an_engine(start_seconds=0.4))
    assert engines.status(an_engine()).state == "down"


def test_a_start_that_was_killed_is_waited_for_by_the_next(engine, monkeypatch):
    monkeypatch.setenv("HEALTHY_AFTER", "1")
    folder = engines.log_path(engine).parent
    folder.mkdir(parents=True)
    begun = engines._start(engine, [engine.executable(), *engine.command()])
    assert engines.status(engine).state == "starting"
    assert engines.up(engine) is True
    assert engines.status(engine).running.pid == begun.pid


def test_an_engine_that_died_is_down_whoever_has_its_pid_now(engine):
    engines.up(engine)
    running = engines.status(engine).running
    os.killpg(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while engines.status(engine).state != "down" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engines.status(engine).state == "down"

    # Another process with that pid, which began at another time: this one.
    kept = json.loads((engines.log_path(engine).with_suffix(".json")).read_text())
    engines.log_path(engine).with_suffix(".json").write_text(json.dumps({**kept, "pid": os.getpid()}))
    assert engines.status(engine).state == "down"
    assert engines.down(engine) is False
    for pid in session_of(running.pid):
        os.kill(pid, signal.SIGKILL)


def test_an_engine_that_no_longer_answers_is_unhealthy(engine, monkeypatch):
    engines.up(engine)
    running = engines.status(engine).running
    monkeypatch.setattr(engines, "_ANSWER_SECONDS", 0.2)
    os.kill(running.pid, signal.SIGSTOP)
    assert engines.status(engine).state == "unhealthy"
    os.kill(running.pid, signal.SIGCONT)
    assert engines.status(engine).state == "up"


def test_other_settings_are_not_mistaken_for_those_that_run(engine):
    engines.up(engine)
    with pytest.raises(EngineError, match="runs with other settings; run: dqe engine down vlm"):
        engines.up(engine.model_copy(update={"session_len": 4096}))
    with pytest.raises(EngineError, match="runs with other settings"):
        engines.up(engine.model_copy(update={"gpus": (1,)}))


def test_two_starts_at_once_are_one(engine):
    outcomes: list[object] = []

    def start() -> None:
        try:
            outcomes.append(engines.up(engine))
        except EngineError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1
    assert all(outcome is True or "another dqe engine up" in str(outcome) for outcome in outcomes)


def test_a_port_that_is_taken_is_named(programs):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"port {port} is taken by a process that dqe engine did not start"):
            engines.up(an_engine(port=port))


def test_gpus_are_counted_and_chosen(programs):
    assert [(gpu.index, gpu.used, gpu.total) for gpu in engines.gpus()] == [(0, 1024, 81920), (1, 7, 81920)]
    engines.require_gpu(an_engine(tp=2))
    engines.require_gpu(an_engine(gpus=[1]))
    with pytest.raises(EngineError, match=r"needs 3 NVIDIA GPUs; there: 0 \(NVIDIA A100-SXM4-80GB\), 1"):
        engines.require_gpu(an_engine(tp=3))
    with pytest.raises(EngineError, match="needs 2 NVIDIA GPUs"):
        engines.require_gpu(an_engine(tp=2, gpus=[1]))
    with pytest.raises(EngineError, match="needs GPU 4"):
        engines.require_gpu(an_engine(gpus=[0, 4]))


@pytest.mark.skipif(bool(engines.gpus()), reason="this machine has a GPU")
def test_it_refuses_where_there_is_no_gpu(data):
    with pytest.raises(EngineError, match=r"needs 1 NVIDIA GPU; there: none that nvidia-smi shows.*kind openai"):
        engines.up(an_engine())


def test_a_driver_that_fails_counts_as_no_gpu(programs):
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert engines.gpus() == []
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho '0, NVIDIA GB10, [N/A], [N/A]'\n")
    assert engines.gpus() == [engines.Gpu(0, "NVIDIA GB10", None, None)]


def test_lmdeploy_is_taken_from_the_environment_that_is_named(programs):
    assert an_engine(environment=str(programs.parent)).executable() == str(programs / "lmdeploy")
    beside_data = an_engine(environment="../programs").executable()
    assert Path(beside_data).resolve() == programs / "lmdeploy"
    with pytest.raises(EngineError, match=r"no lmdeploy in /nowhere/bin; install the extra 'gpu'"):
        engines.up(an_engine(environment="/nowhere"))


def test_settings_become_flags():
    one = an_engine(
        engine="pytorch",
        port=1,
        model_name="vlm",
        tp=2,
        session_len=4096,
        quant_policy=8,
        trust_remote_code=True,
        options={"eager_mode": True, "hf_overrides": {"a": 1}, "cudagraph_capture_batch_sizes": [1, 2]},
    )
    command = shlex.join(one.command())
    assert command.startswith(
        "serve api_server tiny --tp 2 --dtype auto --session-len 4096 --cache-max-entry-count 0.8"
    )
    for flag in (
        "--backend pytorch",
        "--server-name 127.0.0.1",
        "--server-port 1",
        "--quant-policy 8",
        "--trust-remote-code",
        "--eager-mode",
        """--hf-overrides '{"a": 1}'""",
        "--cudagraph-capture-batch-sizes 1 2",
    ):
        assert flag in command, flag
    assert "None" not in command
    assert an_engine(gpus=[1, 3]).variables()["CUDA_VISIBLE_DEVICES"] == "1,3"


@pytest.mark.skipif(find_spec("lmdeploy") is None, reason="lmdeploy is not installed: extra 'gpu'")
def test_lmdeploy_knows_every_flag():
    from lmdeploy.cli.serve import SubCliServe

    SubCliServe.add_parser_api_server()
    one = an_engine(
        revision="main",
        chat_template="internvl2_5",
        model_name="vlm",
        max_batch_size=8,
        session_len=4096,
        model_format="awq",
        enable_prefix_caching=True,
        trust_remote_code=True,
        max_concurrent_requests=512,
        proxy_url="http://127.0.0.1:8000",
        engine="turbomind",
    )
    parsed = SubCliServe.subparsers.choices["api_server"].parse_args(one.command()[2:])
    assert (parsed.model_path, parsed.server_port, parsed.cache_block_seq_len) == ("tiny", one.port, 64)
    assert (parsed.max_concurrent_requests, parsed.vision_max_batch_size, parsed.backend) == (512, 8, "turbomind")


@pytest.mark.parametrize("fault", [{"name": "a b"}, {"name": "../x"}, {"port": 0}, {"gpu": [0]}])
def test_a_wrong_setting_is_refused(fault):
    with pytest.raises(ValidationError):
        an_engine(**fault)


def test_the_commands(programs, data):
    one = an_engine()
    configuration = data / "dqe.yaml"
    configuration.write_text(
        f"{configuration.read_text()}\nengines:\n  - {{name: vlm, model: tiny, port: {one.port}}}\n"
    )
    try:
        started = dqe(data, "engine", "up", "vlm")
        assert started.returncode == 0, started.stderr
        assert f"url: http://127.0.0.1:{one.port}" in started.stdout
        told = dqe(data, "engine", "status").stdout
        assert " up " in told
        assert "GPU 0, NVIDIA A100-SXM4-80GB: 1,024 of 81,920 MiB used" in told
    finally:
        stopped = dqe(data, "engine", "down")
    assert "vlm: stopped" in stopped.stdout

    configuration.write_text(configuration.read_text().replace("model: tiny", "model: broken"))
    failed = dqe(data, "engine", "up")
    assert failed.returncode == 1
    assert "CUDA out of memory" in failed.stderr
    assert "error: engine vlm: lmdeploy ended before it was healthy" in failed.stderr


def test_an_engine_that_is_not_configured_is_named(data):
    with pytest.raises(SettingsError, match="lists no engines"):
        commands._chosen(None)
    with (data / "dqe.yaml").open("a") as configuration:
        configuration.write("\nengines:\n  - {name: a, model: m}\n  - {name: b, model: m}\n")
    assert [one.name for one in commands._chosen(["b"])] == ["b"]
    assert [one.name for one in commands._chosen(None)] == ["a", "b"]
    with pytest.raises(SettingsError, match="no engine c; there are: a, b"):
        commands._chosen(["c"])
