"""Models of Transformers in this process: real ones of few random weights."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from dqe_resources.captioners.protocol import NoCaptionerError, Sample
from dqe_resources.captioners.transformers import TransformersCaptioner
from dqe_resources.models.torchvision_cpu import ensure_torchvision
from tests.image_files import blocks
from tests.servers.tiny_captioners import build_tiny_blip, build_tiny_florence, build_tiny_own_code
from tests.servers.tiny_vlm import build_tiny_vlm

PROMPT = "What is it?"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models, by name."""
    ensure_torchvision()
    folder = tmp_path_factory.mktemp("models")
    builders = {
        "idefics3": build_tiny_vlm,
        "blip": build_tiny_blip,
        "florence": build_tiny_florence,
        "own_code": build_tiny_own_code,
    }
    for name, build in builders.items():
        build(folder / name)
    return {name: str(folder / name) for name in builders}


def captioner(model: str, **settings) -> TransformersCaptioner:
    return TransformersCaptioner.model_validate({"name": "tiny", "model": model, "max_tokens": 6, **settings})


def captions(one: TransformersCaptioner, prompts=(PROMPT,), count: int = 10):
    samples = (Sample(image=blocks(number), prompt=prompts[number % len(prompts)]) for number in range(count))
    found = dict(one.caption(samples))
    assert sorted(found) == list(range(count))
    assert {caption.error for caption in found.values()} == {None}
    return [found[number] for number in range(count)]


def test_in_a_batch_each_image_gets_the_caption_that_it_gets_alone(models):
    prompts = ("What is it?", "Say in many more words than that what can be seen in it.")
    together = captions(captioner(models["idefics3"], concurrency=4), prompts)
    alone = captions(captioner(models["idefics3"], concurrency=1), prompts)
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.prompt_tokens for one in together] == [one.prompt_tokens for one in alone]
    assert len({one.text for one in together}) > 5
    assert together[1].prompt_tokens > together[0].prompt_tokens > 16
    for one in together:
        assert (one.error, one.attempts, one.asked) == (None, 1, None)
        assert one.seconds > 0
        assert one.completion_tokens <= 6
        assert PROMPT not in one.text
    assert {one.finish_reason for one in together} <= {"stop", "length"}
    assert "length" in {one.finish_reason for one in together}


def test_blip_is_given_the_image_alone_or_the_beginning_of_a_caption(models):
    found = captions(captioner(models["blip"]))
    assert {one.asked for one in found} == {""}
    assert len({one.text for one in found}) > 1
    begun = captions(captioner(models["blip"], task="a picture of"))
    assert {one.asked for one in begun} == {"a picture of"}
    assert all(one.text.startswith("a picture of") for one in begun)


def test_florence_is_given_a_task_token(models):
    found = captions(captioner(models["florence"]))
    assert {one.asked for one in found} == {"<MORE_DETAILED_CAPTION>"}
    assert len({one.text for one in found}) > 1
    assert all("<" not in one.text for one in found)
    assert {one.asked for one in captions(captioner(models["florence"], task="<CAPTION>"))} == {"<CAPTION>"}


def test_a_model_whose_own_code_answers_is_asked_by_it(models):
    with pytest.raises(NoCaptionerError, match="trust_remote_code"):
        captions(captioner(models["own_code"]))
    found = captions(captioner(models["own_code"], trust_remote_code=True), count=2)
    assert [one.text for one in found] == ["96 pixels wide: What is it?"] * 2


def test_an_image_that_cannot_be_read_spoils_no_other(models):
    samples = [Sample(image=data, prompt=PROMPT) for data in (blocks(0), b"no image", blocks(1))]
    found = dict(captioner(models["idefics3"]).caption(iter(samples)))
    assert [found[place].finish_reason == "error" for place in range(3)] == [False, True, False]
    assert found[0].text == captions(captioner(models["idefics3"]), count=1)[0].text


def test_sampling_follows_the_seed(models):
    def texts(seed):
        return [one.text for one in captions(captioner(models["idefics3"], temperature=1.0, seed=seed))]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_settings_of_generation_and_images_reach_the_model(models):
    full = captions(captioner(models["idefics3"], generation={"min_new_tokens": 6}))
    assert {one.completion_tokens for one in full} == {6}
    options = {"do_image_splitting": True, "size": {"longest_edge": 128}}
    tiles = captions(captioner(models["idefics3"], image_options=options))
    assert tiles[0].prompt_tokens > full[0].prompt_tokens


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NoCaptionerError, match=r"Transformers cannot load .*/nothing: .*'model' is a folder"):
        captions(captioner(str(tmp_path / "nothing")))


def test_a_guard_that_it_lacks_is_refused():
    with pytest.raises(ValidationError, match="no_repeat_ngram_size"):
        captioner("m", repetition_ngram_size=3)
