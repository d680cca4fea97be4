"""How many captions a second the client gets out of a server, next to the most that the server could give.

    python -m benchmarks.caption_client [--latency 2] [--rounds 10] [--in-flight 8 64 256] [--memory 10000]

A process on this machine answers each request after the same time, so that the ideal rate is the number of requests
in flight over that time. The images are photos of the embedded sample cut to 500 x 375, as JPEGs of about 35 KiB.

- client: captioner ``openai`` on JPEGs that are ready.
- stage: the same within the stage, as a run has it: each photo decoded, checked, resized if it is larger, encoded,
  its caption cleaned and checkpointed.
- AsyncOpenAI: OpenAI's own client on JPEGs that are ready, with a semaphore, as one would write it.

CPU is of this process, all its threads, in milliseconds for each caption; the server's share of one core is next to it.
Memory is what the process holds, in MiB, after the first thousand captions of a long run and at most after that.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from benchmarks.common import publish
from dqe_assets.caption.prompts import prompt_of
from dqe_assets.caption.synthetic import synthetic_captions
from dqe_assets.caption.tables import SYNTHETIC_CAPTIONS
from dqe_assets.core.schema import IMAGE_TYPE
from dqe_resources.captioners.openai import OpenAICaptioner
from dqe_resources.captioners.protocol import Sample
from dqe_resources.sources.sample_images import BROKEN, sample_rows
from dqe_resources.store import Checkpoint, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIZE = (500, 375)
_BATCH = 16


@dataclass
class Server:
    """A server under way; how much CPU it took is known once it has ended."""

    url: str
    process: subprocess.Popen[str]
    cpu: float = 0.0


@contextmanager
def fixed_latency(latency: float) -> Iterator[Server]:
    """A server of a latency, as a process of its own."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "benchmarks.fixed_latency_server", "--latency", str(latency)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    port = process.stdout.readline() if process.stdout else ""
    server = Server(f"http://127.0.0.1:{int(port)}", process)
    try:
        yield server
    finally:
        told, _ = process.communicate()
        server.cpu = float(told.split()[1])


def photos() -> list[bytes]:
    """The sample's photos, each cut to 500 x 375 and encoded as a JPEG of quality 90."""
    seen: dict[str, bytes] = {}
    for row in sample_rows():
        if (
            row.truth is None
            or row.truth.image in BROKEN
            or row.truth.photo in seen
            or not isinstance(row.image, bytes)
        ):
            continue
        file = io.BytesIO()
        with Image.open(io.BytesIO(row.image)) as image:
            ImageOps.fit(image.convert("RGB"), _SIZE).save(file, "JPEG", quality=90)
        seen[row.truth.photo] = file.getvalue()
    return list(seen.values())


def captioner_of(server: Server, in_flight: int) -> OpenAICaptioner:
    """The captioner as configured, for so many requests in flight."""
    return OpenAICaptioner(name="fixed", model="fixed", url=server.url, concurrency=in_flight, total_seconds=600)


def client(server: Server, images: list[bytes], captions: int, in_flight: int) -> int:
    """Captions from the captioner alone."""
    captioner = captioner_of(server, in_flight)
    prompt = prompt_of(captioner)
    text = prompt.render("") if prompt else ""
    samples = (Sample(image=image, prompt=text) for image in islice(cycle(images), captions))
    return sum(caption.text is not None for _, caption in captioner.caption(samples))


def stage(server: Server, images: list[bytes], captions: int, in_flight: int) -> int:
    """Captions as the stage makes them."""
    captioner = captioner_of(server, in_flight)
    uids = pa.array([f"{number:032x}" for number in range(captions)])
    with TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Store(folder), "synthetic_captions/fixed", "photos-00000", "1")
        table = synthetic_captions(
            uids,
            np.ones(captions, bool),
            _batches(images, captions),
            captioner,
            prompt=prompt_of(captioner),
            known=checkpoint.rows(SYNTHETIC_CAPTIONS),
            keep=checkpoint.append,
        )
    return table.num_rows - table["caption"].null_count


def _batches(images: list[bytes], captions: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, captions, _BATCH):
        chosen = [images[number % len(images)] for number in range(start, min(start + _BATCH, captions))]
        files = pa.array([{"bytes": data, "path": "photo.jpg"} for data in chosen], IMAGE_TYPE)
        yield pa.record_batch({"caption": pa.array([""] * len(chosen)), "image": files})


