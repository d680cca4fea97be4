"""The dataset card of a publication, and its figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dqe_assets.core.relations import literal, meaning
from dqe_assets.filtering.plots import funnels
from dqe_assets.ingest.fetch.reasons import OPT_OUTS, TAKEN_DOWN
from dqe_assets.publish.captions import CAPTIONS
from dqe_assets.publish.pictures import BINS, before_and_after
from dqe_assets.publish.selection import FACTS, published_sql

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from dqe_assets.publish.selection import Selection
    from dqe_assets.report.condition import Query

SIMILARITY_PICTURE = "similarity.png"
FUNNEL_PICTURE = "selection.png"

UNKNOWN = "unknown"

REFUSALS = (TAKEN_DOWN, *OPT_OUTS)
_LICENCES = 20
"""The most licences that a card names."""

_BEFORE = """
    SELECT s.original_similarity AS similarity, s.width, s.height, s.is_duplicate, c.tokens
    FROM samples s LEFT JOIN captions c ON c.uid = s.uid AND c.caption_source = 'original' WHERE s.status = 'ok'
"""

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")

_FIGURES = {
    "samples": "count(*)",
    "mean similarity": "avg(similarity)",
    "similarity, lowest tenth below": "quantile_cont(similarity, 0.1)",
    "similarity, half below": "median(similarity)",
    "similarity, highest tenth above": "quantile_cont(similarity, 0.9)",
    "mean width [pixels]": "avg(width)",
    "mean height [pixels]": "avg(height)",
    "mean caption length [tokens]": "avg(tokens)",
    "duplicates of another sample": "count(*) FILTER (is_duplicate)",
}


def figures(query: Query, selection: Selection) -> list[tuple[str, str, str]]:
    """Each figure: what it is, before and after the selection."""
    columns = ", ".join(_FIGURES.values())
    before, after = (
        query(f"SELECT {columns} FROM ({sql})")  # noqa: S608
        for sql in (_BEFORE, published_sql(selection.condition, selection.caption))
    )
    pairs = zip(_FIGURES, before.columns, after.columns, strict=True)
    return [(name, _number(b[0].as_py()), _number(a[0].as_py())) for name, b, a in pairs]


def pictures(query: Query, selection: Selection) -> dict[str, bytes]:
    """The PNG files next to the card."""
    before, after = (
        {
            row["bin"]: row["n"]
            for row in query(
                f"SELECT floor(similarity * {BINS})::INTEGER AS bin, count(*) AS n FROM ({sql}) "  # noqa: S608
                "WHERE similarity IS NOT NULL GROUP BY ALL ORDER BY ALL"
            ).to_pylist()
        }
        for sql in (_BEFORE, published_sql(selection.condition, selection.caption))
    )
    steps = [(step.condition, step.left) for step in selection.steps]
    if selection.without_caption:
        steps.append(("has such a caption", selection.total))
    return {
        SIMILARITY_PICTURE: before_and_after(before, after),
        FUNNEL_PICTURE: funnels([("published", steps)], selection.samples),
    }


def composition(query: Query, selection: Selection) -> list[dict[str, Any]]:
    """How many captions are from each caption source; independent is no where the scorer marks its own work."""
    published = published_sql(selection.condition, selection.caption)
    return query(
        f"""
        SELECT caption_source, count(*) AS samples, coalesce(bool_and(k.independent), true) AS independent
        FROM ({published}) p LEFT JOIN captioners k ON k.name = p.caption_source
        GROUP BY caption_source ORDER BY samples DESC, caption_source
        """  # noqa: S608
    ).to_pylist()


def counts(query: Query, selection: Selection) -> dict[str, Any]:
    """How many rows were left out for whom, and what is known of the rights of what is published; nothing of none."""
    refused = {
        row["reason"]: row["n"]
        for row in query(
            f"SELECT reason, count(*) AS n FROM samples WHERE reason IN ({', '.join(map(literal, REFUSALS))}) "  # noqa: S608
            "GROUP BY reason ORDER BY reason"
        ).to_pylist()
    }
    published = published_sql(selection.condition, selection.caption)
    rights = query(
        f"""
        SELECT count(license) AS licence, count(attribution) AS attribution, count(notice) AS notice,
            count(creator) AS creator, count(*) FILTER (data_mining = 'DMI-ALLOWED') AS mining_allowed,
            count(*) FILTER (starts_with(data_mining, 'DMI-PROHIBITED')) AS mining_prohibited,
            count(*) FILTER (source_type LIKE '%lgorithmicMedia') AS made_by_algorithm, count(*) FILTER (c2pa) AS c2pa
        FROM rights WHERE uid IN (SELECT uid FROM ({published}))
        """  # noqa: S608
    ).to_pylist()[0]
    licences = query(
        f"""
        SELECT license, count(*) AS samples FROM rights WHERE uid IN (SELECT uid FROM ({published}))
            AND license IS NOT NULL GROUP BY license ORDER BY samples DESC, license LIMIT {_LICENCES}
        """  # noqa: S608
    ).to_pylist()
    taken_down = refused.pop(TAKEN_DOWN, 0)
    return {
        "opt_outs": refused,
        "rights": {**rights, "licences": licences},
        **({"taken_down": taken_down} if taken_down else {}),
    }


def contamination(query: Query, selection: Selection) -> list[dict[str, Any]]:
    """How many of the published samples are in each reference set, by the picture and by a text alone."""
    published = published_sql(selection.condition, selection.caption)
    return query(
        f"""
        SELECT r.reference_set, r.pictures, r.texts, count(f.uid) AS samples, count(f.uid) FILTER (f.by_text) AS by_text
        FROM reference_sets r LEFT JOIN (
            SELECT reference_set, uid, bool_and(kind IN ('caption', 'image_text')) AS by_text
            FROM contamination WHERE uid IN (SELECT uid FROM ({published})) GROUP BY ALL
        ) f USING (reference_set)
        GROUP BY ALL ORDER BY ALL
        """  # noqa: S608
    ).to_pylist()


def render(about: Mapping[str, Any], **more: Any) -> str:
    """The card, as Markdown with the front matter that Hugging Face reads.

    Args:
        about: what the manifest says.
        more: the figures, the composition, the credits, and which files hold what.
    """
    return rendered(
        "card.md.j2",
        **about,
        **more,
        licence=_licence(about["sources"]),
        size=_size(about["samples"]),
        columns=_columns(FACTS.append(CAPTIONS.field())),
    )


def rendered(name: str, **values: Any) -> str:
    """A page in Markdown, of a template beside this module."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - Markdown: what is from outside is made harmless by the filters below
        loader=PackageLoader("dqe_assets.publish", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": _plain, "indented": _indented, "setting": _setting}
    return environment.get_template(name).render(**values)


def _columns(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, meaning(schema, field.name)) for field in schema]


def _licence(sources: Sequence[Mapping[str, Any]]) -> str:
    """The identifier for the front matter: that of all sources, or other, or unknown."""
    found = {source["license"] for source in sources}
    (only,) = found if len(found) == 1 else ("other",)
    if only == UNKNOWN or re.fullmatch(r"[a-z0-9][a-z0-9.-]*", only):
        return only
    return "other"


def _size(samples: int) -> str:
    return next((name for power, name in enumerate(_SIZES, 3) if samples < 10**power), "n>1B")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}"


def _plain(text: object) -> str:
    """Text as it stands inside a table of Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", " ".join(str(text).split()))


def _setting(value: object) -> str:
    """The value of a setting, as people read it."""
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_setting, value)) or "none"
        case _:
            return str(value)


def _indented(text: str) -> str:
    """Text as a block of code."""
    return "\n".join(f"    {line}" for line in text.splitlines())
