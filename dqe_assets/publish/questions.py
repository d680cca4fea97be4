"""The questions that captions answer in conversations, drawn by the style of the caption."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from dqe_resources.configurable import Strict
from dqe_resources.errors import UsageError, one_line

if TYPE_CHECKING:
    from typing import Any

_OWN = Path(__file__).with_suffix(".yaml")

Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Style(Strict):
    """Captions of one style, and what they answer.

    Attributes:
        name: Of the style.
        questions: One is drawn for each caption.
        sources: Caption sources whose captions are of this style; by default any.
        most_words: Words that its captions have at most; by default any number.
    """

    name: str
    questions: Annotated[list[Question], Field(min_length=1)]
    sources: list[str] | None = None
    most_words: Annotated[int, Field(ge=1)] | None = None

    def fits(self, text: str, source: str) -> bool:
        """Whether a caption is of this style."""
        is_of_source = self.sources is None or source in self.sources
        return is_of_source and (self.most_words is None or len(text.split()) <= self.most_words)


class Questions(Strict):
    """The styles, in the order in which they are tried.

    Attributes:
        version: Raised when the questions change.
        styles: The first that fits is a caption's; the last fits every caption.
    """

    version: str
    styles: Annotated[list[Style], Field(min_length=1)]

    @model_validator(mode="after")
    def _last_fits_all(self) -> Self:
        if self.styles[-1].sources is not None or self.styles[-1].most_words is not None:
            msg = "the last style must take every caption: it has neither sources nor most_words"
            raise ValueError(msg)
        return self

    def about(self, uid: str, text: str, source: str) -> str:
        """The question for a caption: always the same for the same uid and version."""
        style = next(style for style in self.styles if style.fits(text, source))
        drawn = int.from_bytes(hashlib.sha256(f"{uid} {self.version}".encode()).digest()[:8], "big")
        return style.questions[drawn % len(style.questions)]

    def described(self) -> dict[str, Any]:
        """What a manifest says of them."""
        text = self.model_dump_json().encode()
        return {"version": self.version, "sha256": hashlib.sha256(text).hexdigest()}


def load_questions(path: Path | None = None) -> Questions:
    """The questions of a file; by default the platform's own.

    Raises:
        UsageError: it cannot be read, or is no such file: says what is wrong.
    """
    import yaml

    path = path or _OWN
    try:
        return Questions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: {f'{where}: ' if where else ''}{first['msg']}; see the file {_OWN.name}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read ({one_line(error)}); name a file with --questions") from error
