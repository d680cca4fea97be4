"""A model behind a server with the chat interface of OpenAI, such as lmdeploy, vLLM, SGLang or Ollama.

This is its settings, and the request that a sample becomes. What the server answers is read in ``chat_answer``, and
``chat_client`` sends the requests.
"""

from __future__ import annotations

import base64
import os
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from dqe_resources.captioners.protocol import LanguageModel, NoCaptionerError, Sample, VisionModel

if TYPE_CHECKING:
    from typing import Self


def server_url(url: str) -> str:
    """The address of a server without ``/v1``.

    Raises:
        ValueError: it is none.
    """
    stripped = url.rstrip("/").removesuffix("/v1")
    if not stripped.startswith(("http://", "https://")):
        msg = "expected http://HOST:PORT or https://HOST:PORT"
        raise ValueError(msg)
    return stripped


Seconds = Annotated[float, Field(gt=0)]


class ChatServer(LanguageModel):
    """A model behind a server, asked many times at once, its answers taken as they come.

    How many requests are under way adapts to the
    server, up to ``concurrency``. A request that fails in passing is sent again; while the server is away or has too
    much to do, everything waits for it; and where it gives no usable answer for ``give_up_after``, the run ends.

    Attributes:
        url: Address of the server, with or without ``/v1``.
        urls: In place of ``url``: addresses of several servers of the same model, such as one for each GPU. Each
            request goes to one that has room, so that a faster one gets more; one that is away gets none until it is
            back. ``concurrency`` is for each.
        api_key_env: Name of the environment variable that holds the server's key, if it wants one.
        extra_body: Further fields of each request, by the server's names: top_p, repetition_penalty ...
        thinking: Whether a model that can think aloud before it answers is to do so. With false the server is asked
            that it does not, by chat_template_kwargs: lmdeploy, vLLM, SGLang and llama.cpp know that field. By default
            nothing is said.
        connect_seconds: Seconds that connecting may take.
        idle_seconds: Seconds that the server may be silent before or within an answer.
        total_seconds: Seconds that one answer may take in all.
        start_seconds: Seconds to wait for a server that is still starting.
        give_up_after: Seconds without a usable answer after which the run ends. What is finished is kept.
        retries: How often a sample is asked about again after an answer that cannot be used.
    """

    without_effect: ClassVar[frozenset[str]] = LanguageModel.without_effect | {
        *("url", "urls", "api_key_env", "connect_seconds", "idle_seconds", "total_seconds"),
        *("start_seconds", "give_up_after", "retries"),
    }

    url: Annotated[str, AfterValidator(server_url)] | None = None
    urls: tuple[Annotated[str, AfterValidator(server_url)], ...] = ()
    api_key_env: str | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    thinking: bool | None = None
    connect_seconds: Seconds = 10
    idle_seconds: Seconds = 120
    total_seconds: Seconds = 300
    start_seconds: Annotated[float, Field(ge=0)] = 120
    give_up_after: Seconds = 300
    retries: Annotated[int, Field(ge=0)] = 4

    @model_validator(mode="after")
    def _has_servers(self) -> Self:
        if (self.url is None) == (not self.urls):
            raise ValueError("expected url, or urls for several servers of the same model")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("urls: an address stands twice")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of all servers."""
        return self.urls or ((self.url,) if self.url else ())

    @property
    def where(self) -> str:
        """The addresses, in words."""
        return ", ".join(self.addresses)

    def signature(self) -> dict[str, Any]:
        """The settings that change what it writes."""
        found = super().signature()
        # What is not said changes nothing: captions from before there was this setting stay.
        return found if self.thinking is not None else {name: found[name] for name in found if name != "thinking"}

    @property
    @abstractmethod
    def label(self) -> str:
        """What messages call it."""

    def headers(self) -> dict[str, str]:
        """The headers of every request.

        Raises:
            NoCaptionerError: the environment does not hold the key.
        """
        headers = {"Content-Type": "application/json"}
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                msg = f"{self.label}: {self.api_key_env} is not set; set it to the key of {self.where}"
                raise NoCaptionerError(msg)
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample."""
        optional = {
            "seed": self.seed if sample.seed is None else sample.seed,
            "repetition_ngram_size": self.repetition_ngram_size,
            "repetition_ngram_threshold": self.repetition_ngram_threshold,
        }
        body = dict(self.extra_body)
        if self.thinking is not None:
            body["chat_template_kwargs"] = {
                "enable_thinking": self.thinking,
                **body.get("chat_template_kwargs", {}),
            }
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.content(sample)}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": False,
            **{key: value for key, value in optional.items() if value is not None},
            **body,
        }

    def content(self, sample: Sample) -> str | list[dict[str, Any]]:
        """What the model is shown of one sample."""
        return sample.prompt


class ChatModel(ChatServer, VisionModel):
    """A vision-language model behind a server. Images are sent as base64 with the request, never as addresses.

    Attributes:
        image_options: Further fields next to the image's URL, such as max_dynamic_patch for InternVL on lmdeploy.
    """

    without_effect: ClassVar[frozenset[str]] = ChatServer.without_effect | VisionModel.without_effect

    image_options: dict[str, Any] = Field(default_factory=dict)

    def content(self, sample: Sample) -> str | list[dict[str, Any]]:
        """The image and the prompt."""
        image = base64.b64encode(sample.image).decode("ascii")
        return [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}", **self.image_options}},
            {"type": "text", "text": sample.prompt},
        ]
