"""Requests to an engine of lmdeploy: as many under way as it takes, and repeated if that may help."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dqe_resources.captioners.answer_text import answer_text
from dqe_resources.captioners.chat_answer import no_answer
from dqe_resources.captioners.in_flight import StalledError, in_flight
from dqe_resources.captioners.protocol import Caption, CaptionerError, Sample
from dqe_resources.images import ImageError, decode, guarded
from dqe_resources.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterator

READY = 32
"""Requests that wait, made ready, for a place in the engine's batch."""

_MANY = 20
"""Failures in a row that no few images are the cause of."""

FATAL = frozenset({"engine_unavailable", "unauthorized", "model_not_found"})
"""lmdeploy's error codes that no other request would escape."""

RETRYABLE = frozenset({"internal_error", "request_cancelled", "request_conflict"})
"""lmdeploy's error codes that the same request may escape when it is sent again."""


@dataclass(frozen=True, slots=True)
class Request:
    """One image and the prompt, ready for an engine.

    Attributes:
        index: the sample's place among those given.
        image: a PIL image in RGB; None if it could not be read.
        prompt: the prompt in full.
        seed: seed of the sampling; None for that of the settings.
        attempt: how often it has been asked, this time included.
    """

    index: int
    image: Any
    prompt: str
    seed: int | None = None
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine gave; for an error, ``code`` is lmdeploy's name of it."""

    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    code: str | None = None
    error: str | None = None


class Engine(Protocol):
    """An engine as the captioner needs it."""

    @property
    def max_batch_size(self) -> int:
        """Captions generated at once."""

    def start(self, request: Request) -> Future[Answer]:
        """Begin a caption; the future ends, in another thread, with the whole answer. It never fails."""

    def close(self) -> None:
        """Free the GPU."""


def failed(code: str, error: str) -> Answer:
    """The answer of a failed request, with lmdeploy's name of the error."""
    return Answer("", "error", code=code, error=error)


def captions(
    samples: Iterator[Sample], engine: Engine, label: str, *, concurrency: int, retries: int, stall_seconds: float
) -> Iterator[tuple[int, Caption]]:
    """Captions of all samples from an engine, in the order in which they end.

    An image that cannot be read or that the engine refuses is a caption with an error; an internal error of the
    engine is tried again.

    Args:
        samples: each with an image and a prompt.
        engine: what generates.
        label: what messages call the captioner.
        concurrency: requests under way at once, at most.
        retries: how often an image is tried again for which the engine gives an internal error.
        stall_seconds: after which an engine that finished nothing counts as hung.

    Raises:
        CaptionerError: the engine has stopped, nothing was finished for ``stall_seconds``, or 20 images in a row
            failed.
    """
    limit = min(concurrency, engine.max_batch_size + READY)
    requests = _Requests(ordered_map(_request, zip(count(), samples), ahead=READY))
    started: dict[int, float] = {}
    failures = 0

    def start(request: Request) -> Future[Answer]:
        if request.image is None:
            unreadable: Future[Answer] = Future()
            unreadable.set_result(failed("preprocess_failed", "the image cannot be read"))
            return unreadable
        started.setdefault(request.index, time.monotonic())
        return engine.start(request)

    try:
        for request, future in in_flight(start, requests, limit=limit, patience=stall_seconds):
            answer = future.result()
            failures = failures + 1 if answer.error else 0
            if answer.code in FATAL:
                raise CaptionerError(f"{label}: lmdeploy's engine has stopped: {answer.error}")
            if failures >= _MANY:
                raise CaptionerError(f"{label}: {_MANY} images in a row failed: {answer.error}")
            if answer.code in RETRYABLE and request.attempt <= retries:
                requests.again.append(replace(request, attempt=request.attempt + 1))
                continue
            seconds = time.monotonic() - started.pop(request.index) if request.index in started else None
            yield request.index, _caption(answer, seconds, request.attempt)
    except StalledError:
        raise CaptionerError(
            f"{label}: lmdeploy's engine has finished no caption for {stall_seconds:g} s; "
            "see its log above, and raise stall_seconds if a caption may take that long"
        ) from None


@dataclass
class _Requests:
    """Requests, those that are to be made once more first."""

    rest: Iterator[Request]
    again: list[Request] = field(default_factory=list)

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        return self.again.pop() if self.again else next(self.rest)


def _request(numbered: tuple[int, Sample]) -> Request:
    index, sample = numbered
    image = guarded(decode)(sample.image)
    return Request(index, None if isinstance(image, ImageError) else image, sample.prompt, sample.seed)


def _caption(answer: Answer, seconds: float | None, attempt: int) -> Caption:
    written = answer_text(answer.text)
    is_nothing = bool(written.removed) and not written.text
    return Caption(
        written.text or None,
        "error" if is_nothing else answer.finish_reason,
        no_answer(written.removed, is_cut=answer.finish_reason == "length") if is_nothing else answer.error,
        answer.prompt_tokens,
        answer.completion_tokens,
        seconds,
        attempt,
        removed=written.removed,
    )
