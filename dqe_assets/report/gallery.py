"""The gallery: one HTML page of photos, captions and scores that needs nothing outside itself."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqe_assets.core import figures as plots
from dqe_assets.core.schema import ORIGINAL
from dqe_assets.dedup.plots import cluster_sizes
from dqe_assets.improve import best_plots
from dqe_assets.improve import judging_plots as judgement_plots
from dqe_assets.improve.refining_views import REFINED_SAMPLES
from dqe_assets.ingest.plots import status_bars
from dqe_assets.score.plots import Preference, original_vs_synthetic_scatter, preference_bars, similarity_histogram
from dqe_assets.search import plots as topic_plots
from dqe_assets.search.plots import sample_map
from dqe_resources.captioners.judge import CRITERIA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import duckdb

    from dqe_assets.core.figures import Theme

THUMBNAIL = 320
"""Longest side of a photo on the page, in pixels."""

CAPTION_CHARACTERS = 2000
"""A caption is cut here."""

ALWAYS_SHOWN = 160
"""Characters of a longer caption that are shown before it is unfolded."""

GROUP_MEMBERS = 6
"""Members of a duplicate group that are shown."""

PLOTTED = 20_000
"""Samples that the plots are drawn from: those with the lowest uids, which are digests, so a fair draw."""


@dataclass(frozen=True, slots=True)
class GalleryInputs:
    """What the page is made from.

    Attributes:
        connection: a connection to the warehouse.
        images: gives the image files of uids; one that it leaves out is shown as an empty frame. Only what the page
            shows is asked for, once.
        title: the page's heading.
        per_section: samples, groups or failures in a section, at most.
    """

    connection: duckdb.DuckDBPyConnection
    images: Callable[[list[str]], dict[str, bytes]]
    title: str = "Image-caption quality"
    per_section: int = 12


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


@dataclass(frozen=True, slots=True)
class _Section:
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
    similarity: float | None


@dataclass(frozen=True, slots=True)
class _Group:
    size: int
    members: tuple[_Member, ...]


def render_gallery(inputs: GalleryInputs) -> str:
    """One self-contained HTML page: key figures, plots, and samples by what there is to see in them.

    It loads nothing, runs no script, and shows captions as text whatever they contain. The same warehouse and images
    give the same bytes.
    """
    reader = _Reader(inputs.connection, inputs.per_section)
    groups = reader.groups()
    members = [member.uid for group in groups for member in group.members]
    return _page(
        inputs,
        reader,
        reader.sections(),
        members,
        figures=reader.figures(),
        plots=reader.plots(),
        groups=groups,
        failures=reader.failures(),
    )


def render_samples(inputs: GalleryInputs, sections: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """A page of the gallery's cards alone.

    Args:
        inputs: what the gallery reads.
        sections: title, description and uids of each section; one without samples is left out.
    """
    reader = _Reader(inputs.connection, inputs.per_section)
    filled = [
        _Section(f"section-{place}", title, description, reader.samples(list(uids)))
        for place, (title, description, uids) in enumerate(sections)
        if uids
    ]
    return _page(inputs, reader, filled, [], figures=[], plots=[], groups=[], failures=[])


def _page(
    inputs: GalleryInputs, reader: _Reader, sections: Sequence[_Section], others: Sequence[str], **parts: Any
) -> str:
    """The page with the pictures of the samples in its sections, and of others."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    wanted = [sample.uid for section in sections for sample in section.samples if sample.status == "ok"]
    photos = _photos(inputs.images(list(dict.fromkeys([*wanted, *others]))))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": lambda n: f"{n:,}", "score": lambda s: f"{s:.2f}", "signed": lambda s: f"{s:+.2f}"}
    return environment.get_template("gallery.html.j2").render(
        title=inputs.title,
        notes=reader.notes(),
        scorer=reader.scorer(),
        levels=reader.levels,
        shared=sorted(name for name, independent in reader.independent.items() if not independent),
        sections=sections,
        totals=reader.totals(),
        colours=_css_colours(reader.sources),
        photos=photos,
        **parts,
    )


