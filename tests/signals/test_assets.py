"""The assets of signals, made of a small store, and what the check and the facts say of keys that do not fit."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from dqe_assets.core.signals import signals_of
from dqe_assets.core.stage import connected
from dqe_assets.filtering.build_subset import make_subset
from dqe_assets.filtering.expression import parse
from dqe_assets.filtering.pool import PoolError
from dqe_assets.filtering.store_pool import StorePool
from dqe_assets.ingest.assets import raw_samples
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.signals.assets import signal_keys_of, signals_of_table
from dqe_assets.signals.settings import SignalTable
from dqe_resources.store import Stamp, Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dqe_assets.core.stage import Stage
    from dqe_assets.core.work import CheckResult

SHARDS = ("web-00000", "web-00001")


def uid(row: int) -> str:
    return hashlib.md5(str(row).encode()).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two shards of three samples; the last of each has no URL, and the second of both the same."""
    monkeypatch.setenv("DQE_DATA", str(tmp_path))
    store = Store(str(tmp_path / "store"))
    for number, shard in enumerate(SHARDS):
        rows = [
            {
                "uid": uid(3 * number + row),
                "source": "web",
                "shard": shard,
                "row": row,
                "image_name": f"{number}{row}.jpg",
                "url": [f"https://a.example/{number}", "https://a.example/both", None][row],
                "status": "ok",
                "reason": "ok",
            }
            for row in range(3)
        ]
        store.write_table(
            "raw_samples", shard, pa.Table.from_pylist(rows, RAW_SAMPLES), RAW_SAMPLES, Stamp("1", "1", 3)
        )
    return store


def made(
    store: Store, stages: list[Stage], name: str, partition: str | None = None
) -> tuple[pa.Table, Mapping[str, Any], dict[str, CheckResult]]:
    (stage,) = (one for one in connected([raw_samples, *stages]) if one.name == name)
    work = stage.work(store, partition, SHARDS)
    stored, _, results = stage.make(work, {})
    return store.read(name, partition, stage.schema), stored.stamp.facts, results


def test_each_sample_has_its_row_whatever_its_shard(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "safety.csv"
    path.write_text(
        "link,nsfw,lang\n"
        "https://a.example/1,0.5,en\n"
        "https://a.example/both,0.25,\n"
        "https://a.example/0,,de\n"
        "https://b.example/nobody,1,fr\n"
        ",2,xx\n"
    )
    table = SignalTable(name="safety", path=path, key="url", key_column="link")
    stage = signals_of_table(table)
    assert stage.signals == {"nsfw": "nsfw", "lang": "lang"}
    first, facts, results = made(store, [stage], "signals/safety", SHARDS[0])
    assert first.to_pydict() == {
        "uid": [uid(0), uid(1), uid(2)],
        "table_row": [3, 2, None],
        "nsfw": [None, 0.25, None],
        "lang": ["de", None, None],
    }
    assert all(result.passed for result in results.values())
    assert (facts["table_rows"], facts["samples_found"], facts["samples_without_key"]) == (5, 2, 1)
    second, _, _ = made(store, [stage], "signals/safety", SHARDS[1])
    assert second["nsfw"].to_pylist() == [0.5, 0.25, None]
    keys, _, results = made(store, [stage, signal_keys_of([table])], "signal_keys")
    assert keys.to_pylist() == [
        {
            "table": "safety",
            "file": str(path),
            "key": "url",
            "rows": 5,
            "keys": 4,
            "unknown": 1,
            "unknown_examples": ["https://b.example/nobody"],
            "samples": 6,
            "samples_found": 4,
        }
    ]
    assert not results["keys_known"].passed
    assert (
        "safety: 1 of 4 keys are no sample's url, such as https://b.example/nobody" in results["keys_known"].description
    )
    assert results["samples_found"].passed


def test_nothing_is_said_of_what_is_taken_down(store: Store, tmp_path: Path) -> None:
    raw = store.read("raw_samples", SHARDS[0], RAW_SAMPLES)
    reasons = pa.array(["ok", "taken_down", "ok"])
    raw = raw.set_column(raw.schema.get_field_index("reason"), RAW_SAMPLES.field("reason"), reasons)
    store.write_table("raw_samples", SHARDS[0], raw, RAW_SAMPLES, Stamp("2", "1", 3))
    path = tmp_path / "votes.csv"
    path.write_text("uid,vote\n" + "".join(f"{uid(row)},{row}\n" for row in range(3)))
    table, _, _ = made(store, [signals_of_table(SignalTable(name="votes", path=path))], "signals/votes", SHARDS[0])
    assert table["vote"].to_pylist() == [0.0, None, 2.0]


def test_a_wrong_key_is_warned_of(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    path.write_text('{"image_name": "x.jpg", "vote": 1}\n')
    table = SignalTable(name="votes", path=path, key="image_name")
    for shard in SHARDS:
        made(store, [signals_of_table(table)], "signals/votes", shard)
    _, _, results = made(store, [signals_of_table(table), signal_keys_of([table])], "signal_keys")
    assert not results["samples_found"].passed
    assert "is image_name the right key?" in results["samples_found"].description


def test_a_table_that_changed_makes_its_signals_again(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(f"uid,vote\n{uid(0).upper()},1\n")
    stage = signals_of_table(SignalTable(name="votes", path=path))
    table, _, _ = made(store, [stage], "signals/votes", SHARDS[0])
    assert table["vote"].to_pylist() == [1.0, None, None]
    path.write_text(f"uid,vote\n{uid(1)},22\n")
    stage = signals_of_table(SignalTable(name="votes", path=path))
    table, _, _ = made(store, [stage], "signals/votes", SHARDS[0])
    assert table["vote"].to_pylist() == [None, 22.0, None]


def test_filters_read_them_from_the_store_by_their_names(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("uid,clip_l14_similarity_score,lang\n" + "".join(f"{uid(row)},{row / 10},en\n" for row in range(5)))
    stage = signals_of_table(SignalTable(name="scores", path=path))
    for shard in SHARDS:
        made(store, [stage], "signals/scores", shard)
    pool = StorePool(store, SHARDS, signals=signals_of([stage]))

    def kept(expression: str) -> set[str]:
        return {f"{high:016x}{low:016x}" for high, low in make_subset(parse(expression), [pool]).uids.tolist()}

    assert kept("clip_l14_similarity_score < 0.2") == {uid(0), uid(1)}
    assert kept("lang == 'en' & ~clip_l14_similarity_score < 0.2 & image_name != '10.jpg'") == {uid(2), uid(4)}
    assert kept("lang != 'en' | lang not in ['de']") == {uid(row) for row in range(5)}
    # The sixth has no score: it counts for the fraction, and is not kept.
    assert kept("clip_score(l14, fraction=0.3)") == {uid(3), uid(4)}
    with pytest.raises(PoolError, match=r"the store has no column nsfw .*there are: .*clip_l14_similarity_score"):
        kept("nsfw < 1")
    files = [file.path for file in pool.parts[0].files(["lang"])]
    assert files == ["raw_samples/web-00000", "signals/scores/web-00000"]
