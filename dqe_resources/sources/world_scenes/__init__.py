"""A made world of images and web-like captions, of which everything is known: what ``dqe study`` trains on.

Scenes of one to three drawings (OpenMoji, CC BY-SA 4.0) on varied grounds. How often a concept occurs follows Zipf's
law; which concept is frequent is drawn by the seed. Some scenes are near copies of earlier ones. Each has one caption,
as on the web: right, partial, of another picture, generic, a file name, or in another language.
"""

from __future__ import annotations

from dqe_resources.sources.world_scenes.concepts import DRAWN, LANGUAGES, names
from dqe_resources.sources.world_scenes.scenes import CAPTION_KINDS, Placed, Scene, World

__all__ = ["CAPTION_KINDS", "DRAWN", "LANGUAGES", "Placed", "Scene", "World", "names"]
