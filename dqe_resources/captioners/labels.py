"""The captioner that needs no vision-language model: plain sentences from labels and measures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dqe_resources.captioners.protocol import Caption, Captioner, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BACKBONE = "efficientnet-lite0"

CERTAIN = 0.6
PROBABLE = 0.4
POSSIBLE = 0.2
ALTERNATIVE = 0.1

# ImageNet classes that take no article: plurals, and what is not counted.
_WITHOUT_ARTICLE = frozenset(
    {
        *("binoculars", "clogs", "jeans", "mashed potatoes", "pajamas", "parallel bars", "sunglasses", "swim trunks"),
        *("swimming trunks", "swim trunks or shorts", "tights", "broccoli", "carbonara"),
        *("cauliflower", "chain mail", "chocolate syrup", "consomme", "corn", "dough", "eggnog", "espresso"),
        *("face powder", "guacamole", "hair spray", "hay", "ice cream", "lotion", "perfume", "rapeseed", "red wine"),
        *("sunscreen", "toilet paper", "velvet", "velvet fabric", "wool"),
    }
)
_SOUNDS_LIKE_CONSONANT = re.compile(r"eu|one\b|one-|uni|use|ufo", re.IGNORECASE)
_SOUNDS_LIKE_VOWEL = re.compile(r"[aeiou]|hour|heir|honest", re.IGNORECASE)

_WARM = frozenset({"red", "orange", "brown", "beige", "yellow", "pink"})
_COOL = frozenset({"blue", "teal", "green", "purple"})

# Each word holds below its limit; None says nothing.
_BRIGHTNESS = ((0.15, "very dark"), (0.33, "dark"), (0.60, "of medium brightness"), (0.80, "bright"))
_CONTRAST = ((0.08, "low in contrast"), (0.28, None))
_SHARPNESS = ((50, "smooth or blurred"), (150, "soft"), (700, "moderately sharp"), (2000, "sharp"))

_MOST_DETAIL = 0.12
_MORE_DETAIL = 0.05

_MEASURES = ("colours", "brightness", "contrast", "sharpness", "focus_x", "focus_y")


class LabelsCaptioner(Captioner):
    """Puts ImageNet labels, their probabilities and what was measured into words, claiming no more than that.

    It replaces a vision-language model where none can run, and is the least that one must reach: a model whose captions
    fit their images no better than these adds nothing.
    """

    kind: ClassVar[str] = "labels"
    asset: ClassVar[str] = "image_features"
    columns: ClassVar[tuple[str, ...]] = ("label_ids", "label_probabilities", *_MEASURES)
    license: Annotated[str | None, Field(exclude=True)] = "apache-2.0"

    @property
    def model_id(self) -> str:
        """Version of the wording, and the model that gave the labels."""
        return f"labels 1 ({BACKBONE})"

    @property
    def backbones(self) -> frozenset[str]:
        """The classifier's backbone."""
        return super().backbones | {BACKBONE}

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """A caption of each sample; an error for one without labels."""
        from dqe_resources.models.image_model import ImageModel

        names = ImageModel().class_names
        for index, sample in enumerate(samples):
            ids, probabilities, *measures = (sample.values[column] for column in self.columns)
            if not ids or any(measure is None for measure in measures):
                yield index, Caption(None, "error", "the image has no labels or measures")
                continue
            labels = [(names[i], p) for i, p in zip(ids, probabilities, strict=True)]
            colours, brightness, contrast, sharpness, *focus = measures
            yield index, Caption(describe(labels, colours, brightness, contrast, sharpness, (focus[0], focus[1])))


def describe(
    labels: Sequence[tuple[str, float]],
    colours: Sequence[str],
    brightness: float,
    contrast: float,
    sharpness: float,
    focus: tuple[float, float],
) -> str:
    """Two plain sentences on an image.

    Args:
        labels: ImageNet class names with probabilities, most probable first, one at least.
        colours: names of the main colours, largest first; may be empty.
        brightness: mean luminance, 0 to 1.
        contrast: standard deviation of the luminance, 0 to 1.
        sharpness: variance of the Laplacian at 256 pixels a side.
        focus: centre of the detail from the left and from the top, 0 to 1.

    Returns:
        Text whose wording is hedged by the first probability: plain above 0.6, "probably" above 0.4, "possibly" above
        0.2, and below that it says that nothing was recognised and what the image resembles. A second label above 0.1
        is named as the alternative.
    """
    look = _look(brightness, contrast, sharpness)
    return f"{_subject(labels)} The picture, {_tones(colours)}, is {look}, {_layout(focus, sharpness)}."


def _subject(labels: Sequence[tuple[str, float]]) -> str:
    (name, probability), *others = labels
    first = _with_article(name)
    second = next((_with_article(n) for n, p in others if p >= ALTERNATIVE and _plain(n) != _plain(name)), None)
    if probability > CERTAIN:
        return f"This image showcases {first}{f', or possibly {second}' if second else ''}."
    if probability > PROBABLE:
        return f"This image showcases what is probably {first}{f', or perhaps {second}' if second else ''}."
    if probability > POSSIBLE:
        return f"This image showcases what is possibly {first}{f' or {second}' if second else ''}."
    resembled = f"{first}{f' or {second}' if second else ''}"
    return f"No object in this image is recognised with confidence; it most resembles {resembled}."


def _tones(colours: Sequence[str]) -> str:
    if not colours:
        return "in many colours"
    warmth = "warm " if _WARM.issuperset(colours) else "cool " if _COOL.issuperset(colours) else ""
    return f"in {warmth}{_listed(colours)} tones"


def _look(brightness: float, contrast: float, sharpness: float) -> str:
    words = (
        _graded(brightness, _BRIGHTNESS, "very bright"),
        _graded(contrast, _CONTRAST, "high in contrast"),
        _graded(sharpness, _SHARPNESS, "full of fine detail"),
    )
    return _listed([word for word in words if word])


def _graded(value: float, grades: Sequence[tuple[float, str | None]], above: str) -> str | None:
    return next((word for limit, word in grades if value < limit), above)


def _layout(focus: tuple[float, float], sharpness: float) -> str:
    if sharpness == 0:
        return "without any detail"
    across, down = focus[0] - 0.5, focus[1] - 0.5
    for least, words in ((_MOST_DETAIL, "most of the"), (_MORE_DETAIL, "slightly more")):
        vertical = "" if abs(down) < least else "top" if down < 0 else "bottom"
        horizontal = "" if abs(across) < least else "left" if across < 0 else "right"
        if vertical or horizontal:
            return f"with {words} detail towards the {f'{vertical} {horizontal}'.strip()}"
    return "with its detail balanced across the frame"


def _with_article(name: str) -> str:
    plain = _plain(name)
    if plain in _WITHOUT_ARTICLE:
        return plain
    vowel = _SOUNDS_LIKE_VOWEL.match(plain) and not _SOUNDS_LIKE_CONSONANT.match(plain)
    return f"{'an' if vowel else 'a'} {plain}"


def _plain(name: str) -> str:
    """A class name as it reads in a sentence: "kite (bird of prey)" is a kite, "crate / box" a crate or box."""
    return re.sub(r"\s*\([^)]*\)", "", name).replace(" / ", " or ")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
