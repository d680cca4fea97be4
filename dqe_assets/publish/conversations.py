"""Conversations to fine-tune vision-language models: a question about an image, and its caption as the answer.

Their forms are those that trainers document:

- ``llava``: one JSON list of ``id``, ``image`` and ``conversations`` (haotian-liu/LLaVA, Finetune_Custom_Data.md).
- ``sharegpt``: JSON Lines of the same, with ``width`` and ``height`` (InternVL, "Chat Data Format"), ``image`` (QwenLM,
  qwen-vl-finetune) and ``images`` (LLaMA-Factory, data/README.md), beside ``dataset_info.json`` for LLaMA-Factory and
  ``internvl.json`` for InternVL.

Paths of images count from the folder. No answer has a special token, as all of them demand.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dqe_assets.publish.places.protocol import File
from dqe_resources.cache import scratch_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, BinaryIO

    from dqe_assets.publish.formats import Shards
    from dqe_assets.publish.questions import Questions

IMAGES = "images"
"""The folder of the images."""

LLAVA, SHAREGPT = "train.json", "train.jsonl"

_NAME = "captions"
"""What the data set is called in the files by which trainers find it."""

_SPECIAL = re.compile(r"</?(image|video|audio|img|IMG_CONTEXT|quad|ref|box)>|<\|([^<>|]+)\|>")


@dataclass
class Conversations:
    """The annotations of a publication, and the images that they name.

    Attributes:
        shards: what they are made of.
        questions: what captions answer.
        in_a_folder: images in each folder below ``images``.
        is_list: whether the annotations are one JSON list; else they are JSON Lines.
    """

    shards: Shards
    questions: Questions
    in_a_folder: int
    is_list: bool
    _lines: IO[bytes] | None = None

    def files(self) -> list[File]:
        """The annotations, whose images are written before them, and what trainers find them by."""
        total = self.shards.selection.total
        name = LLAVA if self.is_list else SHAREGPT
        files = [File(name, total, self._write, self._images, IMAGES)]
        if not self.is_list:
            files += [
                File("dataset_info.json", 0, partial(_write_json, _llama_factory(name))),
                File("internvl.json", 0, partial(_write_json, _internvl(name, total))),
            ]
        return files

    def _images(self) -> Iterator[tuple[str, bytes]]:
        """Each image's name and content; what is said of it is kept for the annotations."""
        if self._lines is not None:
            self._lines.close()
        self._lines = scratch_file()
        for number, (picture, facts) in enumerate(self.shards.samples(0, self.shards.selection.total)):
            path = f"{IMAGES}/{number // self.in_a_folder:05d}/{picture.uid}.{picture.extension}"
            line = json.dumps(self._conversation(path, facts), ensure_ascii=False).encode()
            self._lines.write((b",\n" if number else b"") + line if self.is_list else line + b"\n")
            yield path, picture.data

    def _write(self, target: BinaryIO) -> None:
        if self._lines is None:
            msg = "the images come before the annotations"
            raise RuntimeError(msg)
        with closing(self._lines) as lines:
            lines.seek(0)
            target.write(b"[\n" if self.is_list else b"")
            shutil.copyfileobj(lines, target)
            target.write(b"\n]\n" if self.is_list else b"")

    def _conversation(self, path: str, facts: dict[str, Any]) -> dict[str, Any]:
        question = self.questions.about(facts["uid"], facts["caption"], facts["caption_source"])
        size = {} if self.is_list else {"images": [path], "width": facts["width"], "height": facts["height"]}
        return {
            "id": facts["uid"],
            "image": path,
            **size,
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}"},
                {"from": "gpt", "value": plain_text(facts["caption"])},
            ],
            "caption_source": facts["caption_source"],
            "similarity": facts["similarity"],
            "sha256": facts["sha256"],
        }


def plain_text(text: str) -> str:
    """A caption with the names of special tokens in place of them, which trainers take for images, or for turns."""
    while (changed := _SPECIAL.sub(lambda match: match[1] or match[2], text)) != text:
        text = changed
    return text.strip()


def _llama_factory(annotations: str) -> dict[str, Any]:
    described = {
        "file_name": annotations,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
    }
    return {_NAME: described}


def _internvl(annotations: str, total: int) -> dict[str, Any]:
    return {
        _NAME: {"root": ".", "annotation": annotations, "data_augment": False, "repeat_time": 1, "length": total},
    }


def _write_json(record: dict[str, Any], target: BinaryIO) -> None:
    target.write(json.dumps(record, indent=1).encode() + b"\n")
