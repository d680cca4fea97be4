"""The judge against a real server: answers in every shape, and a cap that holds."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dqe_resources.captioners.budget import Cap, Tokens
from dqe_resources.captioners.judge import CRITERIA, UnparsableError, parse
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from tests.caption_server import CaptionServer, jpeg
from tests.improve.judging import JudgeServer, answer_of, judge

if TYPE_CHECKING:
    from collections.abc import Iterator

LABELS = ("A", "B")
PROMPT = '<caption label="A">a dog</caption>\n<caption label="B">a cat</caption>'
GOOD = answer_of({"A": "a dog", "B": "a cat"}, lambda label, _: 5 if label == "A" else 2)
NO_CAP = Cap()


def samples(count: int) -> Iterator[Sample]:
    return (Sample({"labels": LABELS}, jpeg(number), PROMPT) for number in range(count))


def ask(server: CaptionServer, count: int = 1, cap: Cap = NO_CAP, **settings: Any) -> dict[int, Caption]:
    found = list(judge(server, **settings).judge(samples(count), cap, Tokens()))
    assert len(dict(found)) == len(found)
    return dict(found)


def scores(answer: Caption) -> list[int]:
    judged = parse(answer.text or "", LABELS)
    return [getattr(judged[label], name).score for label in LABELS for name in CRITERIA]


@pytest.mark.parametrize(
    "text", [GOOD, f"```json\n{GOOD}\n```", f"Here is what I think:\n\n```\n{GOOD}\n```\nDone.", f"Sure! {GOOD} Bye."]
)
def test_json_is_found_in_whatever_stands_around_it(text: str) -> None:
    with JudgeServer(behave=lambda *_: text) as server:
        answer = ask(server)[0]
    assert (answer.finish_reason, answer.attempts) == ("stop", 1)
    assert scores(answer) == [5] * 4 + [2] * 4


def test_more_than_was_asked_for_does_no_harm() -> None:
    more = json.loads(GOOD)
    more["A"]["beautiful"] = more["C"] = {"reason": "", "score": 9}
    assert parse(json.dumps(more), LABELS)["B"].fluent.score == 2


WRONG = {
    "nothing": "I would rather not.",
    "no json": "{",
    "cut": GOOD[:-40],
    "a scale to 10": GOOD.replace('"score": 5', '"score": 10'),
    "from nought": GOOD.replace('"score": 2', '"score": 0'),
    "halves": GOOD.replace('"score": 2', '"score": 2.5'),
    "words": GOOD.replace('"score": 2', '"score": "good"'),
    "numbers in words": GOOD.replace('"score": 2', '"score": "2"'),
    "true": GOOD.replace('"score": 5', '"score": true'),
    "no reason": GOOD.replace('"reason": "fluent of A", ', ""),
    "marks alone": json.dumps({label: dict.fromkeys(CRITERIA, 4) for label in LABELS}),
    "one caption alone": json.dumps({"A": json.loads(GOOD)["A"]}),
    "deep": '{"A":' * 20_000 + "1" + "}" * 20_000,
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_judgement_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(UnparsableError) as caught:
        parse(text, LABELS)
    assert 0 < len(str(caught.value)) <= 200
    assert "rather not" not in str(caught.value)


@given(st.text() | st.text(alphabet='{}[]":,AB`json0123 '))
def test_whatever_comes_is_a_judgement_or_said_to_be_none(text: str) -> None:
    with pytest.raises(UnparsableError):
        parse(text, LABELS)


def test_junk_is_asked_for_again_with_what_was_wrong_and_its_tokens_count() -> None:
    with JudgeServer(behave=lambda _, times: WRONG["a scale to 10"] if times == 1 else None) as server:
        answer = ask(server, give_up_after=0.001)[0]
    assert (answer.finish_reason, answer.attempts) == ("stop", 2)
    assert answer.prompt_tokens == 2 * 300
    assert answer.completion_tokens == len(WRONG["a scale to 10"].split()) + len(GOOD.split())
    first, second = (request["messages"][0]["content"] for request in server.requests)
    assert second[:2] == first
    assert "A.faithful.score: Input should be less than or equal to 5" in second[2]["text"]


def test_a_judge_that_never_makes_sense_ends_no_run_and_is_recorded() -> None:
    # Far more than would end a run if it took the server to be the one that fails.
    with JudgeServer(behave=lambda *_: "No.") as server:
        answers = ask(server, 40, retries=1, give_up_after=0.001)
    assert len(server.asked) == 80
    for number, answer in answers.items():
        assert (answer.finish_reason, answer.attempts, answer.text) == ("unparsable", 2, "No.")
        assert answer.error == "there is no JSON object in it"
        assert (answer.prompt_tokens, answer.completion_tokens) == (2 * (300 + number), 2)


def test_a_cut_answer_says_that_it_was_cut() -> None:
    async def cut(_: int) -> web.Response:
        choice = {"message": {"content": GOOD[:99]}, "finish_reason": "length"}
        return web.json_response({"choices": [choice]})

    with CaptionServer(cut) as server:
        answer = ask(server, retries=0, max_tokens=50, max_prompt_tokens=700)[0]
    assert answer.finish_reason == "unparsable"
    assert str(answer.error).endswith("and it was cut at 50 tokens")
    assert (answer.prompt_tokens, answer.completion_tokens) == (700, 50), "nobody counted: the most that it can be"


def test_a_busy_server_is_waited_for_and_costs_nothing() -> None:
    def busy(_: int, times: int) -> web.Response | None:
        return web.Response(status=429, headers={"Retry-After": "0"}) if times < 3 else None

    with JudgeServer(behave=busy) as server:
        answer = ask(server, retries=0)[0]
    assert (answer.finish_reason, answer.attempts, answer.prompt_tokens) == ("stop", 3, 300)


def test_an_attempt_of_which_nobody_knows_what_it_took_counts_as_the_most() -> None:
    def broken(_: int, times: int) -> web.Response | None:
        return web.Response(status=500, headers={"Retry-After": "0"}) if times == 1 else None

    with JudgeServer(behave=broken) as server:
        answer = ask(server, max_tokens=50, max_prompt_tokens=700)[0]
    assert (answer.prompt_tokens, answer.completion_tokens) == (300 + 700, len(GOOD.split()) + 50)


@pytest.mark.parametrize("behave", [lambda *_: None, lambda number, _: "junk" if number % 2 else None])
@pytest.mark.parametrize("by_cost", [False, True])
def test_the_cap_is_never_exceeded_and_hardly_left(behave: Any, by_cost: bool) -> None:
    most, worst = 9_000, 500 + 120
    cap = Cap(cost=most / 1e6, prompt_price=1.0, completion_price=1.0) if by_cost else Cap(tokens=most)
    with JudgeServer(behave=behave) as server:
        answers = ask(server, 60, cap, max_prompt_tokens=500, max_tokens=120, concurrency=16)
    used = sum((answer.prompt_tokens or 0) + (answer.completion_tokens or 0) for answer in answers.values())
    assert most - worst < used <= most
    assert len(answers) < 60
    assert sum(answer.attempts or 0 for answer in answers.values()) == len(server.asked)
    assert {answer.finish_reason for answer in answers.values()} <= {"stop", "unparsable"}


def test_under_a_cap_no_more_are_under_way_than_it_could_pay_for() -> None:
    async def slowly(_: int) -> str:
        await asyncio.sleep(0.02)
        return GOOD

    with CaptionServer(slowly) as server:
        answers = ask(server, 30, Cap(tokens=3 * 620 + 100), max_prompt_tokens=500, max_tokens=120)
    assert server.most <= 3
    assert 3 < len(answers) < 30, "what was reserved and not used is free again"


def test_the_request_asks_for_json_by_a_schema_of_the_answer() -> None:
    with JudgeServer() as server:
        ask(server)
        ask(server, json_schema=False)
        ask(server, extra_body={"response_format": {"type": "json_object"}})
    by_schema, without, own = server.requests
    form = by_schema["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    schema = form["json_schema"]["schema"]
    mark, judgement = schema["$defs"]["Mark"], schema["$defs"]["Judgement"]
    assert mark["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert [part["required"] for part in (schema, judgement, mark)] == [["A", "B"], list(CRITERIA), ["reason", "score"]]
    assert not any(part["additionalProperties"] for part in (schema, judgement, mark)), "as strict servers demand"
    assert "response_format" not in without
    assert own["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_the_schema_is_answered_with_what_to_set(status: int) -> None:
    refusal = web.Response(status=status, text="Unsupported fields: response_format")
    with JudgeServer(behave=lambda *_: refusal) as server:
        try:
            said = str(ask(server)[0].error)
        except CaptionerError as error:
            said = str(error)
    assert said.endswith("set judging.judge.json_schema: false in data/dqe.yaml")


def test_the_signature_holds_what_changes_judgements_and_no_more() -> None:
    with JudgeServer() as server:
        base = judge(server)
        same = {"url": "http://elsewhere", "max_prompt_tokens": 9, "retries": 0, "concurrency": 3, "api_key_env": "KEY"}
        assert judge(server, **same).signature() == base.signature()
        for change in ({"model": "other"}, {"revision": "b"}, {"max_tokens": 9}, {"json_schema": False}):
            assert judge(server, **change).signature() != base.signature()
