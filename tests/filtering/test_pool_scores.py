"""Scores over the whole pool in expressions: what they are computed from, and that no row's depends on the order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import ExpressionError, parse
from dqe_assets.filtering.filters.cluster_share import ScoreTop
from dqe_assets.filtering.filters.pool_scores import M_FLYT, Mix, NormSim, NormSimD, PoolRows, SClipLoss
from dqe_assets.filtering.filters.protocol import FilterError
from dqe_assets.filtering.pool import DataCompPool, PoolError, TablePool
from dqe_assets.filtering.scores import mix, normsim, normsim_d, s_clip_loss
from tests.filtering.make_pool import table, uids, write_part
from tests.filtering.test_scores import units

if TYPE_CHECKING:
    from pathlib import Path

ROWS, WIDTH = 60, 8


def embeddings(seed: int, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Images, and captions that fit them more or less, in 16 bits."""
    random = np.random.default_rng(seed)
    images = units(random, rows, WIDTH)
    texts = images + 0.8 * units(random, rows, WIDTH)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    return {"l14_img": images.astype(np.float16), "l14_txt": texts.astype(np.float16)}


def pool_of(arrays: dict[str, np.ndarray], **columns: Any) -> TablePool:
    """A pool in memory."""
    rows = len(next(iter(arrays.values())))
    lists = {name: pa.array(list(values.astype(np.float16)), pa.list_(pa.float16())) for name, values in arrays.items()}
    return TablePool(pa.table({"uid": uids(range(rows)), **lists, **columns}))


def kept(text: str, *pools: Any) -> set[str]:
    """The uids that an expression keeps, in 32 hexadecimal digits."""
    return {f"{high:016x}{low:016x}" for high, low in make_subset(parse(text), list(pools)).uids.tolist()}


def best(scores: np.ndarray, count: int) -> set[str]:
    return set(uids(np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[:count].tolist()))


def test_s_clip_loss_is_that_of_the_whole_pool() -> None:
    arrays = embeddings(0)
    found, said = SClipLoss(scorer="l14", repeats=1).of(PoolRows([pool_of(arrays)]))
    np.testing.assert_allclose(found, s_clip_loss(*arrays.values(), repeats=1), atol=2e-3)
    assert said == {}
    assert kept("score_top(0.25, score=s_clip_loss(l14))", pool_of(arrays)) == best(found, 15)


def test_no_score_depends_on_the_order_of_rows_or_on_the_cut_into_pools() -> None:
    arrays, numbers = embeddings(1), np.random.default_rng(3).normal(size=ROWS)
    whole = pool_of(arrays, dfn=numbers).table
    order = np.random.default_rng(2).permutation(ROWS)
    first, second = order[:20], order[20:]
    cut = [TablePool(whole.take(pa.array(rows)), str(len(rows))) for rows in (first, second)]
    for score in (
        SClipLoss(scorer="l14", batch=7, repeats=3),
        NormSimD(scorer="l14", batch=7, start=0.5),
        Mix(weights=((SClipLoss(scorer="l14", batch=7), 1.0), ("dfn", 0.5))),
    ):
        plain, _ = score.of(PoolRows([TablePool(whole)]))
        moved, _ = score.of(PoolRows(cut))
        np.testing.assert_allclose(moved, plain[order], atol=1e-5)


def test_a_row_without_image_or_caption_has_no_score_and_is_not_kept() -> None:
    arrays = embeddings(2)
    pool = pool_of(arrays)
    for column, row in (("l14_img", 3), ("l14_txt", 5)):
        lists = pool.table[column].to_pylist()
        lists[row] = None
        place = pool.table.schema.get_field_index(column)
        pool = TablePool(pool.table.set_column(place, column, pa.array(lists, pa.list_(pa.float16()))))
    found, _ = SClipLoss(scorer="l14").of(PoolRows([pool]))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5]
    assert kept("score_top(1.0, score=s_clip_loss(l14))", pool) == set(uids(range(ROWS))) - set(uids([3, 5]))


def test_normsim_reads_targets_from_a_file(tmp_path: Path) -> None:
    arrays, targets = embeddings(3), units(np.random.default_rng(9), 12, WIDTH)
    np.save(tmp_path / "targets.npy", 3 * targets)
    pool = pool_of(arrays)
    for p, said in ((2, ""), (np.inf, ", p=inf")):
        score = NormSim(targets=str(tmp_path / "targets.npy"), scorer="l14", p=p)
        found, facts = score.of(PoolRows([pool]))
        np.testing.assert_allclose(found, normsim(arrays["l14_img"].astype(np.float32), targets, p), rtol=5e-3)
        assert facts == {"targets": 12}
        text = f"score_top(0.2, score=normsim('{tmp_path}/targets.npy'{said}, scorer=l14))"
        assert kept(text, pool) == best(found, 12)
        assert parse(parse(text).text).text == parse(text).text
    assert list(score.versions) == ["targets.npy"]


def test_targets_that_are_not_there_or_of_another_model_are_named(data: Path) -> None:
    pool = pool_of(embeddings(3))
    with pytest.raises(FilterError, match="dqe materialize targets/birds"):
        kept("score_top(0.2, score=normsim(birds, scorer=l14))", pool)
    (data / "targets").mkdir()
    np.save(data / "targets" / "birds.npy", np.ones((2, 5), np.float32))
    with pytest.raises(FilterError, match="targets of 5 numbers, and the pool's images have 8"):
        kept("score_top(0.2, score=normsim(birds, scorer=l14))", pool)