def async_openai(server: Server, images: list[bytes], captions: int, in_flight: int) -> int:
    """Captions from OpenAI's own client."""
    from openai import AsyncOpenAI

    prompt = prompt_of(captioner_of(server, in_flight))
    text = prompt.render("") if prompt else ""

    async def ask(asked: AsyncOpenAI, places: asyncio.Semaphore, image: bytes) -> bool:
        async with places:
            url = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
            answer = await asked.chat.completions.create(
                model="fixed",
                messages=[{"role": "user", "content": content}],  # type: ignore[list-item,misc]
                max_tokens=512,
                temperature=0,
            )
            return bool(answer.choices[0].message.content)

    async def ask_all() -> int:
        places = asyncio.Semaphore(in_flight)
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as asked:
            return sum(await asyncio.gather(*(ask(asked, places, image) for image in islice(cycle(images), captions))))

    return asyncio.run(ask_all())


CONTESTANTS: dict[str, Callable[[Server, list[bytes], int, int], int]] = {
    "client": client,
    "stage": stage,
    "AsyncOpenAI": async_openai,
}


def throughput(what: str, images: list[bytes], latency: float, in_flight: int, rounds: int) -> dict[str, Any]:
    """Captions a second of one contestant, next to the ideal."""
    captions = in_flight * rounds
    with fixed_latency(latency) as server:
        wall, cpu = time.perf_counter(), time.process_time()
        made = CONTESTANTS[what](server, images, captions, in_flight)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if made != captions:
        raise RuntimeError(f"{what}: {made} captions of {captions}")
    return {
        "what": what,
        "in_flight": in_flight,
        "latency_seconds": latency,
        "captions_per_second": captions / wall,
        "ideal": in_flight / latency,
        "of_ideal": rounds * latency / wall,
        "cpu_ms_per_caption": 1000 * cpu / captions,
        "cores": cpu / wall,
        "server_cores": server.cpu / wall,
    }


def memory(images: list[bytes], captions: int, in_flight: int) -> dict[str, Any]:
    """What the process holds while the stage makes many captions, sampled every 50 ms."""
    held: list[tuple[int, float]] = []
    ended = threading.Event()
    with fixed_latency(0.5) as server:
        done = 0

        def sample() -> None:
            while not ended.wait(0.05):
                held.append((done, _resident_mib()))

        captioner = captioner_of(server, in_flight)
        prompt = prompt_of(captioner)
        watcher = threading.Thread(target=sample)
        watcher.start()

        def count(items: Any, _: int) -> Iterator[Any]:
            nonlocal done
            for item in items:
                done += 1
                yield item

        uids = pa.array([f"{number:032x}" for number in range(captions)])
        started = time.perf_counter()
        batches = _batches(images, captions)
        synthetic_captions(uids, np.ones(captions, bool), batches, captioner, prompt=prompt, track=count)
        wall = time.perf_counter() - started
        ended.set()
        watcher.join()
    after = [mib for number, mib in held if number >= 1000]
    return {
        "what": "memory of the stage",
        "in_flight": in_flight,
        "captions": captions,
        "captions_per_second": captions / wall,
        "mib_at_1000": after[0],
        "mib_at_most_after": max(after),
        "mib_at_end": after[-1],
        "grown_kib_per_caption": (after[-1] - after[0]) * 1024 / (captions - 1000),
    }


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds that the server takes for an answer")
    parser.add_argument("--rounds", type=int, default=10, help="captions for each request in flight")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--memory", type=int, default=10_000, help="captions of the long run; 0 for none")
    parser.add_argument("--only", choices=sorted(CONTESTANTS), help="one contestant instead of all")
    options = parser.parse_args()
    images = photos()
    for what in CONTESTANTS:
        throughput(what, images, 0.05, 4, 2)  # the first one imports
    rows = [
        throughput(what, images, options.latency, in_flight, options.rounds)
        for in_flight in options.in_flight
        for what in CONTESTANTS
        if options.only in {None, what}
    ]
    columns = (
        "what",
        "in_flight",
        "captions_per_second",
        "ideal",
        "of_ideal",
        "cpu_ms_per_caption",
        "cores",
        "server_cores",
    )
    kib = np.mean([len(image) for image in images]) / 1024
    title = f"captions a second, a server of {options.latency:g} s, {len(images)} JPEGs of {kib:.0f} KiB on average"
    publish("caption_client", columns, rows, title)
    if options.memory:
        columns = (
            "what",
            "in_flight",
            "captions",
            "captions_per_second",
            "mib_at_1000",
            "mib_at_most_after",
            "mib_at_end",
        )
        publish("caption_client", columns, [memory(images, options.memory, 64)], "memory")


if __name__ == "__main__":
    main()
