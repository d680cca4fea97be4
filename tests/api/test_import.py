"""What ``import dqe_assets as dqe`` loads, and what it gives."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dqe_assets
from tests.conftest import ROOT

FUNCTIONS = ("find_duplicates", "open", "quality", "score", "text_quality")

LOADED = """
import json, sys
before = set(sys.modules)
import dqe_assets as dqe
listed = [name for name in dir(dqe) if not name.startswith("_")]
new = sorted(set(sys.modules) - before)
are_there = {name: callable(getattr(dqe, name)) for name in %r}
import dqe_assets.score.alignment
print(json.dumps([new, are_there, callable(dqe.score), dqe.score.alignment.TEXTS_AT_ONCE, listed,
    "dagster" in sys.modules, "duckdb" in sys.modules, "torch" in sys.modules]))
"""


def test_the_import_loads_nothing_and_the_functions_are_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED % (FUNCTIONS,)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    new, are_there, is_callable, texts_at_once, listed, *heavy = json.loads(done.stdout)
    assert [name for name in new if name.partition(".")[0] not in sys.stdlib_module_names] == ["dqe_assets"]
    assert are_there == dict.fromkeys(FUNCTIONS, True)
    assert is_callable, "the function stays one once the stage of its name is imported"
    assert texts_at_once == 1024, "and the stage stays one"
    assert {*FUNCTIONS} <= {*listed}
    assert heavy == [False, False, False]


def test_what_is_not_there_is_said_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'dqe_assets' has no attribute 'nothing'"):
        _ = dqe_assets.nothing
