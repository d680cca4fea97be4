"""Image towers: EfficientNet-Lite0's map and networks of timm, as they are and with other weights."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqe_resources.models.image_towers import EfficientNetTower, ImageTower, ImageTowerError, TimmTower


def files() -> list[bytes]:
    """Three images, of which the second cannot be read."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(2):
        out = io.BytesIO()
        Image.fromarray(random.integers(256, size=(70, 90, 3), dtype=np.uint8)).save(out, "PNG")
        found.append(out.getvalue())
    return [found[0], b"no image", found[1]]


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's smallest transformer."""
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit") / "vit.pt"
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


@pytest.fixture(params=["efficientnet_lite0", "timm"])
def tower(request: pytest.FixtureRequest, data: Path, small_vit: Path) -> ImageTower:
    """Of each kind."""
    if request.param == "timm":
        return TimmTower(model="test_vit", weights=small_vit, device="cpu", batch_size=2)
    return EfficientNetTower(side=64, batch_size=2)


def test_a_network_gives_the_tokens_that_the_tower_gives(tower: ImageTower) -> None:
    found = np.concatenate(list(tower.token_batches(files())))
    assert found.shape == (3, tower.tokens, tower.dimension)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()
    weights = {name: weight.detach().numpy() for name, weight in tower.network().named_parameters()}
    by_torch = np.concatenate(list(tower.described(files(), weights)))
    assert np.isnan(by_torch[1]).all()
    scale = np.abs(found[[0, 2]]).max()
    np.testing.assert_allclose(by_torch[[0, 2]], found[[0, 2]], atol=1e-3 * scale)


def test_other_weights_give_other_tokens_and_leave_the_tower_as_it_is(tower: ImageTower) -> None:
    before = np.concatenate(list(tower.token_batches(files())))
    weights = {name: 0.9 * weight.detach().numpy() for name, weight in tower.network().named_parameters()}
    other = np.concatenate(list(tower.described(files(), weights)))
    assert np.abs(other[0] - before[0]).max() > 1e-3
    np.testing.assert_array_equal(np.concatenate(list(tower.described(files(), {}))), before)


def test_prefix_tokens_are_left_out_but_where_they_are_asked_for(small_vit: Path) -> None:
    tower = TimmTower(model="test_vit", weights=small_vit, device="cpu")
    both = tower.model_copy(update={"prefix_tokens": True})
    assert both.tokens == tower.tokens + 1 == 101
    (one,), (other,) = tower.token_batches(files()[:1]), both.token_batches(files()[:1])
    np.testing.assert_array_equal(one, other[:, 1:])


def test_the_published_tower_is_known_to_timm() -> None:
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    ensure_torchvision()
    import timm

    assert timm.is_model(TimmTower().model)
    with pytest.raises(ImageTowerError, match="no_such_network"):
        TimmTower(model="no_such_network").load()
