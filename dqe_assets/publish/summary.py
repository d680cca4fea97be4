"""The public summary of training content, as far as this platform knows it.

Article 53(1)(d) of Regulation (EU) 2024/1689 asks providers of general-purpose AI models for it, and the Commission's
template of July 2025 (annex to C(2025) 5235) has its sections and size ranges. What is not known here is None.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dqe_assets.ingest.private import Private
from dqe_assets.publish.card import UNKNOWN, counts, rendered
from dqe_assets.publish.selection import published_sql, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.report.condition import Query

TO_BE_FILLED_IN = "TO BE FILLED IN"

NOTICE = (
    "Filled in by a program from what it knows of the data. This is no legal advice, and no statement that the summary "
    "is complete or right: whoever places the model on the market has to check it and to fill in what is marked."
)

_SHOWN_HOSTS = 1000
_TOP = 0.1
_LANGUAGES = 50
_IMAGE_RANGES = (
    (10**6, "Less than 1 million images"),
    (10**9, "1 million to 1 billion images"),
    (math.inf, "More than 1 billion images"),
)
_TEXT_RANGES = (
    (10**9, "Less than 1 billion tokens"),
    (10**13, "1 billion to 10 trillion tokens"),
    (math.inf, "More than 10 trillion tokens"),
)


def summary(query: Query, settings: Settings, condition: str, caption: str) -> dict[str, Any]:
    """The summary, by the template's sections.

    Args:
        query: runs one SELECT on the warehouse.
        settings: the settings.
        condition: SQL over the table ``samples``: what the model is trained on.
        caption: the caption rule: ``best``, ``original``, or the name of a captioner or a mix.

    Returns:
        As JSON; what is to be filled in is None.

    Raises:
        PublishError: the condition or the caption is wrong, or nothing is chosen.
    """
    private, selection = Private.of(settings.model_dump(), settings.fetching.allow), select(query, condition, caption)
    published = published_sql(condition, caption)
    known = counts(query, selection)
    found = {
        "notice": NOTICE,
        "condition": condition,
        "caption": caption,
        "1_general_information": {
            "1.1_provider": {"name_and_contact": None, "authorised_representative": None},
            "1.2_model": {"names": None, "dependencies": None, "placed_on_the_union_market": None},
            "1.3_training_data": _training_data(query, published),
        },
        "2_data_sources": _sources(query, settings, private, published),
        "3_data_processing": {
            "3.1_reservation_of_rights": {
                "signatory_of_the_code_of_practice": None,
                "measures": _measures(settings),
                "refused": known["opt_outs"],
                "taken_down": known.get("taken_down", 0),
                "rights": known["rights"],
            },
            "3.2_illegal_content": {"measures": None, "filters": dict(selection.filters)},
            "3.3_other": {
                "samples_before_selection": selection.samples,
                "selection": [{"condition": step.condition, "left": step.left} for step in selection.steps],
            },
        },
    }
    return private.record(found)


def as_markdown(found: Mapping[str, Any]) -> str:
    """The summary for people."""
    return rendered("summary.md.j2", found=found, missing=f"**{TO_BE_FILLED_IN}**", shown=_SHOWN_HOSTS)


def _training_data(query: Query, published: str) -> dict[str, Any]:
    (row,) = query(
        f"""
        SELECT count(*) AS images, sum(p.tokens) AS tokens, avg(p.width) AS width, avg(p.height) AS height,
            sum(s.bytes) AS bytes, strftime(max(s.fetched_at), '%m/%Y') AS latest
        FROM ({published}) p JOIN samples s USING (uid)
        """  # noqa: S608 - the condition is one expression, and the query is confined
    ).to_pylist()
    languages = query(
        f"""
        SELECT coalesce(language, 'unknown') AS language, count(*) AS captions
        FROM text_quality WHERE (uid, caption_source) IN (SELECT (uid, caption_source) FROM ({published}))
        GROUP BY ALL ORDER BY captions DESC, language LIMIT {_LANGUAGES}
        """  # noqa: S608
    ).to_pylist()
    return {
        "modalities": [
            {
                "modality": "image",
                "size": row["images"],
                "size_range": _range(row["images"], _IMAGE_RANGES),
                "bytes": int(row["bytes"] or 0),
                "mean_width": row["width"],
                "mean_height": row["height"],
                "types_of_content": None,
            },
            {
                "modality": "text",
                "size": int(row["tokens"] or 0),
                "size_range": _range(row["tokens"] or 0, _TEXT_RANGES),
                "types_of_content": f"a caption of each image: {row['images']:,} captions",
            },
        ],
        "latest_date_of_collection": row["latest"],
        "continuously_trained": None,
        "languages": languages,
        "other_characteristics": None,
    }


def _range(size: float, ranges: Sequence[tuple[float, str]]) -> str:
    return next(name for most, name in ranges if size < most)


def _sources(query: Query, settings: Settings, private: Private, published: str) -> dict[str, Any]:
    of_source = {
        row["source"]: row
        for row in query(
            f"""
            SELECT s.source, count(*) AS samples, count(s.attempts) AS fetched,
                strftime(min(s.fetched_at), '%m/%Y') AS first, strftime(max(s.fetched_at), '%m/%Y') AS last
            FROM ({published}) p JOIN samples s USING (uid) GROUP BY s.source ORDER BY s.source
            """  # noqa: S608
        ).to_pylist()
    }
    sources = [
        {
            "name": source.name,
            "kind": source.kind,
            "licence": source.license or UNKNOWN,
            **of_source[source.name],
            "is_publicly_available": None,
            "link": None,
        }
        for source in settings.sources
        if source.name in of_source
    ]
    fetched = [one for one in sources if one["fetched"]]
    hosts = query(
        f"""
        SELECT s.host, count(*) AS samples FROM ({published}) p JOIN samples s USING (uid)
        WHERE s.attempts IS NOT NULL AND s.host IS NOT NULL GROUP BY s.host ORDER BY samples DESC, s.host
        """  # noqa: S608
    ).to_pylist()
    hosts = [host for host in hosts if not private.is_inside(host["host"])]
    total = sum(host["samples"] for host in hosts)
    top = hosts[: math.ceil(_TOP * len(hosts))]
    synthetic = query(
        f"""
        SELECT caption_source AS captioner, any_value(k.model) AS model, count(*) AS captions
        FROM ({published}) p JOIN captioners k ON k.name = p.caption_source GROUP BY ALL ORDER BY captioner
        """  # noqa: S608
    ).to_pylist()
    licences = {one.name: one.license for one in settings.captioners}
    return {
        "2.1_publicly_available_datasets": {"datasets": sources, "description": None},
        "2.2_private_datasets_of_third_parties": {"licensed": None, "others": None},
        "2.3_crawled": {
            "crawlers_used": bool(fetched),
            "crawler": settings.fetching.sent_user_agent if fetched else None,
            "purpose": None,
            "behaviour": "Images alone are fetched, from lists of URLs; no link is followed." if fetched else None,
            "samples": total,
            "period": [_month(fetched, "first"), _month(fetched, "last", most=True)],
            "hosts": len(hosts),
            "top_hosts": [{**host, "share": host["samples"] / total} for host in top],
        },
        "2.4_user_data": {"of_the_model": None, "of_other_services": None},
        "2.5_synthetic": {
            "used": bool(synthetic),
            "models": [
                {**one, "model": private.name(one["model"] or ""), "licence": licences.get(one["captioner"]) or UNKNOWN}
                for one in synthetic
            ],
        },
        "2.6_other": None,
    }


def _month(rows: Sequence[Mapping[str, Any]], name: str, *, most: bool = False) -> str | None:
    """The first or last month of those that are known, MM/YYYY."""
    months = sorted((row[name] for row in rows if row[name]), key=lambda month: (month[3:], month[:2]))
    return months[-1 if most else 0] if months else None


def _measures(settings: Settings) -> list[str]:
    """What is heeded before and while images are collected."""
    fetching = settings.fetching
    said = {
        f"robots.txt of each host (RFC 9309), as {fetching.token}": fetching.robots_txt,
        "TDMRep: the header tdm-reservation and /.well-known/tdmrep.json": fetching.tdm_reservation,
        f"the header X-Robots-Tag: {', '.join(fetching.disallowed_header_directives)}": bool(
            fetching.disallowed_header_directives
        ),
        "PLUS's statement on data mining in the XMP of each image": bool(settings.images.disallowed_data_mining),
        "takedowns on request": bool(settings.takedowns.files),
    }
    return [what for what, is_on in said.items() if is_on]
