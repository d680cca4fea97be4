"""The settings of concept frequency: which concepts, how they are counted, and what follows from the counts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from dqe_assets.concepts.counting import AbsentWords  # noqa: TC001 - pydantic reads the annotation
from dqe_assets.concepts.lemmas import Method  # noqa: TC001 - pydantic reads the annotation
from dqe_assets.concepts.measured import EXAMPLE_FILE
from dqe_assets.concepts.vocabulary import Concepts, gather_concepts, imagenet_concepts, read_concepts
from dqe_assets.measurements import EXAMPLE, EXAMPLE_SOURCE, measured_file
from dqe_assets.schemas import ORIGINAL
from dqe_resources.cache import data_directory
from dqe_resources.component import Strict
from dqe_resources.taggers import AnyTagger
from dqe_resources.taggers.labels import LabelsTagger

IMAGENET = "imagenet"
"""The vocabulary of the 1,000 class names of ImageNet-1k."""

OWN = "own"
"""What the concepts of ``names`` are said to come from."""


class CurriculumWeights(Strict):
    """What makes a sample hard, and how much each counts.

    Attributes:
        rarity: how rare its rarest concept is.
        misalignment: how little its caption fits its image.
        length: how long its caption is.
    """

    rarity: Annotated[float, Field(ge=0)] = 1.0
    misalignment: Annotated[float, Field(ge=0)] = 1.0
    length: Annotated[float, Field(ge=0)] = 1.0


class ConceptSettings(Strict):
    """Which concepts are looked for, how, and what is made of their frequencies.

    Attributes:
        vocabulary: ``imagenet``, or files of names (.txt, .csv, .json, .jsonl, .parquet) from the settings' folder.
        names: further concepts.
        method: whether words are compared by their lemmas, or only in lower case.
        absent_words: a concept with a word that no caption has is counted 0, or by its other words (the paper's way).
        tagger: what finds concepts in images.
        threshold: probability above which an image shows a concept.
        count_by: whose counts the plan, the subset and the curriculum follow: a caption source, or ``image``.
        measurements: ``example``, or the path of a table of measured accuracies, from the settings' folder.
        target_accuracy: the zero-shot accuracy wanted of every concept.
        rarest: how many of the rarest concepts candidates are sought for.
        candidates: how many candidates for each, among the images and among the captions of each source.
        temperature: 0 draws every sample once, 1 evens the frequencies of the concepts out as far as ``cap`` allows.
        cap: how often a sample is drawn at most, on average over passes.
        curriculum: what makes a sample hard.
    """

    vocabulary: tuple[str, ...] = (IMAGENET,)
    names: tuple[str, ...] = ()
    method: Method = "lemmatized"
    absent_words: AbsentWords = "zero"
    tagger: AnyTagger = Field(default_factory=LabelsTagger)
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    count_by: str = ORIGINAL
    measurements: str = EXAMPLE
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.6
    rarest: Annotated[int, Field(ge=1)] = 20
    candidates: Annotated[int, Field(ge=1, le=1000)] = 5
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.5
    cap: Annotated[float, Field(gt=1)] = 5.0
    curriculum: CurriculumWeights = CurriculumWeights()

    @field_validator("vocabulary")
    @classmethod
    def _files_are_there(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != IMAGENET and not (path := _located(name)).is_file():
                raise PydanticCustomError(
                    "missing",
                    "there is no file {path}; allowed: 'imagenet', or a .txt, .csv, .json, .jsonl or .parquet file",
                    {"path": str(path)},
                )
        return value

    @field_validator("measurements")
    @classmethod
    def _is_there(cls, value: str) -> str:
        measured_file(value, EXAMPLE_FILE)
        return value

    @property
    def path(self) -> Path:
        """The table of measured accuracies."""
        return measured_file(self.measurements, EXAMPLE_FILE)

    @property
    def source(self) -> str:
        """What to call it."""
        return EXAMPLE_SOURCE if self.measurements == EXAMPLE else self.path.name

    def gathered(self) -> Concepts:
        """The concepts of all lists, each once.

        Raises:
            ConceptsError: a list cannot be read, or there are no concepts.
        """
        lists = {
            Path(name).stem: imagenet_concepts() if name == IMAGENET else read_concepts(_located(name))
            for name in self.vocabulary
        }
        return gather_concepts(lists | ({OWN: list(self.names)} if self.names else {}))


def _located(name: str) -> Path:
    return data_directory() / Path(name).expanduser()