def test_normsim_d_follows_what_s_clip_loss_keeps() -> None:
    arrays = embeddings(4)
    rows = PoolRows([pool_of(arrays)])
    losses, _ = SClipLoss(scorer="l14").of(rows)
    found, _ = NormSimD(scorer="l14", start=0.5, share=0.3, steps=3).of(rows)
    images = rows.vectors("l14_img")
    np.testing.assert_allclose(found, normsim_d(images, losses, start=0.5, share=0.3, steps=3), rtol=1e-5)


def test_a_mix_is_of_columns_and_of_other_scores() -> None:
    arrays, numbers = embeddings(5), np.random.default_rng(0).normal(size=ROWS)
    pool = pool_of(arrays, nsfw=numbers)
    losses, _ = SClipLoss(scorer="l14").of(PoolRows([pool]))
    expected = mix({"a": losses, "b": numbers}, {"a": 0.51, "b": -2})
    text = "score_top(0.25, score=mix({s_clip_loss(l14): 0.51, nsfw: -2}))"
    assert kept(text, pool) == best(expected, 15)
    leaf = parse(text).leaves[0]
    assert leaf.text == "score_top(0.25, score=mix({s_clip_loss(scorer=l14): 0.51, nsfw: -2.0}))"
    assert leaf.columns == ("uid", "l14_img", "l14_txt", "nsfw")
    fitted = leaf.fit([pool])
    assert fitted.columns == ("uid",)
    assert fitted.facts["weights"] == {"s_clip_loss(scorer=l14)": 0.51, "nsfw": -2.0}


def test_the_published_weights_say_what_is_missing(tmp_path: Path) -> None:
    arrays = embeddings(6)
    write_part(tmp_path / "pool", "0", table(ROWS, uid=uids(range(ROWS))), arrays)
    pool = DataCompPool(str(tmp_path / "pool"))
    made = make_subset(parse("score_top(0.3, score=mix(m_flyt, scorer=l14))"), [pool])
    (facts,) = made.manifest["leaves"]
    assert facts["missing"] == ["normsim", "dfn"]
    assert facts["weights"] == {
        "s_clip_loss(scorer=l14)": 0.51,
        "clip_l14_similarity_score": 0.21,
        "clip_b32_similarity_score": 0.08,
    }
    np.save(tmp_path / "targets.npy", units(np.random.default_rng(9), 12, WIDTH))
    with_targets = parse(f"score_top(0.3, score=mix(m_flyt, targets='{tmp_path}/targets.npy', scorer=l14))")
    (facts,) = make_subset(with_targets, [pool]).manifest["leaves"]
    assert facts["missing"] == ["dfn"]
    assert sum(facts["weights"].values()) == pytest.approx(sum(M_FLYT.values()) - M_FLYT["dfn"])
    nested = parse("score_top(0.3, score=mix({mix(m_flyt, scorer=l14): 1, original_width: 0.1}))")
    assert "dfn" in nested.may_read
    (facts,) = make_subset(nested, [pool]).manifest["leaves"]
    assert facts["missing"] == ["normsim", "dfn"]
    json.dumps(facts)
    # Embeddings next to the metadata are among what the subset was made from.
    files = [file["path"] for file in made.manifest["pools"][0]["files"]]
    assert files == ["0.parquet", "0.npz"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("score_top(0.3, score=normsim)", "normsim needs targets"),
        ("score_top(0.3, score=normsim('a.npy', p=3))", "expected 2 or inf"),
        ("score_top(0.3, score=mix)", "mix needs weights"),
        ("score_top(0.3, score=mix({}))", "no weights"),
        ("score_top(0.3, score=mix({a: 1, a: 2}))", "a score stands twice"),
        ("score_top(0.3, score=mix({a: 1}, scorer=l14))", "belong to m_flyt"),
        ("score_top(0.3, score=mix({**a}))", "a parameter is"),
        ("score_top(0.3, score=mix({mix({a: x}): 1}))", "weights"),
        ("score_top(0.3, score=s_clip_loss(temperature=0))", "must be above 0"),
        ("score_top(0.3, score=normsim_d(start=0.1))", "share is at most start"),
        ("score_top(0.3, score=uid)", "a uid is no score"),
        ("s_clip_loss(l14)", "there is no filter s_clip_loss"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said):
        parse(text)


def test_what_a_pool_lacks_is_named() -> None:
    pool = pool_of({"l14_img": embeddings(0)["l14_img"]}, text=["a"] * ROWS)
    with pytest.raises(PoolError, match="column l14_txt is missing"):
        kept("score_top(0.3, score=s_clip_loss(l14))", pool)
    with pytest.raises(FilterError, match="text is no column of numbers"):
        kept("score_top(0.3, score=mix({text: 1}))", pool)
    nothing = TablePool(pa.table({"uid": uids([1]), "a_img": pa.array([None], pa.list_(pa.float16()))}))
    with pytest.raises(FilterError, match="none of the 1 rows has a_img"):
        PoolRows([nothing]).vectors("a_img")


def test_a_score_that_stands_for_all_is_found_of_a_table_too() -> None:
    arrays = embeddings(7)
    pool = pool_of(arrays)
    mask = ScoreTop(share=0.5, score=SClipLoss(scorer="l14")).mask(pool.table)
    found, _ = SClipLoss(scorer="l14").of(PoolRows([pool]))
    assert set(np.array(uids(range(ROWS)))[mask].tolist()) == best(found, 30)
