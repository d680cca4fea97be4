"""The settings of concept frequency: which concepts, how they are counted, and what follows from the counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from dqe_assets.concepts.accuracies import EXAMPLE_FILE, TRAINED_ASSET
from dqe_assets.concepts.counting import AbsentWords, ConceptIndex
from dqe_assets.concepts.lemmas import Method
from dqe_assets.concepts.vocabulary import LISTS, SUFFIXES, Concepts, gather_concepts, read_concepts
from dqe_assets.core.measurements import MeasurementSettings, file_bytes
from dqe_assets.core.schema import IMAGE, ORIGINAL
from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict
from dqe_resources.taggers import AnyTagger
from dqe_resources.taggers.labels import LabelsTagger

OWN = "own"
"""What the concepts of ``names`` are said to come from."""


@dataclass(frozen=True)
class Counting:
    """The concepts to look for, and how.

    Attributes:
        concepts: the concepts.
        method: how words are compared.
        absent_words: what a word that no caption has does to a concept.
    """

    concepts: Concepts
    method: Method
    absent_words: AbsentWords

    @cached_property
    def index(self) -> ConceptIndex:
        """The concepts, made ready to be looked for in captions."""
        return ConceptIndex(self.concepts.names, self.method, self.absent_words)

    @cached_property
    def digest(self) -> str:
        """Hex digest of the names and of how they are counted: hits of another digest mean something else."""
        return _digest("\n".join([self.method, self.absent_words, *self.concepts.names]))


class CurriculumWeights(Strict):
    """What makes a sample hard, and how much each counts.

    Attributes:
        rarity: Weight of how rare the sample's rarest concept is.
        misalignment: Weight of how little the caption fits the image.
        length: Weight of how long the caption is.
    """

    rarity: Annotated[float, Field(ge=0)] = 1.0
    misalignment: Annotated[float, Field(ge=0)] = 1.0
    length: Annotated[float, Field(ge=0)] = 1.0


class ConceptLists(Strict):
    """Which concepts are looked for, and how.

    Attributes:
        vocabulary: ``imagenet``, ``open_clip`` (its names of the same classes), or files of names from the settings'
            folder.
        names: further concepts.
        method: whether words are compared by their lemmas, or only in lower case.
        absent_words: a concept with a word that no caption has is counted 0, or by its other words (the paper's way).
    """

    vocabulary: tuple[str, ...] = ("imagenet",)
    names: tuple[str, ...] = ()
    method: Method = "lemmatized"
    absent_words: AbsentWords = "zero"

    @field_validator("vocabulary")
    @classmethod
    def _files_are_there(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in LISTS and not (path := in_data_directory(name)).is_file():
                raise PydanticCustomError(
                    "missing",
                    "there is no file {path}; allowed: {lists}, or a file in {suffixes}",
                    {"path": str(path), "lists": ", ".join(LISTS), "suffixes": ", ".join(SUFFIXES)},
                )
        return value

    def counting(self) -> Counting:
        """The concepts of all lists, each once, and how they are counted.

        Raises:
            ConceptsError: a list cannot be read, or there are no concepts.
        """
        lists = {
            name: LISTS[name]() if name in LISTS else read_concepts(in_data_directory(name)) for name in self.vocabulary
        }
        concepts = gather_concepts(lists | ({OWN: list(self.names)} if self.names else {}))
        return Counting(concepts, self.method, self.absent_words)

    def signature(self) -> list[Any]:
        """What decides the counts, without reading the lists: for fingerprints, which are taken often.

        Raises:
            MeasurementsError: a file cannot be read.
        """
        lists = [name if name in LISTS else _digest(file_bytes(in_data_directory(name))) for name in self.vocabulary]
        return [lists, self.names, self.method, self.absent_words]


class ConceptSettings(ConceptLists, MeasurementSettings):
    """Which concepts are looked for, how, and what is made of their frequencies.

    Attributes:
        vocabulary: ``imagenet``, ``open_clip`` (its names of the same classes), or files of names, from the data
            folder.
        names: Further concepts.
        method: How words are compared: by their lemmas, or only in lower case.
        absent_words: How a concept is counted that has a word in no caption: as 0, or by its other words (the paper's
            way).
        tagger: The model that finds concepts in images.
        threshold: Probability above which an image shows a concept.
        count_by: Whose counts the plan, the subset and the curriculum follow: a caption source, or ``image``.
        measurements: ``example``; ``trained``: the accuracies of what was trained here (the asset
            ``concept_accuracies``); or the path of a table of measured accuracies, from the data folder.
        target_accuracy: The zero-shot accuracy wanted of every concept.
        rarest: How many of the rarest concepts get candidates.
        candidates: Candidates for each of them, among the images and among the captions of each source.
        temperature: 0 draws every sample once; 1 evens out how often concepts are shown, as far as ``cap`` allows.
        cap: How often a sample is drawn at most, on average over passes.
        curriculum: What makes a sample hard.
    """

    example: ClassVar[Path] = EXAMPLE_FILE
    trained: ClassVar[str] = TRAINED_ASSET

    tagger: AnyTagger = Field(default_factory=LabelsTagger)
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    count_by: str = ORIGINAL
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.6
    rarest: Annotated[int, Field(ge=1)] = 20
    candidates: Annotated[int, Field(ge=1, le=1000)] = 5
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.5
    cap: Annotated[float, Field(gt=1)] = 5.0
    curriculum: CurriculumWeights = CurriculumWeights()

    @property
    def lists(self) -> ConceptLists:
        """What decides the counts alone."""
        return ConceptLists(**{name: getattr(self, name) for name in ConceptLists.model_fields})


def caption_source_of(count_by: str) -> str:
    """Whose captions the subset and the curriculum are made of, by what they count."""
    return ORIGINAL if count_by == IMAGE else count_by


def _digest(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()
