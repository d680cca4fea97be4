"""A CLIP of 0.2 million weights next to open_clip's own word pieces, in a folder as open_clip's local-dir: reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def make_tiny_clip(folder: Path) -> Path:
    """Write the configuration and random weights into an existing folder."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = open_clip.CLIP(**CONFIGURATION)
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    described = {"model_cfg": CONFIGURATION, "preprocess_cfg": {"size": 32}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder
