"""Nothing that came from data reaches a terminal as more than text, or stands in a command as more than a word."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from dqe_assets.cli import terminal
from dqe_assets.ingest.raw import uid_of
from dqe_assets.reviews import log
from dqe_resources.errors import DataQualityError
from dqe_resources.printable import command, printable, quoted
from tests.conftest import ROOT, environment
from tests.hostile_server import encoded, noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ATTACK = "\x1b]0;pwned\x07\x1b[5n\x9b2J\r\x08\u202egnp\u2066[bold red][/b][link=x]:dog:\\"
"""A title set, a report asked for, a screen cleared, a line begun again, a direction turned, and markup."""

IN_NAMES = ATTACK.replace("/", "")

NAMES = (
    "$(touch x) ; ls.jpg",
    f"a{IN_NAMES}b.jpg",
    "foo[/b].jpg",
    "-rf --help.jpg",
    "it's\nNext: dqe get x.jpg",
    ":dog:\\.jpg",
)

_RICH = re.compile(r"\x1b\[[0-9;?]*[mKAhl]\r?|\r(?=\x1b)|\n")
"""What rich itself sends to a terminal: styles, and the cursor's moves in bars of progress."""

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Done = tuple[list[str], int, str, str, str]
"""Of a command: its words, exit code, standard output, error output, and what it raised."""

RUN_ALL = """
import json, sys, typer
typer.launch = lambda _: 0
from typer.testing import CliRunner
from dqe_assets.cli.app import app
runner, found = CliRunner(), []
for words in json.load(sys.stdin):
    done = runner.invoke(app, words)
    found.append([words, done.exit_code, done.stdout, done.stderr, repr(done.exception)])
json.dump(found, open(sys.argv[1], "w"))
"""


