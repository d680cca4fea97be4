"""What hosts and files say against being fetched: robots.txt, TDMRep, and PLUS's statement in XMP."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from dqe_assets.ingest.fetch.client import Client, parse_url
from dqe_assets.ingest.fetch.refusals import MAX_FILE_BYTES, Known, RefusedError, Rules, tdm_rules
from dqe_assets.ingest.fetch.settings import Fetching
from dqe_assets.ingest.outcomes import of_bytes
from dqe_assets.ingest.settings import ImageLimits
from dqe_resources.images import ImageRights, with_rights
from dqe_resources.images.rights import xmp_packet
from dqe_resources.web_url import WebUrl
from tests.hostile_server import HostileServer, jpeg
from tests.ingest.fetching import QUICK, make, rows, write_list

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dqe_assets.ingest.fetch.client import Reply

pytest.importorskip("protego", reason="robots.txt is read by protego, which is not installed")

HEEDING = QUICK | {"robots_txt": True, "tdm_reservation": True}
ROBOTS, TDM = "/robots.txt", "/.well-known/tdmrep.json"
NOT_THERE = ("404 Not Found", b"")


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer(files={ROBOTS: NOT_THERE, TDM: NOT_THERE}).running() as running:
        yield running


def asked(server: HostileServer, *paths: str, settings: Fetching | None = None, **more: Any) -> list[Reply]:
    """What requests for these behaviours give, all at once."""
    used = settings or Fetching.model_validate(HEEDING | more)

    async def ask() -> list[Reply]:
        async def move(_: object) -> None:
            pass

        async with Client(used, 10**7) as client:
            deadline = asyncio.get_running_loop().time() + 60
            urls = [parse_url(server.url(path)) for path in paths]
            return await asyncio.gather(*(client.get(url, move, deadline) for url in urls))

    return asyncio.run(ask())


def reasons(server: HostileServer, *paths: str, **more: Any) -> list[str]:
    return [reply.reason for reply in asked(server, *paths, **more)]


def test_robots_txt_binds_this_client_by_its_name_and_can_be_switched_off(server: HostileServer) -> None:
    server.files[ROBOTS] = (
        "200 OK",
        (
            b"\xef\xbb\xbfUser-agent: *\nDisallow: /\n\n"
            b"User-agent: Data-Quality-Engine\nDisallow: /removed*\nAllow: /good\n\xff"
        ),
    )
    assert reasons(server, "good", "removed") == ["ok", "robots_txt"]
    assert reasons(server, "good", "removed", user_agent_token=None) == ["robots_txt"] * 2
    assert reasons(server, "good", user_agent_token="OtherBot") == ["robots_txt"]
    (reply,) = asked(server, "removed")
    assert (reply.http_status, reply.final_url, reply.retry_after) == (None, None, None)
    assert reply.detail == "/robots.txt forbids it for data-quality-engine"
    assert reasons(server, "removed", robots_txt=False) == ["ok"]
    assert server.times("removed") == [1]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", "ok"),
        ("403 Forbidden", "ok"),
        ("500 Error", "robots_unreachable"),
        ("429 Busy", "robots_unreachable"),
    ],
)
def test_no_file_allows_all_and_an_error_of_the_server_forbids_all(
    server: HostileServer, status: str, reason: str
) -> None:
    server.files[ROBOTS] = (status, b"User-agent: *\nDisallow: /")
    assert reasons(server, "good") == [reason]
    assert bool(server.times("good")) == (reason == "ok")


def test_each_host_is_asked_once_also_over_shards_and_again_after_a_failure(server: HostileServer) -> None:
    settings = Fetching.model_validate(HEEDING | {"backoff_seconds": 0.01})
    server.files[ROBOTS] = ("503 Busy", b"")
    assert {reply.reason for reply in asked(server, *["good"] * 20, settings=settings)} == {"robots_unreachable"}
    assert server.asked[ROBOTS] == server.asked[TDM] == 1
    server.files[ROBOTS] = NOT_THERE
    for _ in range(2):
        assert {reply.reason for reply in asked(server, *["good"] * 20, settings=settings)} == {"ok"}
    assert server.asked[ROBOTS] == server.asked[TDM] == 2


def test_robots_txt_is_read_to_its_limit_and_through_redirects(server: HostileServer) -> None:
    comment = b"#" + b"." * 98 + b"\n"
    rules = b"User-agent: *\nDisallow: /good\n"
    server.files[ROBOTS] = ("200 OK", rules + comment * (MAX_FILE_BYTES // 50) + b"Disallow: /removed\n")
    assert reasons(server, "good", "removed") == ["robots_txt", "ok"]
    server.files |= {ROBOTS: ("301 Moved", b"", {"Location": "/rules"}), "/rules": ("200 OK", rules)}
    assert reasons(server, "good") == ["robots_txt"]
    server.files["/rules"] = ("302 Found", b"", {"Location": "/rules"})
    assert reasons(server, "good") == ["ok"], "what never ends is no file"
    assert server.asked["/rules"] == 1 + 5
    server.files["/rules"] = ("302 Found", b"", {"Location": "http://169.254.169.254/"})
    assert reasons(server, "good") == ["refused_address"]


def test_a_host_that_does_not_answer_is_not_asked_for_a_picture(server: HostileServer) -> None:
    server.files.clear()  # it closes the connection then
    (reply,) = asked(server, "good")
    assert (reply.reason, reply.had_answer, reply.was_asked) == ("reset", False, True)
    assert server.times("good") == []
    assert reasons(server, "good", robots_txt=False) == ["ok"], (
        "a file of TDMRep that is not to be had reserves nothing"
    )


def test_tdm_reservation_is_heeded_in_the_header_and_in_the_file(server: HostileServer) -> None:
    assert reasons(server, "reserved") == ["tdm_reserved"]
    assert reasons(server, "reserved", tdm_reservation=False) == ["ok"]
    rules = [{"location": "/good*", "tdm-reservation": 1, "tdm-policy": "https://example.org/policy"}]
    server.files[TDM] = ("200 OK", json.dumps(rules).encode())
    (reply,) = asked(server, "good")
    assert (reply.reason, reply.detail) == ("tdm_reserved", "/.well-known/tdmrep.json: /good*")
    assert reasons(server, "good", tdm_reservation=False) == ["ok"]


@pytest.mark.parametrize(
    ("rules", "path", "is_reserved"),
    [
        ([{"location": "/", "tdm-reservation": 1}], "/a/b.jpg", True),
        ([{"location": "*", "tdm-reservation": "1"}], "/a/b.jpg", True),
        ([{"location": "/a/*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], "/a/b.jpg", False),
        ([{"location": "/a/*", "tdm-reservation": 0}, {"location": "/", "tdm-reservation": 1}], "/c.jpg", True),
        ([{"location": "/*.jpg$", "tdm-reservation": 1}], "/a.jpg?x", False),
        ([{"location": "/*.jpg$", "tdm-reservation": 1}], "/a.jpg", True),
        ([{"location": "images", "tdm-reservation": 1}], "/images/1", True),
        ([{"location": "/x\nAllow: /", "tdm-reservation": 1}, {"location": "/", "tdm-reservation": 1}], "/y", True),
        ([{"location": "/", "tdm-reservation": 2}, {"location": 3}, 4, None, {"tdm-reservation": 1}], "/a", False),
        ({"location": "/", "tdm-reservation": 1}, "/a", False),
    ],
)
def test_the_first_location_of_tdmreps_file_that_matches_decides(rules: Any, path: str, is_reserved: bool) -> None:
    found = Rules(tdm=tdm_rules(json.dumps(rules).encode()))
    with pytest.raises(RefusedError, match="tdm_reserved") if is_reserved else nullcontext():
        found.check(WebUrl.parse(f"https://example.org{path}"), "*")


def test_files_that_are_none_reserve_nothing() -> None:
    for data in (b"", b"<html>", b"[" * 100_000, b"\xff", b"null"):
        assert tdm_rules(data) == ()


def test_what_is_known_of_hosts_is_bounded() -> None:
    known = Known()
    for number in range(100):
        known.put(f"http://{number}", Rules(bytes=1 << 20))
    assert known.get("http://99") is not None
    assert known.get("http://0") is None
    assert known._bytes <= 33 << 20
    assert known._bytes == sum(rules.bytes + 1024 for _, rules in known._kept.values())


def test_the_user_agent_says_who_asks(server: HostileServer) -> None:
    assert Fetching().sent_user_agent == Fetching().user_agent
    settings = Fetching(contact="mailto:crawl@example.org")
    assert settings.sent_user_agent.endswith("; +mailto:crawl@example.org)")
    assert Fetching(user_agent="bot/1", contact="https://a.org/bot").sent_user_agent == "bot/1 (+https://a.org/bot)"
    for wrong in ("a\r\nX: y", "two words", "(x)", "", "ü@example.org"):
        with pytest.raises(ValidationError, match="neither an e-mail address nor a URL"):
            Fetching(contact=wrong)


def prohibiting(said: str) -> bytes:
    image = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(image, "JPEG")
    return with_rights(image.getvalue(), ImageRights(data_mining=said))


def test_a_file_that_prohibits_data_mining_is_refused_wherever_it_comes_from() -> None:
    limits = ImageLimits()
    outcome = of_bytes(prohibiting("DMI-PROHIBITED-GENAIMLTRAINING"), "a", limits)
    assert (outcome["status"], outcome["reason"]) == ("failed", "noai_metadata")
    assert outcome["detail"] == "plus:DataMining: DMI-PROHIBITED-GENAIMLTRAINING"
    assert "image" not in outcome
    assert of_bytes(prohibiting("DMI-ALLOWED"), "a", limits)["reason"] == "ok"
    ignoring = ImageLimits(disallowed_data_mining=())
    assert of_bytes(prohibiting("DMI-PROHIBITED"), "a", ignoring)["reason"] == "ok"
    assert b"DataMining" in xmp_packet(ImageRights(data_mining="DMI-PROHIBITED"))


def test_the_ledger_has_a_reason_for_each_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    image = ("200 OK", prohibiting("DMI-PROHIBITED"))
    files = {
        ROBOTS: ("200 OK", b"User-agent: *\nDisallow: /removed"),
        TDM: ("200 OK", b'[{"location": "/good/r", "tdm-reservation": 1}]'),
        "/good/no": image,
        "/good/yes": ("200 OK", jpeg()),
    }
    with HostileServer(files=files).running() as running:
        paths = ["good/no", "good/yes", "good/r", "removed/1", "opted_out/1", "reserved/1"]
        urls = [running.url(*path.split("/")) for path in paths]
        heeding = {"robots_txt": True, "tdm_reservation": True}
        write_list(tmp_path, urls, **heeding, top={"images": {"disallowed_data_mining": []}})
        make()
        found = [row["reason"] for row in rows()]
        assert found == ["ok", "ok", "tdm_reserved", "robots_txt", "opted_out", "tdm_reserved"]
        asked_before = running.asked.copy()
        # What is there already is looked at again, and nothing is asked again for that.
        settings = yaml.safe_load((tmp_path / "dqe.yaml").read_text())
        del settings["images"]
        (tmp_path / "dqe.yaml").write_text(yaml.safe_dump(settings))
        make()
        found = [row["reason"] for row in rows()]
        assert found == ["noai_metadata", "ok", "tdm_reserved", "robots_txt", "opted_out", "tdm_reserved"]
        assert running.asked == asked_before
        assert rows()[0]["image"] is None
        assert rows()[0]["http_status"] == 200
