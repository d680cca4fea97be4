"""The truth of captions by a model in this process: a real one of few random weights, and what its logits say."""

from __future__ import annotations

import shutil
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from dqe_assets.score.vqa_scores import vqa_scores
from dqe_resources.captioners.budget import Tokens
from dqe_resources.captioners.protocol import NoCaptionerError, Sample
from dqe_resources.models.torchvision_cpu import ensure_torchvision
from dqe_resources.scorers import AnySampleScorer
from dqe_resources.scorers.vqa import Verdict
from dqe_resources.scorers.vqa_transformers import LocalVqa
from tests.image_files import blocks
from tests.servers.tiny_captioners import build_tiny_blip, build_tiny_own_code
from tests.servers.tiny_vlm import build_tiny_vlm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

YES, NO = ["Yes", " yes", "YES"], ["No", " no"]
DIGITS = [str(grade) for grade in range(10)]
CAPTIONS = ("a dog", "a red tree that stands on the grass", "the sea", "a cat and a dog in a picture of the sky")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models."""
    ensure_torchvision()
    folder = tmp_path_factory.mktemp("models")
    build_tiny_vlm(folder / "vlm", words=[*YES, *NO], loud=[*YES, *NO])
    build_tiny_vlm(folder / "grading", loud=DIGITS)
    build_tiny_vlm(folder / "no_words")
    build_tiny_blip(folder / "blip")
    build_tiny_own_code(folder / "own_code")
    return folder


def scorer(model: Path, **settings: Any) -> LocalVqa:
    return LocalVqa.model_validate({"name": "truth", "model": str(model), **settings})


def verdicts(one: LocalVqa, count: int = 8) -> list[Verdict]:
    samples = (Sample(image=blocks(place), prompt=one.ask(CAPTIONS[place % len(CAPTIONS)])) for place in range(count))
    found = dict(one.score(samples, Tokens()))
    answers = [found[place] for place in range(count)]
    assert all(isinstance(answer, Verdict) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Verdict)]


def first_tokens(one: LocalVqa, words: Sequence[str], count: int = 8) -> np.ndarray:
    """The probability of each word as the first token, of one image at a time, by the logits alone: [count, words]."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(one.model)
    model = AutoModelForImageTextToText.from_pretrained(one.model).eval()
    ids = processor.tokenizer.convert_tokens_to_ids(list(words))
    found = []
    for place in range(count):
        text = f"user: <image>{one.ask(CAPTIONS[place % len(CAPTIONS)])}<end_of_utterance>\nassistant: "
        inputs = processor(images=Image.open(BytesIO(blocks(place))), text=text, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs).logits[0, -1].double().numpy()
        shares = np.exp(logits - logits.max())
        found.append(shares[ids] / shares.sum())
    return np.array(found)


def test_the_score_is_the_probability_of_yes_by_the_logits_of_one_image_at_a_time(models: Path) -> None:
    one = scorer(models / "vlm", concurrency=3)
    found = verdicts(one)
    expected = first_tokens(one, [*YES, *NO])
    yes, answered = expected[:, : len(YES)].sum(axis=1), expected.sum(axis=1)
    assert [verdict.answered for verdict in found] == pytest.approx(answered, abs=1e-5)
    read = answered >= 0.1
    assert read.sum() >= 3
    assert [verdict.score is not None for verdict in found] == read.tolist()
    scores = [verdict.score for verdict in found if verdict.score is not None]
    assert scores == pytest.approx(yes[read], abs=1e-5)
    assert np.ptp(scores) > 0.1, "they depend on image and caption"
    for verdict in found:
        assert (verdict.completion_tokens, verdict.attempts) == (1, 1)
        assert verdict.finish_reason == ("stop" if verdict.score is not None else "unparsable")
    assert found[1].prompt_tokens > found[0].prompt_tokens > 16  # type: ignore[operator]


def test_in_a_batch_each_caption_gets_the_score_that_it_gets_alone(models: Path) -> None:
    together, alone = (verdicts(scorer(models / "vlm", concurrency=many)) for many in (8, 1))
    assert [one.answered for one in together] == pytest.approx([one.answered for one in alone], abs=1e-5)
    assert [one.prompt_tokens for one in together] == [one.prompt_tokens for one in alone]
    both = [(one.score, other.score) for one, other in zip(together, alone, strict=True)]
    assert all((one is None) == (other is None) for one, other in both)
    assert [one for one, _ in both if one is not None] == pytest.approx(
        [other for _, other in both if other is not None], abs=1e-5
    )


