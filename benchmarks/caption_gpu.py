"""Seconds a caption on this machine's GPU, next to the reference run and to lmdeploy's own batch interface.

    python -m benchmarks.caption_gpu [--shapes internvl2-8b qwen2.5-vl-7b] [--captions 512] [--tokens 150] [--tiles 12]

Needs an NVIDIA GPU and the extra ``gpu`` (docs/gpu.md). The models have the shapes of the real ones and random weights,
built on the spot, and generate a fixed number of tokens for each photo of 500 x 375 from the embedded sample.

- in process: captioner ``lmdeploy``.
- lmdeploy alone: ``lmdeploy.pipeline`` called with all images in one list, decoded beforehand: what the engine gives
  without the platform.
- served: captioner ``openai`` and ``lmdeploy serve api_server`` as ``dqe engine up`` starts it.

The reference made a caption in 0.45 s with InternVL2-8B on one A100. Our CPU is that of the threads that prepare
images and hand captions on; its share of the wall time says whether the GPU ever waits for us. GPU figures are
nvidia-smi's, sampled while captions are made. The tokenizers know only bytes: the prompt has some 500 tokens more than
with the real ones.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.caption_client import photos
from benchmarks.common import data_folder, publish
from benchmarks.random_vlm import SHAPES
from dqe_assets.caption.prompts import prompt_of
from dqe_resources.captioners import served_process as engine
from dqe_resources.captioners.lmdeploy import LmdeployCaptioner, load
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Caption, Sample, VisionCaptioner
from dqe_resources.captioners.served_engine import ServedEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REFERENCE_SECONDS = 0.45
"""Seconds a caption of the reference run: InternVL2-8B with lmdeploy on one A100."""

_SAMPLE_SECONDS = 0.2
_OURS = ("MainThread", "ordered-map")
"""Threads that the platform runs; the others of the process are lmdeploy's."""


@dataclass
class Usage:
    """What nvidia-smi said of the first GPU, again and again: utilisation in per cent, memory in MiB."""

    utilisation: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """One pass over all images.

    Attributes:
        captions: what came of it.
        wall: seconds.
        cpu: CPU seconds of our threads; None if nobody counted.
        usage: of the GPU.
    """

    captions: list[Caption]
    wall: float
    cpu: float | None
    usage: Usage


def figures(shape: str, what: str, measured: Measured, load_seconds: float | None) -> dict[str, Any]:
    """A row of the table.

    Raises:
        RuntimeError: a caption failed, so that the figures would be of something else.
    """
    failed = [caption.error for caption in measured.captions if caption.finish_reason == "error"]
    if failed:
        raise RuntimeError(f"{shape}, {what}: {len(failed)} of {len(measured.captions)} failed: {failed[0]}")
    count = len(measured.captions)
    seconds = measured.wall / count
    tokens = sum(caption.completion_tokens or 0 for caption in measured.captions)
    return {
        "shape": shape,
        "what": what,
        "captions": count,
        "seconds_per_caption": seconds,
        "times_the_reference": REFERENCE_SECONDS / seconds,
        "captions_per_second": count / measured.wall,
        "tokens_per_second": tokens / measured.wall,
        "prompt_tokens": mean(caption.prompt_tokens or 0 for caption in measured.captions),
        "completion_tokens": tokens / count,
        "gpu_utilisation": mean(measured.usage.utilisation) if measured.usage.utilisation else None,
        "gpu_memory_mib": max(measured.usage.memory, default=None),
        "our_cpu_ms_per_caption": None if measured.cpu is None else 1000 * measured.cpu / count,
        "our_share_of_wall": None if measured.cpu is None else measured.cpu / measured.wall,
        "load_seconds": load_seconds,
    }


def missing() -> str | None:
    """Why this machine cannot run it; None if it can."""
    if find_spec("lmdeploy") is None:
        return "lmdeploy is not installed: install the extra 'gpu' in an environment of its own (docs/gpu.md)"
    if not engine.gpus():
        return "nvidia-smi shows no GPU: run it on a machine that has one (docs/gpu.md); nothing was measured"
    return None


@contextmanager
def watched() -> Iterator[Usage]:
    """Sample the GPU meanwhile."""
    usage, ended = Usage(), threading.Event()
    program = shutil.which("nvidia-smi") or "nvidia-smi"
    query = [program, "--id=0", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]

    def sample() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            told = subprocess.run(query, capture_output=True, text=True, check=True)  # noqa: S603
            utilisation, memory = map(float, told.stdout.split(","))
            usage.utilisation.append(utilisation)
            usage.memory.append(memory)

    watcher = threading.Thread(target=sample, name="nvidia-smi")
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()


def our_cpu() -> float:
    """CPU seconds of our threads so far, and of lmdeploy's; all of them last as long as the process."""
    ticks = 0
    for thread in threading.enumerate():
        if thread.name.startswith(_OURS):
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii", errors="replace")
            user, system = stat.rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
    return ticks / 100


