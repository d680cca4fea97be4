"""Scales: how much is trained, with which model and hyperparameters. DataComp's are fixed; one's own are settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_assets.core.measurements import SampleCount
from dqe_resources.configurable import Strict

if TYPE_CHECKING:
    from typing import Self

Schedule = Literal["cosine", "constant_cooldown"]

TrainingPrecision = Literal["amp", "amp_bf16", "bf16", "fp16", "fp32"]

_MODEL_KEYS = ("embed_dim", "vision_cfg", "text_cfg")


class Scale(Strict):
    """How much is trained, with which model and hyperparameters.

    Attributes:
        model: Name of a model of open_clip, or its configuration in open_clip's form, with ``embed_dim``,
            ``vision_cfg`` and ``text_cfg``.
        samples_seen: Samples seen in training, whatever the subset's size, such as 12.8M. As open_clip does, this is
            rounded up to whole batches for each checkpoint.
        batch_size: Samples in a batch, over all devices.
        learning_rate: The highest learning rate.
        warmup: Steps in which the learning rate rises to that.
        schedule: ``cosine``; or ``constant_cooldown``, which stays at the highest learning rate and falls to 0 in the
            end, so that the part before is the same for any length of training.
        cooldown_checkpoints: With ``constant_cooldown``: the learning rate falls from so many checkpoints before the
            end on.
        checkpoints: How many checkpoints there are, evenly spread over the samples seen.
        beta1: Of AdamW.
        beta2: Of AdamW.
        epsilon: Of AdamW.
        weight_decay: Of AdamW.
        grad_clip_norm: The most that the norm of a step's gradient may be; by default any.
        precision: Number format of training on a GPU. A CPU trains in fp32.
        grad_checkpointing: Compute activations a second time, to need less memory on a GPU.
    """

    model: Annotated[str, Field(min_length=1)] | dict[str, Any]
    samples_seen: SampleCount
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    warmup: Annotated[int, Field(ge=0)] = 500
    schedule: Schedule = "cosine"
    cooldown_checkpoints: Annotated[int, Field(ge=1)] = 1
    checkpoints: Annotated[int, Field(ge=1, le=1000)] = 5
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    epsilon: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.2
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: TrainingPrecision = "amp"
    grad_checkpointing: bool = True

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        missing = [key for key in _MODEL_KEYS if isinstance(self.model, dict) and key not in self.model]
        if missing:
            raise PydanticCustomError(
                "model", "model: a configuration of open_clip needs {missing}", {"missing": ", ".join(missing)}
            )
        if self.schedule == "constant_cooldown" and self.cooldown_checkpoints > self.checkpoints:
            raise PydanticCustomError(
                "cooldown",
                "cooldown_checkpoints: {cooldown} of {checkpoints} checkpoints; give at most as many",
                {"cooldown": self.cooldown_checkpoints, "checkpoints": self.checkpoints},
            )
        return self

    @property
    def steps_per_checkpoint(self) -> int:
        """Steps from one checkpoint to the next, as open_clip rounds them with at most one loader process."""
        return -(-(self.samples_seen // self.checkpoints or 1) // self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_checkpoint * self.checkpoints


SCALES: dict[str, Scale] = {
    "debug": Scale(model="ViT-B-32", samples_seen=128_000, batch_size=1_024, learning_rate=1e-4),
    "small": Scale(model="ViT-B-32", samples_seen=12_800_000, batch_size=4_096),
    "medium": Scale(model="ViT-B-32", samples_seen=128_000_000, batch_size=4_096),
    "large": Scale(model="ViT-B-16", samples_seen=1_280_000_000, batch_size=8_192),
    "xlarge": Scale(
        model="ViT-L-14",
        samples_seen=12_800_000_000,
        batch_size=90_112,
        learning_rate=1e-3,
        warmup=10_000,
        beta2=0.95,
    ),
}
"""DataComp's scales by name (Gadre et al. 2023, arXiv 2304.14108, and its authors' scale_configs.py and train.py).

What those leave to open_clip is as in its defaults for vision transformers. A pool has as many samples as are seen.
"""