def test_the_grade_is_expected_over_the_digits(models: Path) -> None:
    one = scorer(models / "grading", answer="grade")
    shares = first_tokens(one, DIGITS)
    expected = shares @ np.arange(10) / shares.sum(axis=1) / 9
    found = verdicts(one)
    read = [place for place, verdict in enumerate(found) if verdict.score is not None]
    assert len(read) >= 3
    assert [found[place].score for place in read] == pytest.approx(expected[read], abs=1e-5)


def test_a_model_that_knows_no_answer_says_what_it_begins_with(models: Path) -> None:
    found = verdicts(scorer(models / "no_words"), count=2)
    assert [(one.score, one.answered, one.finish_reason) for one in found] == [(None, 0, "unparsable")] * 2
    assert str(found[0].error).startswith("the first token is not yes or no, but ")


@pytest.mark.parametrize(
    ("model", "said"),
    [("blip", "has no chat template, so that it cannot be asked"), ("own_code", "answers by code of its own")],
)
def test_a_model_that_cannot_be_asked_is_refused_with_what_to_set(models: Path, model: str, said: str) -> None:
    with pytest.raises(NoCaptionerError, match=f"scorer truth: .*/{model} {said}.*set model to one that has a chat"):
        verdicts(scorer(models / model, trust_remote_code=True), count=1)


def test_logits_that_are_no_numbers_are_an_error_of_their_own(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(models / "vlm", tmp_path / "nan")
    file = tmp_path / "nan" / "model.safetensors"
    weights = load_file(file)
    weights["lm_head.weight"][0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    one = scorer(tmp_path / "nan")
    ((_, answer),) = one.score(iter([Sample(image=blocks(0), prompt=one.ask("a dog"))]), Tokens())
    assert answer.finish_reason == "error"
    assert "set dtype: bfloat16 or float32" in str(answer.error)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "vqa_transformers", "url": "http://a", "max_cost": 2}, "max_cost, url: .* set kind: vqa to ask"),
        ({"kind": "vqa_transformers", "temperature": 0}, "temperature: .* no sampling; remove it"),
        ({"kind": "vqa_transformers", "question": "Is it so?"}, "it must have {caption} once"),
        ({"kind": "vqa"}, "without a server, is of kind vqa_transformers"),
    ],
)
def test_what_does_not_apply_is_refused_with_what_to_set(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(AnySampleScorer).validate_python({"name": "truth", "model": "m", **settings})


def test_the_signature_holds_what_changes_a_score_and_no_more() -> None:
    base = LocalVqa(name="truth", model="m").signature()
    same = {"name": "other", "concurrency": 3, "device": "cuda", "min_scored": 0.1}
    assert LocalVqa.model_validate({"model": "m", **same}).signature() == base
    for change in ({"model": "n"}, {"answer": "grade"}, {"dtype": "float16"}, {"image_options": {"size": 1}}):
        assert LocalVqa.model_validate({"name": "truth", "model": "m", **change}).signature() != base


def test_a_shard_that_was_interrupted_goes_on_with_what_is_missing(models: Path) -> None:
    count, first = 6, 4
    one = scorer(models / "vlm", concurrency=2)
    counted: list[int] = []

    def table(*, stop: int | None = None, known: pa.Table | None = None) -> pa.Table:
        def track(items: Iterable[Any], total: int) -> Iterator[Any]:
            counted.append(total)
            for place, item in enumerate(items):
                if place == stop:
                    raise KeyboardInterrupt
                yield item

        images = pa.table({"image": [{"bytes": blocks(number)} for number in range(count)]})
        uids = pa.chunked_array([[f"u{number}" for number in range(count)]])
        captions = pa.array([f"a stripe of {number}" for number in range(count)])
        return vqa_scores(
            uids, np.ones(count, bool), captions, iter([images]), one, known=known, keep=kept.append, track=track
        )

    kept: list[pa.Table] = []
    with pytest.raises(KeyboardInterrupt):
        table(stop=first)
    known = pa.concat_tables(kept)
    assert known.num_rows == first
    whole = table(known=known)
    assert counted == [count, count - first]
    assert whole["attempts"].to_pylist() == [1] * count
    assert whole["cost"].null_count == count
    assert whole["score"].to_pylist() == pytest.approx(table()["score"].to_pylist(), abs=1e-5)
