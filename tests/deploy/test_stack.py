"""All of docker/, for real: the image is built, the stack is up, containers make shards, and one of these is killed.

``make deploy-test`` runs it, as root on Debian with docker.io, docker-compose and mmdebstrap. It starts a Docker of its
own, which reaches no network and is reached by none. What the next time can use (wheels, Debian, images) is kept in
data/deploy, and so are the logs and pictures of the UI.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.end_to_end.test_ui import CHROMIUM, write_photos
from tests.servers.dagster_services import FINISHED, Dagster, poll

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = ROOT / "data" / "deploy"
SOCKET = Path("/var/run/docker.sock")
PROGRAMS = ("dockerd", "docker", "docker-compose", "mmdebstrap", "unshare", "nsenter", "ip")
MISSING = [name for name in PROGRAMS if shutil.which(name) is None]

pytestmark = [
    pytest.mark.skipif(os.environ.get("DQE_DEPLOY_TEST") != "1", reason="takes many minutes: make deploy-test"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: docker.io, docker-compose, mmdebstrap"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

SHARDS = [f"photos-{number:05d}" for number in range(3)]
ASSETS = ["raw_samples", "image_features", "synthetic_captions/labels", "joint_embeddings", "caption_scores"]
ASSETS += ["caption_collection"]
IMAGE = "dqe:test"
DEBIAN = "mmdebstrap --variant=minbase --include=python3,python3-venv,postgresql,wget bookworm"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ASK = "import sys, urllib.request as r; print(r.urlopen(r.Request(sys.argv[1], sys.stdin.buffer.read(), "
ASK += "{'Content-Type': 'application/json'}), timeout=60).read().decode())"
# What is in the store, and how many logs of steps are beside it.
LIST = """
import json, fsspec
from dqe_assets.orchestration.settings import load_settings
store = load_settings().opened_store
rows = {shard: store.get("raw_samples", shard).stamp.rows for shard in store.partitions("raw_samples")}
logs = fsspec.filesystem("s3").find("dqe/dagster")
print(json.dumps({"rows": rows, "logs": len(logs), "shards": len(list(store.partitions("caption_scores")))}))
"""


def run(*command: str | Path, given: str | None = None, **environment: str) -> str:
    """What a command prints; that it fails is an error with all that it has said."""
    done = subprocess.run(
        [str(part) for part in command],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=1800,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@dataclass
class Stack(Dagster):
    """The stack, as it runs.

    Attributes:
        daemon: Docker's.
        environment: of docker-compose.
    """

    daemon: subprocess.Popen[bytes]
    environment: dict[str, str]

    def ask(self, query: str, **variables: Any) -> Any:
        """As ``Dagster.ask``, from within Docker's network."""
        asked = json.dumps({"query": query, "variables": variables})
        answer = run(*self.inside, sys.executable, "-c", ASK, f"{self.url}/graphql", given=asked)
        return json.loads(answer)["data"]

    @property
    def inside(self) -> list[str]:
        """The beginning of a command that is to be in Docker's network."""
        return ["nsenter", f"--net=/proc/{self.daemon.pid}/ns/net"]

    def compose(self, *arguments: str) -> str:
        """What docker-compose says."""
        file = ROOT / "docker" / "docker-compose.yaml"
        return run("docker-compose", "--project-name", "dqetest", "--file", file, *arguments, **self.environment)

    def runs(self) -> list[str]:
        """Containers of runs."""
        found = run("docker", "ps", "--format", "{{.ID}} {{.Command}}", "--no-trunc").splitlines()
        return [line.split()[0] for line in found if "execute_run" in line]


