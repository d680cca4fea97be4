"""The best caption of each sample: by a plain reading of the rule, and on what was made of the embedded sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.core.schema import ORIGINAL, REFINED
from dqe_assets.improve.best import below_runner_up, best_captions
from dqe_assets.improve.best_settings import BestRule
from dqe_assets.improve.tables import BEST_CAPTIONS
from dqe_assets.orchestration import graph
from tests.core.test_stage import SHARD, stored
from tests.stages import handed, output_of, stage_named

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings

FLAGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Caption:
    """A caption of one source."""

    text: str | None = "a dog runs"
    similarity: float | None = 0.2
    judgement: float | None = None
    flags: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


Sample = dict[str, Caption]
NO_IMAGE: Sample = {}


def chosen(*samples: Sample, shared: tuple[str, ...] = (), **rule: Any) -> list[dict[str, Any]]:
    """The rows of ``best_captions``; every sample has a caption, or none, of every source that another has."""
    return table_of(samples, BestRule(**rule), shared).to_pylist()


def table_of(samples: tuple[Sample, ...], rule: BestRule, shared: tuple[str, ...] = ()) -> pa.Table:
    sources = list(dict.fromkeys([ORIGINAL, *(source for sample in samples for source in sample)]))
    uids = [f"{number:032x}" for number in range(len(samples))]
    of = {source: [sample.get(source, Caption(None, None)) for sample in samples] for source in sources}
    raw = pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "status": pa.array(["ok" if sample else "failed" for sample in samples], pa.string()),
            "caption": pa.array([one.text for one in of[ORIGINAL]], pa.string()),
        }
    )
    written = {
        source: pa.table(
            {
                "uid": raw["uid"],
                "caption": pa.array([one.text for one in captions], pa.string()),
                "flags": pa.array([list(one.flags) for one in captions], FLAGS),
                "similarity": pa.array([one.similarity for one in captions], pa.float32()),
            }
        )
        for source, captions in of.items()
    }
    long = [(uid, source, one) for source, captions in of.items() for uid, one in zip(uids, captions, strict=True)]
    keys = {
        "uid": pa.array([uid for uid, _, _ in long], pa.string()),
        "caption_source": pa.array([source for _, source, _ in long], pa.string()),
    }
    scored = [one.similarity if source != REFINED else None for _, source, one in long]
    judged = pa.table({**keys, "overall": pa.array([one.judgement for *_, one in long], pa.float32())})
    refined = written.get(REFINED)
    if refined is not None:
        rounds, accepted = pa.array([1] * len(uids), pa.int8()), refined["caption"].is_valid()
        refined = refined.append_column("round", rounds).append_column("accepted", accepted)
    return best_captions(
        raw,
        {source: table for source, table in written.items() if source not in {ORIGINAL, REFINED}},
        pa.table({**keys, "similarity": pa.array(scored, pa.float32())}),
        rule,
        shared=shared,
        quality=pa.table({**keys, "patterns": pa.array([list(one.patterns) for *_, one in long], FLAGS)}),
        judgements=judged.filter(judged["overall"].is_valid()),
        refined=refined,
    )


def test_the_highest_similarity_is_the_best_and_the_next_the_runner_up() -> None:
    (row,) = chosen({"original": Caption("a cat", 0.1), "vlm": Caption("a dog", 0.3), "other": Caption("a fox", 0.2)})
    assert row == {
        "uid": "0" * 32,
        "caption": "a dog",
        "caption_source": "vlm",
        "similarity": pytest.approx(0.3),
        "original_similarity": pytest.approx(0.1),
        "judgement": None,
        "vqa": None,
        "independent": True,
        "reason": "highest similarity",
        "runner_up_source": "other",
        "runner_up_caption": "a fox",
        "runner_up_similarity": pytest.approx(0.2),
        "runner_up_judgement": None,
        "runner_up_vqa": None,
        "set_aside": [],
    }


def test_equals_are_taken_in_the_order_of_the_sources() -> None:
    sample = {"original": Caption(), "b": Caption(), "a": Caption()}
    (row,) = chosen(sample)
    assert (row["caption_source"], row["runner_up_source"], row["reason"]) == ("original", "b", "first of equals")
    (row,) = chosen(sample, sources=("a", "original"))
    assert (row["caption_source"], row["runner_up_source"]) == ("a", "original")


def test_what_is_flagged_or_of_another_length_is_taken_only_if_nothing_else_is_left() -> None:
    cut, short = Caption("a dog on a", 0.5, flags=("cut_off",)), Caption("dog", 0.4)
    (row,) = chosen({"original": Caption("a dog runs", 0.1), "cut": cut, "short": short}, min_words=2)
    assert (row["caption_source"], row["runner_up_source"]) == ("original", "cut")
    assert row["reason"] == "only caption that is not set aside"
    assert row["set_aside"] == ["cut: cut_off", "short: fewer than 2 words"]
    (row,) = chosen({"original": short, "cut": cut}, min_words=2)
    assert (row["caption_source"], row["reason"]) == ("cut", "highest similarity; all are set aside")
    (row,) = chosen({"original": Caption("a b c d", 0.5), "cut": cut}, avoid=(), max_words=3)
    assert row["set_aside"] == ["original: more than 3 words", "cut: more than 3 words"]
    (row,) = chosen({"original": Caption("a b c", 0.1, patterns=("cut_off",)), "vlm": Caption("a d", 0.05)})
    assert (row["caption_source"], row["set_aside"]) == ("vlm", ["original: cut_off"])


def test_the_original_stays_where_no_other_gains_enough() -> None:
    samples = [{"original": Caption("a", 0.2), "vlm": Caption("b", similarity)} for similarity in (0.29, 0.31, 0.1)]
    rows = chosen(*samples, min_gain=0.1)
    assert [(row["caption_source"], row["reason"]) for row in rows] == [
        ("original", "original kept: no other gains enough"),
        ("vlm", "highest similarity"),
        ("original", "highest similarity"),
    ]


def test_a_judgement_decides_where_every_caption_has_one() -> None:
    good, bad = Caption("good", 0.1, 4.5), Caption("bad", 0.3, 1.5)
    (judged,) = chosen({"original": good, "vlm": bad}, by=("judgement", "similarity"))
    assert (judged["caption"], judged["judgement"], judged["runner_up_judgement"]) == ("good", 4.5, 1.5)
    assert judged["reason"] == "highest judgement"
    (partly,) = chosen({"original": good, "vlm": bad, "b": Caption("c", 0.2)}, by=("judgement", "similarity"))
    assert (partly["caption"], partly["reason"]) == ("bad", "highest similarity")
    (ignored,) = chosen({"original": good, "vlm": bad})
    assert ignored["caption"] == "bad"


def test_scores_by_a_scorer_that_shares_the_captioners_backbone_count_only_if_they_are_trusted() -> None:
    sample = {"original": Caption("a", 0.1), "labels": Caption("b", 0.5)}
    (row,) = chosen(sample, shared=("labels",))
    assert (row["caption"], row["independent"]) == ("a", True)
    assert row["set_aside"] == ["labels: shares a backbone with the scorer"]
    (row,) = chosen(sample, shared=("labels",), trust_shared_backbone=True)
    assert (row["caption"], row["independent"], row["set_aside"]) == ("b", False, [])


def test_without_an_image_or_a_caption_there_is_none_and_the_reason() -> None:
    rows = chosen(NO_IMAGE, {"original": Caption(" \n", None)}, {"vlm": Caption("a dog", 0.1)})
    assert [(row["caption"], row["caption_source"], row["reason"]) for row in rows] == [
        (None, None, "no image"),
        (None, None, "no caption"),
        ("a dog", "vlm", "only caption"),
    ]
    for row in rows:
        assert row["runner_up_source"] is row["runner_up_caption"] is row["runner_up_similarity"] is None
    assert rows[0]["similarity"] is rows[0]["independent"] is None


def test_an_unscored_caption_is_set_aside_and_taken_if_it_is_the_only_one() -> None:
    alone, beside = chosen(
        {"original": Caption("a", None)}, {"original": Caption("a", None), "vlm": Caption("b", -0.5)}
    )
    assert (alone["caption"], alone["reason"]) == ("a", "only caption; all are set aside")
    assert (beside["caption"], beside["set_aside"]) == ("b", ["original: not scored"])


def test_the_refined_caption_is_that_accepted_in_the_last_round() -> None:
    raw = pa.table({"uid": ["u", "v"], "status": ["ok", "ok"], "caption": ["first", "only"]})
    scores = pa.table({"uid": ["u", "v"], "caption_source": ["original"] * 2, "similarity": pa.array([0.1, 0.1])})
    rounds = [(1, "second", 0.2, True), (2, "third", 0.3, True), (2, "best of all, and refused", 0.9, False)]
    refined = pa.table(
        {
            "uid": ["u"] * 3,
            "round": [number for number, *_ in rounds],
            "caption": [text for _, text, _, _ in rounds],
            "flags": pa.array([[]] * 3, FLAGS),
            "similarity": pa.array([similarity for _, _, similarity, _ in rounds], pa.float32()),
            "accepted": [accepted for *_, accepted in rounds],
        }
    )
    first, second = best_captions(raw, {}, scores, BestRule(), refined=refined).to_pylist()
    assert (first["caption"], first["caption_source"], first["runner_up_source"]) == ("third", "refined", "original")
    assert (second["caption"], second["reason"]) == ("only", "only caption")


SOURCES = (ORIGINAL, "vlm", "labels", REFINED)
captions = st.builds(
    Caption,
    st.sampled_from([None, " ", "dog", "a dog", "a dog runs", "a dog runs on a beach"]),
    st.none() | st.sampled_from([-0.5, 0.0, 0.125, 0.25, 0.5]),
    st.none() | st.sampled_from([1.0, 2.5, 4.0]),
    st.sampled_from([(), ("refusal",), ("cut_off", "empty")]),
    st.sampled_from([(), ("empty",)]),
)
samples_of = st.lists(st.dictionaries(st.sampled_from(SOURCES), captions), max_size=8)
rules = st.builds(
    BestRule,
    by=st.permutations(["similarity", "judgement"]).flatmap(lambda by: st.sampled_from([tuple(by), tuple(by[:1])])),
    avoid=st.sampled_from([(), ("refusal",), ("refusal", "empty")]),
    min_words=st.integers(0, 3),
    max_words=st.none() | st.integers(3, 5),
    min_gain=st.sampled_from([0.0, 0.125, 0.2]),
    sources=st.none() | st.permutations(SOURCES).map(lambda names: tuple(names[: names.index(ORIGINAL) + 1])),
    trust_shared_backbone=st.booleans(),
)


def by_the_book(sample: Sample, rule: BestRule, there: list[str]) -> list[str]:
    """The sources of a sample's captions, the best first: the rule read sentence by sentence."""
    order = [source for source in (rule.sources or there) if source in there]
    present = [s for s in order if s in sample and sample[s].text is not None and sample[s].text.strip()]

    def is_set_aside(source: str) -> bool:
        one, words = sample[source], len((sample[source].text or "").split())
        return (
            bool(set(rule.avoid) & {*(one.flags if source != ORIGINAL else ()), *one.patterns})
            or not rule.min_words <= words <= (rule.max_words or words)
            or one.similarity is None
            or (source == "labels" and not rule.trust_shared_backbone)
        )

    ranked = []
    for aside in (False, True):
        rivals = [source for source in present if is_set_aside(source) == aside]
        for criterion in reversed(rule.by):
            values = {source: getattr(sample[source], criterion) for source in rivals}
            if None not in values.values():
                gain = rule.min_gain if criterion == "similarity" else 0
                rivals.sort(key=lambda s: -(values[s] + gain * (s == ORIGINAL)))
        ranked += rivals
    return ranked


@given(samples_of, rules)
def test_the_choice_is_the_rules(samples: list[Sample], rule: BestRule) -> None:
    there = list(dict.fromkeys([ORIGINAL, *(source for sample in samples for source in sample)]))
    there.sort(key=lambda source: source == REFINED)
    table = table_of(tuple(samples), rule, shared=("labels",))
    assert table.schema.equals(BEST_CAPTIONS, check_metadata=True)
    for row, sample in zip(table.to_pylist(), samples, strict=True):
        ranked = by_the_book(sample, rule, there)
        assert [row["caption_source"], row["runner_up_source"]] == [*ranked, None, None][:2]
        assert row["caption"] == (sample[ranked[0]].text if ranked else None)
        assert row["similarity"] == (sample[ranked[0]].similarity if ranked else None)
    assert below_runner_up(table, rule) == 0


def test_a_choice_that_is_worse_than_the_next_is_found() -> None:
    rule = BestRule(by=("judgement", "similarity"), min_gain=0.1)
    samples = (
        {"original": Caption("a", 0.2), "vlm": Caption("b", 0.5)},
        {"original": Caption("a", 0.2), "vlm": Caption("b", 0.25)},
        {"original": Caption("a", 0.2, 1.0), "vlm": Caption("b", 0.1, 2.0)},
        {"original": Caption("a", 0.2)},
    )
    good = table_of(samples, rule)
    assert below_runner_up(good, rule) == 0
    names = good.column_names
    swapped = {"caption_source": "runner_up_source", "similarity": "runner_up_similarity"}
    swapped |= {"judgement": "runner_up_judgement"}
    swapped |= {there: here for here, there in swapped.items()}
    bad = pa.table([good[swapped.get(name, name)] for name in names], names)
    assert below_runner_up(bad, rule) == 3


