"""The card next to the shards of a subset: what is in them, and how the subset came to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqe_assets.core.metadata import markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD = "README.md"

_PART = ("part", "weight", "samples", "drawn", "share", "repeats", "max_repeats")
_DESCRIBED = ("expression", "mixture", "seed", "composition", "distinct_uids")


def described(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest of a subset says of how it came to be."""
    return {key: manifest[key] for key in _DESCRIBED if key in manifest}


def shards_card(manifest: Mapping[str, Any]) -> str:
    """The card, in Markdown.

    Args:
        manifest: of the shards, as ``write_shards`` returns it; its ``subset`` may hold what ``described`` gives.
    """
    subset = manifest["subset"]
    different = subset.get("distinct_uids")
    repeated = f", {different:,} different ones" if different not in {None, subset["uids"]} else ""
    missing = manifest["missing"]["count"]
    lines = [
        f"# {subset['file'].removesuffix('.npy')}",
        f"{manifest['samples']:,} samples in {len(manifest['shards']):,} WebDataset shards. The subset has "
        f"{subset['uids']:,}{repeated}"
        + (f"; {missing:,} of them were missing where it was copied from." if missing else "."),
    ]
    if repeated:
        lines.append("A sample that the subset has several times is written as often: its keys are `<uid>-<copy>`.")
    if "composition" in subset:
        rows = [[part[name] for name in _PART] for part in subset["composition"]]
        lines += [
            "## What it is mixed of",
            markdown_table(_PART, rows),
            f"`samples` are those of the part, `drawn` those of the mixture, with the seed {subset['seed']}.",
        ]
    if "expression" in subset:
        lines += ["## What was kept", f"```\n{subset['expression']}\n```"]
    lines.append("`manifest.json` has the digest of each shard.")
    return "\n\n".join(lines) + "\n"