@pytest.fixture(scope="module")
def docker() -> Iterator[subprocess.Popen[bytes]]:
    """A Docker of our own, in a network of its own."""
    if SOCKET.exists():
        pytest.skip(f"a Docker runs here: {SOCKET}")
    folder = KEPT / "docker"
    command = f"ip link set lo up && exec dockerd --data-root {folder}/data --exec-root {folder}/run "
    command += f"--pidfile {folder}/pid --host unix://{SOCKET} --oom-score-adjust 0"
    folder.mkdir(parents=True, exist_ok=True)
    with (KEPT / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(["unshare", "--net", "sh", "-c", command], stdout=log, stderr=log)
    try:
        poll("Docker", lambda: SOCKET.exists() and _says("docker", "info"), 60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if str(folder) in line.split()[1]:
                subprocess.run(["umount", line.split()[1]], check=False)
        SOCKET.unlink(missing_ok=True)


def _says(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def images(docker: subprocess.Popen[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image of this checkout, by docker/Dockerfile, and those that stand in for others."""
    base = KEPT / "debian.tar"
    if not base.exists():
        run(*DEBIAN.split(), KEPT / "part.tar")
        (KEPT / "part.tar").rename(base)
    if not _says("docker", "image", "inspect", "dqe-test-base"):
        run("docker", "import", "--change", f"ENV PATH={PATH}", base, "dqe-test-base")
    context = tmp_path_factory.mktemp("context")
    for name in run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, context / name)
    for wheel in _wheels().glob("*.whl"):
        os.link(wheel, context / "docker" / "wheels" / wheel.name)
    legacy = {"DOCKER_BUILDKIT": "0"}
    said = ["--build-arg", "BASE=dqe-test-base", "--build-arg", "PIP_NO_INDEX=1", "--network", "none"]
    run("docker", "build", "--file", context / "docker" / "Dockerfile", *said, "--tag", IMAGE, context, **legacy)
    stand_ins = context / "tests" / "deploy" / "stand_ins"
    shutil.copy(Path(sys.prefix, "bin", "weed"), stand_ins)
    shutil.copy(ROOT / "tests" / "servers" / "qdrant_app.py", stand_ins)
    wheels = ["--dest", stand_ins / "wheels", f"fastapi=={version('fastapi')}"]
    run(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", *wheels)
    for name in ("postgres", "s3", "qdrant"):
        run("docker", "build", "--target", name, "--tag", f"{name}:test", stand_ins, **legacy)


def _wheels() -> Path:
    """A folder with the wheels of the lists that the image installs, with torch for CPUs alone."""
    folder = KEPT / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cpu", "demo", "served"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        if name != "cpu":
            text = re.sub(r"^torch==.*(?:\n\s+.*)*\n", "", text, flags=re.MULTILINE)
        wanted = folder / f"{name}.txt"
        if not wanted.exists() or wanted.read_text() != text:
            (folder / "part.txt").write_text(text)
            get = ["pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
            run(sys.executable, "-m", *get, "--dest", folder, "--requirement", folder / "part.txt")
            (folder / "part.txt").rename(wanted)
    return folder


@pytest.fixture(scope="module")
def stack(
    images: None, docker: subprocess.Popen[bytes], tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[Stack]:
    """The stack with its data folder and secrets, as docs/deploy.md has it."""
    folder = tmp_path_factory.mktemp("deployed")
    data = folder / "data"
    data.mkdir()
    write_photos(data / "photos", 2 * len(SHARDS))
    settings = {
        "sources": [{"kind": "folder", "name": "photos", "path": "photos", "shard_size": 2}],
        "captioners": [{"kind": "labels", "name": "labels"}],
        "image_text": None,
        "shards_per_run": 1,
        "concurrency": {"steps": 1},
    }
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    shutil.copytree(model_cache, data / "cache")
    run("chown", "-R", "10001", data)
    run(ROOT / "docker" / "make-secrets", folder / "secrets")
    # Docker is root, but those of the containers are not.
    for path in (folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o011)
    example = (ROOT / "docker" / ".env.example").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(\w+)=(.+)$", example, re.MULTILINE)) | {
        "DQE_FOLDER": str(data),
        "DQE_SECRETS": str(folder / "secrets"),
        "DOCKER_GROUP": str(SOCKET.stat().st_gid),
        "DQE_IMAGE": IMAGE,
        **{f"{name.upper()}_IMAGE": f"{name}:test" for name in ("postgres", "s3", "qdrant")},
    }
    running = Stack(f"http://127.0.0.1:{variables['DQE_PORT']}", data, docker, variables)
    try:
        running.compose("up", "--detach", "--no-build")
        poll("healthy services", _all_healthy, 900)
        yield running
    finally:
        (KEPT / "compose.log").write_text(running.compose("logs", "--no-color", "--tail", "400"))
        for container in running.runs():
            run("docker", "rm", "--force", container)
        running.compose("down", "--volumes", "--timeout", "5")


def _all_healthy() -> bool:
    ours = ["--all", "--filter", "label=com.docker.compose.project=dqetest"]
    states = run("docker", "ps", *ours, "--format", "{{.Names}} {{.Status}}").splitlines()
    assert not any("unhealthy" in one or "Exited" in one for one in states), states
    return len(states) == 6 and all("(healthy)" in one for one in states)


def test_shards_are_made_in_containers_and_one_that_is_killed_is_begun_again(stack: Stack) -> None:
    poll("shards", lambda: stack.shards() == SHARDS, 180)
    stack.backfill(ASSETS, SHARDS)
    (first, *_) = poll("run in a container", stack.runs, 180)
    assert run("docker", "exec", first, "id", "-u") == "10001\n"
    _expect_no_secret(stack)
    # Not before it has begun: that is another case, which a time-out is for.
    poll("begun run", lambda: stack.ask(STARTED)["runsOrError"]["results"], 180)
    run("docker", "kill", first)
    _picture(stack, "runs")
    ended = poll("end", lambda: [one for one in stack.backfills() if one["status"] in FINISHED], 1500)
    found = stack.ask("{runsOrError {... on Runs {results {runId status tags {key value}}}}}")["runsOrError"]["results"]
    events = [event for one in found for event in stack.events(one["runId"])]
    wrong = "\n".join(str(event) for event in events if "Failure" in event["__typename"])
    assert ended[0]["status"] == "COMPLETED_SUCCESS", wrong
    statuses = sorted(one["status"] for one in found)
    assert statuses == ["FAILURE", *["SUCCESS"] * len(SHARDS)]
    assert any(tag["key"] == "dagster/parent_run_id" for one in found for tag in one["tags"]), "one is begun again"

    said = stack.compose("exec", "-T", "code", "with-secrets", "python", "-c", LIST)
    listed = json.loads(said.splitlines()[-1])
    assert listed["rows"] == dict.fromkeys(SHARDS, 2)
    assert listed["shards"] == len(SHARDS)
    assert listed["logs"] > len(ASSETS), "the output of steps is in the bucket"
    found = json.loads(stack.compose("exec", "-T", "code", "with-secrets", "dqe", "search", "a photo", "--json"))
    assert len(found["hits"]) == 2 * len(SHARDS), "the collection on the server has all"
    asked = stack.compose("exec", "-T", "code", "python", "-c", ASK_WITHOUT_KEY)
    assert asked.strip() == "401", "the server wants its key"
    _picture(stack, "assets")


ASK_WITHOUT_KEY = """
import os, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(os.environ["DQE_QDRANT_URL"] + "/collections/captions/exists", timeout=10).status)
except urllib.error.HTTPError as refused:
    print(refused.code)
"""
STARTED = "{runsOrError(filter: {statuses: [STARTED]}) {... on Runs {results {runId}}}}"


def _expect_no_secret(stack: Stack) -> None:
    """Nothing that Docker says of a container has a secret in it."""
    secrets = stack.data.parent / "secrets"
    said = run("docker", "inspect", *run("docker", "ps", "--quiet").split())
    for path in secrets.iterdir():
        assert path.name == "s3.json" or path.read_text() not in said, path.name


def _picture(stack: Stack, page: str) -> None:
    """Keep how a page of the UI looks, where there is a browser."""
    if CHROMIUM is None:
        return
    from playwright.sync_api import sync_playwright

    script = stack.data.parent / "browser"
    script.write_text(f'#!/bin/sh\nexec {" ".join(stack.inside)} {CHROMIUM} "$@"\n')
    script.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=script, args=["--no-sandbox", "--disable-sync"])
        opened = browser.new_page(base_url=stack.url, viewport={"width": 1600, "height": 1000})
        opened.goto(f"/{page}")
        time.sleep(10)
        opened.screenshot(path=KEPT / f"{page}.png")
        browser.close()
