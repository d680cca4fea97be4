"""The answer in what a model has written, without the thoughts and the tokens that its server has left in it.

Models that think aloud are told apart by the tags that their chat templates use: ``<think>`` (DeepSeek R1, Qwen3, QwQ,
GLM-4.1V), ``<thinking>`` and ``<reasoning>``, ``◁think▷`` (Kimi-VL), ``[THINK]`` (Magistral), ``<seed:think>``,
``<|START_THINKING|>`` (Command A), ``<|channel|>analysis`` (gpt-oss). Often the opening tag is part of the prompt, so
that only the closing one is in the answer.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

THINKING, SPECIAL_TOKENS = "thinking", "special_tokens"
"""What can have been taken out of an answer."""

_THOUGHT = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|scratchpad|analysis|chain_of_thought|cot)"
_TAG = re.compile(
    rf"""
    <\s*(?P<slash>/)?\s*(?:\w+:)?{_THOUGHT}(?:\s[^<>]*)?>
  | \[(?P<bracket>/)?think(?:ing)?\]
  | ◁(?P<triangle>/)?{_THOUGHT}▷
  | <\|(?:(?P<bar>/|end_(?:of_)?)|start_|begin_(?:of_)?)?{_THOUGHT}\|>
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_FINAL = "final"

_ANSWER = re.compile(
    r"<(answer|final_answer|conclusion|solution|response)>(.+?)(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL
)

_END_OF_TURN = re.compile(
    r"""
    <\|(?:im_end|eot_id|eom_id|eot|eos|end|endoftext|end_of_text|end_of_turn|end_of_sentence|end_of_response|return)\|>
  | </s> | <eos> | <end_of_turn> | <end_of_utterance> | <\|user\|> | <｜end[_▁]of[_▁]sentence｜>
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BLANK = re.compile(r"\s+")
_ROLE = r"(?:assistant|model|system|user)"
_TOKEN = re.compile(
    rf"""
    <\|(?:im_start|start_header_id|start)\|>\s*{_ROLE}?\b
  | <start_of_turn>\s*{_ROLE}?\b
  | <(box|quad)>[^<]*</\1>
  | <[|｜][^<>|｜\s]{{1,64}}[|｜]>
  | </?(?:s|bos|eos|pad|unk|cls|sep|mask|image|images|img|video|image_pad|img_context|image_soft_token|im_start|im_end
      |im_patch|im_content|start_of_image|end_of_image|start_of_turn|end_of_turn|end_of_utterance|image_start|image_end
      |fake_token_around_image|global-img|image_placeholder|endoftext|ref|box|quad|grounding|answer|final_answer
      |conclusion|solution|response)>
  | <(?:loc|seg|bin|extra_id|unused|reserved|patch_index|row|col|0x)_?[0-9A-F]{{1,4}}>
  | \[(?:/?INST|/?SYS|IMG|IMG_BREAK|IMG_END|UNUSED_TOKEN_\d+|gMASK|sMASK)\] | <</?SYS>>
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class AnswerText:
    """An answer.

    Attributes:
        text: the answer alone; empty if there is none.
        removed: what was taken out: ``THINKING``, ``SPECIAL_TOKENS``.
        is_unfinished: whether it ends within a thought.
    """

    text: str
    removed: tuple[str, ...] = ()
    is_unfinished: bool = False


def answer_text(written: str) -> AnswerText:
    """The answer in what a model has written; what has neither tags of thoughts nor special tokens stays as it is.

    What stands between two tags of a thought is left out, what stands before a closing tag without an opening one, and
    what stands after an opening tag that is never closed. An end of turn ends the answer: what follows it is a turn
    that nobody asked for. Where an answer is marked as such (``<answer>``), it is that.
    """
    if not any(mark in written for mark in ("<", "[", "◁", "&lt;")):
        return AnswerText(written)
    if "&lt;" in written and (unescaped := answer_text(html.unescape(written))).removed:
        return unescaped
    spoken, channels, is_silent = _without_channels(written)
    text, thoughts, is_thinking = _without_thoughts(spoken)
    thoughts, is_unfinished = [*channels, *thoughts], is_silent or is_thinking
    if marked := [found[2] for found in _ANSWER.finditer(text)]:
        text = marked[-1]
    text = _TOKEN.sub("", _until_end_of_turn(text))
    if text == written:
        return AnswerText(written)
    is_thought = is_unfinished or any(_TOKEN.sub("", thought).strip() for thought in thoughts)
    has_tokens = bool(_END_OF_TURN.search(written) or _TOKEN.search(written)) or not is_thought
    removed = (*([THINKING] if is_thought else []), *([SPECIAL_TOKENS] if has_tokens else []))
    return AnswerText(text.strip(), removed, is_unfinished)


def _without_channels(written: str) -> tuple[str, list[str], bool]:
    """The final channel of an answer in several, what is in the others, and whether the final one is missing."""
    channels = list(_CHANNEL.finditer(written))
    if not channels:
        return written, [], False
    ends = [*(channel.start() for channel in channels[1:]), len(written)]
    said = [(channel[1].lower(), written[channel.end() : end]) for channel, end in zip(channels, ends, strict=True)]
    final = [text for name, text in said if name == _FINAL]
    thoughts = [text for name, text in said if name != _FINAL]
    return (final[-1] if final else "", thoughts, not final)


def _without_thoughts(text: str) -> tuple[str, list[str], bool]:
    """A text without thoughts, what they are, and whether the last one is never closed."""
    kept: list[str] = []
    thoughts: list[str] = []
    start, is_inside = 0, False
    for tag in _TAG.finditer(text):
        if any(tag.groups()):
            # One that was not opened closes what has begun before the answer did.
            thoughts += [text[start : tag.start()]] if is_inside else [*kept, text[start : tag.start()]]
            kept = kept if is_inside else []
            is_inside = False
        elif not is_inside:
            kept.append(text[start : tag.start()])
            is_inside = True
        else:
            continue
        start = tag.end()
    (thoughts if is_inside else kept).append(text[start:])
    return "".join(kept), thoughts, is_inside


def _until_end_of_turn(text: str) -> str:
    """The text up to the first end of turn that has something before it."""
    begin = 0
    while token := _BLANK.match(text, begin) or _TOKEN.match(text, begin) or _END_OF_TURN.match(text, begin):
        begin = token.end()
    end = _END_OF_TURN.search(text, begin)
    return text[begin : end.start()] if end else text[begin:]
