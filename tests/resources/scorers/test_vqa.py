"""The scorer that asks whether an image shows what a caption says: against a real server of known probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from dqe_resources.captioners.budget import Tokens
from dqe_resources.captioners.protocol import Caption, CaptionerError, NoCaptionerError, Sample
from dqe_resources.scorers.vqa import Verdict
from dqe_resources.scorers.vqa_server import ServedVqa
from tests.caption_server import CaptionServer, jpeg

if TYPE_CHECKING:
    from collections.abc import Mapping


def answer(probabilities: Mapping[str, float], content: str | None = None, **choice: Any) -> web.Response:
    """A server's answer, whose first token is one of these with these probabilities; the first is drawn."""
    top = [{"token": token, "logprob": math.log(share)} for token, share in probabilities.items()]
    first = {**top[0], "top_logprobs": top}
    drawn = top[0]["token"] if content is None else content
    one = {"message": {"content": drawn}, "finish_reason": "length", "logprobs": {"content": [first]}, **choice}
    return web.json_response({"choices": [one], "usage": {"prompt_tokens": 300, "completion_tokens": 1}})


class LogprobServer(CaptionServer):
    """Answers every question with the same probabilities."""

    def __init__(self, probabilities: Mapping[str, float], **more: Any) -> None:
        super().__init__(self._answer)
        self._given = probabilities, more

    async def _answer(self, _: int) -> web.Response:
        probabilities, more = self._given
        return answer(probabilities, **more)


def scorer(url: str, **settings: Any) -> ServedVqa:
    return ServedVqa.model_validate({"name": "truth", "url": url, "model": "tiny-vlm", **settings})


def ask(server: CaptionServer, count: int = 1, spent: Tokens | None = None, **settings: Any) -> list[Caption]:
    model = scorer(server.url, **settings)
    samples = (Sample(image=jpeg(number), prompt=model.ask("a dog")) for number in range(count))
    return [found for _, found in sorted(model.score(samples, spent or Tokens()))]


def verdict(probabilities: Mapping[str, float], content: str | None = None, **settings: Any) -> Verdict:
    with LogprobServer(probabilities, content=content) as server:
        (found,) = ask(server, **settings)
    assert isinstance(found, Verdict)
    return found


def test_the_score_is_the_probability_of_yes_in_every_spelling() -> None:
    found = verdict({"Yes": 0.6, " yes": 0.15, "No": 0.2, "The": 0.05})
    assert found.score == pytest.approx(0.75)
    assert found.answered == pytest.approx(0.95)
    assert (found.finish_reason, found.prompt_tokens, found.completion_tokens) == ("stop", 300, 1)


@pytest.mark.parametrize(("token", "score"), [("No", 0.0), ("▁Yes", 0.7), ("ĠYES.", 0.7), ('"Yes', 0.7)])
def test_what_is_not_among_the_most_probable_counts_as_impossible(token: str, score: float) -> None:
    assert verdict({token: 0.7, "Maybe": 0.1}).score == pytest.approx(score)


def test_the_grade_is_the_expected_digit_as_a_share_of_the_highest() -> None:
    found = verdict({"7": 0.5, "8": 0.25, " 2": 0.05, "I": 0.2}, answer="grade")
    assert found.score == pytest.approx((7 * 0.5 + 8 * 0.25 + 2 * 0.05) / 0.8 / 9)
    assert found.answered == pytest.approx(0.8)


def test_a_token_that_is_no_text_does_no_harm() -> None:
    assert verdict({"\n": 0.3, "Yes": 0.6, "No": 0.1}, content="").score == pytest.approx(0.6)


def test_the_request_asks_for_one_token_with_its_probabilities_and_quotes_the_caption_whole() -> None:
    long = "a dog " * 300
    with LogprobServer({"Yes": 0.9, "No": 0.1}) as server:
        model = scorer(server.url, top_logprobs=5)
        list(model.score(iter([Sample(image=jpeg(0), prompt=model.ask(long))]), Tokens()))
    (request,) = server.requests
    assert (request["logprobs"], request["top_logprobs"], request["max_tokens"]) == (True, 5, 1)
    text = request["messages"][0]["content"][1]["text"]
    assert text == f'Does this figure show "{long}"? Please answer yes or no.'


@pytest.mark.parametrize(
    "choice",
    [
        {"logprobs": None},
        {"logprobs": {"content": []}},
        {"logprobs": {"content": [{"token": "Yes", "logprob": -0.1, "top_logprobs": []}]}},
    ],
)
def test_a_server_without_log_probabilities_is_refused_at_once_with_what_to_set(choice: dict[str, Any]) -> None:
    with LogprobServer({"Yes": 0.9, "No": 0.1}, **choice) as server:
        with pytest.raises(NoCaptionerError, match=r"scorer truth needs logprobs and top_logprobs \(20\)") as caught:
            ask(server, 40, concurrency=1)
        assert len(server.asked) == 1
    assert server.url in str(caught.value)
    assert "lower top_logprobs" in str(caught.value)


def test_a_server_that_refuses_so_many_is_refused_at_once() -> None:
    async def refuse(_: int) -> web.Response:
        return web.Response(status=400, text="top_logprobs must be at most 5")

    with CaptionServer(refuse) as server:
        with pytest.raises(NoCaptionerError, match=r"at most 5.* lower top_logprobs in data/dqe\.yaml"):
            ask(server, 40, concurrency=1)
        assert len(server.asked) == 1


def test_an_answer_in_other_words_has_no_score_and_a_model_that_gives_no_other_ends_the_run() -> None:
    found = verdict({"The": 0.9, "Yes": 0.05, "No": 0.01})
    assert (found.score, found.finish_reason) == (None, "unparsable")
    assert found.error == "the first token is not yes or no, but 'The' 0.90, 'Yes' 0.05, 'No' 0.01"
    with (
        LogprobServer({"<think>": 0.99, "Yes": 0.01}) as server,
        pytest.raises(CaptionerError, match=r"none of the first 20 answers .* thinking: false"),
    ):
        ask(server, 60, concurrency=4)


def test_the_cap_holds_and_what_was_spent_before_counts() -> None:
    with LogprobServer({"Yes": 0.9, "No": 0.1}) as server:
        found = ask(server, 30, Tokens(301), max_tokens_total=5 * 301, max_prompt_tokens=300, concurrency=8)
        assert sum((one.prompt_tokens or 0) + (one.completion_tokens or 0) for one in found) == 4 * 301
        assert len(server.asked) == len(found) == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"question": "Is it so?"}, "it must have {caption} once"),
        ({"max_tokens_total": 10}, "the cap is too low for a single sample"),
        ({"max_cost": 1.0}, "needs both price_per_million_prompt_tokens"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        scorer("http://127.0.0.1:9", **settings)


def test_the_signature_holds_what_changes_a_score_and_no_more() -> None:
    base = scorer("http://a").signature()
    same = {"concurrency": 3, "max_cost": 9.0, "max_prompt_tokens": 99, "min_scored": 0.1}
    prices = {"price_per_million_prompt_tokens": 1, "price_per_million_completion_tokens": 1}
    assert scorer("http://b", **same, **prices).signature() == base
    for change in ({"model": "other"}, {"answer": "grade"}, {"question": "{caption}?"}, {"top_logprobs": 5}):
        assert scorer("http://a", **change).signature() != base
