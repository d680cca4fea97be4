"""What a person needs first of a warehouse, in ten lines: how much there is, how good it is, and what to look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.core.relations import sql_of
from dqe_assets.core.schema import ORIGINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from dqe_assets.core.relations import Relations

MOST_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the captions of one source fit.

    Attributes:
        caption_source: the source.
        mean_similarity: of its captions and their images, -1 to 1.
        share_better: share of its captions that fit better than the original, 0 to 1; null of the originals.
        independent: whether the scorer shares no image backbone with the source, so that this is evidence.
        compared: images that have this caption and the original.
        preferred_low: lower end of the 95 % interval of the share of them where it is preferred above 70 %, 0 to 1.
        preferred_high: its higher end.
    """

    caption_source: str
    mean_similarity: float | None
    share_better: float | None = None
    independent: bool | None = None
    compared: int | None = None
    preferred_low: float | None = None
    preferred_high: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A problem that samples have.

    Attributes:
        samples: how many have it.
        of: among how many.
        what: what it is.
        note: a word on them; null if there is none.
        command: what shows them.
    """

    samples: int
    of: int
    what: str
    note: str | None
    command: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a warehouse.

    Attributes:
        rows: of all sources.
        sources: how many sources.
        shards: how many shards.
        readable: rows with a readable image.
        redundant: those of them that another one stands for, as a duplicate.
        scorer: what scored the captions; null if nothing did.
        fits: how well the captions fit, the originals first and then the captioners, the best first.
        problems: the worst, at most ``MOST_PROBLEMS``.
    """

    rows: int
    sources: int
    shards: int
    readable: int
    redundant: int
    scorer: str | None
    fits: Sequence[Fit]
    problems: Sequence[Found]

    @property
    def lines(self) -> list[str]:
        """It in words: at most ten lines."""
        pictures = self.readable - self.redundant
        there = f"{_count(self.rows, 'row')} of {_count(self.sources, 'source')} in {_count(self.shards, 'shard')}"
        readable = f"{self.readable:,} have a readable image ({_percent(self.readable, self.rows)})"
        left = f"{_count(pictures, 'picture')} {'is' if pictures == 1 else 'are'} left without them"
        return [
            f"{there}; {readable}.",
            f"{self.redundant:,} of those are copies of others; {left}.",
            self._fit,
            self._proof,
            *(line for found in self.problems for line in _problem_in_words(found)),
        ]

    def to_json(self) -> dict[str, Any]:
        """It as a document."""
        return {**asdict(self), "lines": self.lines}

    @property
    def _best(self) -> Fit | None:
        """The captioner that fits best, of those whose comparison proves something if there are any."""
        compared = [fit for fit in self.fits if fit.caption_source != ORIGINAL and fit.compared]
        return next((fit for fit in compared if fit.independent), next(iter(compared), None))

    @property
    def _fit(self) -> str:
        scored = [fit for fit in self.fits if fit.mean_similarity is not None]
        best = self._best
        shown = [fit for fit in scored if fit.caption_source == ORIGINAL or fit is best] or scored[:1]
        if not shown:
            return "No caption has a score."
        words = ", ".join(f"{fit.caption_source} {fit.mean_similarity:.3f}" for fit in shown)
        better = f", better on {best.share_better:.0%}" if best and best.share_better is not None else ""
        others = len(scored) - len(shown)
        more = f"; {others} more" if others else ""
        return f"Fit of captions (cosine): {words}{better}{more}."

    @property
    def _proof(self) -> str:
        best = self._best
        if best is None or best.preferred_low is None or best.preferred_high is None:
            return "That proves little by itself: there are no other captions to compare with."
        if best.independent is None:
            return f"Whether that proves anything is not known: nobody said what is inside {best.caption_source}."
        if not best.independent:
            return f"That proves nothing: the scorer shares its image backbone with {best.caption_source}."
        return (
            f"That is evidence: an independent scorer prefers {best.caption_source} on {best.preferred_low:.0%} to "
            f"{best.preferred_high:.0%} of images."
        )


def summary(connection: duckdb.DuckDBPyConnection, relations: Sequence[Relations]) -> Summary:
    """The summary of a warehouse.

    Args:
        connection: a connection to it.
        relations: what the stages contribute, the same as it was built from.
    """
    ((rows, sources, shards, readable, redundant),) = connection.execute(
        "SELECT count(*), count(DISTINCT source), count(DISTINCT shard), count(*) FILTER (status = 'ok'), "
        "count(*) FILTER (status = 'ok' AND is_duplicate) FROM samples"
    ).fetchall()
    scorers = connection.execute("SELECT DISTINCT scorer FROM captioners").fetchall()
    return Summary(
        rows=rows,
        sources=sources,
        shards=shards,
        readable=readable,
        redundant=redundant,
        scorer=scorers[0][0] if scorers else None,
        fits=_fits(connection),
        problems=_problems(connection, relations),
    )


def _fits(connection: duckdb.DuckDBPyConnection) -> list[Fit]:
    rows = connection.execute(
        """
        SELECT q.caption_source, q.mean_similarity, c.share_better_than_original,
            coalesce(p.independent, c.independent), i.n, i.share_b_low, i.share_b_high
        FROM caption_quality q LEFT JOIN captioners c ON c.name = q.caption_source
        LEFT JOIN preference_intervals i
            ON i.source_a = ? AND i.source_b = q.caption_source AND i.against IS NULL AND i.threshold = 0.7
            AND i.scorer = c.scorer
        LEFT JOIN caption_preference p ON p.source_a = i.source_a AND p.source_b = i.source_b AND p.scorer = i.scorer
        ORDER BY q.caption_source <> ?, q.mean_similarity DESC, q.caption_source
        """,
        [ORIGINAL, ORIGINAL],
    ).fetchall()
    return [Fit(*row) for row in rows]


def _problems(connection: duckdb.DuckDBPyConnection, relations: Sequence[Relations]) -> list[Found]:
    found = []
    for problem in (problem for one in relations for problem in one.problems):
        ((samples, of, note),) = connection.execute(sql_of(problem.query)).fetchall()
        if samples:
            found.append(Found(samples, of, problem.what, note, f'dqe sql "{problem.shown_by}"'))
    return sorted(found, key=lambda one: (-one.samples, one.what))[:MOST_PROBLEMS]


def _problem_in_words(found: Found) -> tuple[str, str]:
    note = f", {found.note}" if found.note else ""
    share = _percent(found.samples, found.of)
    return f"{found.samples:,} of {found.of:,} {found.what} ({share}{note}):", f"  {found.command}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
