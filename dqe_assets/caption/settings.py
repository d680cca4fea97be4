"""Where captions come from: settings for the stages that read them."""

from __future__ import annotations

from dqe_assets.core.schema import ORIGINAL
from dqe_resources.configurable import Strict


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