def measure(
    ask: Callable[[list[Sample]], list[Caption]],
    samples: list[Sample],
    warm_up: int,
    cpu_of: Callable[[], float] | None,
) -> Measured:
    """A pass over some samples that nobody looks at, and one over all; ``cpu_of`` gives our CPU seconds so far."""
    ask(samples[:warm_up])
    with watched() as usage:
        wall, cpu = time.perf_counter(), cpu_of and cpu_of()
        made = ask(samples)
        return Measured(made, time.perf_counter() - wall, None if cpu_of is None else cpu_of() - (cpu or 0), usage)


def in_process(shape: str, settings: LmdeployCaptioner, samples: list[Sample], warm_up: int) -> list[dict[str, Any]]:
    """The captioner, and lmdeploy alone on the same loaded model."""
    started = time.perf_counter()
    loaded = load(settings)
    seconds = time.perf_counter() - started
    try:
        ours = measure(
            lambda some: [c for _, c in settings.caption_with(loaded, iter(some))], samples, warm_up, our_cpu
        )
        alone = measure(lambda some: _alone(loaded.pipeline, settings, some), samples, warm_up, None)
    finally:
        loaded.close()
    return [figures(shape, "in process", ours, seconds), figures(shape, "lmdeploy alone", alone, None)]


def _alone(pipeline: Any, settings: LmdeployCaptioner, samples: list[Sample]) -> list[Caption]:
    from lmdeploy import GenerationConfig
    from PIL import Image

    images = [Image.open(io.BytesIO(sample.image)).convert("RGB") for sample in samples]
    prompts = [(sample.prompt, image) for sample, image in zip(samples, images, strict=True)]
    answers = pipeline(prompts, gen_config=GenerationConfig(**settings.generation_values()))
    return [
        Caption(
            answer.text,
            "error" if answer.finish_reason not in {"stop", "length"} else answer.finish_reason,
            answer.error_message,
            answer.input_token_len,
            answer.generate_token_len,
        )
        for answer in answers
    ]


def served(shape: str, settings: LmdeployCaptioner, samples: list[Sample], warm_up: int) -> list[dict[str, Any]]:
    """The captioner that asks a server, and the server that ``dqe engine up`` starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = ServedEngine(
        name="benchmark", model=settings.model, engine=settings.engine, port=port, environment=str(Path(sys.prefix))
    )
    captioner = OpenAICaptioner(
        name="benchmark",
        model=one.served_name,
        url=one.address,
        max_tokens=settings.max_tokens,
        concurrency=1024,
        extra_body={"ignore_eos": True},
        total_seconds=3600,
        idle_seconds=3600,
    )
    started = time.perf_counter()
    try:
        engine.up(one, lambda line: print(line[-100:], end="\r", file=sys.stderr))
        seconds = time.perf_counter() - started
        measured = measure(
            lambda some: [c for _, c in captioner.caption(iter(some))], samples, warm_up, time.process_time
        )
    finally:
        engine.down(one)
    return [figures(shape, "served", measured, seconds)]


def samples_of(count: int, captioner: VisionCaptioner) -> list[Sample]:
    """The photos again and again, with the prompt."""
    prompt = prompt_of(captioner)
    text = prompt.render("") if prompt else ""
    return [Sample(image=image, prompt=text) for image in islice(cycle(photos()), count)]


def main() -> None:
    """Measure and publish, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=150, help="generated for each caption")
    parser.add_argument("--tiles", type=int, default=12, help="the most that InternVL cuts an image into")
    parser.add_argument("--warm-up", type=int, default=64, help="captions that are not measured")
    parser.add_argument("--engine", choices=["auto", "turbomind", "pytorch"], default="auto")
    parser.add_argument("--models", type=Path, help="folder to build the models in, and to find them again")
    parser.add_argument("--tiny", action="store_true", help="tiny models: to see that all of it works")
    options = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as temporary, data_folder():
        for shape in options.shapes:
            folder = (options.models or Path(temporary)) / f"{shape}-{options.tiles}{'-tiny' if options.tiny else ''}"
            if not (folder / "config.json").is_file():
                # In a process of its own, which gives the GPU's memory back.
                command = [sys.executable, "-m", "benchmarks.random_vlm", shape, str(folder)]
                command += ["--tiles", str(options.tiles), *(["--tiny"] if options.tiny else [])]
                subprocess.run(command, check=True)  # noqa: S603
            settings = LmdeployCaptioner(
                name="benchmark", model=str(folder), engine=options.engine, max_tokens=options.tokens, ignore_eos=True
            )
            samples = samples_of(options.captions, settings)
            rows += in_process(shape, settings, samples, options.warm_up)
            rows += served(shape, settings, samples, options.warm_up)
    gpu = engine.gpus()[0]
    for row in rows:
        row["gpu"], row["tiny"] = gpu.name, options.tiny
    columns = (
        *("shape", "what", "seconds_per_caption", "times_the_reference", "captions_per_second"),
        *("prompt_tokens", "gpu_utilisation", "gpu_memory_mib", "our_cpu_ms_per_caption", "our_share_of_wall"),
    )
    title = f"{gpu.name}: {options.captions} captions of {options.tokens} tokens; the reference: {REFERENCE_SECONDS} s"
    publish("caption_gpu", columns, rows, title)


if __name__ == "__main__":
    main()
