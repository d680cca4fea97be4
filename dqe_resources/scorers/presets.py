"""Models of open_clip that are used to choose data, by short names, with the licences of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PresetName = Literal[
    "clip_b32",
    "clip_l14",
    "laion2b_b32",
    "datacomp_l14",
    "dfn_public",
    "dfn2b_b16",
    "dfn2b_l14",
    "dfn5b_h14",
    "dfn5b_h14_378",
    "siglip_b16",
    "siglip_so400m",
    "siglip2_b16",
    "siglip2_so400m",
    "metaclip_b32",
    "metaclip_l14",
    "metaclip_h14",
    "metaclip2_h14",
]

_AMLR = "apple-amlr (research only)"
_NO_COMMERCE = "CC-BY-NC-4.0"


@dataclass(frozen=True, slots=True)
class Preset:
    """A model.

    Attributes:
        architecture: as open_clip names it.
        weights: their tag in open_clip; None if the architecture comes with them.
        licence: of the weights.
        meaning: what the model is, for a person.
    """

    architecture: str
    weights: str | None
    licence: str
    meaning: str


PRESETS: dict[str, Preset] = {
    "clip_b32": Preset("ViT-B-32-quickgelu", "openai", "MIT", "OpenAI's CLIP, one of DataComp's two scores"),
    "clip_l14": Preset("ViT-L-14-quickgelu", "openai", "MIT", "OpenAI's CLIP, the other, and LAION's heads' model"),
    "laion2b_b32": Preset("ViT-B-32", "laion2b_s34b_b79k", "MIT", "CLIP, trained on LAION-2B"),
    "datacomp_l14": Preset("ViT-L-14", "datacomp_xl_s13b_b90k", "MIT", "CLIP, trained on DataComp-1B"),
    "dfn_public": Preset("hf-hub:apple/DFN-public", None, _AMLR, "the DFN filter network trained on public data"),
    "dfn2b_b16": Preset("ViT-B-16-quickgelu", "dfn2b", _AMLR, "CLIP, trained on what a DFN chose"),
    "dfn2b_l14": Preset("ViT-L-14-quickgelu", "dfn2b", _AMLR, "CLIP, trained on what a DFN chose"),
    "dfn5b_h14": Preset("ViT-H-14-quickgelu", "dfn5b", _AMLR, "CLIP, trained on what a DFN chose"),
    "dfn5b_h14_378": Preset("ViT-H-14-378-quickgelu", "dfn5b", _AMLR, "the same at 378 pixels"),
    "siglip_b16": Preset("ViT-B-16-SigLIP", "webli", "Apache-2.0", "SigLIP (arXiv 2303.15343)"),
    "siglip_so400m": Preset("ViT-SO400M-14-SigLIP-384", "webli", "Apache-2.0", "SigLIP (arXiv 2303.15343)"),
    "siglip2_b16": Preset("ViT-B-16-SigLIP2", "webli", "Apache-2.0", "SigLIP 2 (arXiv 2502.14786), many languages"),
    "siglip2_so400m": Preset(
        "ViT-SO400M-16-SigLIP2-384", "webli", "Apache-2.0", "SigLIP 2 (arXiv 2502.14786), many languages"
    ),
    "metaclip_b32": Preset("ViT-B-32-quickgelu", "metaclip_fullcc", _NO_COMMERCE, "MetaCLIP (arXiv 2309.16671)"),
    "metaclip_l14": Preset("ViT-L-14-quickgelu", "metaclip_fullcc", _NO_COMMERCE, "MetaCLIP (arXiv 2309.16671)"),
    "metaclip_h14": Preset("ViT-H-14-quickgelu", "metaclip_fullcc", _NO_COMMERCE, "MetaCLIP (arXiv 2309.16671)"),
    "metaclip2_h14": Preset(
        "ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", _NO_COMMERCE, "MetaCLIP 2, many languages"
    ),
}
"""DFN: Fang et al. 2023, arXiv 2309.17425. Licences are those of the models' cards on the hub: read them there."""
