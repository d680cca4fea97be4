"""What people read about the project leads somewhere, and can be typed."""

from __future__ import annotations

import re
import shlex

import jsonschema
import pytest
import typer
import yaml

from dqe_assets.cli.app import app
from dqe_assets.cli.settings_schema import settings_schema
from tests.conftest import ROOT

PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
]
STAGES = sorted({path.parent.name for path in (ROOT / "dqe_assets").glob("*/*assets.py")} | {"publish"})
SHAPE = ["What it answers", "How to switch it on", "An example", "Every setting", "What can go wrong"]
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")
NAMED_PAGE = re.compile(r"\bdocs/[\w/]+\.md\b")
NAMED_FILE = re.compile(r"\b(?:dqe_assets|dqe_resources|benchmarks|tests)/[\w/]+\.(?:py|csv|txt|sql)\b")
NAMED_MODULE = re.compile(r"(?:-m|from) ((?:dqe_assets|dqe_resources|benchmarks)\.[\w.]+)")
OTHER = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that name files of other versions, and of examples."""
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def by_name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{target}: there is no such heading"


def test_code_and_settings_name_pages_that_exist():
    files = [
        path
        for folder in ("dqe_assets", "dqe_resources", "data", "benchmarks")
        for ending in ("py", "yaml", "j2")
        for path in (ROOT / folder).rglob(f"*.{ending}")
    ]
    named = {
        (path, page) for path in files for page in NAMED_PAGE.findall(path.read_text(encoding="utf-8", errors="ignore"))
    }
    assert named
    for path, page in named:
        assert (ROOT / page).exists(), f"{path}: names {page}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OTHER], ids=by_name)
def test_files_and_modules_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in NAMED_FILE.findall(text):
        assert (ROOT / name).exists(), name
    for name in NAMED_MODULE.findall(text):
        assert (ROOT / f"{name.replace('.', '/')}.py").exists(), name


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_commands_can_be_typed(page):
    for line in commands(page.read_text(encoding="utf-8")):
        assert_can_be_typed(shlex.split(line, comments=True)[1:], line)


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_settings_are_what_the_schema_allows(page):
    schema = {**settings_schema(), "required": []}
    for block in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        jsonschema.validate(yaml.safe_load(block), schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("stage", STAGES)
def test_pages_of_stages_have_one_shape(stage):
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / f"{stage}.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading for heading in headings if heading in SHAPE] == SHAPE
    assert (headings[:3], headings[-2:]) == (SHAPE[:3], SHAPE[3:])


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_code_is_marked_as_markdown_does(page):
    assert "``" not in FENCE.sub("", page.read_text(encoding="utf-8"))


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def anchors(text):
    """The anchors that GitHub and MkDocs make of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(text):
    """The lines of code blocks that begin with the command, and code in the text that does."""
    lines = [line.strip() for block in FENCE.findall(text) for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines = [re.sub(r"^([A-Z_]+=\S+ )*(\.venv(-gpu)?/bin/|docker-compose run --rm code )?", "", line) for line in lines]
    return [line for line in lines if line.startswith("dqe ") and "[OPTIONS]" not in line]


def assert_can_be_typed(arguments, line):
    """That the command's parser takes it: its options are there, and nothing that is needed is missing."""
    command, name = typer.main.get_command(app), "dqe"
    while hasattr(command, "commands"):
        assert arguments, line
        assert arguments[0] in command.commands, f"{line}: there is no command {arguments[0]}"
        name, command, arguments = arguments[0], command.commands[arguments[0]], arguments[1:]
    try:
        command.make_context(name, list(arguments))
    except Exception as error:  # noqa: BLE001 - whatever the parser raises, the line says why
        pytest.fail(f"{line}: {error}")
