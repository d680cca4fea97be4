"""Has the jobs of a study done, several at once, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from dqe_assets.study import worker
from dqe_assets.study.files import write_added, write_captioner, write_scorer, write_second, write_seed
from dqe_assets.study.plan import ADDED, CURVE, POINTS, StudyError, run_key
from dqe_resources.locks import folder_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dqe_assets.study.plan import Study

_BEGIN_SECONDS = 20.0
_ROW_SECONDS = 0.034
_SAMPLE_SEEN_SECONDS = 1 / 1_000
_EVALUATION_SECONDS = 2.0
_SECOND_ROW_SECONDS = 0.004
"""What things take on one core: only how long the rest will take is told by them."""

LOG = "log.txt"

_ENDED = "ended"

_PHASES = (worker.TEACH, worker.PREPARE, worker.TRAIN, worker.EVALUATE, worker.RETRIEVE, worker.ADD)


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
    """

    total: float
    began: float
    done: dict[str, float] = field(default_factory=dict)

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
        if study.addition:
            jobs += _addition(study, seed, after=prepared.name)
    return sorted(jobs, key=lambda job: _PHASES.index(job.phase))


def _teaching(study: Study, seed: int, what: str, folder: Path, write: Callable[[Study, int], None]) -> Job:
    """The training of a model that judges or captions."""
    seconds = _BEGIN_SECONDS + study.size.scorer_samples_seen * _SAMPLE_SEEN_SECONDS
    return Job(
        f"seed {seed}: {what}", folder, worker.TEACH, write=partial(write, study, seed), steps=6, seconds=seconds
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
    waiting, running, ended = list(jobs), dict[str, subprocess.Popen[str]](), set[str]()
    events: SimpleQueue[tuple[Job, str, str]] = SimpleQueue()
    counted: dict[str, int] = {}
    try:
        while waiting or running:
            for job in [one for one in waiting if ended.issuperset(one.after)][: at_once - len(running)]:
                waiting.remove(job)
                if job.write:
                    job.write()
                running[job.name] = _begun(job, events)
            job, what, text = events.get()
            if what == worker.FAILED:
                raise StudyError(f"{job.name}: {text}\nMore may be in {job.folder / LOG}")
            if what == worker.MADE:
                counted[job.name] = counted.get(job.name, 0) + 1
                progress.done[job.name] = job.seconds * min(0.95, counted[job.name] / job.steps)
            else:
                del running[job.name]
                ended.add(job.name)
                if job.name in counted:
                    progress.done[job.name] = job.seconds
                else:
                    # All of it was current: that says nothing of how fast the rest will be.
                    progress.total -= job.seconds
            tell(progress, job.name, text)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _begun(job: Job, events: SimpleQueue[tuple[Job, str, str]]) -> subprocess.Popen[str]:
    """A job's process: its lines become events, and so does its end."""
    log = (job.folder / LOG).open("a", encoding="utf-8")
    process = subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "dqe_assets.study.worker", str(os.getpid()), job.phase, *job.runs],
        env={
            **os.environ,
            "DQE_DATA": str(job.folder),
            "DAGSTER_HOME": str(job.folder / "dagster_home"),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )

    def read() -> None:
        failed = False
        with process, log:
            for line in process.stdout or ():
                try:
                    said = dict(json.loads(line))
                except (ValueError, TypeError):
                    log.write(line)
                    continue
                for what, text in said.items():
                    failed = failed or what == worker.FAILED
                    events.put((job, what, text))
        if process.returncode and not failed:
            events.put((job, worker.FAILED, f"ended with code {process.returncode}"))
        else:
            events.put((job, _ENDED, ""))

    # The system ends a job with the thread that began it: so that is the main one, and this one only reads.
    Thread(target=read, daemon=True).start()
    return process
