"""What becomes of each URL, asked of a server that misbehaves in every way."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml

from dqe_assets.ingest.fetch.addresses import AddressRules
from dqe_assets.ingest.fetch.client import Client, FetchError, parse_url
from dqe_assets.ingest.fetch.optout import opted_out
from dqe_assets.ingest.fetch.placeholders import Placeholders
from dqe_assets.ingest.fetch.reasons import REASONS, is_transient
from dqe_assets.ingest.fetch.resolver import RefusedAddressError, Resolver
from dqe_assets.ingest.fetch.settings import Fetching
from dqe_assets.orchestration.settings import SettingsError, load_settings
from tests.conftest import ROOT
from tests.hostile_server import ADDRESS, BEHAVIOURS, HostileServer, photo
from tests.ingest.fetching import QUICK, make, rows, write_list

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_assets.ingest.fetch.client import Reply

EXPECTED = {
    "good": "ok",
    "not_found": "http_404",
    "forbidden": "http_403",
    "gone": "http_410",
    "reserved": "ok",
    "unavailable": "http_503",
    "come_tomorrow": "http_429",
    "nowhere": "http_302",
    "no_reason": "http_599",
    "busy_then_good": "ok",
    "error_then_good": "ok",
    "reset_then_good": "ok",
    "busy_for_half_a_second": "ok",
    "redirect": "ok",
    "redirect_to": "ok",
    "redirect_to_good": "ok",
    "bytes_for_a_reason": "http_404",
    "redirect_to_bytes": "bad_url",
    "redirect_loop": "too_many_redirects",
    "redirect_to_private": "refused_address",
    "redirect_to_private_name": "refused_address",
    "redirect_to_file": "bad_url",
    "redirect_to_removed": "placeholder",
    "removed": "placeholder",
    "same_stock_picture": "placeholder",
    "slow_headers": "timeout",
    "slow_body": "timeout",
    "silence": "timeout",
    "stalled_body": "timeout",
    "endless_body": "too_large",
    "announced_too_large": "too_large",
    "longer_than_sent": "incomplete",
    "shorter_than_sent": "bad_response",
    "without_length": "ok",
    "chunked": "ok",
    "torn_chunk": "incomplete",
    "reset_in_body": "incomplete",
    "always_reset": "reset",
    "hung_up": "reset",
    "compressed": "ok",
    "encoded_as": "ok",
    "gzipped": "ok",
    "half_gzipped": "content_encoding",
    "gzip_bomb": "too_large",
    "unknown_encoding": "content_encoding",
    "private": "http_401",
    "redirect_raw": "ok",
    "opted_out": "opted_out",
    "others_opted_out": "ok",
    "garbage": "bad_response",
    "garbage_headers": "bad_response",
    "endless_headers": "bad_response",
    "html": "not_an_image",
    "svg": "unsupported_format",
    "truncated": "truncated",
    "empty": "empty",
    "bomb": "bomb",
    "deflated_bomb": "bomb",
    "cmyk": "ok",
    "sixteen_bits": "ok",
    "webp": "ok",
    "animation": "ok",
}
"""The reason of each behaviour of the server."""

TWICE = {
    *(
        "unavailable",
        "no_reason",
        "busy_then_good",
        "busy_for_half_a_second",
        "error_then_good",
        "slow_headers",
        "slow_body",
        "silence",
    ),
    *("stalled_body", "longer_than_sent", "torn_chunk", "reset_in_body", "always_reset", "hung_up"),
}
"""The behaviours that are worth another attempt; and where a connection that was used before is reset, it may have been
too old: a new one is then tried within the same attempt, so that of reset_then_good nothing can be said."""

MAX_BYTES = 4_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(ADDRESS).configure_cert(context)
    with HostileServer(context).running() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    return tmp_path


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind((ADDRESS, 0))
        return int(unused.getsockname()[1])


def peak_mib() -> float:
    """The most memory that this process has had since ``forget_peak``."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def forget_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def test_whatever_a_server_does_the_row_stays_and_says_why(server: HostileServer, folder: Path) -> None:
    assert set(EXPECTED) == set(BEHAVIOURS)
    # What is loaded and made for the first time does not count as memory that a server has taken.
    write_list(folder, [server.url("good"), server.url("deflated_bomb")])
    make()
    stock = [server.url("same_stock_picture", number) for number in range(5)]
    behaved = [server.url(name) for name in EXPECTED if name != "same_stock_picture"]
    others = {
        f"http://{ADDRESS}:{closed_port()}/": {"connect"},
        f"http://localhost:{server.port}/good/x": {"refused_address"},
        f"http://2130706433:{server.port}/good/x": {"refused_address"},
        f"http://0x7f.1:{server.port}/good/x": {"refused_address"},
        f"http://0177.0.0.1:{server.port}/good/x": {"refused_address"},
        "http://0.0.0.0/x": {"refused_address"},
        "http://10.0.0.1/x": {"refused_address"},
        "http://[::1]/x": {"refused_address"},
        "http://[::ffff:10.0.0.1]/x": {"refused_address"},
        "http://[2002:7f00:1::]/x": {"refused_address"},
        f"https://{ADDRESS}:{server.tls_port}/good/x": {"tls"},
        "http://nowhere.invalid/x": {"dns", "dns_temporary"},
        f"http://{'a' * 64}.org/x": {"dns", "bad_url"},
        "ftp://example.org/x.jpg": {"bad_url"},
        "//example.org/x.jpg": {"bad_url"},
        "http://[::1/x.jpg": {"bad_url"},
        "http://example.org:99999/x.jpg": {"bad_url"},
        "javascript:alert(1)": {"bad_url"},
        "not a url": {"bad_url"},
    }
    urls = [*behaved, *stock, *others]
    write_list(
        folder,
        urls,
        top={"images": {"max_bytes": MAX_BYTES, "max_pixels": 1_000_000}},
        placeholders={"urls": [f"{ADDRESS}/removed/*"]},
    )
    before = forget_peak()
    started = time.monotonic()
    make()
    assert time.monotonic() - started < 30
    assert peak_mib() - before < 60, "an endless body and a bomb of 243 MB take a bounded part of memory"
    assert server.endless_bytes < MAX_BYTES + (16 << 20), "but for what the system buffers"

    found = rows()
    assert [row["url"] for row in found] == urls
    reasons = {row["url"]: row["reason"] for row in found}
    wrong = {url: reasons[url] for url, expected in others.items() if reasons[url] not in expected}
    wrong |= {name: reasons[server.url(name)] for name in EXPECTED if reasons[server.url(name)] != EXPECTED[name]}
    assert not wrong
    for row in found:
        assert (
            (row["status"] == "ok")
            == (row["reason"] == "ok")
            == (row["image"] is not None)
            == (row["width"] is not None)
        )
        assert row["reason"] == "ok" or re.fullmatch(r"http_\d{3}", row["reason"]) or row["reason"] in REASONS
        assert row["fetched_at"] is not None
        assert row["seconds"] >= 0
    by_name = {name: next(row for row in found if row["url"] == server.url(name)) for name in EXPECTED}
    attempts = {name for name, row in by_name.items() if row["attempts"] == 2}
    assert attempts - {"reset_then_good"} == TWICE
    assert all(row["attempts"] == 1 for name, row in by_name.items() if name not in attempts)
    assert by_name["redirect"]["final_url"] == server.url("good", "after-a-redirect")
    assert by_name["redirect_to_private"]["final_url"] == server.url("redirect_to_private")
    assert by_name["not_found"]["http_status"] == 404
    assert by_name["always_reset"]["http_status"] is None
    assert by_name["good"]["image"]["bytes"] == photo("/good/0")
    assert (by_name["animation"]["format"], by_name["animation"]["width"]) == ("gif", 60)
    assert by_name["same_stock_picture"]["sha256"] is not None
    assert by_name["same_stock_picture"]["image"] is None
    assert server.times("redirect_loop") == [Fetching().max_redirects + 1]


