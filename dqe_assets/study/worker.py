"""One job of a study, in a process of its own: it says what it has made, and what went wrong."""

from __future__ import annotations

import ctypes
import multiprocessing
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
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings
    from dqe_resources.progress import Step

MADE, FAILED = "made", "failed"

TEACH, PREPARE, TRAIN, EVALUATE, RETRIEVE, ADD, FOLLOW, FIT = (
    "teach",
    "prepare",
    "train",
    "evaluate",
    "retrieve",
    "add",
    "follow",
    "fit",
)
"""What can be done: training runs and all that they need; all up to the training data; some training runs; all that
follows; which concepts a pool shows, and how well captions fit; everything, training runs included; training runs and
what the law says of their curves; and what it says of given curves."""

RESULTS = ("leaderboard", "concept_accuracies")
SCALING = ("measured_mixtures", "filter_recommendation")
"""What a study wants of the platform, with all that these are made of: always, and where curves are trained for it."""

_TRAINING = "training_run"
_WANTED = {TEACH: (_TRAINING,), RETRIEVE: ("concept_hits", "caption_scores"), FOLLOW: ("training_curves",), FIT: ()}

_SIGNAL_WHEN_PARENT_ENDS = 1


def assets_of(stages: Sequence[Stage], phase: str, more: Sequence[str] = ()) -> list[str]:
    """The assets that a phase makes, in order.

    Args:
        stages: each after what it reads.
        phase: one of those above.
        more: what is wanted besides.
    """
    if phase == TRAIN:
        return [_TRAINING]
    wanted = {*_WANTED.get(phase, (_TRAINING, *RESULTS)), *more}
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


def work(says: Connection, folder: Path, log: str, phase: str, runs: Sequence[str]) -> None:
    """What a process of a study does, from its beginning to its end.

    Args:
        says: is sent ``(MADE, what)`` for each step, and ``(FAILED, why)``.
        folder: the data folder.
        log: name of the file in it for all that is printed.
        phase: one of those above.
        runs: the training runs to make; all if there are none.
    """
    _end_with_parent()
    written = os.open(folder / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(written, stream)
    os.environ |= {"DQE_DATA": str(folder), "DAGSTER_HOME": str(folder / "dagster_home")}
    with stopping.stoppable("stopped"):
        failures = _made(phase, runs, lambda what: says.send((MADE, what)))
        for failure in failures:
            says.send((FAILED, failure))
    sys.exit(1 if failures else 0)


def _made(phase: str, runs: Sequence[str], tell: Callable[[str], None]) -> Sequence[str]:
    """Makes what belongs to a phase; returns what went wrong."""

    def listen(step: Step) -> None:
        if step.outcome is not None and not step.outcome.startswith("current"):
            tell(f"{step.asset} {step.partition or ''}".rstrip())

    try:
        settings = load_settings()
        with instance(settings.concurrency) as current, progress.listen(listen):
            runner.sync(settings, current)
            stages = graph.stages(settings)
            assets = assets_of(stages, phase)
            failures = (
                _failures(runner.materialize(settings, current, assets=assets, runs=runs), settings) if assets else []
            )
            has_law = phase in {FOLLOW, FIT} or (phase == EVALUATE and settings.scaling.is_trained)
            if has_law and not failures:
                law = [name for name in assets_of(stages, phase, SCALING) if name not in assets]
                failures = _failures(runner.materialize(settings, current, assets=law), settings)
                if not is_described(Store(str(data_directory() / "store"))):
                    failures = []
    except DataQualityError as error:
        return [str(error)]
    return failures


def is_described(store: Store) -> bool:
    """Whether the law describes the curves of a seed: that it does not is a finding, and no failure."""
    fitted = store.get("pool_utilities", None)
    return fitted is None or not fitted.stamp.failed_checks


def _failures(outcome: runner.Outcome, settings: Settings) -> list[str]:
    return [*runner.ended_in_words(outcome, settings), *outcome.failures, *outcome.unread.values()]


def _end_with_parent() -> None:
    """Have the system end this process with the one that forked it, which ends with the study, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL)
    study = multiprocessing.parent_process()
    if study is None or not study.is_alive():
        sys.exit("the study has ended")
