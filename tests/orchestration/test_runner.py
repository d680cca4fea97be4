from __future__ import annotations

import traceback

import pytest

from dqe_assets.orchestration.runner import failure_in_words
from dqe_resources.store import StorageError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            StorageError("store/a.parquet: cannot be read: no such file"),
            "store/a.parquet: cannot be read: no such file",
        ),
        (StorageError("two\nlines"), "two lines"),
        (KeyError("uid"), "KeyError: 'uid'. Its traceback is on the run's page: dqe ui"),
        (AssertionError(), "AssertionError. Its traceback is on the run's page: dqe ui"),
        (pytest.UsageError("x: y"), "UsageError: x: y. Its traceback is on the run's page: dqe ui"),
    ],
)
def test_a_failure_names_no_module_and_its_type_only_if_it_is_unexpected(error: BaseException, words: str) -> None:
    message = "".join(traceback.format_exception_only(error))
    assert failure_in_words(message) == words