def asked(url: str, **settings: object) -> Reply:
    """What one request gives."""

    async def ask() -> Reply:
        async def move(_: object) -> None:
            pass

        async with Client(Fetching.model_validate(QUICK | settings), MAX_BYTES) as client:
            return await client.get(parse_url(url), move, asyncio.get_running_loop().time() + 60)

    return asyncio.run(ask())


def test_a_name_may_be_allowed_and_no_other_name_with_its_address_is(server: HostileServer) -> None:
    url = f"http://localhost:{server.port}/good/by-name"
    to_server = {"*": f"{ADDRESS}:{server.port}"}
    assert asked(url, allow=["localhost"], connect_to=to_server).reason == "ok"
    assert asked(url, allow=["other.org"], connect_to=to_server).reason == "refused_address"
    assert asked("http://other.org/good/x", allow=["localhost"], connect_to=to_server).reason == "refused_address"
    assert asked("http://other.org/good/x", connect_to=to_server).data == photo("/good/x")
    assert asked("http://other.org/good/x", connect_to={"*": "10.0.0.1:80"}).reason == "refused_address"
    assert asked(server.url("redirect_to_private"), allow=["localhost", ADDRESS]).reason == "refused_address"


def test_opting_out_is_honoured_for_whom_it_is_meant_and_can_be_overridden(server: HostileServer) -> None:
    assert asked(server.url("opted_out")).reason == "opted_out"
    assert asked(server.url("opted_out"), disallowed_header_directives=[]).reason == "ok"
    assert asked(server.url("opted_out"), disallowed_header_directives=["noindex"]).reason == "ok"
    assert asked(server.url("others_opted_out"), user_agent_token=" OtherBot ").reason == "opted_out"


