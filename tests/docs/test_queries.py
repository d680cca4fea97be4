"""Every query of the documentation runs on the sample's warehouse."""

from __future__ import annotations

import shlex

import pytest

from tests.docs.test_pages import PAGES, by_name, commands


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_queries_run(page, opened):
    for line in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        if words[1] == "sql":
            assert opened.warehouse.query(words[2]).num_columns, line
