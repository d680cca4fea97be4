"""What pages say can be asked of filters can be asked: every expression in them is read."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest
import yaml

from dqe_assets.filtering.expression import NAMED, parse
from dqe_assets.filtering.settings import DEFAULT_FILTERS
from tests.docs.test_pages import PAGES, by_name, commands

YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def expressions(text):
    """The filters that a page names, and all expressions of its settings and commands."""
    blocks = [yaml.safe_load(block) or {} for block in YAML.findall(text)]
    filters = {name: one for block in blocks for name, one in (block.get("filters") or {}).items()}
    found = [*filters.values(), *(one["expression"] for block in blocks for one in block.get("subsets") or ())]
    for words in (shlex.split(line, comments=True) for line in commands(text)):
        found += [after for word, after in pairwise(words) if word == "--expr"]
    return {"filters": filters, "found": found}


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_expressions_can_be_read(page):
    said = expressions(page.read_text(encoding="utf-8"))
    names = {**NAMED, **DEFAULT_FILTERS, **said["filters"]}
    for text in said["found"]:
        parse(text, names)


def test_expressions_are_found():
    pages = {page.name: expressions(page.read_text(encoding="utf-8"))["found"] for page in PAGES}
    assert len(pages["choosing.md"]) > 5
    assert len(pages["filtering.md"]) > 5
