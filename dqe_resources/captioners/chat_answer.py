"""What the answer of a chat server means: a caption, or why there is none and whether to ask again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dqe_resources.captioners.answer_text import THINKING, answer_text
from dqe_resources.captioners.protocol import Caption

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

_LARGEST_ANSWER = 4 << 20
_SHOWN = 300

_CUT = frozenset({"length", "max_tokens"})
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Where servers that take thoughts out of an answer put them."""

_FAILED = frozenset({"error", "abort", "abnormal", "cancelled"})

UNAVAILABLE = frozenset({425, 429, 503})
"""Statuses of a server that did not try, and asks to be asked later."""

# What no other request would be answered differently: wrong key, wrong address or model, fields the server refuses.
_WRONG_FOR_ALL = frozenset({401, 403, 404, 405, 422})
_TRANSIENT = frozenset({408, 500, 502, 504})


@dataclass(eq=False)
class NoAnswerError(Exception):
    """An attempt that gave no answer.

    Attributes:
        message: what came instead.
        kind: ``fatal`` where no request will do better; ``rejected`` where this one will not; ``transient`` where it
            may; ``unavailable`` where the server did not even try; ``unusable`` where it answered, but not as it was
            asked to; ``not_sent`` where it was not asked.
        overloaded: whether the server has too much to do.
        wait: seconds to wait, where the server says how long.
        text: what text there was.
        seconds: that the attempt took.
        reason: finish reason of the caption, if no later attempt does better.
        removed: what was taken out of the text.
        url: address of the server that was asked.
    """

    message: str
    kind: Literal["fatal", "rejected", "transient", "unavailable", "unusable", "not_sent"] = "transient"
    overloaded: bool = False
    wait: float | None = None
    text: str | None = None
    seconds: float = 0.0
    reason: Literal["error", "unparsable"] = "error"
    removed: tuple[str, ...] = ()
    url: str = ""


def parse_answer(data: bytes) -> Caption:
    """The caption in a server's answer.

    Raises:
        NoAnswerError: there is none: broken JSON, another shape, no text, nothing but thoughts, or generation failed.
    """
    try:
        answer = json.loads(data)
        if isinstance(answer, dict) and "choices" not in answer:
            _raise_if_proxy_fails(answer)
        (choice, *_), usage = answer["choices"], answer.get("usage") or {}
        message, reason = choice["message"], str(choice.get("finish_reason") or "stop")
        content = message.get("content")
        has_thought = any(message.get(name) for name in _THOUGHTS)
        if isinstance(content, list):
            has_thought |= any(part.get("type") in _THOUGHTS for part in content)
            content = "".join(part.get("text", "") for part in content)
        written = answer_text("" if content is None else str(content))
        prompt_tokens, completion_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoAnswerError(f"an answer that is none: {_one_line(data)}") from error
    text, removed = written.text, tuple(dict.fromkeys((*([THINKING] if has_thought else []), *written.removed)))
    if reason in _FAILED:
        raise NoAnswerError(f"the server ended with finish_reason {reason}", text=text or None, removed=removed)
    is_cut = reason in _CUT
    if not text.strip():
        # Where it was cut, it would be cut again.
        kind: Literal["rejected", "transient"] = "rejected" if is_cut and THINKING in removed else "transient"
        raise NoAnswerError(no_answer(removed, is_cut=is_cut), kind, text=None if removed else text, removed=removed)
    return Caption(text, "length" if is_cut else "stop", None, prompt_tokens, completion_tokens, removed=removed)


def _raise_if_proxy_fails(answer: dict[str, Any]) -> None:
    """Raise what a proxy says with status 200 of the server behind it.

    lmdeploy's answers with an ``error_code`` of its own where a server is away, too busy or refuses, and does not say
    which; others put the status into an OpenAI error.
    """
    shown = _one_line(json.dumps(answer, ensure_ascii=False).encode())
    if isinstance(answer.get("error_code"), int):
        raise NoAnswerError(shown, "unavailable", overloaded=True)
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        raise error_of_status(code, shown, None)


def no_answer(removed: Sequence[str], *, is_cut: bool) -> str:
    """Why there is no caption where nothing is left of what a model has written."""
    if THINKING in removed:
        what = "nothing but thoughts" + (", and they were cut at max_tokens" if is_cut else "")
        return f"{what}; raise max_tokens, or ask the model not to think (docs/caption.md, Models that think)"
    return "nothing but special tokens" if removed else "the text is empty"


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else None


def error_of_status(status: int, message: str, wait: float | None) -> NoAnswerError:
    """The error that a status other than 200 means; ``wait`` is what the server's Retry-After says, in seconds."""
    if status in UNAVAILABLE:
        return NoAnswerError(message, "unavailable", overloaded=True, wait=wait)
    if status in _TRANSIENT:
        return NoAnswerError(message, wait=wait)
    if status in _WRONG_FOR_ALL or status < 400:
        return NoAnswerError(message, "fatal")
    return NoAnswerError(message, "rejected" if status < 500 else "transient")


async def refusal(response: aiohttp.ClientResponse) -> str:
    """The server's refusal, on one line."""
    address = response.headers.get("Location", "")
    text = _one_line(await response.content.read(4 * _SHOWN))
    return " ".join(filter(None, (f"HTTP {response.status}", response.reason, address, text)))


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer.

    Raises:
        NoAnswerError: it is larger than any answer can be.
    """
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > _LARGEST_ANSWER:
            begin = _one_line(bytes(data))
            raise NoAnswerError(f"an answer of more than {_LARGEST_ANSWER:,} bytes, which begins: {begin}")
    return bytes(data)


def _one_line(data: bytes) -> str:
    text = " ".join(data[: 4 * _SHOWN].decode("utf-8", "replace").split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def described(error: BaseException) -> str:
    """An error of the connection by its type and message, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
