"""The notebook of the docs runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import nbformat
import pytest

from tests.conftest import ROOT

nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
pytest.importorskip("ipykernel", reason="ipykernel runs notebooks")
pytest.importorskip("skimage", reason="the extra 'sample' is not installed")

NOTEBOOK = ROOT / "docs" / "python.ipynb"


def test_it_goes_from_a_folder_to_a_chosen_subset_with_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("DQE_DATA", raising=False)
    stored = nbformat.read(NOTEBOOK, as_version=4)
    made = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(made, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    for notebook in (stored, made):
        outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
        shown = [one.data for one in outputs if one.output_type in {"display_data", "execute_result"}]
        assert sum("image/jpeg" in data for data in shown) == 4
        assert shown[-1]["text/plain"] == "True", "what was written is what was chosen"
        (said,) = [one.text for one in outputs if one.get("name") == "stdout"]
        rows, readable, chosen = (int(part.split()[0]) for part in said.split(", "))
        assert rows == 48 > readable > chosen > 0


def test_what_is_stored_of_it_tells_nothing_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not [word for word in ("/tmp/", "/home/", "/root/", "/work/", "stderr") if word in text]
