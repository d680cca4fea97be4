"""DataComp's four scales: how many samples are trained on, which model, and the fixed hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """One scale of DataComp (arXiv 2304.14108, and its authors' scale_configs.py and train.py).

    What those leave to open_clip is as in its defaults for vision transformers.

    Attributes:
        name: of the scale.
        pool_size: samples of the pool to filter; the training sees as many, whatever the subset's size.
        model: open_clip's name of the model.
        batch_size: global, over all devices.
        learning_rate: peak of the cosine schedule.
        warmup: steps of linear warm-up.
        beta2: of AdamW; 0.98 is open_clip's default.
        beta1: of AdamW.
        epsilon: of AdamW.
        weight_decay: of AdamW.
        checkpoints: how many there are, evenly spread over the samples seen.
    """

    name: str
    pool_size: int
    model: str
    batch_size: int
    learning_rate: float
    warmup: int
    beta2: float = 0.98
    beta1: float = 0.9
    epsilon: float = 1e-6
    weight_decay: float = 0.2
    checkpoints: int = 5

    @property
    def samples_seen(self) -> int:
        """Samples seen in training: as many as the pool has."""
        return self.pool_size


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale("small", 12_800_000, "ViT-B-32", 4_096, 5e-4, 500),
        Scale("medium", 128_000_000, "ViT-B-32", 4_096, 5e-4, 500),
        Scale("large", 1_280_000_000, "ViT-B-16", 8_192, 5e-4, 500),
        Scale("xlarge", 12_800_000_000, "ViT-L-14", 90_112, 1e-3, 10_000, beta2=0.95),
    )
}
"""The scales by name."""
