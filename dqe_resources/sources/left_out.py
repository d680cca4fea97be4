"""What a source has and does not take as rows: counted, so that it does not vanish unsaid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dqe_resources.sources.texts import readable, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "files of the operating system"
HIDDEN = "hidden files and folders"
HARMLESS = frozenset({SYSTEM, HIDDEN})
"""What nobody takes for data."""

_OTHER = "other files"
_MOST_REASONS = 50
_LONGEST_SUFFIX = 12


def by_suffix(name: str) -> str:
    """The reason for a file of a kind that is not read."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or not dot or not suffix:
        return "files without a suffix"
    return f".{readable(suffix.lower())} files" if len(suffix) <= _LONGEST_SUFFIX else _OTHER


@dataclass
class LeftOut:
    """What is left out, counted by reason.

    Attributes:
        counts: how much.
        examples: the first one's name.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count what is left out for a reason; the name is that of one of them."""
        if reason not in self.counts and len(self.counts) >= _MOST_REASONS:
            reason = _OTHER
        self.counts[reason] += count
        self.examples.setdefault(reason, shortened(readable(name)))

    def update(self, other: LeftOut) -> None:
        """Count what another has counted."""
        for reason, count in other.counts.items():
            self.add(reason, other.examples[reason], count)

    def taken(self) -> LeftOut:
        """What was counted since the last time."""
        found = LeftOut(self.counts, self.examples)
        self.counts, self.examples = Counter(), {}
        return found

    @property
    def of_concern(self) -> Mapping[str, int]:
        """The counts without what nobody takes for data."""
        return {reason: count for reason, count in self.counts.items() if reason not in HARMLESS}

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """In words, the most first: ``.md files: 2 (README.md ...), links to folders: 1 (old)``."""
        ranking = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(
            f"{reason}: {count:,} ({self.examples[reason]}{' ...' if count > 1 else ''})" for reason, count in ranking
        )
