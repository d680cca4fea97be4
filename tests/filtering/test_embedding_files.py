"""Files of embeddings, those of torch among them, read without running what is in them."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch

from dqe_assets.filtering.embedding_files import read_embeddings
from dqe_assets.filtering.filters import FilterError


def test_a_file_of_an_older_numpy(tmp_path):
    torch.save(np.eye(3, dtype=np.float32), tmp_path / "new.pt", pickle_protocol=2)
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert b"cnumpy.core.multiarray" in (tmp_path / "old.pt").read_bytes()
    assert read_embeddings(str(tmp_path / "old.pt"), "centroids").tolist() == np.eye(3).tolist()


def test_half_precision_and_names(tmp_path):
    torch.save(torch.eye(3, dtype=torch.bfloat16), tmp_path / "half.pt")
    assert read_embeddings(str(tmp_path / "half.pt"), "centroids").tolist() == np.eye(3).tolist()
    torch.save({"b": torch.eye(2), "a": torch.eye(3)}, tmp_path / "dict.pt")
    assert read_embeddings(str(tmp_path / "dict.pt"), "a", "b").shape == (3, 3)
    np.savez(tmp_path / "some.npz", b=np.eye(2))
    assert read_embeddings(str(tmp_path / "some.npz"), "a", "b").shape == (2, 2)


class Hostile:
    """What makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def zipped(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)


ARRAY = pickle.dumps(np.eye(9))


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (lambda path: path.write_bytes(b"no zip" * 100), "not a zip file"),
        (lambda path: torch.save({"other": 1}, path), "the array centroids"),
        (lambda path: torch.save(np.array([["a"]]), path), r"<U1 \[1, 1\]; expected finite"),
        (lambda path: torch.save(np.ones(3), path), r"float64 \[3\]; expected finite"),
        (lambda path: torch.save(Hostile(path.parent / "ran"), path), "Weights only load failed|file in archive"),
        (lambda path: zipped(path, pickle.dumps(Hostile(path.parent / "ran"))), "cannot be read as .pt"),
        (lambda path: zipped(path, ARRAY[:100]), "cannot be read as .pt"),
        (lambda path: zipped(path, ARRAY.replace(b"K\x09K\x09", b"K\xffK\xff")), "cannot be read as .pt"),
        (lambda path: zipped(path, ARRAY, zipfile.ZIP_DEFLATED), "it is compressed"),
    ],
)
def test_another_file_is_an_error_and_runs_nothing(tmp_path, save, said):
    save(tmp_path / "centroids.pt")
    with pytest.raises(FilterError, match=said) as raised:
        read_embeddings(str(tmp_path / "centroids.pt"), "centroids")
    assert str(tmp_path / "centroids.pt") in str(raised.value)
    assert len(str(raised.value)) < 600
    assert not (tmp_path / "ran").exists()
