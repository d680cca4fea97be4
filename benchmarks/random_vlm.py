"""Vision-language models of well-known shapes with random weights, built where they are needed from no hub.

    python -m benchmarks.random_vlm internvl2-8b FOLDER

A model of the same shape takes the same time and memory as the real one; what it says is noise. It has a tokenizer
that knows the single bytes and enough made-up tokens to fill the vocabulary, and its family's own processor.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dqe_resources.models.torchvision_cpu import ensure_torchvision

if TYPE_CHECKING:
    from collections.abc import Callable

_ENDS = {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "</s>", "unk_token": "<unk>"}

_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' %}<IMAGE>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
_QWEN_TOKENS = {
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}


@dataclass(frozen=True)
class Shape:
    """What a family's configuration takes: dimensions of the language model and of the vision tower."""

    text: dict[str, Any]
    vision: dict[str, Any]
    build: Callable[[Shape, Path, int], int]


def _internvl(shape: Shape, folder: Path, tiles: int) -> int:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    side = shape.vision["image_size"][0]
    tokens_of_a_tile = (side // 14 // 2) ** 2
    template = _CHAT_TEMPLATE.replace("<IMAGE>", "<IMG_CONTEXT>\n")
    tokenizer = _tokenizer(shape.text["vocab_size"], _INTERNVL_TOKENS, template)
    images = GotOcr2ImageProcessor(
        size={"height": side, "width": side}, crop_to_patches=True, min_patches=1, max_patches=tiles
    )
    processor = InternVLProcessor(
        images, tokenizer, InternVLVideoProcessor(), image_seq_length=tokens_of_a_tile, chat_template=template
    )
    config = InternVLConfig(
        text_config=shape.text,
        vision_config=shape.vision,
        image_token_id=processor.image_token_id,
        image_seq_length=tokens_of_a_tile,
        tie_word_embeddings=False,
    )
    return _save(InternVLForConditionalGeneration, config, processor, folder)


def _qwen(shape: Shape, folder: Path, _: int) -> int:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    template = _CHAT_TEMPLATE.replace("<IMAGE>", "<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer = _tokenizer(shape.text["vocab_size"], _QWEN_TOKENS, template)
    processor = Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=template)
    config = Qwen2_5_VLConfig(
        text_config={**shape.text, **_ends(tokenizer)},
        vision_config=shape.vision,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
        vision_end_token_id=tokenizer.vision_eos_token_id,
        tie_word_embeddings=False,
    )
    return _save(Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def _ends(tokenizer: Any) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}


def _tokenizer(size: int, special: dict[str, str], template: str) -> Any:
    """Bytes, the special tokens, and made-up ones up to a size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*_ENDS.values(), "<|im_start|>", *special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = [*known, *(f"token{number}" for number in range(len(known), size))]
    model = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, **_ENDS, extra_special_tokens=special, chat_template=template, model_max_length=32_768
    )


def _save(kind: Any, config: Any, processor: Any, folder: Path) -> int:
    import torch

    for part in (config, config.text_config):
        part.update(_ends(processor.tokenizer))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device("meta"):
        model = kind._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001
    model.to_empty(device=device)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.02)
            else:
                weights.fill_(0.0 if name.endswith("bias") else 1.0)
    model.generation_config.update(**_ends(processor.tokenizer))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return int(sum(weights.numel() for weights in model.parameters()))


SHAPES = {
    # InternViT-300M, and a language model with the dimensions of InternLM2.5-7B in Llama's layout.
    "internvl2-8b": Shape(
        text={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 92_553,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "tie_word_embeddings": False,
        },
        vision={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "attention_bias": True,
            "image_size": [448, 448],
            "patch_size": [14, 14],
        },
        build=_internvl,
    ),
    "qwen2.5-vl-7b": Shape(
        text={
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": False,
        },
        vision={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "window_size": 112,
        },
        build=_qwen,
    ),
}

_TINY_TEXT = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_TINY = {
    "internvl2-8b": (
        _TINY_TEXT,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
        },
    ),
    "qwen2.5-vl-7b": (
        {
            **_TINY_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
        },
        {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "fullatt_block_indexes": [1],
        },
    ),
}


def build(name: str, folder: Path, *, tiny: bool = False, tiles: int = 12) -> int:
    """Write a model with its tokenizer and its processor as ``save_pretrained`` does.

    Args:
        name: one of ``SHAPES``.
        folder: where to.
        tiny: of the same family, but a few hundred thousand parameters.
        tiles: for InternVL, the most tiles that an image is cut into, not counting the one of the whole.

    Returns:
        Number of its parameters.
    """
    ensure_torchvision()
    shape = SHAPES[name]
    if tiny:
        text, vision = _TINY[name]
        shape = Shape({**shape.text, **text}, {**shape.vision, **vision}, shape.build)
    return shape.build(shape, folder, tiles)


def main() -> None:
    """Build one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--tiles", type=int, default=12)
    options = parser.parse_args()
    print(f"{build(options.name, options.folder, tiny=options.tiny, tiles=options.tiles):,} parameters")


if __name__ == "__main__":
    main()
