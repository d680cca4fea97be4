"""Prompts: named files, each with a version and a hash that goes into every row that was made with it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dqe_assets.caption.normalise import normalise_original
from dqe_resources.cache import data_directory
from dqe_resources.captioners.protocol import PromptedCaptioner
from dqe_resources.errors import WholeRunError

if TYPE_CHECKING:
    from dqe_resources.captioners.protocol import Captioner

PLACEHOLDER = "{original_caption}"
"""Where a prompt quotes the sample's own caption; where there is none, that whole paragraph is left out."""

LONGEST_CAPTION = 500
"""Characters of a sample's caption, of its labels, or of the text found in it that go into a prompt."""

LONGEST_DESCRIPTION = 2_000
"""Characters of an earlier description, and of what is wrong with it, that go into a prompt."""

LONGEST_PROMPT = 20_000
"""Characters that a prompt may have: a file that is longer was not meant as one."""

_LONGEST = {
    "original_caption": LONGEST_CAPTION,
    "labels": LONGEST_CAPTION,
    "image_text": LONGEST_CAPTION,
    "previous_caption": LONGEST_DESCRIPTION,
    "problem": LONGEST_DESCRIPTION,
}
"""Characters that go into a prompt, by the names of what vision-language models are told."""

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_VERSION = re.compile(r"version:[ \t]*(\S+)[ \t]*\n\s*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class PromptError(WholeRunError):
    """There is no such prompt, or its file cannot be used: says which there are, or what is wrong."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Attributes:
        name: its name and, if its file says one, its version: ``default 1``.
        text: in full, with the placeholder.
        hash: first 16 hex digits of the SHA-256 of the text.
    """

    name: str
    text: str
    hash: str

    @property
    def placeholders(self) -> frozenset[str]:
        """What stands in braces in it."""
        return frozenset(_PLACEHOLDER.findall(self.text))

    def render(self, original_caption: str | None, **others: str | None) -> str:
        """The prompt for one sample.

        A paragraph with nothing to quote is left out.

        Args:
            original_caption: the caption that the sample came with.
            others: what stands for other placeholders: previous_caption, problem, labels, image_text; or captions by
                the names that a rewriting captioner has for them.
        """
        texts = {**dict.fromkeys(_LONGEST), "original_caption": original_caption, **others}
        quotations = {
            name: quoted(normalise_original(text or ""), _LONGEST.get(name, LONGEST_DESCRIPTION))
            for name, text in texts.items()
        }
        paragraphs = (
            paragraph
            for paragraph in self.text.split("\n\n")
            # Other words in braces are words like any other.
            if all(quotations.get(name, name) for name in _PLACEHOLDER.findall(paragraph))
        )
        # In one pass: a placeholder within what is quoted is text like any other.
        return _PLACEHOLDER.sub(lambda match: quotations.get(match[1], match[0]), "\n\n".join(paragraphs))


def quoted(text: str, longest: int) -> str:
    """A text as a prompt may quote it between tags; empty if nothing is left of it.

    It comes from the web, or from a model: it is cut, and neither tags nor control characters nor line breaks are left
    in it, so that it cannot end the quotation that it stands in.

    Args:
        text: the text.
        longest: characters that are left of it at most.
    """
    line = " ".join(_CONTROL.sub(" ", text).split()).replace("<", "‹").replace(">", "›")
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def load_prompt(name: str) -> Prompt:
    """The prompt of a name: one that comes with the platform, or the file prompts/NAME.txt of the data folder.

    Raises:
        PromptError: there is none, there are two, or its file is empty, far too long or no text.
    """
    files = prompt_files()
    if name not in files:
        raise PromptError(f"no prompt '{name}'; there are: {', '.join(sorted(files))}; or write {_own() / name}.txt")
    return read_prompt(name, files[name])


def read_prompt(name: str, path: Path) -> Prompt:
    """The prompt in a file.

    Raises:
        PromptError: it is empty, far too long or no text.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read as a prompt ({error})") from error
    version = _VERSION.match(content)
    text = content[version.end() :] if version else content
    text = text.strip()
    if not text or len(text) > LONGEST_PROMPT:
        raise PromptError(f"{path}: has {len(text):,} characters; a prompt has 1 to {LONGEST_PROMPT:,}")
    return as_prompt(text, f"{name} {version[1]}" if version else name)


def as_prompt(text: str, name: str | None = None) -> Prompt:
    """A text as a prompt, by default of itself as a name, such as a task token."""
    return Prompt(text if name is None else name, text, hashlib.sha256(text.encode()).hexdigest()[:16])


def prompt_of(captioner: Captioner) -> Prompt | None:
    """The prompt of a captioner that is asked with one, None for any other.

    Raises:
        PromptError: as ``load_prompt``.
    """
    return load_prompt(captioner.prompt) if isinstance(captioner, PromptedCaptioner) else None


def prompt_files() -> dict[str, Path]:
    """The file of each prompt, by name.

    Raises:
        PromptError: a file of the data folder has the name of a prompt that comes with the platform.
    """
    files = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.txt"))}
    for path in sorted(_own().glob("*.txt")):
        if path.stem in files:
            raise PromptError(f"{path}: '{path.stem}' comes with the platform; give the file another name")
        if _NAME.fullmatch(path.stem):
            files[path.stem] = path
    return files


def _own() -> Path:
    return data_directory() / "prompts"
