"""The embedded tagger: ImageNet labels as concepts."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dqe_resources.models.image_model import ImageModel
from dqe_resources.taggers.protocol import Tagger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

_RECIPE = 1
_BRACKETED = re.compile(r"\([^()]*\)")
_BETWEEN_WORDS = re.compile(r"[\s_-]+")


class LabelsTagger(Tagger):
    """The probability of a concept is that of the ImageNet classes with its name, or with it as a synonym in WordNet.

    Names are compared without regard to case, hyphens, underscores and words in brackets: "kite (bird of prey)" is the
    class "kite". A concept that no class is called has no probability, not even "cat" where the label is "tabby":
    WordNet's hierarchy is in no package that is installed, and a word in common is no proof (a hot dog is no dog).
    Zero-shot similarity in the embedded scorer's space would name such concepts too, but it is no probability: of the
    sample's photos that it was 70 % sure of, among 2,065 concepts, it was right about fewer than half.
    """

    kind: ClassVar[str] = "labels"
    asset: ClassVar[str] = "image_features"

    def signature(self) -> dict[str, Any]:
        """The recipe and the backbone."""
        return {"kind": self.kind, "recipe": _RECIPE, "image_model": ImageModel().signature()}

    @property
    def model(self) -> str:
        """Version of the recipe, and the model that gave the labels."""
        return f"labels {_RECIPE} ({ImageModel.backbone})"

    @property
    def backbones(self) -> frozenset[str]:
        """The classifier's backbone."""
        return frozenset({ImageModel.backbone})

    def probabilities(self, samples: pa.Table, concepts: Sequence[str]) -> np.ndarray:
        """The sum of the probabilities of each concept's classes: float32 [n, C].

        Args:
            samples: columns label_ids and label_probabilities of ``image_features``, which hold the 20 most probable
                classes; a sample without labels shows nothing.
            concepts: names.
        """
        classes = _classes_by_name()
        labels = samples["label_ids"].combine_chunks()
        rows = np.repeat(np.arange(len(labels)), labels.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        dense = np.zeros((len(labels), len(ImageModel().class_names)), np.float32)
        probabilities = samples["label_probabilities"].combine_chunks().flatten()
        dense[rows, labels.flatten().to_numpy(zero_copy_only=False)] = probabilities.to_numpy(zero_copy_only=False)
        shown = np.zeros((len(labels), len(concepts)), np.float32)
        for place, concept in enumerate(concepts):
            if wanted := classes.get(_plain(concept)):
                shown[:, place] = dense[:, wanted].sum(axis=1)
        return np.minimum(shown, 1.0)


@cache
def _classes_by_name() -> Mapping[str, list[int]]:
    classifier = ImageModel().classifier
    classes: dict[str, list[int]] = {}
    for place, (name, definition) in enumerate(zip(classifier.names, classifier.definitions, strict=True)):
        for synonym in {_plain(text) for text in (name, *definition.partition(":")[0].split(","))}:
            classes.setdefault(synonym, []).append(place)
    return classes


def _plain(name: str) -> str:
    return _BETWEEN_WORDS.sub(" ", _BRACKETED.sub(" ", name)).strip().casefold()
