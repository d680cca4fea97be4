"""A vision-language model of 0.1 million random weights, with a tokenizer and a processor of its own.

It is built in a second from nothing but transformers: an Idefics3 whose tokenizer knows single bytes. Its captions are
noise, but they depend on the image and on the prompt, and greedy decoding gives the same ones each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAD, BEGIN, END, UNKNOWN, IMAGE, AROUND_IMAGE, WHOLE_IMAGE, END_OF_TURN = range(8)
SPECIAL = (
    *("<pad>", "<s>", "</s>", "<unk>"),
    *("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
)
SIDE = 64

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ message['role'] }}: {% if message['content'] is string %}{{ message['content'] }}{% else %}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif -%}
{%- endfor -%}
{%- endif %}<end_of_utterance>
{% endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""


def build_tiny_vlm(folder: Path, *, seed: int = 0, words: Sequence[str] = (), loud: Sequence[str] = ()) -> None:
    """Write the model, its tokenizer and its processor to a folder, as a hub would give them.

    Args:
        folder: where to.
        seed: of the weights.
        words: tokens of more than one byte.
        loud: tokens that are sometimes likely and sometimes not, more than others.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {
        token: number for number, token in enumerate((*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL[UNKNOWN]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[BEGIN],
        eos_token=SPECIAL[END_OF_TURN],
        unk_token=SPECIAL[UNKNOWN],
        additional_special_tokens=list(SPECIAL[IMAGE:END_OF_TURN]),
    )
    fast.add_tokens(list(words))
    images = Idefics3ImageProcessor(
        size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, do_image_splitting=False
    )
    Idefics3Processor(images, fast, image_seq_len=16, chat_template=CHAT_TEMPLATE).save_pretrained(folder)

    ends = {"pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END_OF_TURN}
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config={
                "model_type": "llama",
                "vocab_size": len(fast),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 4096,
                "initializer_range": 0.2,
                **ends,
            },
            vision_config={
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 8,
                "initializer_range": 0.2,
            },
            scale_factor=2,
            image_token_id=IMAGE,
            **ends,
        )
    )
    model.generation_config.update(pad_token_id=PAD, eos_token_id=END_OF_TURN)
    with torch.no_grad():
        model.lm_head.weight[fast.convert_tokens_to_ids(list(loud))] *= 4
    model.save_pretrained(folder)
