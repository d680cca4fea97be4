"""Subsets of pools, from beginning to end."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqe_assets.filtering import english as language
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.pool import DataCompPool, TablePool
from dqe_assets.filtering.select import fit, leaf_masks
from dqe_assets.filtering.subset import format_uids, parse_uids
from tests.filtering.make_pool import table, uids, write_part

numbered = st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.1, 0.2, 0.3, 0.4])), max_size=8)


def pool(name, values):
    found = table(len(values), uid=pa.array(uids([uid for uid, _ in values]), pa.string()))
    scores = pa.array([score for _, score in values], pa.float64())
    return TablePool(found.set_column(5, "clip_l14_similarity_score", scores), name)


@settings(deadline=None)
@given(st.lists(numbered, min_size=1, max_size=3))
def test_repeated_and_colliding_uids(values):
    pools = [pool(f"pool {number}", rows) for number, rows in enumerate(values)]
    made = make_subset(parse("clip_score(l14, threshold=0.2)"), pools)
    expected: Counter[int] = Counter()
    owned = []
    for rows in values:
        kept = Counter(uid for uid, score in rows if score >= 0.2)
        mine = Counter({uid: times for uid, times in kept.items() if uid not in expected})
        expected += mine
        owned.append(mine.total())
    assert format_uids(made.uids).to_pylist() == uids(sorted(expected.elements()))
    manifest = made.manifest
    assert [one["kept"] for one in manifest["pools"]] == owned
    assert [one["rows"] for one in manifest["pools"]] == list(map(len, values))
    assert manifest["uids"] == sum(owned)
    assert manifest["distinct_uids"] == len(expected)
    everything = sum(score >= 0.2 for rows in values for _, score in rows)
    assert manifest["collisions"] == everything - sum(owned)
    if sum(owned):
        assert sum(one["share"] for one in manifest["pools"]) == pytest.approx(1)


def test_streamed_in_parts_is_the_same_as_one_table(tmp_path, monkeypatch):
    whole = table(3000, seed=4)
    cuts = [0, 1, 700, 701, 2900, 3000]
    for number, (start, stop) in enumerate(pairwise(cuts)):
        write_part(tmp_path, f"{number:08d}", whole.slice(start, stop - start), group=100)
    monkeypatch.setattr("dqe_assets.filtering.pool.BATCH_ROWS", 64)
    monkeypatch.setattr("dqe_assets.filtering.english._FEW", 40)
    expression = parse("basic & clip_l14_30 | laion2b & ~random_subset(0.5)")
    seen = []
    streamed = make_subset(expression, [DataCompPool(str(tmp_path))], lambda done, total: seen.append((done, total)))
    masks = leaf_masks(fit(expression.leaves, [TablePool(whole)]), whole)
    expected = parse_uids(whole["uid"])[expression.mask(masks)]
    assert streamed.uids.tolist() == sorted(expected.tolist())
    assert 50 < len(expected) < 1500
    assert seen[-1] == (3000, 3000)
    leaves = {one["leaf"]: one for one in streamed.manifest["leaves"]}
    assert {text: one["kept"] for text, one in leaves.items()} == {text: mask.sum() for text, mask in masks.items()}
    scores = np.sort(whole["clip_l14_similarity_score"].to_numpy())[::-1]
    assert leaves["clip_score(l14, fraction=0.3)"]["threshold"] == float(scores[900])


def test_the_manifest_is_the_same_again_and_says_what_each_step_left(tmp_path):
    write_part(tmp_path, "a", table(500))
    expression = parse("clip_l14_30 & basic")
    first, second = (make_subset(expression, [DataCompPool(str(tmp_path), "mine")]) for _ in range(2))
    assert json.dumps(first.manifest) == json.dumps(second.manifest)
    steps = first.manifest["filters"][0]["steps"]
    assert [step["condition"] for step in steps] == ["clip_score(l14, fraction=0.3)", "basic_filter()"]
    assert steps[0]["kept"] == 151
    assert steps[1]["kept"] == len(first.uids)
    assert first.manifest["pools"][0]["name"] == "mine"
    assert [file["path"] for file in first.manifest["pools"][0]["files"]] == ["a.parquet"]
    assert first.manifest["versions"].keys() >= {"filters", "numpy", "fasttext-predict", "lid.176.ftz"}


def test_upper_case_uids_are_the_same_samples():
    upper = table(50, uid=[uid.upper() for uid in table(50)["uid"].to_pylist()])
    made = make_subset(parse("no_filter"), [TablePool(table(50), "lower"), TablePool(upper, "upper")])
    assert [one["kept"] for one in made.manifest["pools"]] == [50, 0]


def test_an_empty_pool(tmp_path):
    write_part(tmp_path, "a", table(0))
    made = make_subset(parse("basic & clip_l14_30"), [DataCompPool(str(tmp_path))])
    assert made.uids.shape == (0,)
    assert made.manifest["pools"][0]["share"] == 0


def test_a_language_that_several_ask_for_is_detected_once(tmp_path, monkeypatch):
    asked = Counter()
    english = language.Detector.english

    def counted(self, texts):
        asked[self.kind] += len(texts)
        return english(self, texts)

    monkeypatch.setattr(language.Detector, "english", counted)
    np.save(tmp_path / "axes.npy", np.eye(4))
    embeddings = np.random.default_rng(0).normal(size=200 * 4).astype(np.float16)
    found = table(200, l14_img=pa.FixedSizeListArray.from_arrays(pa.array(embeddings), 4))
    images = f"image_based({str(tmp_path / 'axes.npy')!r}, centroids={str(tmp_path / 'axes.npy')!r})"
    fitted = fit(parse(f"basic | {images} | laion2b").leaves, [TablePool(found)])
    masks = leaf_masks(fitted, found)
    assert asked["fasttext"] == 200
    assert asked["cld3"] < 200
    assert {text: mask.tolist() for text, mask in masks.items()} == {
        text: leaf.mask(found).tolist() for text, leaf in fitted.items()
    }
    assert all(0 < mask.sum() < 200 for mask in masks.values())
