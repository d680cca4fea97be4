"""What docker/ says, against what is there: files, commands, variables, and Dagster's and compose's own checks."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "docker"
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "${DQE_IMAGE}"}
VARIABLES = dict(re.findall(r"^(\w+)=(.+)$", (FOLDER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_example_names_every_variable_of_the_compose_file_and_no_other() -> None:
    text = (FOLDER / "docker-compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!\$)\$\{(\w+)\}", text)) == set(VARIABLES)


@pytest.mark.parametrize("profile", [None, "gpu"])
def test_docker_compose_takes_the_file(profile: str | None, tmp_path: Path) -> None:
    command = _compose()
    with_profile = ["--profile", profile] if profile else []
    done = subprocess.run(
        [
            *command,
            "--file",
            FOLDER / "docker-compose.yaml",
            "--env-file",
            FOLDER / ".env.example",
            *with_profile,
            "config",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert found["services"]["webserver"]["image"] == VARIABLES["DQE_IMAGE"]
    assert not re.search(r"WARN|unset|not set", done.stderr), done.stderr


def _compose() -> list[str]:
    if found := shutil.which("docker-compose"):
        return [found]
    plugin = ["docker", "compose"]
    if shutil.which("docker") and not subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode:
        return plugin
    pytest.skip("no docker-compose (Debian: apt-get install docker-compose)")


def test_what_the_services_refer_to_is_there() -> None:
    services = COMPOSE["services"]
    assert all("healthcheck" in service for service in services.values())
    for service in services.values():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert {one["source"] for one in service.get("secrets", [])} <= set(COMPOSE["secrets"])
        mounted = {one.partition(":")[0] for one in service.get("volumes", [])} - {"/var/run/docker.sock"}
        assert mounted <= set(COMPOSE["volumes"])
        for other, condition in service.get("depends_on", {}).items():
            assert services[other].get("profiles") == service.get("profiles")
            assert condition == {"condition": "service_healthy"}
    gpu = {name for name, service in services.items() if service.get("profiles") == ["gpu"]}
    assert gpu == {"captions", "engine"}
    assert services["engine"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_nothing_but_the_ui_is_published_and_that_to_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:${DQE_PORT}:3000"]}


def test_no_secret_stands_in_an_environment() -> None:
    names = {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    secret = {name for name in names if re.search("PASSWORD|SECRET|KEY|TOKEN", name)}
    assert secret == {"POSTGRES_PASSWORD_FILE"}


@pytest.mark.parametrize("name", OURS)
def test_the_commands_are_there_with_their_options(name: str) -> None:
    _parse(OURS[name]["command"])
    kind, *check = OURS[name]["healthcheck"]["test"]
    assert kind == "CMD"
    if check[0] == "with-secrets":
        check = check[1:]
    if check[0] == "python":
        compile(check[2], "healthcheck", "exec")
    else:
        _parse(check)


def _parse(command: list[str]) -> None:
    """Have click take a command line apart, and run nothing."""
    pytest.importorskip("dagster_webserver", reason="the extra 'ui' is not installed")
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import dagster_webserver

    found: Any = {
        "dagster": create_dagster_cli,
        "dagster-daemon": create_dagster_daemon_cli,
        "dagster-webserver": lambda: dagster_webserver,
    }[command[0]]()
    arguments = [one.replace("/opt/dagster/", f"{FOLDER}/") for one in command[1:]]
    while hasattr(found, "commands"):
        found, arguments = found.commands[arguments[0]], arguments[1:]
    # Options that it does not know would raise; one that is a group's name without a command would be left over.
    assert not found.make_context(command[0], arguments).args


def test_the_dockerfile_copies_only_what_is_there_and_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "*"
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
        for name in line.split()
    ]
    assert len(copied) > 5
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch.fnmatch(name, one) or one.startswith(f"{name}/") for one in kept), f"{name} is ignored"
    for one in kept:
        assert list(ROOT.glob(one)), one
    assert os.access(FOLDER / "with-secrets", os.X_OK)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster folder as it is in a container."""
    for name in ("dagster_aws", "dagster_docker", "dagster_postgres"):
        pytest.importorskip(name, reason="the extra 'served' is not installed")
    shutil.copy(FOLDER / "dagster.yaml", tmp_path)
    given = COMPOSE["x-environment"] | {"DQE_POSTGRES_PASSWORD": "secret", "DQE_S3_URL": VARIABLES["DQE_S3_URL"]}
    for name, value in given.items():
        monkeypatch.setenv(name, re.sub(r"\$\{(\w+)\}", lambda found: VARIABLES[found[1]], value))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return tmp_path


def test_dagster_takes_its_configuration(home: Path) -> None:
    from dagster._core.instance.config import dagster_instance_config
    from dagster._core.instance.ref import InstanceRef

    loaded, _ = dagster_instance_config(str(home))
    assert loaded["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}
    reference = InstanceRef.from_dir(str(home))
    assert type(reference.run_launcher).__name__ == "DockerRunLauncher"
    assert type(reference.compute_log_manager).__name__ == "S3ComputeLogManager"
    assert type(reference.run_coordinator).__name__ == "QueuedRunCoordinator"


def test_a_run_has_what_the_code_server_has() -> None:
    launcher = yaml.safe_load((FOLDER / "dagster.yaml").read_text(encoding="utf-8"))["run_launcher"]["config"]
    assert {*launcher["env_vars"], "DAGSTER_CURRENT_IMAGE"} == set(COMPOSE["x-environment"])
    assert launcher["network"] == COMPOSE["networks"]["dqe"]["name"]
    named = [f"{COMPOSE['volumes'][volume]['name']}:{rest}" for volume, _, rest in _mounts("code")]
    assert launcher["container_kwargs"]["volumes"] == named


def _mounts(service: str) -> list[tuple[str, str, str]]:
    return [one.partition(":") for one in COMPOSE["services"][service]["volumes"]]


def test_the_workspace_is_the_code_server() -> None:
    (location,) = yaml.safe_load((FOLDER / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert location["grpc_server"]["host"] in COMPOSE["services"]
    assert str(location["grpc_server"]["port"]) in OURS["code"]["command"]


def test_secrets_are_made_once_and_reach_a_command(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("to give the files to another user takes root")
    subprocess.run([FOLDER / "make-secrets", tmp_path / "secrets"], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    subprocess.run([FOLDER / "make-secrets", tmp_path / "secrets"], check=True)
    assert made == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    (keys,) = yaml.safe_load(made.pop("s3.json"))["identities"]
    assert keys["credentials"] == [{"accessKey": made["AWS_ACCESS_KEY_ID"], "secretKey": made["AWS_SECRET_ACCESS_KEY"]}]
    assert {path.stat().st_uid for path in (tmp_path / "secrets").iterdir()} == {10001}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "secrets").iterdir()} == {0o600}

    script = (FOLDER / "with-secrets").read_text().replace("/run/secrets", str(tmp_path / "secrets"))
    (tmp_path / "with-secrets").write_text(script)
    done = subprocess.run(["sh", tmp_path / "with-secrets", "env"], capture_output=True, text=True, check=True)
    assert made.items() <= dict(line.partition("=")[::2] for line in done.stdout.splitlines()).items()
