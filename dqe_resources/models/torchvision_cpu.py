"""Makes torchvision importable if torch is built for the CPU and torchvision for CUDA, as on PyPI."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_libraries: list[Any] = []
"""The definitions last as long as the object that made them."""


def ensure_torchvision() -> None:
    """Import torchvision, with its two operators declared first where its own binary cannot be loaded.

    To be called before timm or transformers' models are imported. A matched pair of torch and torchvision is left as
    it is. Where that is needed, everything works but ``torchvision.io`` and the operators themselves.

    Raises:
        RuntimeError: torchvision fails for another reason.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        import torch

        library = torch.library.Library("torchvision", "FRAGMENT")
        for signature in _SIGNATURES:
            library.define(signature)
        _libraries.append(library)
        import_module("torchvision")
