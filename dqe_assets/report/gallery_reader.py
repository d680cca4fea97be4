"""What the gallery shows, read from the warehouse."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dqe_assets.core.figures import DARK, LIGHT, data_uri
from dqe_assets.core.relations import in_order, sql_of
from dqe_assets.core.schema import ORIGINAL
from dqe_resources.captioners.judge import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from dqe_assets.core.relations import Member, Relations

CAPTION_CHARACTERS = 2000
"""A caption is cut here."""

ALWAYS_SHOWN = 160
"""Characters of a longer caption that are shown before it is unfolded."""

SIGNAL_CHARACTERS = 40
"""A text that is a signal is cut here."""

GROUP_MEMBERS = 6
"""Members of a duplicate group that are shown."""


@dataclass(frozen=True, slots=True)
class _Caption:
    source: str
    text: str | None
    rest: str
    """The words that are folded away."""
    similarity: float | None
    level: str
    independent: bool
    best: bool
    judgement: _Judgement | None


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What a judge thinks of a caption: its mean mark, and each criterion with its mark and the reason for it."""

    overall: float
    marks: tuple[tuple[str, int, str | None], ...]


@dataclass(frozen=True, slots=True)
class _Sample:
    uid: str
    name: str
    shard: str
    status: str
    reason: str
    captions: tuple[_Caption, ...]
    gain: float | None
    duplicate: bool
    signals: tuple[tuple[str, str], ...]
    """Name and value of each signal that it has a value of."""


@dataclass(frozen=True, slots=True)
class SampleSection:
    """Samples under a heading, and the heading's name in the page's address."""

    anchor: str
    title: str
    description: str
    samples: tuple[_Sample, ...]


@dataclass(frozen=True, slots=True)
class _Member:
    uid: str
    name: str
    caption: str | None
    kept: bool
    tag: str


@dataclass(frozen=True, slots=True)
class _Group:
    heading: str
    members: tuple[_Member, ...]


@dataclass(frozen=True, slots=True)
class GroupSection:
    """Groups under a heading, and the heading's name in the page's address."""

    anchor: str
    title: str
    description: str
    groups: tuple[_Group, ...]


