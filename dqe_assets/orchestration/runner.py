"""Materialising from the command line: in this process, on the same Dagster instance that the UI shows."""

from __future__ import annotations

import gc
import re
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.plan.objects import ErrorSource
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from dqe_assets.core.asset import asset
from dqe_assets.core.partitions import registered_shards
from dqe_assets.core.stage import SHARDS, TRAINING_RUNS
from dqe_assets.ingest.takedowns.memory import MEMORY
from dqe_assets.orchestration import graph
from dqe_assets.orchestration.dead_runs import process_tags
from dqe_assets.orchestration.resources import dagster_resources, shard_workers
from dqe_assets.orchestration.sync import plan_sync
from dqe_assets.orchestration.takedowns import purge
from dqe_resources import stopping
from dqe_resources.errors import DataQualityError, UsageError, WholeRunError, WholeSourceError
from dqe_resources.sources.protocol import SourceError, source_of
from dqe_resources.store import ReplacedError, StorageError, StoreAwayError, TornError
from dqe_resources.vectors.protocol import VectorsError
from dqe_resources.warehouse import damage_in_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from dqe_assets.core.shard_workers import Problems
    from dqe_assets.core.stage import Stage
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.orchestration.sync import SyncPlan

_OF_A_FILE = {StorageError.__name__, TornError.__name__}
"""Errors that concern the one shard in which they are raised."""

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Outcome:
    """What a command materialised.

    Attributes:
        made: asset and partition of all that were made.
        current: how many partitions were found current.
        failures: a line for each thing that went wrong.
        ended: why nothing more of an asset was made in this run, nor of what depends on it, by its name.
        held_up: partitions in which something went wrong that concerns no other: a part of its source, or a file of the
            store, cannot be read.
        blocking: whether something else went wrong.
        away: why the store cannot be used any more, which has ended everything; it is among the failures too.
        torn: a line for each file of the store that was torn, and was to be made again.
        unread: why a source cannot be read, by its name: what was made of it is left as it is.
        given_up: sources of which one shard has shown that no other can be made in this run.
        removed: files of the store that were removed, as they had something of rows that are taken down.
    """

    made: list[tuple[str, str | None]] = field(default_factory=list)
    current: int = 0
    failures: list[str] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    held_up: set[str | None] = field(default_factory=set)
    blocking: bool = False
    away: str | None = None
    torn: dict[tuple[str, str | None], str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    removed: list[str] = field(default_factory=list)


def sync(settings: Settings, current: dg.DagsterInstance) -> SyncPlan:
    """Register new shards and training runs, and remove those that went; returns what was done.

    A shard that no source has any more goes from the store, the collection and Dagster. Killed at any moment, the next
    call goes on: Dagster forgets a shard when nothing else is left of it.

    Raises:
        StorageError: the store cannot be read or written.
    """
    plan = plan_sync(settings, current).cleaned(settings)
    plan.apply(current)
    return plan


def materialize(
    settings: Settings,
    current: dg.DagsterInstance,
    *,
    assets: Sequence[str] = (),
    shards: Sequence[str] = (),
    runs: Sequence[str] = (),
    force: bool = False,
) -> Outcome:
    """Make what is missing, torn or no longer current, in one run of Dagster for each shard.

    Then come the assets over all shards, the training runs one by one, and the assets that read them. Files that are
    found to be damaged as they are read are made again too. What fails for the whole run, such as a captioner whose
    server is away, ends that asset and what depends on it, and nothing else; a store that is away ends everything.

    Args:
        settings: the settings.
        current: the Dagster instance.
        assets: names of assets; all by default.
        shards: partition keys; all by default.
        runs: keys of training runs; all by default.
        force: make again what is current.

    Raises:
        UsageError: there is no such asset, shard or training run.
        KeyboardInterrupt: this process was asked to stop.
    """
    every = graph.stages(settings)
    selected = _selected(every, assets)
    registered = registered_shards(current)
    for what, asked, there, otherwise in (
        ("shard", shards, registered, "none; run: dqe sync"),
        ("training run", runs, settings.training.keys, "none; list some under training in dqe.yaml"),
    ):
        unknown = sorted(set(asked) - set(there))
        if unknown:
            raise UsageError(f"no {what} {unknown[0]}; there are: {_listed(there) or otherwise}")
    # What a list says must be known before anything is fetched.
    settings.ingest.matcher(settings.opened_store)
    settings.opened_store.sweep()
    asked_for = {SHARDS: set(shards), TRAINING_RUNS: set(runs)}
    outcome = _pass(settings, current, selected, asked_for, force=force)
    made_again: set[tuple[str, str | None]] = set()
    while (
        outcome.failures and not outcome.away and (damaged := set(_torn(settings, selected, registered)) - made_again)
    ):
        # That showed as they were read. They are made again, and then what could not be made from them.
        made_again |= damaged
        before, outcome = outcome, _pass(settings, current, selected, asked_for, force=False)
        outcome.current -= len(before.made)
        outcome.made = before.made + outcome.made
        outcome.torn = before.torn | outcome.torn
    if outcome.away:
        return outcome
    try:
        outcome.removed = purge(settings)
    except (StorageError, VectorsError) as error:
        outcome.failures.append(f"something may be left of what is taken down: {error}")
    return outcome


def _with_copies(settings: Settings, group: Sequence[Stage], shards: Sequence[str | None]) -> Iterator[str | None]:
    """Shards with copies of what was taken down of others after them; whatever else they have was just made."""
    for stage in group if settings.takedowns.copies else ():
        for shard in shards if stage.name == "raw_samples" else ():
            with suppress(SourceError):
                if state(settings, stage, shard, ()) == "stale":
                    yield shard


def _pass(
    settings: Settings,
    current: dg.DagsterInstance,
    selected: Sequence[Stage],
    asked_for: Mapping[str, set[str]],
    *,
    force: bool,
) -> Outcome:
    """Make each group of stages; a store that is away ends it with what was made until then."""
    outcome = Outcome()
    try:
        _make_groups(settings, current, selected, asked_for, outcome, force=force)
    except StoreAwayError as error:
        outcome.away = str(error)
        outcome.failures.append(outcome.away)
    return outcome


def _make_groups(
    settings: Settings,
    current: dg.DagsterInstance,
    selected: Sequence[Stage],
    asked_for: Mapping[str, set[str]],
    outcome: Outcome,
    *,
    force: bool,
) -> None:
    every, registered = graph.stages(settings), registered_shards(current)
    look = settings.as_it_is_now()
    workers = shard_workers(settings)
    with workers.crew() if workers else nullcontext() as crew:
        for group in _groups(selected):
            is_of_shards = group[0].partitioned
            wanted = asked_for.get(group[0].partition_set or "")
            chosen = [key for key in keys(settings, group[0], registered) if not wanted or key in wanted]
            every_key = chain(chosen, _with_copies(settings, group, chosen))
            going = _Going(settings, current, look, registered, every, outcome, force)
            if crew and is_of_shards:
                going.side_by_side(group, every_key, max(settings.shards_per_run, 4 * crew.at_once))
            else:
                going.one_by_one(group, every_key)
            nothing_usable = bool(outcome.held_up) and outcome.held_up >= set(chosen)
            if (outcome.blocking or nothing_usable) and not (is_of_shards and _holds_what_went(settings, registered)):
                break


@dataclass(frozen=True)
class _Going:
    """What a pass has made, and what it makes things with.

    Attributes:
        settings: the settings.
        current: the Dagster instance.
        look: the settings, with what the store and the sources had.
        shards: all shards.
        every: all stages.
        outcome: of the pass.
        force: make again what is current.
        failed: shards that went wrong, by the stage.
    """

    settings: Settings
    current: dg.DagsterInstance
    look: Settings
    shards: Sequence[str]
    every: Sequence[Stage]
    outcome: Outcome
    force: bool
    failed: dict[str, set[str]] = field(default_factory=dict)

    def one_by_one(self, group: Sequence[Stage], keys: Iterable[str | None]) -> None:
        """Make each partition in a run of Dagster."""
        for key in keys:
            if not (going := _without(group, _stopped_by(self.every, self.outcome.ended))):
                break
            if self._is_to_be_made(going, key):
                result = _run(self.settings, self.current, going, [key], force=self.force)
                which = f", {'run' if group[0].of_runs else 'shard'} {key}" if key else ""
                _take_note(result, which, key, self.outcome)
                self._forget(going, [key])

    def side_by_side(self, group: Sequence[Stage], keys: Iterable[str | None], at_once: int) -> None:
        """Make so many shards together, by workers: one stage after another, each in a run of Dagster."""
        # Dagster's runs are over ranges of shards, in the order in which it came to know them.
        place = {key: number for number, key in enumerate(self.current.get_dynamic_partitions(SHARDS))}
        rest = iter(keys)
        while chunk := list(islice(rest, at_once)):
            if not (going := _without(group, _stopped_by(self.every, self.outcome.ended))):
                break
            wanted = [key for key in chunk if key and self._is_to_be_made(going, key)]
            for stage in going:
                for some in _ranges(self._without_failed(stage, wanted), place):
                    problems: Problems = {}
                    result = _run(self.settings, self.current, [stage], some, force=self.force, problems=problems)
                    _take_note_of_many(result, stage, problems, self.outcome)
                    self.failed.setdefault(stage.name, set()).update(problems)
            self._forget(going, wanted)

    def _without_failed(self, stage: Stage, keys: Sequence[str]) -> list[str]:
        """Of these shards, those of which all is there that the stage reads, as far as this pass knows."""
        if stage.name in _stopped_by(self.every, self.outcome.ended):
            return []
        above = [failed for name, failed in self.failed.items() if stage.name in _stopped_by(self.every, [name])]
        left = set(keys).difference(*above)
        return [key for key in keys if key in left and source_of(key) not in self.outcome.given_up]

    def _is_to_be_made(self, going: Sequence[Stage], key: str | None) -> bool:
        """Whether something of a partition is to be made; notes what is current or torn, and what cannot be made."""
        outcome, source = self.outcome, source_of(key or "") if going[0].partitioned else ""
        if source in outcome.unread:
            return False
        if source in outcome.given_up:
            outcome.held_up.add(key)
            return False
        try:
            states = {} if self.force else {one.name: state(self.look, one, key, self.shards) for one in going}
        except SourceError as error:
            outcome.unread[source] = str(error)
            return False
        torn = [name for name, found in states.items() if found == "torn"]
        outcome.torn |= {(name, key): fault(self.look, name, key) for name in torn}
        if set(states.values()) == {"current"}:
            outcome.current += len(going)
            return False
        return True

    def _forget(self, stages: Iterable[Stage], keys: Sequence[str | None]) -> None:
        for stage in stages:
            for key in keys:
                self.look.opened_store.forget(stage.name, key)
        # Copies of what was taken down of one shard may be in the next.
        self.look.opened_store.forget_all(MEMORY)


def _ranges(wanted: Collection[str], place: Mapping[str, int]) -> Iterator[list[str]]:
    """The wanted keys in lists, each of such as are next to each other in the order of their places."""
    ordered = sorted(wanted, key=place.__getitem__)
    for _, some in groupby(enumerate(ordered), lambda one: place[one[1]] - one[0]):
        yield [key for _, key in some]


def _stopped_by(stages: Sequence[Stage], names: Iterable[str]) -> set[str]:
    """The names of assets, and of those of the stages, which are in order, that depend on them."""
    found = set(names)
    for stage in stages:
        if found.intersection((*stage.inputs, *stage.unpartitioned_inputs, *stage.run_inputs)):
            found.add(stage.name)
    return found


def _without(stages: Sequence[Stage], names: Collection[str]) -> list[Stage]:
    return [stage for stage in stages if stage.name not in names]


def ended_in_words(outcome: Outcome, settings: Settings) -> list[str]:
    """A line for each asset that has ended, with what depends on it."""
    stages = graph.stages(settings)
    lines = []
    for name, why in outcome.ended.items():
        dependent = sorted(_stopped_by(stages, [name]) - {name})
        nor = f", nor what depends on it: {_listed(dependent)}" if dependent else ""
        lines.append(f"{name}: {why.rstrip('.')}. Nothing more of it was made in this run{nor}")
    return lines


_FIRST_LEVEL = {SHARDS: 0, None: 1, TRAINING_RUNS: 2}


def _groups(selected: Sequence[Stage]) -> list[list[Stage]]:
    """The stages in groups that are made one after another, each of one partition set.

    What is made for each shard comes first, then what is made over all shards, then the training runs. What reads a
    group of another partition set comes after it.

    Args:
        selected: each after what it reads.
    """
    level: dict[str, int] = {}
    of_set: dict[str, str | None] = {}
    groups: dict[tuple[int, int], list[Stage]] = {}
    for stage in selected:
        read = [name for name in (*stage.inputs, *stage.unpartitioned_inputs, *stage.run_inputs) if name in level]
        least = _FIRST_LEVEL[stage.partition_set]
        found = max([least, *(level[name] + (of_set[name] != stage.partition_set) for name in read)])
        level[stage.name], of_set[stage.name] = found, stage.partition_set
        groups.setdefault((found, least), []).append(stage)
    return [groups[place] for place in sorted(groups)]


def keys(settings: Settings, stage: Stage, shards: Sequence[str]) -> list[str | None]:
    """The partitions of a stage: shards, training runs in the order of the settings, or the one that there is."""
    match stage.partition_set:
        case None:
            return [None]
        case name:
            return [*{SHARDS: shards, TRAINING_RUNS: settings.training.keys}[name]]


def state(settings: Settings, stage: Stage, partition: str | None, shards: Sequence[str]) -> str:
    """Whether a partition is current, stale, missing, failed a check, or torn: what is stored there cannot be read.

    Raises:
        SourceError: the source of the shard cannot be read.
    """
    arguments = stage.arguments(graph.resources(settings))
    store = settings.opened_store.looked_at_once
    work = stage.work(store, partition, shards, runs=settings.training.keys)
    try:
        if stage.current(work, arguments) is not None:
            return "current"
        stored = store.get(stage.name, partition)
    except ReplacedError:
        return "stale"  # another process makes what it is made of
    except StorageError:
        return "torn"
    if stored is None:
        return "missing"
    return "failed" if stored.stamp.failed_checks else "stale"


def fault(settings: Settings, asset: str, partition: str | None) -> str:
    """Why what is stored of a partition that is torn cannot be read."""
    try:
        settings.opened_store.get(asset, partition)
    except TornError as error:
        return error.fault
    except StorageError as error:
        return str(error)
    return ""


def _torn(settings: Settings, selected: Sequence[Stage], shards: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for stage in selected:
        for key in keys(settings, stage, shards):
            try:
                settings.opened_store.get(stage.name, key)
            except TornError:
                yield stage.name, key
            except StorageError:
                continue  # to make it again would not mend it


def _holds_what_went(settings: Settings, shards: Sequence[str]) -> bool:
    """Whether the warehouse has shards that no source has any more: that they go waits for no failure elsewhere."""
    warehouse = None
    with suppress(StorageError):
        warehouse = settings.opened_store.get("warehouse", None)
    return warehouse is not None and not set(warehouse.stamp.facts["shards"]) <= set(shards)


def _run(
    settings: Settings,
    current: dg.DagsterInstance,
    selected: Sequence[Stage],
    keys: Sequence[str | None],
    *,
    force: bool,
    problems: Problems | None = None,
) -> dg.ExecuteInProcessResult:
    """Run some stages of a partition, or of a range of partitions.

    Raises:
        KeyboardInterrupt: this process was asked to stop.
    """
    # What Dagster has left of the run before holds itself, and stages, which freeze it, keep the collector from it.
    gc.collect()
    first, last = keys[0], keys[-1]
    ends = (
        {}
        if first == last
        else {ASSET_PARTITION_RANGE_START_TAG: first or "", ASSET_PARTITION_RANGE_END_TAG: last or ""}
    )
    result = dg.materialize(
        [asset(stage, shards_per_run=settings.shards_per_run, in_pool=False) for stage in selected],
        instance=current,
        partition_key=first if first == last else None,
        resources=dagster_resources(settings, force=force, problems=problems),
        run_config=_QUIET,
        raise_on_error=False,
        tags={**process_tags(), **ends},
    )
    if stopping.requested() or any(map(_is_interrupt, result.get_step_failure_events())):
        # Dagster has made a failed step of it, or has only taken note.
        raise KeyboardInterrupt
    return result


def _take_note(result: dg.ExecuteInProcessResult, which: str, key: str | None, outcome: Outcome) -> None:
    """Add to the outcome what a run of one partition has made, and what went wrong in it.

    Raises:
        StoreAwayError: the store cannot be used any more.
    """
    _note_made(result, outcome)
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        error = data.error.cause if data.error and data.error.cause else data.error
        if error and error.cls_name == "DagsterAssetCheckFailedError":
            continue  # the check itself says more, below
        name = (event.step_key or "").replace("__", "/")
        message = failure_in_words(error.message) if error else "failed"
        _note_failure(outcome, name, which, key, (error and error.cls_name) or "", message)
    for evaluation in result.get_asset_check_evaluations():
        if evaluation.blocking and not evaluation.passed:
            where = f"{evaluation.asset_key.to_user_string()}{which}"
            outcome.failures.append(f"{where}: check {evaluation.check_name}: {evaluation.description}")
            outcome.blocking = True
    _stop_if_away(outcome)


def _take_note_of_many(result: dg.ExecuteInProcessResult, stage: Stage, problems: Problems, outcome: Outcome) -> None:
    """Add to the outcome what a run of a stage over several partitions has made, and what went wrong in it.

    Raises:
        StoreAwayError: the store cannot be used any more.
    """
    _note_made(result, outcome)
    for key, problem in sorted(problems.items()):
        which = f", shard {key}"
        if isinstance(problem, Exception):
            cls = type(problem)
            message = failure_in_words(f"{cls.__module__}.{cls.__qualname__}: {problem}")
            _note_failure(outcome, stage.name, which, key, cls.__name__, message)
            continue
        outcome.failures += [f"{stage.name}{which}: check {name}: {found}" for name, found in problem.items()]
        outcome.blocking = True
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        error = error.cause if error and error.cause else error
        cls_name = (error and error.cls_name) or ""
        # What is of partitions is in the problems.
        if not problems or _is_named(cls_name, WholeRunError):
            _note_failure(
                outcome, stage.name, "", None, cls_name, failure_in_words(error.message) if error else "failed"
            )
    _stop_if_away(outcome)


def _note_made(result: dg.ExecuteInProcessResult, outcome: Outcome) -> None:
    for node in result.filter_events(lambda event: event.is_step_materialization):
        made = node.step_materialization_data.materialization
        if made.metadata["reused"].value:
            outcome.current += 1
        else:
            outcome.made.append((made.asset_key.to_user_string(), made.partition))


def _note_failure(outcome: Outcome, name: str, which: str, key: str | None, cls_name: str, message: str) -> None:
    if _is_named(cls_name, StoreAwayError):
        outcome.away = message
        return
    if _is_named(cls_name, WholeRunError):
        outcome.ended[name] = message
        return
    outcome.failures.append(f"{name}{which}: {message}")
    if key and _is_named(cls_name, WholeSourceError):
        outcome.given_up.add(source_of(key))
    if key and (name == "raw_samples" or cls_name in _OF_A_FILE):
        outcome.held_up.add(key)
    else:
        outcome.blocking = True


def _stop_if_away(outcome: Outcome) -> None:
    if outcome.away:
        raise StoreAwayError(outcome.away)


def _is_named(name: str, cls: type[Exception]) -> bool:
    """Whether a class, or one that is derived from it, is called so."""
    return name in {one.__name__ for one in _subclasses(cls)}


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    return event.step_failure_data.error_source == ErrorSource.INTERRUPT


def failure_in_words(message: str) -> str:
    """What a person needs of an exception as Python writes it: ``module.Name: text``.

    Of an error that a person can fix, the text says all. Of any other, its type is told too, and where its
    traceback is.
    """
    if damage := damage_in_words(message):
        return damage
    line = " ".join(message.split())
    name, _, text = line.partition(": ")
    if name in {f"{cls.__module__}.{cls.__qualname__}" for cls in _subclasses(DataQualityError)}:
        return text or name.rpartition(".")[2]
    if re.fullmatch(r"\w+(\.\w+)*", name):
        line = line.removeprefix(name.rpartition(".")[0]).removeprefix(".")
    return f"{line}. Its traceback is on the run's page: dqe ui"


def _subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {cls} | {one for below in cls.__subclasses__() for one in _subclasses(below)}


def _selected(every: Sequence[Stage], assets: Sequence[str]) -> list[Stage]:
    names = [stage.name for stage in every]
    unknown = sorted(set(assets) - set(names))
    if unknown:
        raise UsageError(f"no asset {unknown[0]}; there are: {', '.join(names)}")
    return [stage for stage in every if not assets or stage.name in assets]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" ... ({len(names)} in all)" if len(names) > 5 else "")
