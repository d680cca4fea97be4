"""Finds and loads a model of open_clip, or says why that fails."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dqe_resources.errors import WholeRunError, one_line
from dqe_resources.models.open_clip_network import OpenClipNetwork
from dqe_resources.models.packages import PackageError

Precision = Literal["fp32", "bf16", "fp16"]

CONFIGURATION = ".json"
"""Ends the path of a model's configuration."""


class OpenClipError(WholeRunError):
    """A model of open_clip cannot be loaded; says which and what to do."""


def import_open_clip() -> Any:
    """The package open_clip.

    Raises:
        PackageError: it is not installed.
    """
    from dqe_resources.models.torchvision_cpu import ensure_torchvision

    try:
        ensure_torchvision()
        import open_clip
    except ImportError as error:
        raise PackageError("open_clip is not installed: pip install '.[clip]'") from error
    return open_clip


# Two: a scorer's and a tagger's.
@lru_cache(maxsize=2)
def load_network(
    architecture: str, weights: str | None, precision: Precision, device: str, _files: tuple[str, ...]
) -> OpenClipNetwork:
    """The network with its weights; the two that were last asked for are kept.

    Args:
        architecture: as open_clip names it, or the path of a configuration.
        weights: a tag or the path of a checkpoint; None if the architecture comes with them.
        precision: of the weights and of what runs through them.
        device: where it runs.
        _files: digests of the local files among these, so that a changed file is loaded again.

    Raises:
        OpenClipError: it cannot be loaded.
        PackageError: open_clip is not installed.
    """
    open_clip = import_open_clip()
    from pickle import UnpicklingError

    name = registered_name(architecture)
    try:
        # The text tower as a module of its own takes texts that are not padded to the full length.
        with warnings.catch_warnings():
            # Weights run with another activation than they were trained with give poor scores, and no error.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            module, preprocess = open_clip.create_model_from_pretrained(
                name, pretrained=weights, precision=precision, device=device, force_custom_text=True
            )
        tokenizer = open_clip.get_tokenizer(name)
    except UserWarning as error:
        raise OpenClipError(
            f"{name} has another activation than {weights} was trained with ({one_line(error)}): "
            f"use the architecture {name}-quickgelu"
        ) from error
    except (OSError, RuntimeError, UnpicklingError, ValueError, KeyError) as error:
        raise OpenClipError(
            f"open_clip cannot load {architecture} {weights or ''}: {one_line(error)[:300]}; give a model and weights "
            "that `open_clip.list_pretrained()` has. What is not on this machine comes from the Hugging Face hub: run "
            "where that can be reached, or fetch a checkpoint there and give its path as weights, or a folder as "
            "architecture: local-dir:FOLDER"
        ) from error
    if isinstance(module.text, open_clip.transformer.TextTransformer) and module.text.attn_mask is not None:
        module.text.transformer.register_forward_pre_hook(_cut_mask, with_kwargs=True)
    dtype = open_clip.get_input_dtype(precision) or next(module.parameters()).dtype
    return OpenClipNetwork(module.eval(), preprocess, tokenizer, device, dtype, dimension_of(architecture))


def _cut_mask(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The causal mask as long as the text: open_clip cuts the positions so, but not the mask."""
    length, mask = arguments[0].shape[1], named["attn_mask"]
    return arguments, {**named, "attn_mask": mask[..., :length, :length]}


@lru_cache(maxsize=8)
def dimension_of(architecture: str) -> int:
    """Length of a model's vectors, from its configuration alone.

    Raises:
        OpenClipError: there is no such model.
        PackageError: open_clip is not installed.
    """
    open_clip = import_open_clip()
    try:
        configuration = open_clip.get_model_config(registered_name(architecture))
    except (OSError, ValueError) as error:
        raise OpenClipError(f"open_clip has no configuration of {architecture}: {one_line(error)[:300]}") from error
    if not configuration:
        raise OpenClipError(f"open_clip has no model {architecture}; `open_clip.list_models()` lists all of them")
    return int(configuration["embed_dim"])


def registered_name(architecture: str) -> str:
    """The name of a model in open_clip; a configuration file is registered there first."""
    if not architecture.endswith(CONFIGURATION):
        return architecture
    open_clip = import_open_clip()
    name = Path(architecture).stem
    open_clip.add_model_config(architecture)
    if name not in open_clip.list_models():
        raise OpenClipError(
            f"{architecture}: not a configuration of open_clip: it needs embed_dim, vision_cfg and text_cfg"
        )
    return name
