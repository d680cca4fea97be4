"""Keeping what there is in step with the settings: new partitions are registered, and those that went are removed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dqe_assets.core.partitions import PARTITION_SETS
from dqe_assets.core.stage import SHARDS, TRAINING_RUNS
from dqe_assets.search.collection_points import remove_shards
from dqe_resources.sources.left_out import LeftOut
from dqe_resources.sources.protocol import NoRowsError, SourceError, source_of
from dqe_resources.vectors.protocol import VectorsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import dagster as dg

    from dqe_assets.orchestration.settings import Settings

_SHARD = re.compile(r"(?P<source>[a-z][a-z0-9_]*)-\d{5,}")
_NAMED = 5
_HOW_TO_REMOVE = "; to remove what was made of it, take it out of dqe.yaml"


@dataclass(frozen=True, slots=True)
class SetPlan:
    """Which partitions of one set to add and which to remove. Of a training run that went, the files stay, unused."""

    name: str
    add: list[str]
    remove: list[str]
    total: int


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What there is to do, or what was done.

    Attributes:
        shards: shards to register; and those that no source has any more, and of which something is left.
        runs: training runs to register, and to remove.
        unread: why a source cannot be read, by its name. Nothing of it is removed.
        configured: names of all sources.
        not_removed: why shards that were to be removed may still be found by a search; None if they are not.
        left_out: what a source has and does not take as rows, by its name.
        uncaptioned: where captions were looked for, by the names of sources that have none.
    """

    shards: SetPlan
    runs: SetPlan
    unread: Mapping[str, str]
    configured: frozenset[str]
    not_removed: str | None = None
    left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    uncaptioned: Mapping[str, str] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(one.add or one.remove for one in (self.shards, self.runs))

    @property
    def removed_in_words(self) -> list[str]:
        """Which shards are gone: a line for each source."""
        by_source: dict[str, list[str]] = {}
        for shard in self.shards.remove:
            by_source.setdefault(source_of(shard), []).append(shard)
        return [
            f"removed {_counted(shards)}: source {source} "
            + ("has become smaller" if source in self.configured else "is no longer in dqe.yaml")
            for source, shards in by_source.items()
        ]

    @property
    def failures(self) -> list[str]:
        """What could not be done: a line for each fault."""
        return [*unread_in_words(self.unread), *([self.not_removed] if self.not_removed else [])]

    def cleaned(self, settings: Settings) -> SyncPlan:
        """Remove the shards that went from the store and the collection; returns what is left to do in Dagster.

        Raises:
            StorageError: the store cannot be written.
        """
        if not self.shards.remove:
            return self
        settings.opened_store.remove(frozenset(self.shards.remove), last="raw_samples")
        try:
            remove_shards(settings.vectors, self.shards.remove)
        except VectorsError as error:
            # Dagster goes on to know them: so the next call tries again.
            why = f"a search may still find {_counted(self.shards.remove)}: {error}"
            return replace(self, shards=replace(self.shards, remove=[]), not_removed=why)
        return self

    def requests(self) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
        """What a sensor asks of Dagster."""
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        for one in (self.shards, self.runs):
            if one.add:
                requests.append(PARTITION_SETS[one.name].build_add_request(one.add))
            if one.remove:
                requests.append(PARTITION_SETS[one.name].build_delete_request(one.remove))
        return requests

    def apply(self, instance: dg.DagsterInstance) -> None:
        """Do in Dagster what there is to do."""
        for one in (self.shards, self.runs):
            if one.add:
                instance.add_dynamic_partitions(one.name, one.add)
            for key in one.remove:
                instance.delete_dynamic_partition(one.name, key)


def unread_in_words(unread: Mapping[str, str]) -> list[str]:
    """A line for each source that cannot be read."""
    return [f"source {name} cannot be read, and what was made of it stays: {why}" for name, why in unread.items()]


def plan_sync(settings: Settings, instance: dg.DagsterInstance) -> SyncPlan:
    """Compare the shards of every source with those that Dagster and the store have, and likewise the training runs.

    A source that cannot be read keeps all of its shards: a disk that is not mounted must not look like a removal. So
    does a source that had rows and has none now.
    """
    wanted: set[str] = set()
    unread: dict[str, str] = {}
    left_out: dict[str, LeftOut] = {}
    uncaptioned: dict[str, str] = {}
    registered = set(instance.get_dynamic_partitions(SHARDS))
    there = registered | {key for key in settings.opened_store.partitions("raw_samples") if _SHARD.fullmatch(key)}
    sources_there = {source_of(key) for key in there}
    for source in settings.sources:
        found, rows, without = LeftOut(), 0, 0
        keys = set()
        try:
            for key, shard in source.listed().items():
                keys.add(key)
                found.update(shard.left_out)
                rows, without = rows + shard.rows, without + shard.uncaptioned
        except SourceError as error:
            has_gone = isinstance(error, NoRowsError) and source.name in sources_there
            unread[source.name] = f"{error}{_HOW_TO_REMOVE if has_gone else ''}"
            continue
        if not keys and source.name in sources_there:
            unread[source.name] = f"it has no rows any more, as if its files were not there{_HOW_TO_REMOVE}"
        wanted |= keys
        if found:
            left_out[source.name] = found
        if rows and rows == without:
            uncaptioned[source.name] = source.caption_places
    gone = {key for key in there - wanted if source_of(key) not in unread}
    runs, known = set(settings.training.keys), set(instance.get_dynamic_partitions(TRAINING_RUNS))
    return SyncPlan(
        SetPlan(SHARDS, sorted(wanted - registered), sorted(gone), len(wanted)),
        SetPlan(TRAINING_RUNS, sorted(runs - known), sorted(known - runs), len(runs)),
        unread,
        frozenset(source.name for source in settings.sources),
        left_out=left_out,
        uncaptioned=uncaptioned,
    )


def _counted(shards: Iterable[str]) -> str:
    names = list(shards)
    listed = ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
    return f"{len(names):,} shard{'' if len(names) == 1 else 's'} ({listed})"
