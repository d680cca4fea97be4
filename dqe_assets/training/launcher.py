"""Runs open_clip_train with what it needs on this machine, in a process of its own: ``python -m`` or ``torchrun -m``.

What is told to it comes in the environment (see ``open_clip_run``), since its arguments are those of open_clip_train.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOLD = "DQE_TRAINING_LAUNCH"
"""The variable that holds, as JSON, ``configuration``, ``captions`` and ``memory``."""


def main(arguments: Sequence[str]) -> int:
    """Train; returns the exit status.

    Args:
        arguments: those of open_clip_train.
    """
    told = json.loads(os.environ[TOLD])
    threading.Thread(target=_end_with_starter, daemon=True).start()
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import open_clip_train.main as program
    import torch

    if told["configuration"]:
        import open_clip

        open_clip.add_model_config(told["configuration"])
    _read_tars()
    _write_whole(torch)
    if len(told["captions"]) > 1:
        program.get_tokenizer = partial(_drawing, program.get_tokenizer, told["captions"])
    failed = program.main(list(arguments)) == -1
    if torch.cuda.is_available():
        path = Path(told["memory"]).with_name(f"memory-{os.environ.get('RANK', '0')}.json")
        path.write_text(json.dumps({"bytes": torch.cuda.max_memory_allocated()}), encoding="utf-8")
    return int(failed)


def _end_with_starter() -> None:
    """Die, with the loaders, once whoever started this is gone: it holds the other end of the standard input."""
    # Not by sys.stdin: its lock, held here, would never be free in a process that is forked meanwhile.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _read_tars() -> None:
    """Since webdataset 1.0, its tar reader ends each tar with a mark that open_clip_train takes for a file."""
    import inspect

    from open_clip_train import data

    if "eof_value" in inspect.signature(data.tar_file_expander).parameters:
        data.tar_file_expander = partial(data.tar_file_expander, eof_value=None)


def _write_whole(torch: Any) -> None:
    """Let a checkpoint appear under its name once it is whole: it is resumed from the newest that is there."""
    save = torch.save

    def save_whole(checkpoint: Any, path: str) -> None:
        partial_path = f"{path}.tmp"
        save(checkpoint, partial_path)
        Path(partial_path).replace(path)

    torch.save = save_whole


def _drawing(get_tokenizer: Callable[..., Any], captions: dict[str, float], *arguments: Any, **named: Any) -> Any:
    """A tokenizer of JSON objects of several captions by kind, of which it draws one each time."""
    tokenizer = get_tokenizer(*arguments, **named)

    def tokens(text: str) -> Any:
        found = json.loads(text)
        kinds = [kind for kind in captions if kind in found]
        (kind,) = random.choices(kinds, [captions[one] for one in kinds])  # noqa: S311 - no secret depends on it
        return tokenizer(found[kind])

    return tokens


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
