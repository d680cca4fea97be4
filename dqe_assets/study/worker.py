"""One job of a study in a process of its own: ``python -m dqe_assets.study.worker PARENT prepare``.

It works on the data folder ``DQE_DATA``, and prints a line of JSON for each thing that it has made or that went wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_resources import progress, stopping
from dqe_resources.cache import data_directory
from dqe_resources.errors import DataQualityError
from dqe_resources.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.progress import Step

MADE, FAILED = "made", "failed"

TEACH, PREPARE, TRAIN, EVALUATE, RETRIEVE, ADD = "teach", "prepare", "train", "evaluate", "retrieve", "add"
"""What can be done: training runs and all that they need; all up to the training data; some training runs; all that
follows; which concepts a pool shows, and how well captions fit; and everything, training runs included."""

RESULTS = ("leaderboard", "concept_accuracies")
SCALING = ("measured_mixtures", "filter_recommendation")
"""What a study wants of the platform, with all that these are made of: always, and where curves are trained for it."""

_TRAINING = "training_run"
_WANTED = {TEACH: (_TRAINING,), RETRIEVE: ("concept_hits", "caption_scores")}

_SIGNAL_WHEN_PARENT_ENDS = 1


def assets_of(stages: Sequence[Stage], phase: str, results: Sequence[str] = RESULTS) -> list[str]:
    """The assets that a phase makes, in order.

    Args:
        stages: each after what it reads.
        phase: one of those above.
        results: what is wanted in the end.
    """
    if phase == TRAIN:
        return [_TRAINING]
    wanted = {*_WANTED.get(phase, (_TRAINING, *results))}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted.update(_inputs(stage))
    trained = {_TRAINING}
    for stage in stages:
        if trained.intersection(_inputs(stage)):
            trained.add(stage.name)
    made = [stage.name for stage in stages if stage.name in wanted]
    if phase not in {PREPARE, EVALUATE}:
        return made
    return [name for name in made if name != _TRAINING and (name in trained) == (phase == EVALUATE)]


def _inputs(stage: Stage) -> tuple[str, ...]:
    return (*stage.inputs, *stage.unpartitioned_inputs, *stage.run_inputs)


def main(phase: str, runs: Sequence[str]) -> int:
    """Make what belongs to a phase; returns the exit code.

    Args:
        phase: one of those above.
        runs: the training runs to make; all by default.
    """
    try:
        settings = load_settings()
        with instance(settings.concurrency) as current, progress.listen(_tell):
            runner.sync(settings, current)
            stages = graph.stages(settings)
            assets = assets_of(stages, phase)
            failures = _failures(runner.materialize(settings, current, assets=assets, runs=runs), settings)
            if phase == EVALUATE and settings.scaling.is_trained and not failures:
                law = [name for name in assets_of(stages, phase, SCALING) if name not in assets]
                failures = _failures(runner.materialize(settings, current, assets=law), settings)
                if not is_described(Store(str(data_directory() / "store"))):
                    failures = []
    except DataQualityError as error:
        _print(FAILED, str(error))
        return 1
    for failure in failures:
        _print(FAILED, failure)
    return 1 if failures else 0


def is_described(store: Store) -> bool:
    """Whether the law describes the curves of a seed: that it does not is a finding, and no failure."""
    fitted = store.get("pool_utilities", None)
    return fitted is None or not fitted.stamp.failed_checks


def _failures(outcome: runner.Outcome, settings: Settings) -> list[str]:
    return [*runner.ended_in_words(outcome, settings), *outcome.failures, *outcome.unread.values()]


def _tell(step: Step) -> None:
    if step.outcome is not None and not step.outcome.startswith("current"):
        _print(MADE, f"{step.asset} {step.partition or ''}".rstrip())


def _print(what: str, text: str) -> None:
    print(json.dumps({what: text}), flush=True)  # noqa: T201 - what this process is read for


def _end_with_parent(parent: int) -> None:
    """Have the system end this process with the one that started it, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the study has ended")


if __name__ == "__main__":
    _end_with_parent(int(sys.argv[1]))
    with stopping.stoppable("stopped"):
        sys.exit(main(sys.argv[2], sys.argv[3:]))
