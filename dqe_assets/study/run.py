"""Has the jobs of a study done, several at once, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from dqe_assets.study import worker
from dqe_assets.study.files import (
    write_added,
    write_captioner,
    write_clean,
    write_law,
    write_scorer,
    write_second,
    write_seed,
)
from dqe_assets.study.plan import ADDED, CLEAN_POINTS, CURVE, POINTS, StudyError, run_key
from dqe_resources.locks import folder_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext, ForkServerProcess
    from pathlib import Path

    from dqe_assets.study.findings import Law
    from dqe_assets.study.plan import Study

_BEGIN_SECONDS = 8.0
_ROW_SECONDS = 0.034
_SAMPLE_SEEN_SECONDS = 1 / 1_000
_EVALUATION_SECONDS = 2.0
_SECOND_ROW_SECONDS = 0.004
"""What things take on one core: only how long the rest will take is told by them."""

LOG = "log.txt"

_ENDED = "ended"

_THREADS = "OMP_NUM_THREADS"

_PHASES = (
    worker.TEACH,
    worker.FOLLOW,
    worker.PREPARE,
    worker.TRAIN,
    worker.EVALUATE,
    worker.RETRIEVE,
    worker.ADD,
    worker.FIT,
)


@dataclass(frozen=True, slots=True)
class Job:
    """Something that one process does.

    Attributes:
        name: for people; no other has it.
        folder: the data folder.
        phase: what is done there.
        runs: the training runs to make, if not all.
        after: names of jobs that it waits for.
        write: writes its folder's settings, and what of it depends on those jobs.
        steps: assets and partitions that it makes, about.
        seconds: how long it takes on one core, about.
    """

    name: str
    folder: Path
    phase: str
    runs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    write: Callable[[], None] | None = None
    steps: int = 1
    seconds: float = 1.0


@dataclass
class Progress:
    """How far a study is.

    Attributes:
        total: seconds of one core that all take, about, but those in which everything was current.
        began: when it began, by ``time.monotonic``.
        done: of the total, by job.
        steps: how many were made, by job.
    """

    total: float
    began: float
    done: dict[str, float] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)

    def has_made(self, job: Job) -> None:
        """A job has made one of its steps."""
        self.steps[job.name] += 1
        self.done[job.name] = job.seconds * min(0.95, self.steps[job.name] / job.steps)

    def has_ended(self, job: Job) -> None:
        """A job has ended."""
        if job.name in self.steps:
            self.done[job.name] = job.seconds
        else:
            # All of it was current: that says nothing of how fast the rest will be.
            self.total -= job.seconds

    @property
    def share(self) -> float:
        """Of all work, 0 to 1."""
        return min(1.0, sum(self.done.values()) / self.total) if self.total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """As fast as until now; None in the first moments."""
        passed = time.monotonic() - self.began
        return passed * (1 - self.share) / self.share if self.share > 0.02 else None


def jobs_of(study: Study, at_once: int) -> list[Job]:
    """The jobs, each after those that it waits for; the trainings of a seed are dealt out to several processes.

    What can only be done by one process for each seed comes first, so that none waits for it in the end.
    """
    size, jobs = study.size, list[Job]()
    for seed in study.seeds:
        folder, rows = study.seed_folder(seed), size.rows
        taught = [_teaching(study, seed, "scorer", study.scorer_folder(seed), write_scorer)]
        if study.has_captioner:
            taught.append(_teaching(study, seed, "captioner", study.captioner_folder(seed), write_captioner))
        prepared = Job(
            f"seed {seed}: pool, scores and subsets",
            folder,
            worker.PREPARE,
            write=partial(write_seed, study, seed),
            steps=30 + 2 * len(study.arms),
            seconds=_BEGIN_SECONDS + rows * _ROW_SECONDS,
        )
        # The longest first: so the processes end at about the same time.
        law = study.law.arms if study.law else ()
        runs = [(run_key(arm, seed, CURVE), size.curve_samples_seen, POINTS) for arm in law]
        runs += [(run_key(arm, seed), size.samples_seen, 1) for arm in study.arms if not arm.is_added_to]
        runs.sort(key=lambda run: -run[1])
        trained = [
            Job(
                f"seed {seed}: models {number} of {at_once}",
                folder,
                worker.TRAIN,
                tuple(key for key, _, _ in part),
                steps=len(part),
                seconds=_BEGIN_SECONDS + sum(seen for _, seen, _ in part) * _SAMPLE_SEEN_SECONDS,
            )
            for number in range(1, at_once + 1)
            if (part := runs[number - 1 :: at_once])
        ]
        evaluated = Job(
            f"seed {seed}: evaluation",
            folder,
            worker.EVALUATE,
            steps=len(runs) + 2,
            seconds=_BEGIN_SECONDS + sum(points for _, _, points in runs) * _EVALUATION_SECONDS,
        )
        jobs += _in_turn([taught, [prepared], trained, [evaluated]])
        if study.clean:
            jobs.append(_followed(study, study.clean, seed, after=taught[0].name))
        if study.addition:
            jobs += _addition(study, seed, after=prepared.name)
    if study.clean:
        jobs.append(
            Job(
                "law of all seeds",
                study.law_folder,
                worker.FIT,
                after=tuple(job.name for job in jobs if job.phase == worker.FOLLOW),
                write=partial(write_law, study, study.clean),
                steps=3,
                seconds=_BEGIN_SECONDS,
            )
        )
    return sorted(jobs, key=lambda job: _PHASES.index(job.phase))


def _teaching(study: Study, seed: int, what: str, folder: Path, write: Callable[[Study, int], None]) -> Job:
    """The training of a model that judges or captions."""
    seconds = _BEGIN_SECONDS + study.size.scorer_samples_seen * _SAMPLE_SEEN_SECONDS
    return Job(
        f"seed {seed}: {what}", folder, worker.TEACH, write=partial(write, study, seed), steps=6, seconds=seconds
    )


def _followed(study: Study, law: Law, seed: int, after: str) -> Job:
    """The clean pool, with all that is followed on it."""
    size, models = study.size, len(law.arms)
    return Job(
        f"seed {seed}: clean pool",
        study.clean_folder(seed),
        worker.FOLLOW,
        after=(after,),
        write=partial(write_clean, study, law, seed),
        steps=20 + 4 * models,
        seconds=_BEGIN_SECONDS
        + len(law.parts) * size.clean_rows * _SECOND_ROW_SECONDS
        + models * (size.clean_samples_seen * _SAMPLE_SEEN_SECONDS + CLEAN_POINTS * _EVALUATION_SECONDS),
    )


def _addition(study: Study, seed: int, after: str) -> list[Job]:
    """What is added from the second pool, and the models that are trained with it."""
    size, arms = study.size, sum(arm.is_added_to for arm in study.arms)
    retrieved = Job(
        f"seed {seed}: second pool",
        study.second_folder(seed),
        worker.RETRIEVE,
        after=(after,),
        write=partial(write_second, study, seed),
        steps=14,
        seconds=_BEGIN_SECONDS + size.second_rows * _SECOND_ROW_SECONDS,
    )
    added = Job(
        f"seed {seed}: models with samples of the second pool",
        study.seed_folder(seed) / ADDED,
        worker.ADD,
        after=(retrieved.name,),
        write=partial(write_added, study, seed),
        steps=18,
        seconds=_BEGIN_SECONDS + arms * (size.samples_seen * _SAMPLE_SEEN_SECONDS + _EVALUATION_SECONDS),
    )
    return [retrieved, added]


def _in_turn(groups: Sequence[Sequence[Job]]) -> list[Job]:
    """The jobs, those of each group after all of the group before."""
    found: list[Job] = []
    before: tuple[str, ...] = ()
    for group in groups:
        found += [replace(job, after=before) for job in group]
        before = tuple(job.name for job in group)
    return found


def run(study: Study, tell: Callable[[Progress, str, str], None], at_once: int | None = None) -> None:
    """Make everything that is missing or no longer current; killed, the same call goes on.

    Args:
        study: what is studied.
        tell: is told how far it is, a job's name, and the step of it that has ended; no step if the job has.
        at_once: processes; by default one for each core that this process may use.

    Raises:
        StudyError: a job failed.
        HeldError: another process makes the same study.
        SourceError: the drawings are not installed.
    """
    with folder_alone(study.folder):
        cores = at_once or len(os.sched_getaffinity(0))
        _run(jobs_of(study, cores), cores, tell)


def _run(jobs: Sequence[Job], at_once: int, tell: Callable[[Progress, str, str], None]) -> None:
    progress = Progress(sum(job.seconds for job in jobs), time.monotonic())
    running: dict[Connection, tuple[Job, ForkServerProcess]] = {}
    waiting, ended = list(jobs), set[str]()
    context = _preloaded()
    try:
        while waiting or running:
            for job in [one for one in waiting if ended.issuperset(one.after)][: at_once - len(running)]:
                waiting.remove(job)
                if job.write:
                    job.write()
                said, process = _begun(job, context)
                running[said] = job, process
            ready = wait([*running])
            for said in [one for one in running if one in ready]:
                job, process = running[said]
                try:
                    what, text = said.recv()
                except EOFError:
                    what, text = _ended(process)
                if what == worker.FAILED:
                    raise StudyError(f"{job.name}: {text}\nMore may be in {job.folder / LOG}")
                if what == worker.MADE:
                    progress.has_made(job)
                else:
                    del running[said]
                    ended.add(job.name)
                    progress.has_ended(job)
                tell(progress, job.name, text)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _begun(job: Job, context: ForkServerContext) -> tuple[Connection, ForkServerProcess]:
    """A job's process, and what it says."""
    said, says = context.Pipe(duplex=False)
    process = context.Process(target=worker.work, args=(says, job.folder, LOG, job.phase, job.runs))
    process.start()
    says.close()
    return said, process


def _ended(process: ForkServerProcess) -> tuple[str, str]:
    """What is to be told of a process that says no more."""
    process.join()
    return (worker.FAILED, f"ended with code {process.exitcode}") if process.exitcode else (_ENDED, "")


def _preloaded() -> ForkServerContext:
    """Begins processes that have loaded their libraries: these take each as long as the training of a model."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["dqe_assets.study.preloaded"])
    threads = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    forkserver.ensure_running()
    if threads is None:
        del os.environ[_THREADS]
    else:
        os.environ[_THREADS] = threads
    return context
