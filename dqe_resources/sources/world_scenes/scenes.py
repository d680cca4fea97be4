"""Scenes of the world, each a function of the seed and its number alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from dqe_resources.sources.rows import SourceRow, Truth
from dqe_resources.sources.world_scenes.concepts import DRAWN, LANGUAGES, drawings, names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import Image

CaptionKind = Literal["right", "partial", "other_photo", "generic", "file_name", "language"]

CAPTION_KINDS: dict[CaptionKind, float] = {
    "right": 0.25,
    "partial": 0.2,
    "other_photo": 0.25,
    "generic": 0.1,
    "file_name": 0.1,
    "language": 0.1,
}
"""Kinds of caption, and the share of rows that have each, if nothing else is said."""

_OBJECTS = (0.5, 0.35, 0.15)
"""Chances of one, two and three objects in a scene."""

_GROUNDS = {
    "red": (214, 96, 90),
    "orange": (236, 160, 90),
    "yellow": (240, 222, 130),
    "green": (120, 180, 120),
    "blue": (110, 150, 215),
    "purple": (160, 120, 190),
    "pink": (240, 180, 200),
    "brown": (150, 115, 90),
    "grey": (160, 160, 160),
    "white": (245, 245, 245),
}
_RIGHT = ("{}", "a photo of {}", "{} on a {ground} background", "picture of {}, {ground}", "{} - {ground} drawing")
_PARTIAL = ("{} for sale, free shipping", "my {}", "{} and more, see our blog", "best {} of the year", "{} stock photo")
_GENERIC = ("image", "photo", "untitled", "click to enlarge", "our latest post", "view full size", "thumbnail", "logo")
_FILES = ("IMG_{:04d}.jpg", "DSC{:05d}.JPG", "image-{}.png", "{}_small.jpg", "screenshot {}.png")


@dataclass(frozen=True, slots=True)
class Placed:
    """A drawing in a scene.

    Attributes:
        concept: its place in ``DRAWN``.
        size: its longer side, as a share of the scene's.
        x: of its middle, 0 to 1.
        y: of its middle, 0 to 1.
        angle: degrees, anticlockwise.
    """

    concept: int
    size: float
    x: float
    y: float
    angle: float


@dataclass(frozen=True, slots=True)
class Scene:
    """What an image shows.

    Attributes:
        number: of the scene that it shows: its own, or that of which it is a near copy.
        objects: what is in it, the first behind.
        ground: name of the ground's colour.
        shade: how much darker the ground becomes from top to bottom, -1 to 1.
        kind: original; cropped or recoloured if it is a near copy.
        change: how much of the border is cut off, or how the colours are changed.
    """

    number: int
    objects: tuple[Placed, ...]
    ground: str
    shade: float
    kind: str = "original"
    change: float = 0.0


@dataclass(frozen=True)
class World:
    """Scenes and captions, as many as are asked for.

    Attributes:
        seed: decides everything, also which concepts are frequent.
        concepts: how many concepts there are, at most ``len(DRAWN)``.
        side: pixels of an image's side.
        zipf: exponent of Zipf's law: the concept of rank r occurs in proportion to 1 / r ** zipf.
        near_copies: share of rows that are near copies of an earlier scene.
        caption_kinds: share of rows whose caption is of each of CAPTION_KINDS, 0 if left out; they sum to 1.
    """

    seed: int = 0
    concepts: int = 120
    side: int = 32
    zipf: float = 1.0
    near_copies: float = 0.3
    caption_kinds: Mapping[CaptionKind, float] = field(default_factory=CAPTION_KINDS.copy)

    @cached_property
    def by_rank(self) -> NDArray[np.int64]:
        """The concepts, as places in ``DRAWN``, the most frequent first: [concepts]."""
        return np.random.default_rng((self.seed, 0)).permutation(len(DRAWN))[: self.concepts]

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """How often an object is of each concept, in the order of ``by_rank``; they sum to 1."""
        weights = 1 / np.arange(1, self.concepts + 1) ** self.zipf
        return weights / weights.sum()

    @cached_property
    def _cumulated(self) -> NDArray[np.float64]:
        return np.cumsum(self.frequencies)

    @cached_property
    def _cumulated_kinds(self) -> NDArray[np.float64]:
        cumulated = np.cumsum([self.caption_kinds.get(kind, 0.0) for kind in CAPTION_KINDS])
        return cumulated / cumulated[-1]

    def scene(self, number: int) -> Scene:
        """What the image of row ``number`` shows."""
        random = np.random.default_rng((self.seed, 1, number))
        if number and random.random() < self.near_copies:
            copied = self.scene(int(random.integers(number)))
            kind = ("cropped", "recoloured")[int(random.integers(2))]
            return replace(copied, kind=kind, change=float(random.uniform(0.04, 0.1)))
        count = 1 + int(np.searchsorted(np.cumsum(_OBJECTS), random.random()))
        return self._composed(number, self._drawn(random, count), random)

    def single(self, concept: int, number: int) -> Scene:
        """A scene of one object of a concept (a place in ``DRAWN``), as an evaluation asks for: no row shows it."""
        random = np.random.default_rng((self.seed, 2, concept, number))
        return self._composed(-1 - number, [concept], random)

    def _drawn(self, random: np.random.Generator, count: int) -> list[int]:
        ranks = np.minimum(np.searchsorted(self._cumulated, random.random(count)), self.concepts - 1)
        return [int(self.by_rank[rank]) for rank in dict.fromkeys(ranks.tolist())]

    def _composed(self, number: int, concepts: Sequence[int], random: np.random.Generator) -> Scene:
        largest = 0.9 if len(concepts) == 1 else 0.65
        placed = []
        for place, concept in enumerate(concepts):
            size = float(random.uniform(largest - 0.3, largest))
            # Objects stand side by side, so that none hides another.
            middle = (place + 0.5) / len(concepts)
            x = float(np.clip(middle + random.uniform(-0.1, 0.1), size / 2, 1 - size / 2))
            y = float(random.uniform(size / 2, 1 - size / 2))
            placed.append(Placed(concept, size, x, y, float(random.uniform(-20, 20))))
        ground = list(_GROUNDS)[int(random.integers(len(_GROUNDS)))]
        return Scene(number, tuple(placed), ground, float(random.uniform(-1, 1)))

    def image(self, scene: Scene) -> Image.Image:
        """The image of a scene, RGB of ``side`` x ``side`` pixels.

        Raises:
            SourceError: the package with the drawings is not installed.
        """
        from PIL import Image

        side = 2 * self.side
        slope = 1 + 0.25 * scene.shade * np.linspace(-1, 1, side)
        ground = np.multiply.outer(slope, _GROUNDS[scene.ground])[:, None].repeat(side, 1)
        canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
        for one in scene.objects:
            drawn = drawings()[one.concept]
            scale = one.size * side / max(drawn.size)
            small = drawn.resize((max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))))
            turned = small.rotate(one.angle, Image.Resampling.BILINEAR, expand=True)
            canvas.paste(
                turned, (round(one.x * side - turned.width / 2), round(one.y * side - turned.height / 2)), turned
            )
        if scene.kind == "cropped":
            cut = scene.change * side
            return canvas.resize((self.side, self.side), box=(cut, cut / 2, side, side - cut / 2))
        whole = canvas.resize((self.side, self.side), Image.Resampling.BOX)
        if scene.kind == "recoloured":
            pixels = np.asarray(whole, np.float32) * (1 - scene.change) + 255 * scene.change * np.array([1, 0.5, 0])
            return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        return whole

    def true_caption(self, scene: Scene) -> str:
        """All that a scene shows, in words: ``a dog and a pizza on a blue background``."""
        return f"{_listed(scene, 'en')} on a {scene.ground} background"

    def caption(self, number: int, scene: Scene) -> tuple[str, str]:
        """The caption that row ``number`` was found with, and its kind: of CAPTION_KINDS, or ``language_<code>``."""
        random = np.random.default_rng((self.seed, 3, number))
        kind = list(CAPTION_KINDS)[int(np.searchsorted(self._cumulated_kinds, random.random(), side="right"))]

        def one_of(texts: Sequence[str]) -> str:
            return texts[int(random.integers(len(texts)))]

        match kind:
            case "partial":
                one = scene.objects[int(random.integers(len(scene.objects)))]
                return kind, one_of(_PARTIAL).format(names()[one.concept])
            case "generic":
                return kind, one_of(_GENERIC)
            case "file_name":
                return kind, one_of(_FILES).format(int(random.integers(10_000)))
            case "language":
                language = one_of(LANGUAGES)
                return f"language_{language}", _listed(scene, language)
        told = scene
        if kind == "other_photo":
            told = self._stranger(scene, random)
        return kind, one_of(_RIGHT).format(_listed(told, "en"), ground=told.ground)

    def _stranger(self, scene: Scene, random: np.random.Generator) -> Scene:
        shown = {one.concept for one in scene.objects}
        concepts: list[int] = []
        while not concepts:
            concepts = [one for one in self._drawn(random, len(scene.objects)) if one not in shown]
        return self._composed(-1, concepts, random)

    def row(self, number: int) -> SourceRow:
        """Row ``number`` as a source gives it."""
        scene = self.scene(number)
        kind, caption = self.caption(number, scene)
        file = BytesIO()
        self.image(scene).save(file, "PNG")
        truth = Truth(str(scene.number), scene.kind, kind)
        return SourceRow(key=f"{number:08d}.png", caption=caption, image=file.getvalue(), truth=truth)


_PLURAL = frozenset({"cherries", "french fries", "glasses", "grapes", "jeans", "pancakes", "peanuts", "socks"})
_AND = {"en": "and", "de": "und", "es": "y", "fr": "et", "it": "e", "pt": "e"}


def _listed(scene: Scene, language: str) -> str:
    called = [names(language)[one.concept] for one in scene.objects]
    if language == "en":
        called = [one if one in _PLURAL else f"{'an' if one[0] in 'aeiou' else 'a'} {one}" for one in called]
    return f" {_AND[language]} ".join(called)
