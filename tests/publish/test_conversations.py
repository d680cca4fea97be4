"""Conversations to fine-tune on: as each trainer documents them, and tried by training a few steps."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from dqe_assets.publish.conversations import plain_text
from dqe_assets.publish.dataset import Request, opening, publish
from dqe_assets.publish.places.folder import Folder
from dqe_assets.publish.questions import Questions, load_questions
from dqe_resources.errors import UsageError
from dqe_resources.models.torchvision_cpu import ensure_torchvision

if TYPE_CHECKING:
    from pathlib import Path

    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.publish.places.protocol import File, Written

FEW = "width = 640 AND NOT is_duplicate"

TURN = {"type": "object", "required": ["from", "value"], "properties": {"value": {"type": "string", "minLength": 1}}}
# One media tag in the question for the one image, and none in the answer: Qwen-VL says so, and LLaMA-Factory counts.
TURNS = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "prefixItems": [
        {**TURN, "properties": {"from": {"const": "human"}, "value": {"pattern": "^<image>\\n(?!.*<image>)."}}},
        {**TURN, "properties": {"from": {"const": "gpt"}, "value": {"pattern": "^(?!.*<(image|video|audio)>)."}}},
    ],
}
PATH = {"type": "string", "pattern": "^images/"}

LLAVA = {"type": "object", "required": ["id", "image", "conversations"]}
LLAVA["properties"] = {"id": {"type": "string"}, "image": PATH, "conversations": TURNS}
INTERNVL = {**LLAVA, "required": ["id", "image", "width", "height", "conversations"]}
INTERNVL["properties"] = {**LLAVA["properties"], "width": {"type": "integer"}, "height": {"type": "integer"}}
QWEN_VL = {"type": "object", "required": ["image", "conversations"], "properties": LLAVA["properties"]}
LLAMA_FACTORY = {"type": "object", "required": ["conversations", "images"]}
LLAMA_FACTORY["properties"] = {
    "conversations": TURNS,
    "images": {"type": "array", "items": PATH, "minItems": 1, "maxItems": 1},
}


def lines_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    if kind == "llava":
        return json.loads((folder / "train.json").read_text())
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("kind", "schemas"), [("llava", [LLAVA, QWEN_VL]), ("sharegpt", [INTERNVL, QWEN_VL, LLAMA_FACTORY])]
)
def test_conversations_are_as_trainers_document_them(
    opened: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, schemas: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    manifest = publish(opened, out, Request(FEW, "best", kind, 7))
    lines = lines_of(out, kind)
    assert len(lines) == manifest["samples"] > 10
    questions = {question for style in load_questions().styles for question in style.questions}
    for line in lines:
        for schema in schemas:
            jsonschema.validate(line, schema)
        data = (out / line["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == line["sha256"]
        with Image.open(out / line["image"]) as image:
            assert image.size == (line.get("width", image.width), line.get("height", image.height))
        assert line["conversations"][0]["value"].removeprefix("<image>\n") in questions
    assert {line["image"].split("/")[1] for line in lines} == {f"{n:05d}" for n in range(-(-len(lines) // 7))}
    with opened.warehouse.connect() as connection:
        best = dict(connection.execute("SELECT uid, caption FROM best_captions").fetchall())
    assert [line["conversations"][1]["value"] for line in lines] == [best[line["id"]].strip() for line in lines]
    assert manifest["questions"]["version"] == "1"

    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded["id"] == [line["id"] for line in lines]
    assert [[dict(turn) for turn in turns] for turns in loaded["conversations"]] == [
        line["conversations"] for line in lines
    ]
    assert opening(manifest, "s3://bucket/x") == (
        f'datasets.load_dataset("json", data_files="s3://bucket/x/train.json{"l" * (kind == "sharegpt")}")'
    )
    if kind == "sharegpt":
        (described,) = json.loads((out / "dataset_info.json").read_text()).values()
        assert described["columns"] == {"messages": "conversations", "images": "images"}
        assert (out / described["file_name"]).is_file()
        (meta,) = json.loads((out / "internvl.json").read_text()).values()
        assert (out / meta["root"] / meta["annotation"]).is_file()
        assert meta["length"] == len(lines)


def test_what_stopped_goes_on_and_a_lost_image_is_written_again(
    opened: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = Folder.write

    def counted(place: Folder, file: File) -> Written:
        if len(written) == 9:
            raise KeyboardInterrupt
        written.append(file.name)
        return write(place, file)

    monkeypatch.setattr(Folder, "write", counted)
    request = Request(FEW, "original", "llava", 100)
    with pytest.raises(KeyboardInterrupt):
        publish(opened, tmp_path / "out", request)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "train.json").exists()
    monkeypatch.setattr(Folder, "write", lambda place, file: written.append(file.name) or write(place, file))
    first = publish(opened, tmp_path / "out", request)
    images = [name for name in written if name.startswith("images/")]
    assert len(images) == len(set(images)) == first["samples"], "none is written twice"
    publish(opened, tmp_path / "fresh", request)
    names = ["train.json", *images, "manifest.json"]
    assert all((tmp_path / "out" / one).read_bytes() == (tmp_path / "fresh" / one).read_bytes() for one in names)
    (tmp_path / "out" / images[3]).unlink()
    written.clear()
    assert publish(opened, tmp_path / "out", request) == first
    assert written == [images[3], "train.json"]
    written.clear()
    publish(opened, tmp_path / "out", request)
    assert not written


def test_the_question_is_that_of_the_captions_style() -> None:
    questions = load_questions()
    asked = {style.name: style.questions for style in questions.styles}
    assert questions.about("0" * 32, "IMG_1.jpg", "original") in asked["alt_text"]
    assert questions.about("0" * 32, "A red bus.", "labels") in asked["brief"]
    assert questions.about("0" * 32, "word " * 26, "labels") in asked["detailed"]
    drawn = {questions.about(f"{n:032x}", "A red bus.", "labels") for n in range(100)}
    assert drawn == set(asked["brief"])
    assert {questions.about("0" * 32, "A red bus.", "labels") for _ in range(9)} < drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: '1'\nstyles: []", "styles: List should have at least 1 item"),
        ("version: '1'\nstyles: [{name: a, questions: ['What?'], most_words: 3}]", "the last style must take every"),
        ("version: '1'\nstyles: [{name: a, questions: ['What?'], colour: red}]", "unknown key 'colour'"),
        ("[", "cannot be read"),
    ],
)
def test_questions_of_ones_own_are_checked(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_questions(tmp_path / "mine.yaml")


def test_questions_of_ones_own_are_asked(opened: Settings, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: '7'\nstyles: [{name: all, questions: ['Was ist das?']}]")
    request = Request(FEW, "best", "sharegpt", 100, questions=tmp_path / "mine.yaml")
    manifest = publish(opened, tmp_path / "out", request)
    lines = lines_of(tmp_path / "out", "sharegpt")
    assert {line["conversations"][0]["value"] for line in lines} == {"<image>\nWas ist das?"}
    assert manifest["questions"]["version"] == "7"


@pytest.mark.parametrize(
    ("caption", "plain"),
    [
        ("a bus <image> and a car", "a bus image and a car"),
        ("<|im_end|>\n<|im_start|>user", "im_end\nim_startuser"),
        ("<<image>>", "image"),
        ("x < y and <b>", "x < y and <b>"),
        ("</img><IMG_CONTEXT>", "imgIMG_CONTEXT"),
    ],
)
def test_no_answer_has_a_special_token(caption: str, plain: str) -> None:
    assert plain_text(caption) == plain


def test_a_tiny_llava_learns_from_it(opened: Settings, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    ensure_torchvision()
    transformers = pytest.importorskip("transformers", reason="the package transformers is not installed")
    publish(opened, tmp_path / "out", Request(FEW, "labels", "llava", 100))
    lines = lines_of(tmp_path / "out", "llava")[:8]
    vocabulary = {word: n for n, word in enumerate(dict.fromkeys(["<image>", *" ".join(map(text_of, lines)).split()]))}
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(
                hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                patch_size=16,
            ),
            text_config=transformers.LlamaConfig(
                vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
            ),
            image_token_index=vocabulary["<image>"],
        )
    )  # fmt: skip
    examples = [example(tmp_path / "out", line, vocabulary, patches=4) for line in lines]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(8):
        loss = sum(model(**one).loss for one in examples) / len(examples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def text_of(line: dict[str, Any]) -> str:
    return " ".join(turn["value"] for turn in line["conversations"])


def example(folder: Path, line: dict[str, Any], vocabulary: dict[str, int], patches: int) -> dict[str, Any]:
    """What LLaVA is trained on of a line: the image in the place of its tag, and a loss on the answer alone."""
    import torch

    question, answer = (turn["value"].split() for turn in line["conversations"])
    asked = [vocabulary[word] for word in question for _ in range(patches if word == "<image>" else 1)]
    said = [vocabulary[word] for word in answer]
    with Image.open(folder / line["image"]) as image:
        pixels = np.asarray(image.convert("RGB").resize((32, 32)), np.float32).transpose(2, 0, 1) / 127.5 - 1
    return {
        "input_ids": torch.tensor([asked + said]),
        "labels": torch.tensor([[-100] * len(asked) + said]),
        "pixel_values": torch.from_numpy(pixels)[None],
    }


def test_open_clip_learns_from_tars(opened: Settings, tmp_path: Path) -> None:
    torch, webdataset = pytest.importorskip("torch"), pytest.importorskip("webdataset")
    ensure_torchvision()
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    from dqe_resources.models.open_clip_loading import import_open_clip
    from tests.tiny_clip import CONFIGURATION

    open_clip = import_open_clip()
    publish(opened, tmp_path / "out", Request(FEW, "best", "webdataset", 12))
    tars = sorted(str(path) for path in (tmp_path / "out" / "data").glob("*.tar"))
    torch.manual_seed(0)
    model, tokenizer = open_clip.CLIP(**CONFIGURATION), open_clip.SimpleTokenizer()
    preprocess = open_clip.image_transform(32, is_train=True, mean=(0.5,) * 3, std=(0.5,) * 3)
    pairs = (
        webdataset.WebDataset(tars, shardshuffle=False)
        .decode("pilrgb")
        .to_tuple("jpg;png;webp", "txt")
        .map_tuple(preprocess, lambda text: tokenizer([text])[0])
        .batched(8, partial=False)
    )
    (images, texts), *_ = pairs
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    loss_of, losses = open_clip.ClipLoss(), []
    for _ in range(8):
        loss = loss_of(*model(images, texts))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_own_questions_are_versioned() -> None:
    one = Questions.model_validate({"version": "1", "styles": [{"name": "all", "questions": ["What?"]}]})
    other = Questions.model_validate({"version": "1", "styles": [{"name": "all", "questions": ["Who?"]}]})
    assert one.described() != other.described()
