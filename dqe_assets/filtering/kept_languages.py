"""Which captions of the store are English, kept for each shard: only those of a new shard are detected.

All of it can be made again from the store. A file is named by the shard, by what that was made from, and by what
decides. It is written whole or not at all, and made again where it cannot be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dqe_assets.filtering.filters import FILTERS_VERSION
from dqe_resources.cache import data_directory
from dqe_resources.fingerprint import fingerprint
from dqe_resources.store import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from dqe_assets.core.work import Work
    from dqe_assets.filtering.english import Detector
    from dqe_assets.filtering.filters import Filter, Mask


@dataclass(frozen=True, slots=True)
class KeptLanguages:
    """What language detectors have said of the captions of shards.

    Attributes:
        shards: of each shard, what changes whenever its captions may.
        detectors: of each detector, what changes whenever its answers may.
    """

    shards: Mapping[str, str]
    detectors: Mapping[Detector, str]

    @classmethod
    def opened(cls, work: Work, leaves: Iterable[Filter]) -> KeptLanguages:
        """For the detectors that filters ask; what is kept of shards and detectors as they were before goes.

        Args:
            work: reads ``raw_samples``; where it is forced, what these detectors said goes too.
            leaves: the filters, not yet fitted.

        Raises:
            LanguageError: a detector's model is not there.
            PackageError: a detector's package is not installed.
        """
        # Taken before captions are read: later changes were not looked at.
        shards = {shard: work.of_shard(shard).version_of("raw_samples") for shard in work.shards}
        detectors = {one: fingerprint(FILTERS_VERSION, one.kind, one.versions) for one in detectors_of(leaves)}
        kept = cls(shards, detectors)
        kept._remove_others(work)
        return kept

    def english(self, shard: str, detector: Detector, rows: int, ask: Callable[[], Mask]) -> Mask:
        """Which rows of a shard have an English caption, bool [rows]; ``ask`` finds it where it is not kept."""
        path = _folder() / f"{shard}.{self.shards[shard]}.{_name(detector)}.{self.detectors[detector]}.npy"
        try:
            kept = np.load(path)
            if kept.shape == (rows,) and kept.dtype == np.bool_:
                return kept
        except (OSError, ValueError, EOFError):
            # Not there, or damaged.
            pass
        found = ask()
        replace_file(path, lambda target: np.save(target, found))
        return found

    def _remove_others(self, work: Work) -> None:
        answers = {_name(detector): None if work.force else version for detector, version in self.detectors.items()}
        for path in _folder().glob("*.*.*.*.npy"):
            shard, version, detector, said = path.name.rsplit(".", 4)[:4]
            # Of shards that are left out nothing is known, and other detectors may be those of another asset.
            is_current = self.shards.get(shard) == version or shard in work.left_out
            if not is_current or answers.get(detector, said) != said:
                path.unlink(missing_ok=True)


def detectors_of(leaves: Iterable[Filter]) -> set[Detector]:
    """The language detectors that filters ask, and the filters among whose samples they choose."""
    found: set[Detector] = set()
    for leaf in leaves:
        found |= {leaf.detector} if leaf.detector else set()
        found |= detectors_of(leaf.among)
    return found


def _name(detector: Detector) -> str:
    return fingerprint(detector.column)


def _folder() -> Path:
    return data_directory() / "languages"
