"""A model behind a server with the chat interface of OpenAI, such as lmdeploy, vLLM, SGLang or Ollama.

This is its settings, and the request that a sample becomes. What the server answers is read in ``chat_answer``, and
``chat_client`` sends the requests.
"""

from __future__ import annotations

import base64
import os
from abc import abstractmethod
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from dqe_resources.captioners.protocol import CaptionerError, Sample, VisionModel


def _server_url(url: str) -> str:
    stripped = url.rstrip("/").removesuffix("/v1")
    if not stripped.startswith(("http://", "https://")):
        msg = "expected http://HOST:PORT or https://HOST:PORT"
        raise ValueError(msg)
    return stripped


Seconds = Annotated[float, Field(gt=0)]


class ChatModel(VisionModel):
    """A vision-language model behind a server, asked many times at once, its answers taken as they come.

    Images are sent as base64 with the request, never as addresses. How many requests are under way adapts to the
    server, up to ``concurrency``. A request that fails in passing is sent again; while the server is away or has too
    much to do, everything waits for it; and where it gives no usable answer for ``give_up_after``, the run ends.
    """

    without_effect: ClassVar[frozenset[str]] = VisionModel.without_effect | {
        *("url", "api_key_env", "connect_seconds", "idle_seconds", "total_seconds"),
        *("start_seconds", "give_up_after", "retries"),
    }

    url: Annotated[str, AfterValidator(_server_url)]
    """Address of the server, with or without ``/v1``."""
    api_key_env: str | None = None
    """Variable of the environment that holds the key, if the server wants one."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of the request, by the server's names: top_p, repetition_penalty ..."""
    image_options: dict[str, Any] = Field(default_factory=dict)
    """Further fields beside the image's URL: max_dynamic_patch caps an InternVL's tiles at lmdeploy."""
    connect_seconds: Seconds = 10
    """For connecting."""
    idle_seconds: Seconds = 120
    """For which the server may be silent before or within an answer."""
    total_seconds: Seconds = 300
    """For one answer in all."""
    start_seconds: Annotated[float, Field(ge=0)] = 120
    """To wait for a server that is still starting."""
    give_up_after: Seconds = 300
    """Without a usable answer, after which the run ends; what is finished is kept."""
    retries: Annotated[int, Field(ge=0)] = 4
    """How often a sample is asked about again after an answer that is none."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What messages call it."""

    def headers(self) -> dict[str, str]:
        """The headers of every request.

        Raises:
            CaptionerError: the environment does not hold the key.
        """
        headers = {"Content-Type": "application/json"}
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                msg = f"{self.label}: {self.api_key_env} is not set; set it to the key of {self.url}"
                raise CaptionerError(msg)
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def request(self, sample: Sample) -> dict[str, Any]:
        """The request for one sample."""
        image = base64.b64encode(sample.image).decode("ascii")
        optional = {
            "seed": self.seed if sample.seed is None else sample.seed,
            "repetition_ngram_size": self.repetition_ngram_size,
            "repetition_ngram_threshold": self.repetition_ngram_threshold,
        }
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}", **self.image_options}},
            {"type": "text", "text": sample.prompt},
        ]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": False,
            **{key: value for key, value in optional.items() if value is not None},
            **self.extra_body,
        }
