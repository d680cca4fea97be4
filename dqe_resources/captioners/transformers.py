"""The captioner that runs a model of Hugging Face Transformers in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from dqe_resources.captioners.protocol import VisionCaptioner
from dqe_resources.captioners.transformers_batches import WritingModel
from dqe_resources.captioners.transformers_model import SeeingLocalModel, TransformersModel, loaded_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dqe_resources.captioners.protocol import Caption, Sample


class TransformersCaptioner(SeeingLocalModel, TransformersModel, VisionCaptioner):
    """Captions by an image-text model of Transformers in this process, on a CPU or a GPU, without a server.

    The model is loaded once for all shards of a run, and downloaded the first time. A model with a chat template is
    asked with the prompt, as are those whose own code answers questions, such as Moondream. Others take no prompt:
    Florence-2 is given a task token, and BLIP the image alone.

    Attributes:
        task: What a model without a chat template is asked: a task token of Florence-2, or words that a caption of BLIP
            is to begin with. By default <MORE_DETAILED_CAPTION> for Florence-2, and nothing for others.
    """

    kind: ClassVar[str] = "transformers"
    without_effect: ClassVar[frozenset[str]] = (
        SeeingLocalModel.without_effect | TransformersModel.without_effect | VisionCaptioner.without_effect
    )

    task: str | None = None

    @property
    def price_per_hour(self) -> float | None:
        """Of one GPU."""
        return self.price_per_gpu_hour

    def caption(self, samples: Iterator[Sample]) -> Iterator[tuple[int, Caption]]:
        """As ``Captioner.caption``."""
        label = f"captioner {self.name}"
        model = WritingModel(
            loaded_model(self, label, sees=True), self, label, task=self.task, image_options=self.image_options
        )
        yield from model.answers(samples)
