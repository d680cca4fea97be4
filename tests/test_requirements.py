"""What make installs: pinned, with the hash of each file, and nothing else."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "requirements"
STEPS = {
    "demo": ("sample", "ui"),
    "test": ("test",),
    "lint": ("lint",),
    "docs": ("docs",),
    "served": ("clip", "hf", "s3", "served"),
}


def module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


compile_ = module("compile")


def locked(name: str) -> dict[str, Requirement]:
    """The requirements of a list by their names, without their hashes."""
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    found = [Requirement(entry.partition(" \\\n")[0]) for entry in compile_.entries(text).values()]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("name", [*STEPS, "cuda", "cpu"])
def test_every_entry_is_one_version_with_hashes(name: str) -> None:
    entries = compile_.entries((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))
    for entry in entries.values():
        first, *hashes = entry.split(" \\\n")
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.+]+( ; .+)?", first), first
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
    assert entries


@pytest.mark.parametrize("step", STEPS)
def test_all_that_pyproject_names_is_locked_in_its_bounds(step: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    wanted = [*project["dependencies"], *settings["build-system"]["requires"]] if step == "demo" else []
    wanted += [one for extra in STEPS[step] for one in project["optional-dependencies"][extra]]
    known = {name: one for some in ("demo", step) for name, one in locked(some).items()}
    for requirement in map(Requirement, wanted):
        version = str(known[canonicalize_name(requirement.name)].specifier).removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement}: run make constraints"


def test_the_lists_and_the_constraints_agree() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    of_lists = {str(one) for name in (*STEPS, "cuda") for one in locked(name).values()}
    assert {str(Requirement(line)) for line in constraints.splitlines() if not line.startswith("#")} == of_lists


def test_make_installs_nothing_but_the_lists() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    image = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs == ["PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps"]
    of_pip = [line for line in text.splitlines() if "$(PIP)" in line]
    assert of_pip == [
        "LOCKED := $(PIP) --require-hashes --only-binary :all: --requirement",
        "THIS := $(PIP) --no-build-isolation --editable .",
    ]
    assert set(re.findall(r"\$\(LOCKED\) requirements/(\w+)\.txt", text)) == {*STEPS, "cpu", "cuda"} - {"served"}
    assert (
        image.count("pip install")
        == image.count("pip install --quiet --no-deps --require-hashes --only-binary :all:") + 1
    )
    assert set(re.findall(r"\$locked requirements/(\w+)\.txt", image)) == {"cpu", "cuda", "demo", "served"}


def test_a_build_of_torch_for_cpus_alone_is_known() -> None:
    cpu = Version(str(locked("cpu")["torch"].specifier).removeprefix("=="))
    assert cpu.local == "cpu"
    assert cpu.public == str(locked("demo")["torch"].specifier).removeprefix("=="), "mend requirements/cpu.txt"
    folders = [Path(folder) for folder in os.environ.get("PIP_FIND_LINKS", "").split()]
    wheels = [path for folder in folders if folder.is_dir() for path in folder.glob(f"torch-{cpu}-cp31?-*.whl")]
    if not wheels:
        pytest.skip("no wheel of it in PIP_FIND_LINKS")
    known = (FOLDER / "cpu.txt").read_text(encoding="utf-8")
    for wheel in wheels:
        with wheel.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() in known


def test_a_marker_that_always_holds_is_left_out() -> None:
    hashes = " \\\n    --hash=sha256:00"
    always = "sys_platform == 'linux' or (sys_platform == 'darwin' and platform_machine == 'arm64')"
    assert compile_.simplified(f"a==1 ; {always}{hashes}") == f"a==1{hashes}"
    on_linux = "platform_machine != 'arm64' and sys_platform == 'linux'"
    assert compile_.simplified(f"a==1 ; {on_linux}{hashes}") == f"a==1 ; sys_platform == 'linux'{hashes}"
    newest = "python_full_version == '3.14.*'"
    assert compile_.simplified(f"a==1 ; {newest}") == f"a==1 ; {newest}"


def test_the_models_have_the_hashes_that_the_documentation_gives() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for name, digest in rows:
        package, _, path = name.partition("/")
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        with (Path(spec.origin).parent / path).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest, name


def test_the_documentation_has_the_versions_that_are_installed() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` ([\d.]+) \|", text, re.MULTILINE)
    assert len(rows) == 11
    known = {name: one for step in STEPS for name, one in locked(step).items()}
    assert {name: str(known[name].specifier) for name, _ in rows} == {name: f"=={version}" for name, version in rows}


@pytest.fixture
def vulnerabilities() -> Iterator[str]:
    """A service on this machine in the form of OSV, which says that one package is vulnerable."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}]
            affected = [{"package": asked["package"], "ranges": ranges}]
            found = {"id": "PYSEC-2026-1", "published": "2026-01-01T00:00:00Z", "affected": affected}
            content = json.dumps({"vulns": [found]} if asked["package"]["name"] == "torn" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def test_the_audit_fails_for_a_finding_and_skips_what_it_cannot_ask(
    tmp_path: Path, vulnerabilities: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip_audit", reason="needs pip-audit: make lint installs it")
    audit = module("audit")
    monkeypatch.setattr(audit, "LISTS", ("cuda", "docs"))
    cuda, docs = (tmp_path / f"{name}.txt" for name in audit.LISTS)
    hashed = f"--hash=sha256:{'0' * 64}"
    cuda.write_text(f"torn==1.0 {hashed}\nwhole==1.0 {hashed}\n", encoding="utf-8")
    docs.write_text(f"whole==1.0 {hashed}\n", encoding="utf-8")
    here = ["--vulnerability-service=osv", f"--osv-url={vulnerabilities}", f"--cache-dir={tmp_path / 'cache'}"]
    assert audit.main(here, tmp_path) == 1
    said = capsys.readouterr().out
    assert "cuda.txt: torn 1.0: PYSEC-2026-1, mended in 2.0\n" in said
    assert "cuda.txt: 1 vulnerabilities in 2 packages" in said
    assert "docs.txt: 0 vulnerabilities in 1 packages" in said

    assert audit.is_clean(docs, ["--vulnerability-service=osv", "--osv-url=http://127.0.0.1:9/"])
    assert "docs.txt: skipped: what is vulnerable cannot be looked up: " in capsys.readouterr().out

    docs.write_text("not a requirement\n", encoding="utf-8")
    assert not audit.is_clean(docs, here)
    assert "docs.txt: failed: " in capsys.readouterr().out
