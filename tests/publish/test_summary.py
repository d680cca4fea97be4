"""The public summary of training content: what is known is there, what is not is marked, and nothing private leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dqe_assets.publish.selection import RequestError
from dqe_assets.publish.summary import NOTICE, TO_BE_FILLED_IN, as_markdown, summary
from tests.publish.test_private import HOME, PLANTED, settings

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings

__all__ = ["settings"]


def summed(settings: Settings, where: str = "true", caption: str = "best") -> dict[str, Any]:
    with settings.warehouse.session() as query:
        return summary(query, settings, where, caption)


def test_what_is_known_is_said_by_the_sections_of_the_template(settings: Settings) -> None:
    found = summed(settings)
    with settings.warehouse.connect() as connection:
        counted = connection.execute("SELECT count(*) FROM best_captions WHERE caption IS NOT NULL").fetchone()
    images = (counted or (0,))[0]
    data = found["1_general_information"]["1.3_training_data"]
    image, text = data["modalities"]
    assert (image["size"], image["size_range"]) == (images, "Less than 1 million images")
    assert text["size"] > images
    assert text["size_range"] == "Less than 1 billion tokens"
    assert data["latest_date_of_collection"] == "03/2026"
    (source,) = found["2_data_sources"]["2.1_publicly_available_datasets"]["datasets"]
    assert (source["name"], source["licence"], source["samples"], source["fetched"]) == (
        "photos",
        "CC0",
        images,
        images,
    )
    crawled = found["2_data_sources"]["2.3_crawled"]
    assert crawled["crawlers_used"]
    assert crawled["period"] == ["01/2026", "03/2026"]
    assert crawled["hosts"] == 2
    (host,) = crawled["top_hosts"]
    assert host["host"] in {"photos.example.org", "bucket.example.org"}
    assert host["share"] == host["samples"] / crawled["samples"]
    models = found["2_data_sources"]["2.5_synthetic"]["models"]
    assert {one["captioner"] for one in models} <= {"labels", "vlm"}
    assert {one["licence"] for one in models} <= {"apache-2.0", "unknown"}
    measures = found["3_data_processing"]["3.1_reservation_of_rights"]["measures"]
    assert measures[0] == "robots.txt of each host (RFC 9309), as data-quality-engine"
    assert len(measures) == 4, "there are no takedowns"
    assert found["1_general_information"]["1.1_provider"] == {
        "name_and_contact": None,
        "authorised_representative": None,
    }


def test_the_page_marks_what_is_to_be_filled_in_and_says_that_it_is_no_advice(settings: Settings) -> None:
    text = as_markdown(summed(settings, "width > 1", "original"))
    assert NOTICE in text
    assert "no legal advice" in text
    assert f"- Provider name and contact: **{TO_BE_FILLED_IN}**" in text
    assert "    width > 1\n" in text
    assert "None" not in text
    for section in ("### 1.3 ", "### 2.3 ", "### 2.5 ", "### 3.1 ", "### 3.2 "):
        assert section in text


def test_nothing_of_the_machine_leaves_in_it(settings: Settings) -> None:
    found = summed(settings, f"image_name <> '{settings.sources[0].path}/x'")  # type: ignore[attr-defined]
    for text in (json.dumps(found), as_markdown(found)):
        assert [secret for secret in (*PLANTED, HOME, "/tmp/") if secret in text] == []


def test_a_condition_that_is_wrong_is_refused(settings: Settings) -> None:
    with pytest.raises(RequestError, match="--where"):
        summed(settings, "nonsense =")
