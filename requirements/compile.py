"""Writes what make installs: constraints.txt, and for each of its steps the versions and hashes.

    make constraints                                   # keeps the versions of constraints.txt, and adds what is new
    make constraints ARGS="--upgrade"                  # the newest of everything
    make constraints ARGS="--upgrade-package NAME"     # the newest of one

uv resolves pyproject.toml for the platforms that its [tool.uv] names. demo.txt is what ``make demo`` installs.
test.txt, lint.txt and docs.txt are what those steps install beside it, and served.txt is what docker/Dockerfile does.
cuda.txt is what torch needs beside demo.txt, unless it is a build for CPUs alone, whose hashes stand in cpu.txt
(written by hand: only PyTorch's own index has those builds). The hashes are those of all files of a version, for every
platform and Python.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parent / "pyproject.toml"
CONSTRAINTS = FOLDER.parent / "constraints.txt"
ALWAYS = ("sample", "ui")
SETS = {
    "demo": (),
    "test": ("test",),
    "lint": ("lint",),
    "docs": ("docs",),
    "served": ("clip", "hf", "s3", "served"),
}
"""For each of make's steps, and for the image that docker/ builds, its extras, beside those that are always there."""

_CUDA = re.compile(r"nvidia-|cuda-|triton==")
_PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def main(arguments: list[str]) -> None:
    """Resolve, and write all files."""
    everything = [*ALWAYS, *(extra for extras in SETS.values() for extra in extras)]
    # uv keeps the versions that it finds in the file that it writes.
    resolve(everything, *arguments, "--output-file", str(CONSTRAINTS))
    resolved = entries(CONSTRAINTS.read_text(encoding="utf-8"))
    pictures = compile_("--no-deps", "--generate-hashes", str(FOLDER / "pictures.in"))
    resolved = {name: simplified(entry) for name, entry in resolved.items()} | {name: name for name in pictures}
    write(CONSTRAINTS, "The versions that make installs.", resolved)
    demo: dict[str, str] = {}
    for name, extras in SETS.items():
        locked = resolve([*ALWAYS, *extras], "--generate-hashes", "--constraint", str(CONSTRAINTS))
        own = {package: entry for package, entry in locked.items() if package not in demo}
        if name == "demo":
            demo = own
            cuda = {package: entry for package, entry in own.items() if _CUDA.match(package)}
            own = {package: entry for package, entry in own.items() if package not in cuda} | pictures
            write(FOLDER / "cuda.txt", "What torch needs beside demo.txt, unless it is built for CPUs alone.", cuda)
        who = "docker/Dockerfile" if name == "served" else f"the step {name} of make"
        write(FOLDER / f"{name}.txt", f"What {who} installs.", own)


def resolve(extras: list[str], *options: str) -> dict[str, str]:
    """What these extras, the package itself and the building of it need, for every platform."""
    # What builds the package too: else pip would fetch that by itself, without a hash.
    build = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["build-system"]["requires"]
    named = [part for extra in extras for part in ("--extra", extra)]
    universal = ("--universal", "--python-version", "3.11.5", "--fork-strategy", "fewest")
    return compile_(*universal, *named, *options, str(PROJECT), "-", given="\n".join(build))


def compile_(*options: str, given: str = "") -> dict[str, str]:
    """The entries that uv gives for some inputs."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *options]
    found = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return {name: simplified(entry) for name, entry in entries(found.stdout).items()}


def entries(text: str) -> dict[str, str]:
    """By ``name==version``, the requirements of a file: each with its marker and hashes."""
    found = re.findall(r"^[^\s#].*(?:\n\s+.*)*", text, re.MULTILINE)
    return {pin(entry): entry for entry in found}


def pin(entry: str) -> str:
    """``name==version`` of a requirement."""
    return re.split(r"[\s;]", entry, maxsplit=1)[0]


def simplified(entry: str) -> str:
    """A requirement without a marker that holds on all platforms."""
    first, *hashes = entry.split(" \\\n")
    requirement = Requirement(first)
    environments = [
        {"sys_platform": system, "platform_machine": machine, "python_version": version}
        | {"python_full_version": f"{version}.9", "implementation_name": "cpython", "platform_system": system.title()}
        for (system, machine), version in product(_PLATFORMS, _PYTHONS)
    ]
    if requirement.marker is None or all(map(requirement.marker.evaluate, environments)):
        first = pin(first)
    elif all(requirement.marker.evaluate(known) == (known["sys_platform"] == "linux") for known in environments):
        first = f"{pin(first)} ; sys_platform == 'linux'"
    return " \\\n".join([first, *hashes])


def write(path: Path, said: str, content: Mapping[str, str]) -> None:
    """Write a file of requirements, in alphabetical order."""
    lines = [
        f"# {said} Written by make constraints.",
        *(content[name] for name in sorted(content, key=lambda name: name.split("=="))),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