@pytest.mark.parametrize(
    ("headers", "token", "directive"),
    [
        ([], None, None),
        (["noai"], None, "noai"),
        (["index, NoImageAI"], None, "noimageai"),
        (["all", "noindex"], None, "noindex"),
        (["otherbot: noindex"], None, None),
        (["otherbot: noindex"], "otherbot", "noindex"),
        (["otherbot: nofollow, noindex"], None, None),
        (["otherbot: nofollow, noindex"], "otherbot", "noindex"),
        (["otherbot: noindex, thisbot: nofollow"], "thisbot", None),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"], None, "noindex"),
        (["max-snippet:10, noai"], None, "noai"),
        (["none", ":", ",,", "noaiz"], None, None),
    ],
)
def test_directives_apply_to_everyone_or_to_the_client_that_they_name(
    headers: list[str], token: str | None, directive: str | None
) -> None:
    directives = {"noai", "noimageai", "noindex", "noimageindex"}
    assert opted_out(headers, token=token, directives=directives) == directive


@pytest.mark.parametrize(
    ("address", "permitted"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "100.64.0.1")),
        *((address, False) for address in ("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "not an address")),
        *((address, False) for address in ("::", "::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "ff0e::1")),
        *((address, False) for address in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1")),
        *((address, False) for address in ("2002:a00:1::", "2001:db8::1", "64:ff9b:1::1")),
        ("10.9.0.1", True),
        ("::ffff:10.9.0.1", True),
        ("fd00:1::5", True),
    ],
)
def test_only_public_addresses_and_what_is_allowed_are_connected_to(address: str, permitted: bool) -> None:
    assert AddressRules(["10.9.0.0/16", "fd00:1::/32", "images.intern"]).permits(address) is permitted


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (" http://example.org/a b.jpg ", "http://example.org/a%20b.jpg"),
        ("HTTPS://Example.org/x", "https://example.org/x"),
        ("http://3221226219/x", "http://192.0.2.235/x"),
        ("http://0x8.8.010.8/x", "http://8.8.8.8/x"),
        ("http://münchen.example/x?y=%2B", "http://xn--mnchen-3ya.example/x?y=%2B"),
    ],
)
def test_urls_are_taken_as_browsers_take_them(text: str, url: str) -> None:
    assert str(parse_url(text)) == url


@pytest.mark.parametrize(
    "text", ["", "http:///x", "http://1.2.3.4.5/", "http://256.1.1.1/", "data:image/png;base64,", "\0"]
)
def test_what_is_no_url_is_said_to_be_none(text: str) -> None:
    with pytest.raises(FetchError, match="bad_url"):
        parse_url(text)


def test_a_name_is_looked_up_once_and_its_private_addresses_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        calls.append(host)
        if host == "gone.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "mixed.example":
            return [(0, 0, 0, "", (address, 0)) for address in ("10.0.0.1", "8.8.8.8", "2606:4700::1111", "8.8.8.8")]
        return [(0, 0, 0, "", ("192.168.1.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def look_up() -> None:
        resolver = Resolver(AddressRules([]), {})
        for _ in range(2):
            both = await asyncio.gather(*(resolver.resolve("mixed.example", 80) for _ in range(3)))
            assert [[one["host"] for one in found] for found in both] == [["8.8.8.8", "2606:4700::1111"]] * 3
            with pytest.raises(socket.gaierror):
                await resolver.resolve("gone.example", 80)
            with pytest.raises(RefusedAddressError, match=r"192\.168\.1\.1"):
                await resolver.resolve("router.example", 80)
        await resolver.close()

    asyncio.run(look_up())
    assert sorted(calls) == ["gone.example", "mixed.example", "router.example"]


@pytest.mark.parametrize(("error", "reason"), [(socket.EAI_NONAME, "dns"), (socket.EAI_AGAIN, "dns_temporary")])
def test_a_name_that_is_not_there_differs_from_a_name_server_that_is_not(
    monkeypatch: pytest.MonkeyPatch, error: int, reason: str
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(error, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert asked("http://somewhere.example/x").reason == reason
    assert is_transient(reason) == (reason == "dns_temporary")


def test_a_name_server_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> None:
        given_up.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    started = time.monotonic()
    assert asked("http://somewhere.example/x", connect_seconds=0.2).reason == "timeout"
    assert time.monotonic() - started < 15
    given_up.set()


@pytest.mark.parametrize(
    ("reason", "transient"),
    [
        *((f"http_{status}", True) for status in (408, 425, 429, 500, 502, 503, 504, 520, 599)),
        *((f"http_{status}", False) for status in (201, 302, 400, 401, 403, 404, 410, 418, 451)),
        *((reason, True) for reason in ("timeout", "reset", "incomplete", "deadline", "dns_temporary")),
        *(
            (reason, False)
            for reason in ("ok", "dns", "connect", "tls", "opted_out", "placeholder", "truncated", "bomb")
        ),
    ],
)
def test_only_what_may_pass_is_transient(reason: str, transient: bool) -> None:
    assert is_transient(reason) is transient


def test_the_documentation_has_every_reason_and_every_setting() -> None:
    text = (ROOT / "docs" / "ingest.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| .* \| (yes|) ?\|$", text, re.MULTILINE))
    assert {reason: again == "yes" for reason, again in listed.items()} == {
        "ok": False,
        **{reason: meaning.transient for reason, meaning in REASONS.items()},
    }
    settings = [*Fetching.model_fields, *(f"placeholders.{name}" for name in Placeholders.model_fields)]
    assert "placeholders" in settings
    assert not [name for name in settings if not re.search(rf"`(fetching\.)?{re.escape(name)}[`.]", text)]


@pytest.mark.parametrize(
    ("fetching", "message"),
    [
        ({"allow": ["10.0.0.1/8"]}, r"fetching\.allow\.0: 10\.0\.0\.1/8 has host bits set; give a network such as"),
        ({"connect_to": {"*": "localhost"}}, r"fetching\.connect_to\.\*: 'localhost' is not address:port"),
        ({"attempts": 0}, r"fetching\.attempts: must be at least 1 "),
        ({"retries": 3}, r"fetching: unknown key 'retries'; allowed: allow, attempts"),
        ({"placeholders": {"sha256": ["abc"]}}, r"fetching\.placeholders\.sha256\.0: "),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(
    folder: Path, fetching: dict[str, object], message: str
) -> None:
    write_list(folder, ["http://example.org/"])
    settings = yaml.safe_load((folder / "dqe.yaml").read_text())
    (folder / "dqe.yaml").write_text(json.dumps(settings | {"fetching": fetching}))
    with pytest.raises(SettingsError, match=message):
        load_settings()
