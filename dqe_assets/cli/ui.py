"""``dqe ui``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from dqe_assets.cli.terminal import clear_errors, fail

WORKSPACE = Path("workspace.yaml")

SUPERSEDED = "ignore:Function `dev_command` is superseded:FutureWarning"
"""Of ``dagster dev``: what takes its place is another program to install."""


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of 127.0.0.1 to listen on.")] = 3000,
) -> None:
    """Start Dagster's UI and its daemon, on this machine alone."""
    with clear_errors():
        from importlib.util import find_spec

        from dqe_assets.orchestration.instance import instance
        from dqe_assets.orchestration.settings import load_settings

        if find_spec("dagster_webserver") is None:
            fail("the UI is not installed; run: pip install '.[ui]'")
        settings = load_settings(sources_may_be_away=True)
        with instance(settings.concurrency):
            pass
        where = ["--workspace", str(WORKSPACE)] if WORKSPACE.exists() else ["--module-name", "dqe_assets.definitions"]
        address = ["--host", "127.0.0.1", "--port", str(port)]
        ignored = [*filter(None, [os.environ.get("PYTHONWARNINGS")]), SUPERSEDED]
        os.environ["PYTHONWARNINGS"] = ",".join(ignored)
        os.execv(sys.executable, [sys.executable, "-m", "dagster", "dev", *where, *address])  # noqa: S606 - in its place
