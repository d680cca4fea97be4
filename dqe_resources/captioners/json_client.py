"""A client whose answers must be JSON of a certain form."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from dqe_resources.captioners.chat_answer import NoAnswerError
from dqe_resources.captioners.chat_client import ChatClient

if TYPE_CHECKING:
    import aiohttp

    from dqe_resources.captioners.protocol import Caption

_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL | re.IGNORECASE)


class UnparsableError(ValueError):
    """An answer is not what was asked for: says in a few words what is wrong, and quotes none of it."""


def json_in(text: str) -> str:
    """The JSON object in an answer: alone, in a code fence, or with words around it.

    Raises:
        UnparsableError: there is none.
    """
    fenced = _FENCED.search(text)
    found = fenced[1] if fenced else text[text.find("{") : text.rfind("}") + 1]
    if not found:
        raise UnparsableError("there is no JSON object in it")
    return found


class JsonClient(ChatClient):
    """A client that asks again, and says what was wrong, where an answer does not have the required form."""

    setting: ClassVar[str]
    """The setting that says whether the server is asked for JSON by a schema."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._unusable: dict[int, NoAnswerError] = {}

    @abstractmethod
    def check(self, index: int, text: str) -> None:
        """See whether the answer about a sample has the required form.

        Raises:
            UnparsableError: it has not.
        """

    async def attempt(self, session: aiohttp.ClientSession, index: int, body: bytes) -> Caption:
        """Ask once, and see whether the answer can be used."""
        before = self._unusable.get(index)
        try:
            caption = await super().attempt(session, index, body if before is None else _again(body, before.message))
        except NoAnswerError as failure:
            if failure.kind == "not_sent" and before:
                raise replace(before, kind="not_sent") from failure
            if failure.kind in {"fatal", "rejected"} and "response_format" in failure.message:
                failure.message += f"; for a server that takes none, set {self.setting}: false in data/dqe.yaml"
            raise
        text = caption.text or ""
        try:
            self.check(index, text)
        except UnparsableError as error:
            cut = f", and it was cut at {self._model.max_tokens} tokens" if caption.finish_reason == "length" else ""
            self._unusable[index] = NoAnswerError(
                f"{error}{cut}",
                "unusable",
                text=text,
                seconds=caption.seconds or 0.0,
                reason="unparsable",
                removed=caption.removed,
            )
            raise self._unusable[index] from error
        return caption


def _again(body: bytes, fault: str) -> bytes:
    """The request once more, with what was wrong: where the temperature is 0, the same would be answered the same."""
    request = json.loads(body)
    words = f"An earlier answer could not be used: {fault}. Answer with the JSON that is asked for, and nothing else."
    request["messages"][0]["content"].append({"type": "text", "text": words})
    return json.dumps(request).encode()
