"""``transformers serve`` as a process of its own on a tiny model: started, asked, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.servers.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_START_SECONDS = 120

# torchvision is hidden: a build for CUDA does not decode images next to a torch for the CPU, and transformers
# does without it. One thread, since the tests and what they start share few cores.
_LAUNCH = """
import sys
sys.modules["torchvision"] = None
import torch
torch.set_num_threads(1)
from transformers.cli.transformers import main
main()
"""


def skip_unless_installed() -> None:
    """Skip where transformers' serving dependencies are not there."""
    missing = [name for name in ("fastapi", "openai", "uvicorn") if find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: install the extra 'test'")


class TransformersServer:
    """One server on one port of the loopback interface.

    Attributes:
        model: folder of the model, which is also its name in requests.
        url: base URL of the API, with /v1.
    """

    def __init__(self, model: Path, logs: Path) -> None:
        self.model = str(model)
        self._port = free_port()
        self._log = logs / "transformers-serve.log"
        self._cache = logs / "hub"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start the process, and wait until it answers."""
        self._cache.mkdir(exist_ok=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(self._cache), "TQDM_DISABLE": "1"}
        command = [sys.executable, "-c", _LAUNCH, "serve", self.model]
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--device", "cpu"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command + options, env=environment, stdout=log, stderr=subprocess.STDOUT)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers; fails with the end of its log."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        pytest.fail(f"transformers serve did not start; the end of its log:\n{self.log()[-3000:]}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def requests(self) -> int:
        """How many captions it was asked for, since it was first started."""
        return self.log().count("POST /v1/chat/completions")

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")
