"""The parts of the caption benchmarks that need no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from benchmarks import caption_client, caption_gpu, random_vlm
from dqe_resources.captioners import served_process as engine
from dqe_resources.captioners.protocol import Caption
from dqe_resources.models.torchvision_cpu import ensure_torchvision

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module", params=sorted(random_vlm.SHAPES))
def tiny(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    assert 100_000 < random_vlm.build(request.param, folder, tiny=True, tiles=6) < 1_000_000
    return folder


def test_the_shapes_are_those_of_the_real_models():
    ensure_torchvision()
    import torch
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    kinds = {
        # As the models' cards give them, in millions of parameters.
        "internvl2-8b": (InternVLConfig, InternVLForConditionalGeneration, 8076),
        "qwen2.5-vl-7b": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, 8292),
    }
    for name, (config, kind, millions) in kinds.items():
        shape = random_vlm.SHAPES[name]
        with torch.device("meta"):
            model = kind(config(text_config=shape.text, vision_config=shape.vision, tie_word_embeddings=False))
        assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.005), name


def test_a_model_can_be_loaded_and_generates_as_many_tokens_as_wanted(tiny):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(tiny), AutoProcessor.from_pretrained(tiny)
    content = [{"type": "image", "image": Image.new("RGB", (500, 375), "red")}, {"type": "text", "text": "What is it?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.dtype)
    generated = model.generate(**inputs, min_new_tokens=5, max_new_tokens=5, do_sample=False)
    assert generated.shape[1] - inputs["input_ids"].shape[1] == 5
    assert processor.decode(generated[0, -5:])
    if "internvl" in str(tiny):
        assert len(inputs["pixel_values"]) == 7  # 3 x 2 tiles, and the whole


@pytest.mark.skipif(find_spec("lmdeploy") is None, reason="lmdeploy is not installed: extra 'gpu'")
def test_lmdeploy_reads_the_model_and_prepares_an_image(tiny, monkeypatch):
    import asyncio

    import lmdeploy.vl.engine as vision
    from lmdeploy.archs import check_vl_llm, get_model_arch
    from lmdeploy.messages import PytorchEngineConfig, VisionConfig
    from lmdeploy.model import get_chat_template
    from lmdeploy.serve.processors import MultimodalProcessor
    from lmdeploy.tokenizer import Tokenizer
    from lmdeploy.turbomind.supported_models import is_supported

    monkeypatch.setattr(vision, "is_bf16_supported", lambda _: True)  # else it asks the GPU
    _, config = get_model_arch(str(tiny))
    assert is_supported(str(tiny))
    assert check_vl_llm("turbomind", config.to_dict())
    encoder = vision.ImageEncoder(str(tiny), "pytorch", VisionConfig(8), backend_config=PytorchEngineConfig())
    template = get_chat_template(str(tiny))
    processor = MultimodalProcessor(Tokenizer(str(tiny)), template, vl_encoder=encoder, backend="pytorch")
    image = {"type": "image_data", "image_data": {"data": Image.new("RGB", (500, 375))}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    prepared = asyncio.run(processor.get_prompt_input(messages, do_preprocess=True))
    (item,) = prepared["multimodal"]
    assert len(prepared["input_ids"]) > int(item["image_tokens"])
    assert prepared["prompt"].endswith("<|im_start|>assistant\n")


def made(count: int, **values) -> list[Caption]:
    return [Caption("x", **{"prompt_tokens": 3328, "completion_tokens": 150, **values}) for _ in range(count)]


def test_the_figures_of_a_pass():
    usage = caption_gpu.Usage([90.0, 100.0], [60_000.0, 61_000.0])
    row = caption_gpu.figures("internvl2-8b", "in process", caption_gpu.Measured(made(200), 30.0, 1.5, usage), 55.0)
    assert row["seconds_per_caption"] == pytest.approx(0.15)
    assert row["times_the_reference"] == pytest.approx(3.0)
    assert row["captions_per_second"] == pytest.approx(200 / 30)
    assert row["tokens_per_second"] == pytest.approx(1000)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (3328, 150)
    assert (row["gpu_utilisation"], row["gpu_memory_mib"]) == (95, 61_000)
    assert row["our_cpu_ms_per_caption"] == pytest.approx(7.5)
    assert row["our_share_of_wall"] == pytest.approx(0.05)


def test_a_pass_with_a_failed_caption_gives_no_figures():
    captions = [*made(3), Caption(None, "error", "out of memory")]
    measured = caption_gpu.Measured(captions, 1.0, None, caption_gpu.Usage())
    with pytest.raises(RuntimeError, match="internvl2-8b, served: 1 of 4 failed: out of memory"):
        caption_gpu.figures("internvl2-8b", "served", measured, None)


def test_our_cpu_is_that_of_our_threads():
    before = caption_gpu.our_cpu()
    while caption_gpu.our_cpu() - before < 0.05:
        sum(range(10_000))
    assert caption_gpu.our_cpu() - before < 5


def test_the_gpu_is_watched_while_captions_are_made(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 87, 61234\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(caption_gpu, "_SAMPLE_SECONDS", 0.01)
    measured = caption_gpu.measure(lambda some: [_wait_for_a_look()] * len(some), [None] * 4, 2, None)
    assert len(measured.captions) == 4
    assert measured.cpu is None
    assert set(measured.usage.utilisation) == {87.0}
    assert set(measured.usage.memory) == {61234.0}


def _wait_for_a_look() -> Caption:
    import time

    time.sleep(0.2)
    return Caption("x")


@pytest.mark.skipif(bool(engine.gpus()) and find_spec("lmdeploy") is not None, reason="this machine can run it")
def test_it_says_why_it_cannot_run_here():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.caption_gpu"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert "docs/gpu.md" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_answers_after_its_latency_and_the_client_is_measured_against_it():
    file = BytesIO()
    Image.new("RGB", (32, 24)).save(file, "JPEG")
    row = caption_client.throughput("stage", [file.getvalue()], 0.1, 4, 3)
    assert row["ideal"] == 40
    assert 0 < row["of_ideal"] <= 1
    assert row["captions_per_second"] == pytest.approx(row["of_ideal"] * 40)
    assert 0 < row["cpu_ms_per_caption"] < 1000


def test_the_photos_are_of_the_size_that_is_said():
    photos = caption_client.photos()
    assert len(photos) > 20
    for photo in photos:
        with Image.open(BytesIO(photo)) as image:
            assert image.size == (500, 375)
            assert image.format == "JPEG"