class GalleryReader:
    """Reads from the warehouse what the page shows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self.sources: list[str] = [row["caption_source"] for row in self._rows("SELECT * FROM caption_quality")]
        captioners = self._rows("SELECT name, independent FROM captioners")
        self.independent: dict[str, bool] = {row["name"]: row["independent"] is not False for row in captioners}
        self._signals: list[str] = [
            row["signal"] for row in self._limited("SELECT signal FROM signals ORDER BY signal")
        ]
        quartiles = self._rows(
            "SELECT quantile_cont(similarity, 0.25) AS low, quantile_cont(similarity, 0.75) AS high FROM captions"
        )[0]
        self.levels: tuple[float, float] | None = (
            None if quartiles["low"] is None else (quartiles["low"], quartiles["high"])
        )

    def _rows(self, sql: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._connection.sql(sql, params=values).to_arrow_table().to_pylist()
        return rows

    def _limited(self, sql: str) -> list[dict[str, Any]]:
        return self._rows(f"{sql} LIMIT ?", [self._limit])

    def key_figures(self) -> list[tuple[str, str, str]]:
        """The key figures: value, what it is, and a remark."""
        total = self.totals()
        figures = [
            (
                f"{total['rows']:,}",
                "samples",
                f"{_counted(total['sources'], 'source')}, {_counted(total['shards'], 'shard')}",
            ),
        ]
        if not total["rows"]:
            return figures
        figures.append((_percent(total["ok"], total["rows"]), "readable images", f"{total['failed']:,} failed"))
        remark = f"in {_counted(total['groups'], 'group')}"
        figures.append((f"{total['duplicates']:,}", "redundant duplicates", remark))
        if total["original"] is not None:
            figures.append((f"{total['original']:.3f}", "mean similarity, original", "captions as found"))
        for row in self._limited("SELECT * FROM captioners WHERE mean_similarity IS NOT NULL ORDER BY name"):
            share = row["share_better_than_original"]
            remark = "" if share is None else f"above the original in {share:.0%}".replace("%", " %")
            figures.append((f"{row['mean_similarity']:.3f}", f"mean similarity, {row['name']}", remark))
        return figures

    def totals(self) -> dict[str, Any]:
        """Counts over everything."""
        return self._rows(
            """
            SELECT count(*) AS "rows", count(DISTINCT shard) AS shards, count(DISTINCT source) AS sources,
                count(*) FILTER (status = 'ok') AS ok, count(*) FILTER (status <> 'ok') AS failed,
                count(*) FILTER (is_duplicate) AS duplicates, count(DISTINCT cluster) AS groups,
                avg(original_similarity) AS original
            FROM samples
            """
        )[0]

    def notes(self) -> list[str]:
        """Which preferences prove nothing, and why."""
        return [
            f"{row['pairs']}. {row['note']}."
            for row in self._rows(
                "SELECT note, "
                "string_agg(source_a || ' against ' || source_b, ', ' ORDER BY source_a, source_b) AS pairs "
                "FROM caption_preference WHERE note IS NOT NULL GROUP BY note ORDER BY note"
            )
        ]

    def scorer(self) -> str | None:
        """The model that scored."""
        rows = self._rows("SELECT DISTINCT scorer FROM captioners ORDER BY scorer")
        return rows[0]["scorer"] if rows else None

    def plots(self, relations: Sequence[Relations]) -> list[tuple[str, str, str]]:
        """What each plot shows, and the plot as a data URI for light and for dark."""
        contributed = in_order(plots for one in relations for plots in one.gallery_plots)
        return [
            (shows, data_uri(draw(LIGHT)), data_uri(draw(DARK)))
            for plots in contributed
            for shows, draw in plots.read(self._connection, self._limit)
        ]

    def sections(self, relations: Sequence[Relations]) -> list[SampleSection]:
        """The sections of samples, those with nothing to show left out."""
        contributed = in_order(section for one in relations for section in one.gallery_sections)
        filled = (
            SampleSection(
                section.anchor,
                section.title,
                section.description,
                self.samples([row["uid"] for row in self._limited(sql_of(section.query))]),
            )
            for section in contributed
        )
        return [section for section in filled if section.samples]

    def samples(self, uids: list[str]) -> tuple[_Sample, ...]:
        """The samples of these uids, in their order, with all their captions."""
        captions: dict[str, list[dict[str, Any]]] = {}
        for row in self._rows(
            "SELECT * FROM captions WHERE uid IN (SELECT unnest(?)) "
            "ORDER BY caption_source <> 'original', caption_source",
            [uids],
        ):
            captions.setdefault(row["uid"], []).append(row)
        samples = {
            row["uid"]: row for row in self._rows("SELECT * FROM samples WHERE uid IN (SELECT unnest(?))", [uids])
        }
        judgements = self._judgements(uids)
        return tuple(
            _Sample(
                uid=uid,
                name=_clean(row["image_name"]) or "",
                shard=row["shard"],
                status=row["status"],
                reason=row["reason"],
                captions=tuple(
                    self._caption(caption, row["best_source"], judgements.get((uid, caption["caption_source"])))
                    for caption in captions.get(uid, ())
                ),
                gain=_gain(row),
                duplicate=row["is_duplicate"],
                signals=tuple((name, _value(row[name])) for name in self._signals if row[name] is not None),
            )
            for uid in uids
            for row in [samples[uid]]
        )

    def _caption(self, row: dict[str, Any], best: str | None, judgement: _Judgement | None) -> _Caption:
        source = row["caption_source"]
        text, rest = _folded(_clean(row["caption"]))
        return _Caption(
            source=source,
            text=text,
            rest=rest,
            similarity=row["similarity"],
            level=self._level(row["similarity"]),
            independent=self.independent.get(source, True),
            best=source == best,
            judgement=judgement,
        )

    def _judgements(self, uids: list[str]) -> dict[tuple[str, str], _Judgement]:
        """What a judge thinks of captions of these samples, by uid and caption source."""
        rows = self._rows(
            "SELECT * FROM caption_judgements WHERE overall IS NOT NULL AND uid IN (SELECT unnest(?))", [uids]
        )
        return {
            (row["uid"], row["caption_source"]): _Judgement(
                row["overall"],
                tuple((name.replace("_", " "), row[name], _clean(row["reasons"][name])) for name in CRITERIA),
            )
            for row in rows
        }

    def _level(self, similarity: float | None) -> str:
        if similarity is None or self.levels is None:
            return "none"
        low, high = self.levels
        return "low" if similarity < low else "high" if similarity > high else "middle"

    def duplicates(self) -> GroupSection:
        """The largest duplicate groups, the sample to keep first in each."""
        return GroupSection(
            "duplicates",
            "Duplicates",
            f"{_counted(self.totals()['groups'], 'group')} of images that show the same picture, the largest first; "
            "one of each is kept.",
            tuple(self._duplicate_groups()),
        )

    def _duplicate_groups(self) -> list[_Group]:
        groups = []
        for group in self._limited("SELECT cluster, size FROM duplicate_groups"):
            members = self._rows(
                "SELECT s.uid, s.image_name, s.caption, d.is_representative, d.similarity "
                "FROM duplicates d JOIN samples s USING (uid) WHERE d.kind = 'any' AND d.cluster = ? "
                "ORDER BY NOT d.is_representative, s.uid LIMIT ?",
                [group["cluster"], GROUP_MEMBERS],
            )
            size = _counted(group["size"], "sample")
            groups.append(
                _Group(
                    size if group["size"] <= len(members) else f"{size}, {len(members):,} of them shown",
                    tuple(
                        _Member(
                            row["uid"],
                            _clean(row["image_name"]) or "",
                            _clean(row["caption"]),
                            row["is_representative"],
                            "kept" if row["is_representative"] else _score(row["similarity"]) or "copy",
                        )
                        for row in members
                    ),
                )
            )
        return groups

    def group_sections(self, relations: Sequence[Relations]) -> list[GroupSection]:
        """The sections of groups that stages contribute, those with nothing to show left out."""
        found = []
        for section in in_order(section for one in relations for section in one.gallery_groups):
            groups = tuple(
                _Group(group.heading, self._members(group.members))
                for group in section.read(self._connection, self._limit)
            )
            if groups:
                found.append(GroupSection(section.anchor, section.title, section.description, groups))
        return found

    def _members(self, members: Sequence[Member]) -> tuple[_Member, ...]:
        rows = {
            row["uid"]: row
            for row in self._rows(
                "SELECT uid, image_name, caption FROM samples WHERE uid IN (SELECT unnest(?))",
                [[one.picture for one in members]],
            )
        }
        # A picture that is no sample's may have no caption, and lacks none.
        own = ((one, rows.get(one.picture, {"image_name": one.name, "caption": one.caption or ""})) for one in members)
        return tuple(
            _Member(
                one.picture,
                _clean(row["image_name"]) or "",
                "" if row["caption"] == "" and one.name else _clean(row["caption"]),
                one.is_marked,
                one.tag,
            )
            for one, row in own
        )

    def failures(self) -> list[dict[str, Any]]:
        """Failed samples, every reason in turn so that a rare one is seen too."""
        rows = self._limited(
            "SELECT reason, image_name, shard, detail FROM failures "
            "ORDER BY row_number() OVER (PARTITION BY reason ORDER BY uid), reason"
        )
        return [
            row | {"image_name": _clean(row["image_name"]), "detail": _clean(row["detail"])}
            for row in sorted(rows, key=lambda row: (row["reason"], row["image_name"]))
        ]


def _value(value: str | bool | float) -> str:
    """A value of a signal in a few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (_clean(value) or "")[:SIGNAL_CHARACTERS] if isinstance(value, str) else f"{value:.3g}"


def _score(similarity: float | None) -> str | None:
    return None if similarity is None else f"{similarity:.2f}"


def _gain(row: dict[str, Any]) -> float | None:
    if row["best_source"] in (None, ORIGINAL) or row["original_similarity"] is None:
        return None
    return float(row["best_similarity"] - row["original_similarity"])


def _clean(text: str | None) -> str | None:
    """Text on one line, of bounded length, without control characters; None if nothing is left."""
    if text is None:
        return None
    visible = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text[: 2 * CAPTION_CHARACTERS])
    line = " ".join(visible.split())
    if len(line) > CAPTION_CHARACTERS:
        line = f"{line[:CAPTION_CHARACTERS]}…"
    return line or None


def _folded(text: str | None) -> tuple[str | None, str]:
    """The part of a caption that is always shown, cut between words, and the rest."""
    if text is None or len(text) <= ALWAYS_SHOWN + 40:
        return text, ""
    cut = text.rfind(" ", ALWAYS_SHOWN // 2, ALWAYS_SHOWN)
    cut = cut if cut > 0 else ALWAYS_SHOWN
    return text[:cut], text[cut:]


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    return f"{share:.0f} %" if part in (0, whole) else f"{share:.1f} %"
