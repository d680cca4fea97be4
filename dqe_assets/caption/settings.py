"""Where captions come from: settings for the stages that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from dqe_assets.caption.prompts import PromptError, prompt_of
from dqe_assets.core.schema import ORIGINAL
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dqe_resources.captioners.protocol import Captioner


def check_captioners(captioners: Sequence[Captioner]) -> None:
    """Refuse captioners whose prompts are not there, or that read captions which are not.

    Raises:
        PydanticCustomError: says which captioner, and what there is.
    """
    for place, captioner in enumerate(captioners):
        try:
            prompt = prompt_of(captioner)
        except PromptError as error:
            raise PydanticCustomError(
                "prompt", "captioner {name}: {error}", {"name": captioner.name, "error": str(error)}
            ) from error
        there = [ORIGINAL, *(one.name for one in captioners[:place])]
        read = captioner.captions_read
        for source in read.values():
            if source not in there:
                raise PydanticCustomError(
                    "inputs",
                    "captioner {name}: there are no captions of '{source}' before it; there are: {there}",
                    {"name": captioner.name, "source": source, "there": ", ".join(there)},
                )
        if prompt is not None and read and prompt.placeholders != set(read):
            raise PydanticCustomError(
                "inputs",
                "captioner {name}: the prompt {prompt} quotes {quoted}, and inputs has {read}",
                {
                    "name": captioner.name,
                    "prompt": prompt.name,
                    "quoted": ", ".join(sorted(prompt.placeholders)) or "nothing",
                    "read": ", ".join(sorted(read)),
                },
            )


class CaptionSources(Strict):
    """The caption sources that data/dqe.yaml calls for.

    Attributes:
        captioners: names of the captioners, in the order of the file.
        shared: caption sources that share an image backbone with the scorer, whose preference then proves nothing;
            sorted.
    """

    captioners: tuple[str, ...]
    shared: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """``original`` and the captioners' names."""
        return (ORIGINAL, *self.captioners)

    def signature(self) -> None:
        """Nothing: the captions that a stage reads are among its inputs, each by its name."""
