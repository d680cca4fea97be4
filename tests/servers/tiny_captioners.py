"""Captioning models of few random weights, in the forms of BLIP, Florence-2 and Moondream, as a hub would give them.

Their captions are noise, but they depend on the image, and greedy decoding gives the same ones each time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32

_WORDS = ("a", "dog", "cat", "red", "blue", "tree", "on", "the", "grass", "and", "sky", "sea", "picture", "of")


def _tokenizer(special: dict[str, str], more: tuple[str, ...] = ()):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate((*special.values(), *more, *_WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    begin, end = special["bos_token"], special["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, words[begin]), (end, words[end])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special), words


def build_tiny_blip(folder: Path) -> None:
    """BLIP: takes no prompt but the beginning of a caption."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[DEC]", "eos_token": "[SEP]"}
    tokenizer, words = _tokenizer(special)
    BlipProcessor(BlipImageProcessor(size={"height": SIDE, "width": SIDE}), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": len(words),
        "encoder_hidden_size": 32,
        "bos_token_id": words["[DEC]"],
        "eos_token_id": words["[SEP]"],
        "sep_token_id": words["[SEP]"],
        "pad_token_id": words["[PAD]"],
        "initializer_range": 0.5,
    }
    vision = {**sizes, "image_size": SIDE, "patch_size": 8, "initializer_range": 0.5}
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)


def build_tiny_florence(folder: Path) -> None:
    """Florence-2: takes task tokens, and has an encoder and a decoder."""
    import torch
    from transformers import (
        AddedToken,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer, words = _tokenizer(special, ("<image>",))
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", special=True)]})
    tokenizer.image_token, tokenizer.image_token_id = "<image>", words["<image>"]
    tokenizer.init_kwargs["image_token"] = "<image>"
    images = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=False
    )
    images.image_seq_length = 65
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": words["<s>"], "eos_token_id": words["</s>"], "pad_token_id": words["<pad>"]}
    text = {
        "model_type": "bart",
        "vocab_size": len(words),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "decoder_start_token_id": words["</s>"],
        "forced_eos_token_id": None,
        "init_std": 0.5,
        **ends,
    }
    vision = {
        "depths": [1],
        "patch_size": [7],
        "patch_stride": [4],
        "patch_padding": [3],
        "patch_prenorm": [False],
        "embed_dim": [32],
        "num_heads": [2],
        "num_groups": [2],
        "window_size": 4,
        "projection_dim": 32,
        "max_temporal_embeddings": 4,
        "max_position_embeddings": 16,
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=words["<image>"], **ends)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)


_OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel


class OwnConfig(PretrainedConfig):
    model_type = "tiny_own_code"


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.post_init()

    def query(self, image, question):
        return {"answer": f" {image.width} pixels wide: {question}"}
"""


def build_tiny_own_code(folder: Path) -> None:
    """A model that comes with its own code, which answers questions as Moondream's does: ``query``."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "own.py").write_text(_OWN_CODE)
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny_own_code", "auto_map": classes}))
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})
