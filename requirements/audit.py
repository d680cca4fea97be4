"""Names what is known to be vulnerable among what make installs.

    make audit                                           # asks the package index
    make audit ARGS="--vulnerability-service osv"        # further options go to pip-audit

pip-audit looks up each version of the lists in this folder, and installs nothing. The exit status is 1 if it finds
something, or fails. What it cannot look up is skipped, and said: the index may not be reached, or be a copy that knows
nothing of vulnerabilities.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

LISTS = ("demo", "cuda", "test", "lint", "docs", "served")

_NOT_REACHED = re.compile("ConnectionError|Timeout|ServiceError|blocking this service")


def main(arguments: list[str], folder: Path = Path(__file__).parent) -> int:
    """Audit each list by itself, so that one that fails hides nothing of another."""
    bad = [name for name in LISTS if not is_clean(folder / f"{name}.txt", arguments)]
    if bad:
        print('A newer version: make constraints ARGS="--upgrade-package NAME"')
    return int(bool(bad))


def is_clean(path: Path, arguments: list[str]) -> bool:
    """Audit a list and print what is found; whether nothing was, as far as it could be looked up."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off"]
    found = subprocess.run(
        [*command, "--format=json", f"--requirement={path}", *arguments], capture_output=True, text=True, check=False
    )
    if not found.stdout.strip():
        said = found.stderr.strip().rpartition("\n")[2]
        is_away = _NOT_REACHED.search(found.stderr) is not None
        print(f"{path.name}: {'skipped: what is vulnerable cannot be looked up' if is_away else 'failed'}: {said}")
        return is_away
    packages = json.loads(found.stdout)["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    findings = [(package, one) for package in packages for one in package.get("vulns", ())]
    for package, one in findings:
        mended = ", ".join(one["fix_versions"]) or "no version yet"
        print(f"{path.name}: {package['name']} {package['version']}: {one['id']}, mended in {mended}")
    if len(unknown) < len(packages):
        print(f"{path.name}: {len(findings)} vulnerabilities in {len(packages) - len(unknown)} packages")
    if unknown:
        named = ", ".join(unknown) if len(unknown) < len(packages) else f"all {len(packages)}"
        print(f"{path.name}: skipped, as the index says nothing of their versions: {named}")
    return not findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
