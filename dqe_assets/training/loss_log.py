"""The log of a training: what was seen at some of its steps. One form, whoever trains."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from pathlib import Path

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class LogLine:
    """What is known of a training at one of its steps.

    Attributes:
        step: steps that were taken.
        samples_seen: repetitions counted.
        loss: mean over the steps since the line before; of open_clip_train, of this step alone.
        learning_rate: of this step.
        logit_scale: what a cosine is multiplied by.
        seconds: since the line before.
        waited: of these, for samples to be read.
    """

    step: int
    samples_seen: int
    loss: float
    learning_rate: float
    logit_scale: float
    seconds: float
    waited: float


def append_line(folder: Path, line: LogLine) -> None:
    """Add a line to the log of a run."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(asdict(line)) + "\n")


def read_log(folder: Path) -> list[LogLine]:
    """The log of a run; a line that a kill has torn is left out."""
    path, lines = folder / LOG, []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(LogLine(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return lines


def keep_log(folder: Path, step: int) -> None:
    """Leave only the lines up to a step: those after it are written again."""
    kept = "".join(json.dumps(asdict(line)) + "\n" for line in read_log(folder) if line.step <= step)
    replace_file(folder / LOG, lambda target: target.write(kept.encode()))