class _Reader:
    """Reads from the warehouse what the page shows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limit: int) -> None:
        self._connection = connection
        self._limit = limit
        self.sources: list[str] = [row["caption_source"] for row in self._rows("SELECT * FROM caption_quality")]
        captioners = self._rows("SELECT name, independent FROM captioners")
        self.independent: dict[str, bool] = {row["name"]: row["independent"] is not False for row in captioners}
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

    def figures(self) -> list[tuple[str, str, str]]:
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

    def plots(self) -> list[tuple[str, str, str]]:
        """What each plot shows, and the plot as a data URI for light and for dark."""
        scores: dict[str, list[float]] = {source: [] for source in self.sources}
        drawn = self._rows(
            "SELECT caption_source, similarity FROM captions WHERE similarity IS NOT NULL "
            "AND uid IN (SELECT uid FROM samples WHERE status = 'ok' ORDER BY uid LIMIT ?)",
            [PLOTTED],
        )
        for row in drawn:
            scores[row["caption_source"]].append(row["similarity"])
        reasons = {
            row["reason"]: row["n"]
            for row in self._rows("SELECT reason, count(*) AS n FROM samples GROUP BY reason ORDER BY reason")
        }
        intervals: dict[tuple[str, ...], dict[int, tuple[tuple[float, float], tuple[float, float]]]] = {}
        for row in self._rows("SELECT * FROM preference_intervals WHERE against IS NULL"):
            ends = (row["share_a_low"], row["share_a_high"]), (row["share_b_low"], row["share_b_high"])
            pair = row["source_a"], row["source_b"], row["scorer"]
            intervals.setdefault(pair, {})[round(100 * row["threshold"])] = ends
        preferences = [
            Preference(
                row["source_a"],
                row["source_b"],
                row["n"],
                {percent: (row[f"a_above_{percent}"], row[f"b_above_{percent}"]) for percent in (70, 80, 90)},
                independent=row["independent"],
                intervals=intervals.get((row["source_a"], row["source_b"], row["scorer"]), {}),
            )
            for row in self._limited(
                "SELECT * FROM caption_preference ORDER BY source_a <> 'original', source_a, source_b"
            )
        ]
        sizes: dict[str, list[int]] = {}
        for row in self._rows(
            "SELECT DISTINCT kind, cluster, size FROM duplicates ORDER BY kind = 'any', kind, cluster"
        ):
            sizes.setdefault(row["kind"], []).append(row["size"])
        best = self._connection.execute(
            "SELECT original_similarity, similarity, coalesce(independent, true) AS independent FROM best_captions "
            "WHERE similarity IS NOT NULL ORDER BY uid LIMIT ?",
            [PLOTTED],
        ).fetchnumpy()
        before, after = (np.ma.filled(best[name], np.nan) for name in ("original_similarity", "similarity"))
        drawings: list[tuple[str, Callable[[plots.Theme], bytes]]] = [
            (
                "How well the original captions fit, and the best of each sample",
                lambda theme: best_plots.before_and_after(before, after, best["independent"], theme),
            ),
            ("How well the captions of each source fit", lambda theme: similarity_histogram(scores, theme)),
            *self._beside_originals(),
            ("Which caption the scorer prefers", lambda theme: preference_bars(preferences, theme)),
            ("Images that could be read, and why others could not", lambda theme: status_bars(reasons, theme)),
            ("Duplicate clusters by size", lambda theme: cluster_sizes(sizes, theme)),
            *self._judged(),
            *self._maps(),
        ]
        return [(alt, plots.data_uri(draw(plots.LIGHT)), plots.data_uri(draw(plots.DARK))) for alt, draw in drawings]

    def _judged(self) -> list[tuple[str, Callable[[Theme], bytes]]]:
        means = self._connection.sql("FROM judged_sources").to_arrow_table()
        if not means.num_rows:
            return []
        return [("What the judge thinks of the captions", lambda theme: judgement_plots.marks_by_source(means, theme))]

    def _beside_originals(self) -> list[tuple[str, Callable[[Theme], bytes]]]:
        """The similarity of each image's original caption against that of each captioner's."""
        names = [source for source in self.sources if source != ORIGINAL]
        drawings: list[tuple[str, Callable[[Theme], bytes]]] = []
        for name in names[: self._limit]:
            pairs = self._connection.sql(
                "SELECT o.similarity AS original, c.similarity AS synthetic "
                "FROM captions c JOIN captions o USING (uid) "
                "WHERE o.caption_source = ? AND c.caption_source = ? AND o.similarity + c.similarity IS NOT NULL "
                "ORDER BY uid LIMIT ?",
                params=[ORIGINAL, name, PLOTTED],
            ).to_arrow_table()
            if pairs.num_rows:
                original, synthetic = (pairs[column].to_numpy() for column in ("original", "synthetic"))
                draw = partial(original_vs_synthetic_scatter, original, synthetic, name, names)
                drawings.append((f"How well the original captions fit, and {name}'s", draw))
        return drawings

    def _maps(self) -> list[tuple[str, Callable[[Theme], bytes]]]:
        mapped = self._connection.sql(
            "SELECT m.x, m.y, m.topic, m.topic_name, s.source, s.original_similarity AS similarity "
            "FROM sample_map m JOIN samples s USING (uid) ORDER BY m.uid"
        ).to_arrow_table()
        if not mapped.num_rows:
            return []
        shown = sample_map(mapped)
        return [
            ("What the images show, by topic", lambda theme: topic_plots.map_by_topic(shown, theme)),
            ("How well the captions fit, on the same map", lambda theme: topic_plots.map_by_score(shown, theme)),
            ("Where the images come from, on the same map", lambda theme: topic_plots.map_by_source(shown, theme)),
        ]

    def sections(self) -> list[_Section]:
        """The sections of samples, those with nothing to show left out."""
        sections = (
            (
                "improved",
                "Most improved",
                "Where a synthetic caption fits so much better than the caption that came with the image.",
                "SELECT uid FROM most_improved",
            ),
            (
                "judged",
                "Judge and scorer disagree",
                "Where the judge prefers one caption and the scorer another, both surely; with the judge's reasons.",
                "SELECT uid FROM judge_disagreements GROUP BY uid ORDER BY max(disagreement) DESC, uid",
            ),
            (
                "refined",
                "Refined",
                "Captions that were asked for again, those first that gained most, beside what was there.",
                REFINED_SAMPLES,
            ),
            (
                "worst",
                "Worst aligned",
                "The original captions that fit their images least.",
                "SELECT uid FROM worst_captions",
            ),
            (
                "best",
                "Best aligned",
                "The original captions that fit their images best.",
                "SELECT uid FROM best_originals",
            ),
            (
                "all",
                "A sample of everything",
                "Drawn without looking at any score.",
                "SELECT uid FROM samples WHERE status = 'ok' ORDER BY uid",
            ),
        )
        filled = (
            _Section(anchor, title, description, self.samples([row["uid"] for row in self._limited(sql)]))
            for anchor, title, description, sql in sections
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

    def groups(self) -> list[_Group]:
        """The largest duplicate groups, the sample to keep first in each."""
        groups = []
        for group in self._limited("SELECT cluster, size FROM duplicate_groups"):
            members = self._rows(
                "SELECT s.uid, s.image_name, s.caption, d.is_representative, d.similarity "
                "FROM duplicates d JOIN samples s USING (uid) WHERE d.kind = 'any' AND d.cluster = ? "
                "ORDER BY NOT d.is_representative, s.uid LIMIT ?",
                [group["cluster"], GROUP_MEMBERS],
            )
            groups.append(
                _Group(
                    group["size"],
                    tuple(
                        _Member(
                            row["uid"],
                            _clean(row["image_name"]) or "",
                            _clean(row["caption"]),
                            row["is_representative"],
                            row["similarity"],
                        )
                        for row in members
                    ),
                )
            )
        return groups

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


def _photos(images: dict[str, bytes]) -> dict[str, tuple[str, int, int]]:
    """A small copy of each image as a data URI, with its width and height."""
    photos = {}
    for uid, data in images.items():
        picture = plots.thumbnail(data, (THUMBNAIL, THUMBNAIL))
        if picture is not None:
            photos[uid] = (plots.data_uri(plots.jpeg(picture)), picture.width, picture.height)
    return photos


def _css_colours(sources: Iterable[str]) -> list[tuple[str, str, str]]:
    light, dark = (theme.colours(sources) for theme in (plots.LIGHT, plots.DARK))
    return [(name, light[name], dark[name]) for name in sorted({ORIGINAL, *sources})]


def _gain(row: dict[str, Any]) -> float | None:
    if row["best_source"] in (None, ORIGINAL) or row["original_similarity"] is None:
        return None
    return float(row["best_similarity"] - row["original_similarity"])


def _clean(text: str | None) -> str | None:
    """Text on one line, of bounded length, without control characters; None where nothing is left."""
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
