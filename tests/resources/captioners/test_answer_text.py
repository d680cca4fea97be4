"""The answer alone: no thoughts and no tokens, of a server, of an engine, and of a judge."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from dqe_assets.caption.answers import answer_table, record
from dqe_assets.caption.flags import FAULTS
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.improve.refining_rules import Present, veto
from dqe_resources.captioners.answer_text import SPECIAL_TOKENS, THINKING, answer_text
from dqe_resources.captioners.chat_answer import NoAnswerError, parse_answer
from dqe_resources.captioners.judge import Judge
from dqe_resources.captioners.lmdeploy_requests import Answer, _caption
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import CaptionerError, Sample
from tests.caption_server import CaptionServer, caption_of, jpeg

if TYPE_CHECKING:
    from collections.abc import Callable

THOUGHT = "Okay, the user wants a caption. <b> I see a dog, no, a cat."

THOUGHTS = {
    "<think>{}</think>\n\nA cat.": [THINKING],
    "{}\n</think>\n\nA cat.": [THINKING],
    "A cat.\n<think>{}": [THINKING],
    "< THINK >{}</ think >A cat.": [THINKING],
    "<thinking>{}</thinking>A cat.": [THINKING],
    "<reasoning effort='high'>{}</reasoning> A cat.": [THINKING],
    "<thought>{}</thought>A <think>{}</think>cat.": [THINKING],
    "<think>{}<think>{}</think>{}</think>A cat.": [THINKING],
    "◁think▷{}◁/think▷A cat.": [THINKING],
    "[THINK]{}[/THINK]A cat.": [THINKING],
    "<seed:think>{}</seed:think>A cat.": [THINKING],
    "&lt;think&gt;{}&lt;/think&gt;A cat.": [THINKING],
    "<think>{}</think><answer>A cat.</answer>": [THINKING, SPECIAL_TOKENS],
    "<think>{}</think>A cat.<|im_end|>": [THINKING, SPECIAL_TOKENS],
    "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>A cat.<|END_RESPONSE|>": [THINKING, SPECIAL_TOKENS],
    "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>A cat.<|return|>": [
        *(THINKING, SPECIAL_TOKENS)
    ],
    "<think>\n\n</think>\n\nA cat.": [SPECIAL_TOKENS],
}
"""What models write that think aloud, and what is then taken out."""

TOKENS = [
    *("A cat.<|im_end|>", "A cat.</s>", "A cat.<|endoftext|>", "<image>\nA cat.", "<s> A cat.</s><pad><pad>"),
    *("A cat.<|eot_id|>", "A cat.<end_of_turn>\n", "A cat.<|end|>", "A cat.<｜end▁of▁sentence｜>", "A cat.<|eos|>"),
    *("<|im_start|>assistant\nA cat.<|im_end|>", "<|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>"),
    *("<start_of_turn>model\nA cat.", "[INST][/INST] A cat.", "<|vision_start|><|image_pad|><|vision_end|>A cat."),
    *("A cat.<|im_end|>\n<|im_start|>user\nAnd now?", "A cat.</s>A dog.", "A cat.<|endoftext|>Human: hello"),
    *("<|begin_of_box|>A cat.<|end_of_box|>", "<IMG_CONTEXT><img></img>A cat.", "<loc0012><loc_3>A cat.<0x0A>"),
    *("<answer>A cat.</answer>", "<ref>A cat</ref><box>(1,2),(3,4)</box>.", "[UNUSED_TOKEN_145]A cat."),
]

UNTOUCHED = [
    *("A cat.", "I <3 cats & dogs; 3 < 4 > 2", "The sign says <b>SALE</b> [sic]", "A lake [reflection] at dawn"),
    *("&lt;html&gt; on a screen", "A page that says </html>", " spaces stay \n", "", "Thinking: a man in thought"),
]


@pytest.mark.parametrize("written", THOUGHTS)
def test_thoughts_are_taken_out(written: str) -> None:
    found = answer_text(written.replace("{}", THOUGHT))
    assert (found.text, list(found.removed)) == ("A cat.", THOUGHTS[written])


@pytest.mark.parametrize("written", TOKENS)
def test_special_tokens_are_taken_out_and_what_follows_the_end_of_a_turn(written: str) -> None:
    found = answer_text(written)
    assert (found.text, found.removed) == ("A cat.", (SPECIAL_TOKENS,))


@pytest.mark.parametrize("written", UNTOUCHED)
def test_what_has_neither_stays_as_it_is(written: str) -> None:
    found = answer_text(written)
    assert (found.text, found.removed) == (written, ())


@given(st.text(st.sampled_from("<>[]|/ thinks◁▷&l;a\n")))
def test_an_answer_has_nothing_more_to_take_out(written: str) -> None:
    once = answer_text(written)
    assert once.text in written or once.removed
    assert bool(once.removed) == (once.text != written)


def answer(content: Any, reason: str = "stop", **message: Any) -> bytes:
    message = {"content": content, **message}
    return json.dumps({"choices": [{"message": message, "finish_reason": reason}]}).encode()


def test_thoughts_that_the_server_has_put_apart_count_too() -> None:
    for name in ("reasoning_content", "reasoning"):
        found = parse_answer(answer("A cat.", **{name: THOUGHT}))
        assert (found.text, found.removed) == ("A cat.", (THINKING,))
        assert parse_answer(answer("A cat.", **{name: None})).removed == ()
        with pytest.raises(NoAnswerError, match="nothing but thoughts; raise max_tokens, or ask") as nothing:
            parse_answer(answer(None, **{name: THOUGHT}))
        assert (nothing.value.kind, nothing.value.removed, nothing.value.text) == ("transient", (THINKING,), None)
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": "A cat."}]
    found = parse_answer(answer(parts))
    assert (found.text, found.removed) == ("A cat.", (THINKING,))


@pytest.mark.parametrize(
    ("content", "reason", "kind", "error"),
    [
        (f"<think>{THOUGHT}", "length", "rejected", "nothing but thoughts, and they were cut at max_tokens"),
        (f"<think>{THOUGHT}", "stop", "transient", "nothing but thoughts"),
        (f"{THOUGHT}</think>", "stop", "transient", "nothing but thoughts"),
        ("<|im_end|>", "stop", "transient", "nothing but special tokens"),
        ("", "stop", "transient", "the text is empty"),
    ],
)
def test_where_nothing_is_left_it_is_the_rows_fault(content: str, reason: str, kind: str, error: str) -> None:
    with pytest.raises(NoAnswerError) as nothing:
        parse_answer(answer(content, reason))
    assert (nothing.value.kind, nothing.value.message.partition(";")[0]) == (kind, error)


def test_an_engine_in_this_process_is_read_alike() -> None:
    found = _caption(Answer(f"<think>{THOUGHT}</think>A cat.</s>", "stop"), 1.0, 1)
    assert (found.text, found.finish_reason, found.removed) == ("A cat.", "stop", (THINKING, SPECIAL_TOKENS))
    found = _caption(Answer(f"<think>{THOUGHT}", "length"), 1.0, 1)
    assert (found.text, found.finish_reason, found.removed) == (None, "error", (THINKING,))
    assert "cut at max_tokens" in (found.error or "")


def served(answer: Callable[[int], str], number: int = 6, **settings: Any) -> tuple[CaptionServer, list[Any]]:
    async def respond(image: int) -> str:
        return answer(image)

    with CaptionServer(respond) as server:
        captioner = OpenAICaptioner(name="vlm", url=server.url, model="tiny", **settings)
        samples = (Sample({}, jpeg(image), "Describe it.") for image in range(number))
        found = sorted(captioner.caption(samples))
    return server, [caption for _, caption in found]


def test_rows_have_the_answer_and_a_flag_that_is_no_fault() -> None:
    written = [
        lambda number: f"<think>{THOUGHT}</think>{caption_of(number)}",
        lambda number: f"{caption_of(number)}<|im_end|>",
        lambda _: "</think>",
        caption_of,
    ]
    _, captions = served(lambda number: written[number](number), 4, retries=0)
    captioner = OpenAICaptioner(name="vlm", url="http://localhost:1", model="tiny")
    records = [{"uid": str(place), **record(one, None, captioner, None)} for place, one in enumerate(captions)]
    rows = answer_table(records, SYNTHETIC_CAPTIONS).to_pylist()
    assert [row["caption"] for row in rows] == [
        "A stripe of 0 pixels.",
        "A stripe of 1 pixels.",
        None,
        rows[3]["caption"],
    ]
    assert [row["text"] for row in rows[:2]] == [caption_of(0), caption_of(1)]
    assert [row["flags"] for row in rows] == [[THINKING], [SPECIAL_TOKENS], [SPECIAL_TOKENS], []]
    assert [row["finish_reason"] for row in rows] == ["stop", "stop", "error", "stop"]
    assert not {THINKING, SPECIAL_TOKENS} & set(FAULTS)
    present = Present("A stripe.", (), 0.1)
    assert veto(rows[0]["caption"], rows[0]["flags"], present, 50) is None
    assert veto(rows[0]["caption"], ["refusal", THINKING], present, 50) == "refusal"


def test_a_model_that_only_thinks_ends_the_run_and_says_what_to_do() -> None:
    async def respond(_: int) -> web.Response:
        choice = {"message": {"content": f"<think>{THOUGHT}"}, "finish_reason": "length"}
        return web.json_response({"choices": [choice]})

    with CaptionServer(respond) as server:
        captioner = OpenAICaptioner(name="vlm", url=server.url, model="tiny", concurrency=2)
        samples = (Sample({}, jpeg(image), "Describe it.") for image in range(100))
        with pytest.raises(CaptionerError, match=r"none of the first 20 .* nothing but thoughts, .*raise max_tokens"):
            list(captioner.caption(samples))
        assert len(server.asked) < 30, "none is asked for twice"


def test_a_server_is_asked_not_to_think() -> None:
    server, _ = served(caption_of, 1, thinking=False)
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
    more = {"chat_template_kwargs": {"thinking_budget": 5}, "top_p": 0.5}
    server, _ = served(caption_of, 1, thinking=True, extra_body=more)
    assert server.requests[0]["chat_template_kwargs"] == {"enable_thinking": True, "thinking_budget": 5}
    assert server.requests[0]["top_p"] == 0.5
    server, _ = served(caption_of, 1)
    assert "chat_template_kwargs" not in server.requests[0]
    request = Judge(url="http://localhost:1", model="tiny", thinking=False).request(
        Sample({"labels": ("A",)}, b"", "p")
    )
    assert request["chat_template_kwargs"] == {"enable_thinking": False}


def test_captions_of_before_stay_current_where_nothing_is_said_of_thinking() -> None:
    settings = {"name": "vlm", "url": "http://localhost:1", "model": "tiny"}
    assert "thinking" not in OpenAICaptioner(**settings).signature()
    assert OpenAICaptioner(**settings, thinking=False).signature()["thinking"] is False
