"""Mixtures: what is drawn of each part, and the asset from the sample to what is trained on."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from dqe_assets.cli.app import app
from dqe_assets.filtering.assets import subset_path
from dqe_assets.filtering.mixture import mix_parts, quotas
from dqe_assets.filtering.subset import UID_TYPE, manifest_path, read_subset
from dqe_assets.orchestration.settings import SettingsError, load_settings
from dqe_assets.training.data import open_data
from tests.conftest import environment
from tests.stages import checked, stage_named
from tests.training.toy import make

if TYPE_CHECKING:
    from pathlib import Path

part = st.tuples(st.integers(0, 30), st.floats(0.01, 100), st.integers(1, 5))


def entries(*numbers: int) -> np.ndarray:
    found = np.zeros(len(numbers), UID_TYPE)
    found["f1"] = sorted(numbers)
    return found


@given(st.lists(part, min_size=1, max_size=6), st.integers(0, 300))
@settings(max_examples=200, deadline=None)
def test_quotas_follow_the_weights_as_far_as_the_caps_allow(parts: list[tuple[int, float, int]], total: int) -> None:
    sizes, weights, caps = (np.array(column) for column in zip(*parts, strict=True))
    found = quotas(sizes, weights, caps, total)
    assert (found >= 0).all()
    assert (found <= sizes * caps).all()
    assert found.sum() == min(total, (sizes * caps).sum())
    free = found < sizes * caps
    if free.any():
        # Whoever is not at the cap has the same number for each weight, and whoever is would have more.
        level = found[free].sum() / weights[free].sum()
        assert np.abs(found[free] - level * weights[free]).max() <= len(parts)
        # A light part may be short of one that rounding took from it.
        highest = (found[free].sum() + len(parts)) / weights[free].sum()
        assert (found[~free] <= highest * weights[~free] + len(parts)).all()


@given(
    st.lists(st.lists(st.integers(0, 40), max_size=20), min_size=1, max_size=4), st.integers(0, 100), st.integers(0, 9)
)
@settings(max_examples=100, deadline=None)
def test_each_entry_is_drawn_about_as_often_as_the_others(parts: list[list[int]], total: int, seed: int) -> None:
    drawn = mix_parts([entries(*one) for one in parts], [1.0] * len(parts), [3] * len(parts), total, seed)
    assert len(drawn.uids) == drawn.counts.sum() == min(total, 3 * sum(map(len, parts)))
    assert np.array_equal(np.sort(drawn.uids), drawn.uids)
    for one in parts:
        alone = mix_parts([entries(*one)], [2.0], [3], total, seed)
        found = np.bincount(alone.uids["f1"].astype(int), minlength=41)
        own = np.bincount(one, minlength=41).astype(int)
        least, rest = divmod(len(alone.uids), max(len(one), 1))
        assert (found >= least * own).all()
        assert (found <= (least + 1) * own).all()
        assert (found - least * own).sum() == rest


def test_another_seed_draws_others() -> None:
    uids = entries(*range(1000))
    first, same, other = (mix_parts([uids], [1.0], [1], 300, seed).uids for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert 50 < len(np.intersect1d(first, other)) < 150


@pytest.fixture
def configured(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished sample, with a mixture that is trained on."""
    data = tmp_path / "data"
    shutil.copytree(finished, data, symlinks=True)
    for name, value in environment(data).items():
        monkeypatch.setenv(name, value)
    return data


BLEND: dict[str, Any] = {
    "name": "blend",
    "samples": 300,
    "parts": [{"subset": "best", "weight": 3, "max_repeats": 2}, {"source": "sample"}],
}


def configure(data: Path, *mixtures: dict[str, Any]) -> None:
    path = data / "dqe.yaml"
    runs = [{"subsets": ["blend"], "scale": "debug"}]
    settings = {**yaml.safe_load(path.read_text()), "mixtures": list(mixtures), "training": {"runs": runs}}
    path.write_text(yaml.safe_dump(settings))


def test_a_mixture_of_the_sample_is_trained_on_as_one_more_subset(configured: Path) -> None:
    configure(configured, BLEND)
    settings = load_settings()
    assert not make(settings, "filter_masks", "subsets/best", "subsets/blend", "training_data/blend").failures
    uids, best = read_subset(subset_path("blend")), read_subset(subset_path("best"))
    assert len(uids) == 300
    manifest = json.loads(manifest_path(subset_path("blend")).read_text())
    first, second = manifest["composition"]
    assert (first["part"], first["samples"], first["drawn"], first["repeats"]) == ("subset best", 55, 110, 2.0)
    assert (second["part"], second["samples"], second["drawn"]) == ("source sample", 234, 190)
    assert (first["weight_share"], first["share"]) == (0.75, 110 / 300)
    assert manifest["distinct_uids"] == len(np.unique(uids))
    assert np.bincount(np.unique(uids, return_counts=True)[1]).argmax() == 1
    assert set(np.unique(best).tolist()) < set(np.unique(uids).tolist())
    reshard = CliRunner().invoke(app, ["reshard", "blend", "--out", str(configured / "shards")])
    assert reshard.exit_code == 0, reshard.output
    card = (configured / "shards" / "README.md").read_text()
    assert "The subset has 300, " in card
    assert "| subset best | 3 | 55 | 110 | 0.367 | 2 | 2 |" in card
    assert open_data("blend").samples == 300 - _without_caption(settings)

    stage = stage_named(settings, "subsets/blend")
    work = stage.work(settings.opened_store, None, [f"sample-{index:05d}" for index in range(4)])
    warned = checked(settings, stage, "weights_kept", work, stage._stored_output(work, _stamp(settings)))
    assert not warned.passed
    assert "subset best has 36.7% in place of 75.0%, each sample 2 times" in warned.description


def _stamp(settings: Any) -> Any:
    stored = settings.opened_store.get("subsets/blend", None)
    assert stored is not None
    return stored.stamp


def _without_caption(settings: Any) -> int:
    stored = settings.opened_store.get("training_data/blend", None)
    assert stored is not None
    return int(stored.stamp.facts["without_caption"])


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"parts": []}, r"mixtures\.0\.parts"),
        ({"parts": [{"weight": 2}]}, "give either subset or source"),
        ({"parts": [{"subset": "best", "source": "sample"}]}, "give either subset or source"),
        ({"parts": [{"subset": "worst"}]}, r"mixtures\.blend: there is no subset 'worst'; allowed: best"),
        ({"parts": [{"source": "web"}]}, r"mixtures\.blend: there is no source 'web'; allowed: sample"),
        ({"parts": [{"subset": "blend"}]}, "there is no subset 'blend'"),
        ({"name": "best"}, "two subsets have the name 'best'; rename one"),
        ({"parts": [{"subset": "best", "weight": 0}]}, "weight"),
        ({"parts": [{"subset": "best", "max_repeats": 0}]}, "max_repeats"),
    ],
)
def test_wrong_mixtures_are_refused_when_the_settings_are_loaded(
    data: Path, mixture: dict[str, Any], message: str
) -> None:
    configure(data, {**BLEND, **mixture})
    with pytest.raises(SettingsError, match=message):
        load_settings()
