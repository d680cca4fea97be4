"""A client whose requests a budget must allow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dqe_resources.captioners.budget import Tokens
from dqe_resources.captioners.chat_answer import NoAnswerError
from dqe_resources.captioners.chat_client import ChatClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from dqe_resources.captioners.budget import Budget
    from dqe_resources.captioners.chat import ChatModel
    from dqe_resources.captioners.protocol import Caption, Sample


class CappedClient(ChatClient):
    """A client that asks as long as a budget lasts, and says what each answer took."""

    def __init__(self, model: ChatModel, samples: Iterator[Sample], budget: Budget) -> None:
        super().__init__(model, self._while_there_is_room(samples))
        self._budget = budget
        self._used: dict[int, Tokens] = {}

    def capped_answers(self) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``; a sample that the cap left no room to ask about gets no answer.

        The tokens of an answer are those of all attempts: as the server counts them, or where it does not say (no
        usage, no answer in time), the most that they can be.
        """
        for index, caption in self.answers():
            if (used := self._used.pop(index, None)) is not None:
                yield index, replace(caption, prompt_tokens=used.prompt, completion_tokens=used.completion)

    def _while_there_is_room(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            if self._budget.is_exhausted:
                return
            yield sample

    async def attempt(self, session: aiohttp.ClientSession, index: int, body: bytes) -> Caption:
        """Ask once, when the budget allows it.

        Raises:
            NoAnswerError: what came is no answer; of kind ``not_sent`` where the cap is reached.
        """
        reserved = await self._budget.reserve()
        if reserved is None:
            raise NoAnswerError("the cap is reached", "not_sent")
        used = reserved
        try:
            caption = await super().attempt(session, index, body)
            used = Tokens(
                reserved.prompt if caption.prompt_tokens is None else caption.prompt_tokens,
                reserved.completion if caption.completion_tokens is None else caption.completion_tokens,
            )
        except NoAnswerError as failure:
            # Whoever ran out of patience does not know what the server has done.
            # One that only thought aloud has used what it could.
            used = reserved if failure.kind == "transient" or failure.removed else Tokens()
            raise
        finally:
            self._budget.settle(reserved, used)
            self._used[index] = self._used.get(index, Tokens()) + used
        return caption