def test_of_the_embedded_sample_the_scorers_own_captions_are_chosen_only_if_they_are_trusted(opened: Settings) -> None:
    _, table = stored(opened, "best_captions")
    assert pc.sum(pc.equal(table["independent"], False)).as_py() > 30
    careful = opened.model_copy(update={"best": BestRule()})
    stage = stage_named(careful, "best_captions")
    work = stage.work(careful.opened_store, SHARD, [])
    assert stage.current(work, handed(careful, stage)) is None, "another rule makes another table"
    again = output_of(careful, stage, work)
    chosen = again.filter(pc.is_valid(again["original_similarity"]))
    assert pc.sum(pc.equal(chosen["caption_source"], "original")).as_py() > 50
    others = chosen.filter(pc.not_equal(chosen["caption_source"], "original"))["reason"].to_pylist()
    assert 0 < len(others) < 5
    assert all(reason.endswith("; all are set aside") for reason in others), "an original that is a file's name, say"
    assert again["uid"].equals(table["uid"])


def test_duplicates_kept_for_their_best_caption_and_filters_read_the_same_table(opened: Settings) -> None:
    rules = opened.duplicates.model_copy(update={"representative": "best_caption"})
    changed = {"duplicates": rules, "filters": {"sure": "best_similarity > 0.3"}}
    names = {stage.name: stage for stage in graph.stages(opened.model_copy(update=changed))}
    assert "best_captions" in names["duplicate_clusters"].inputs
    assert "best_captions" in names["filter_masks"].inputs
    with opened.warehouse.connect() as connection:
        different = connection.execute(
            "SELECT count(*) FROM samples s JOIN best_captions b USING (uid) "
            "WHERE (s.best_source, s.best_similarity) IS DISTINCT FROM (b.caption_source, b.similarity)"
        ).fetchall()
    assert different == [(0,)]
