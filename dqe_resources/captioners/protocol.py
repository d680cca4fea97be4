"""What a captioner is."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from dqe_resources.component import Component

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Caption:
    """One generated caption, or why there is none."""

    text: str | None
    finish_reason: Literal["stop", "length", "error"] = "stop"
    error: str | None = None


class Captioner(Component):
    """Writes a caption for an image. Each captioner in data/dqe.yaml is its own asset ``synthetic_captions/<name>``."""

    name: str
    requires: ClassVar[tuple[str, ...]]
    """The assets it reads: ``raw_samples`` for a model that sees the image, or ``image_features``."""

    @property
    @abstractmethod
    def model(self) -> str:
        """Name and version of the model, kept with every caption."""

    @property
    @abstractmethod
    def backbones(self) -> frozenset[str]:
        """The image backbones inside: a preference by a scorer that shares one with a captioner proves nothing."""

    @abstractmethod
    def caption(self, samples: pa.Table) -> Iterator[Caption]:
        """One caption for each row, in order.

        Args:
            samples: the columns of the assets in ``requires``, of samples that have an image.
        """