def run_all(data: Path, commands: Sequence[Sequence[str]], **variables: str) -> list[Done]:
    """What each command gives: the words, the exit code, both outputs, and the exception; all in one process."""
    out = data / "outputs.json"
    subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(out)],
        cwd=ROOT,
        env=environment(data) | variables,
        input=json.dumps(commands),
        text=True,
        check=True,
    )
    return [tuple(one) for one in json.loads(out.read_text())]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Path:
    """A data folder with everything made of images whose names and captions attack a terminal."""
    data = tmp_path_factory.mktemp("hostile")
    (data / "cache").symlink_to(model_cache)
    photos = data / f"photos {IN_NAMES}"
    for number, name in enumerate(NAMES):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(encoded(noise(number), "JPEG"))
        (photos / name).with_suffix(".txt").write_text(f"a cat {ATTACK} on a mat {number}", newline="")
    (photos / f"broken{IN_NAMES}.jpg").write_bytes(ATTACK.encode())
    source = {"kind": "folder", "name": "photos", "path": str(photos)}
    settings = {"sources": [source], "image_text": None, "captioners": [{"kind": "labels", "name": "labels"}]}
    (data / "dqe.yaml").write_text(yaml.safe_dump(settings))
    decided = [{"uid": uid_of("photos", name), "shard": "photos-00000"} for name in NAMES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQE_DATA", str(data))
        for decision in ("tag", "caption"):
            rows = [{**one, "decision": decision, "value": f"{decision} {ATTACK}"} for one in decided]
            log.append(pa.Table.from_pylist(rows, log.DECISIONS), by=ATTACK, why=ATTACK, source=ATTACK, said=ATTACK)
    return data


def is_safe(text: str) -> bool:
    return not _OBEYED.search(_RICH.sub("", text))


def commands(data: Path, out: Path) -> list[list[str]]:
    """Every command that says something of data, asked rightly and wrongly."""
    out.mkdir()
    subset = str(out / "subset.npy")
    (out / "some.txt").write_text(uid_of("photos", NAMES[0]))
    (out / "unknown.txt").write_text(f"x{ATTACK}", newline="")
    (out / "captions.csv").write_text(f'uid,caption,review\n{uid_of("photos", NAMES[1])},"{ATTACK}",x{ATTACK}\n')
    sample = str(out / f"sample {IN_NAMES}.csv")
    queries = ("image_name, caption, detail FROM samples LEFT JOIN failures USING (uid)", f"error('{ATTACK}')")
    return [
        ["materialize"],
        ["materialize", f"x{ATTACK}"],
        ["materialize", "--shard", f"x{ATTACK}"],
        ["sync"],
        ["status"],
        ["plan", "--source", f"x{ATTACK}"],
        ["report"],
        ["report", "--json"],
        *(["sql", f"SELECT {query}"] for query in (*queries, f'1 AS "{ATTACK}"')),
        *([name, "--", image] for name in ("get", "explain") for image in NAMES),
        *([name, "--json", "--", NAMES[1]] for name in ("get", "explain")),
        *([name, f"nobody{ATTACK}"] for name in ("get", "explain")),
        ["search", f"a cat {ATTACK}"],
        ["search", f"a cat {ATTACK}", "--json"],
        ["search", "a cat", "--in", "original", "--save", str(out / "found.parquet")],
        *(["search", "--like", name] for name in (*NAMES, f"nobody{ATTACK}")),
        ["search", "a cat", "--where", f"x{ATTACK}=1"],
        ["concepts", "cat", f"dog {ATTACK}"],
        ["concepts", "cat", f"dog {ATTACK}", "--json"],
        ["gallery"],
        ["view", "--export", str(out / "view")],
        *(["view", option, f"x = '{ATTACK}"] for option in ("--where", "--subset")),
        ["takedown"],
        *(["takedown", "--check", entry] for entry in ("example.org", f"x{ATTACK}", f"http://{ATTACK}.org/")),
        *(
            ["review", "import", str(out / "some.txt"), "--as", said]
            for said in ("keep", f"tag:{ATTACK}", f"x{ATTACK}")
        ),
        ["review", "import", str(out / "some.txt"), "--as", "tag:cat", "--by", ATTACK, "--why", ATTACK],
        ["review", "import", str(out / "captions.csv"), "--as", "caption", "--by", ATTACK],
        ["review", "import", str(out / "captions.csv"), "--as", f"caption:x{ATTACK}"],
        ["review", "import", str(out / "captions.csv")],
        ["review", "import", str(out / "unknown.txt"), "--as", "drop"],
        ["review", "import", str(out / "unknown.txt"), "--as", "drop", "--skip-unknown"],
        ["review", "list"],
        ["review", "list", "--json"],
        ["review", "undo", "99"],
        ["review", "sample", "--by", "random", "--out", sample],
        ["review", "sample", "--by", "filter-edge", "--out", f"x{ATTACK}"],
        ["review", "agreement"],
        ["recommend"],
        *(["compress", option, f"x{ATTACK}"] for option in ("--name", "--rule")),
        ["study", "--findings", f"x{ATTACK}"],
        ["filter", "store", "--expr", "no_filter", "--out", subset],
        ["filter", f"{out}/nowhere", "--expr", "no_filter", "--out", f"x{ATTACK}.npy"],
        ["reshard", subset, "--out", str(out / "tars")],
        ["reshard", f"x{ATTACK}", "--out", str(out / "other")],
        *(["publish", str(out / kind), "--format", kind] for kind in ("hf", "webdataset", "datacomp")),
        ["publish", str(out / "none"), "--where", f"x = '{ATTACK}"],
        ["init", str(data / f"photos {IN_NAMES}")],
        ["init", f"nothing{ATTACK}"],
        ["schema", "--out", str(out / "schema.json")],
        ["verify", f"x{ATTACK}"],
        ["summary", "--out", str(out / "summary.md")],
        ["summary", "--json", "--where", f"x = '{ATTACK}"],
        ["engine", "status", f"x{ATTACK}"],
        ["captions", "compare", "--out", str(out / "captions.html")],
        ["captions", "compare", f"x{ATTACK}", "--out", str(out / "none.html")],
    ]


@pytest.fixture(scope="module")
def in_a_pipe(hostile: Path) -> list[Done]:
    """What every command gives in a pipe, the first of which makes everything."""
    return run_all(hostile, commands(hostile, hostile / f"out {IN_NAMES}"))


def check(found: Sequence[Done], *, csv: bool) -> None:
    for words, _, output, error, exception in found:
        assert exception == "None" or exception.startswith("SystemExit("), (words, exception, error)
        assert "Traceback" not in error, (words, error)
        assert is_safe(error), (words, error)
        assert is_safe(output) or (csv and words[0] == "sql"), (words, output)


def test_in_a_pipe_no_command_lets_data_through_but_the_csv_of_sql(in_a_pipe: list[Done]) -> None:
    from dqe_assets.cli.app import app

    check(in_a_pipe, csv=True)
    names = {one.name or one.callback.__name__ for one in app.registered_commands} | {
        one.name for one in app.registered_groups
    }
    said = {words[0] for words, *_ in in_a_pipe}
    assert said == names - {"ui", "demo", "mcp"}, "demo has no data of others, ui is Dagster's, mcp prints nothing"
    assert sum(code == 0 for _, code, *_ in in_a_pipe) >= 30
    assert any(words[0] == "explain" and "Decisions of people" in output for words, _, output, *_ in in_a_pipe)


def test_in_a_terminal_no_command_lets_data_through(hostile: Path, in_a_pipe: list[Done]) -> None:
    again = commands(hostile, hostile / f"again {IN_NAMES}")
    again = [words for words in again if words[0] not in {"explain", "schema"} and "--json" not in words]
    found = run_all(hostile, [*again, ["materialize", "raw_samples", "--force"]], FORCE_COLOR="1")
    check(found, csv=False)
    assert any("\x1b[1m" in output for _, _, output, *_ in found), "it is a terminal"


def test_what_is_advised_is_one_command_whatever_the_name(in_a_pipe: list[Done]) -> None:
    advised = {}
    for words, code, output, _, _ in in_a_pipe:
        (line,) = [line for line in output.splitlines() if line.startswith("Next: ")] or [""]
        if code == 0 and line.startswith("Next: dqe "):
            advised[tuple(words)] = arguments(line.removeprefix("Next: "))
    for name in NAMES:
        assert advised["get", "--", name] == ["explain", *(["--"] if name.startswith("-") else []), name]
        assert advised["explain", "--", name] == ["search", "--like", name]
        first, *rest = advised["search", "--like", name]
        assert first == "get"
        assert {*NAMES} & {*rest}
    (reshard,) = [found for words, found in advised.items() if words[0] == "filter"]
    assert reshard[1].endswith(f"out {IN_NAMES}/subset.npy")


def arguments(line: str) -> list[str]:
    """What a shell makes of commands of dqe, each of which is one."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = "dqe() { printf '%s\\0' \"$@\"; }\n" + line.replace(", dqe ", "\ndqe ")
    environ = {"LC_ALL": "C.UTF-8", "PATH": "/nonexistent"}
    done = subprocess.run([bash, "-c", script], capture_output=True, check=True, env=environ)
    assert not done.stderr
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


TEXTS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(f"{ATTACK}'\"$`!*~\n\t ")
)


@given(st.lists(TEXTS, min_size=1, max_size=3))
@example(["-rf"])
@example(["caf\udce9", "\x85\u2028"])
@example(["$(touch x) ; ls.jpg", "'", "\\'"])
def test_a_quoted_word_is_safe_to_print_and_is_that_word_to_a_shell(words: list[str]) -> None:
    line = command("dqe get", *words)
    assert is_safe(line)
    assert "\n" not in line
    found = arguments(line)
    assert [word for word in found if word != "--"][1:] == [word for word in words if word != "--"]


@given(TEXTS)
def test_printable_text_is_one_line_that_no_terminal_obeys_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert is_safe(shown)
    assert "\n" not in shown
    assert printable(shown) == shown


def test_what_is_printable_is_not_changed() -> None:
    for text in (
        "a cat",
        "caf\xe9 \u732b \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u05e2\u05d1\u05e8\u05d9\u05ea [b] \\x1b",
        "a\xadb",
    ):
        assert printable(text) == text
    assert printable("a\x1b[31mb\n\tc\u202e\udce9") == "a\\x1b[31mb c\\u202e\\xe9"
    assert quoted("caf\udce9\x9b'") == "$'caf\\xe9\\u009b\\''"


def test_an_error_is_printable_wherever_it_goes() -> None:
    assert str(DataQualityError(f"{ATTACK}: bad\nsecond")).count("\n") == 1
    assert is_safe(str(DataQualityError(ATTACK)))


def test_a_line_keeps_our_markup_and_none_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    where = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=where, force_terminal=True, color_system="standard", width=400)
    )
    terminal.say("[b]{}[/b] is {} of [red]{}[/red]", "x\\", "[/b]:dog:", 3, style="dim")
    assert where.getvalue() == "\x1b[1;2mx\\\x1b[0m\x1b[2m is [/b]:dog: of \x1b[0m\x1b[2;31m3\x1b[0m\n"
    where.seek(where.truncate(0))
    terminal.print_table(pa.table({f"{ATTACK}": [ATTACK, "x\ny"]}))
    assert is_safe(where.getvalue())


def test_only_one_module_prints() -> None:
    for path in sorted((ROOT / "dqe_assets" / "cli").glob("*.py")):
        found = re.findall(r"\b(?:console|errors)\.print\(|\bmarkup\b|\bescape\(|(?<![\w.])print\(", path.read_text())
        assert not found or path.name == "terminal.py", f"{path}: {found}; print with say or print_table of terminal.py"
