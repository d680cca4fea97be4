"""T-MARS at work: what text detection finds and costs, and what a scorer that reads is fooled by until text is masked.

    python -m benchmarks.tmars          # a minute

1. Lines of known height are drawn into photos of the sample, and looked for at several sizes of the picture.
2. A small contrastive model is trained here, as CLIP is but on 27 photos of the sample and their names: it learns to
   know the photos, and, since three quarters of its training pictures have their caption written on them, to read.
   Then come pictures that it has not seen, with captions that are right, and pictures of something else that only
   spell their caption. The embedded scorer, which cannot read, is given the same pairs.
"""

from __future__ import annotations

import io
import random
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from benchmarks.common import data_folder, publish
from dqe_assets.core.arrow import from_matrix
from dqe_assets.features.extract import image_features
from dqe_assets.filtering.filters.tmars import tmars_mask
from dqe_assets.ingest.planted import auc
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.score.image_text import image_text
from dqe_assets.score.masked_similarity import masked_similarity
from dqe_assets.score.tables import JOINT_EMBEDDINGS
from dqe_resources import images
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.text_detector import TextDetector
from dqe_resources.models.text_encoders.protocol import TextEmbeddings
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.scorers.protocol import Scorer
from dqe_resources.sources.sample_images import LETTERED, photos
from dqe_resources.sources.sample_images.photos import PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SIDES = (320, 512, 640)
HEIGHTS = (10, 14, 18, 24)
LINE = "A quiet morning by the river"

KEYS = tuple(photo.key for photo in photos() if photo.key not in LETTERED)
NAMES = tuple(key.replace("_", " ") for key in KEYS)
SIZE = (320, 240)
SEEN = (128, 96)
TRAINED_ON, EPOCHS, PAIRS = 2_500, 8, 150
DIMENSION, TEMPERATURE = 64, 0.05


def varied(key: str, chance: random.Random) -> Image.Image:
    """A part of a photo, in other light."""
    photo = images.decode(PHOTOS[key].base_image())
    width, height = (round(side * chance.uniform(0.7, 1)) for side in photo.size)
    left, top = chance.randint(0, photo.width - width), chance.randint(0, photo.height - height)
    part = photo.resize(SIZE, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    return ImageEnhance.Brightness(ImageEnhance.Color(part).enhance(chance.uniform(0.6, 1.4))).enhance(
        chance.uniform(0.7, 1.3)
    )


def lettered(image: Image.Image, word: str, chance: random.Random) -> Image.Image:
    """The picture with a word written on it."""
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(chance.randint(30, 44))
    _, _, width, height = canvas.textbbox((0, 0), word, font)
    place = (chance.randint(5, max(5, SIZE[0] - int(width) - 5)), chance.randint(5, SIZE[1] - int(height) - 15))
    canvas.text(place, word, "white", font, stroke_width=3, stroke_fill="black")
    return image


def as_seen(image: Image.Image) -> np.ndarray:
    """What the model sees of a picture: float32 [3, 96, 128]."""
    pixels = np.asarray(image.resize(SEEN, Image.Resampling.BILINEAR), np.float32)
    return (pixels / 127.5 - 1).transpose(2, 0, 1)


class Reader(Scorer):
    """The trained model as a scorer."""

    kind: ClassVar[str] = "reader"
    asset: ClassVar[str] = "raw_samples"
    columns: ClassVar[tuple[str, ...]] = ("image",)
    model: ClassVar[str] = "a small contrastive model that reads"  # type: ignore[misc]
    backbones: ClassVar[frozenset[str]] = frozenset()  # type: ignore[misc]
    dimension: ClassVar[int] = DIMENSION  # type: ignore[misc]
    logit_scale: ClassVar[float] = 1 / TEMPERATURE  # type: ignore[misc]
    max_tokens: ClassVar[int] = 1  # type: ignore[misc]
    network: Any = None

    def embed_image_batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
        """Unit vectors of the image files."""
        import torch

        for batch in batches:
            pixels = np.stack([as_seen(images.decode(one["bytes"])) for one in batch["image"].to_pylist()])
            with torch.inference_mode():
                yield self.network.images(torch.from_numpy(pixels)).numpy()

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """One token for a name."""
        return np.ones(len(texts), np.int32)

    def embed_texts(self, texts: Sequence[str]) -> TextEmbeddings:
        """Unit vectors of names."""
        import torch

        with torch.inference_mode():
            vectors = self.network.texts(torch.tensor([NAMES.index(text) for text in texts])).numpy()
        return TextEmbeddings(vectors, self.count_tokens(texts), np.zeros(len(texts), bool))


def trained() -> Reader:
    """The model, trained on pictures of which three quarters have a name written on them: their caption."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for before, after in ((3, 16), (16, 32), (32, 64), (64, 96)):
                layers += [nn.Conv2d(before, after, 5, 2, 2), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.Conv2d(96, 160, (3, 5), 1, (1, 2)), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
            self.look = nn.Sequential(*layers, nn.Linear(160, DIMENSION))
            self.names = nn.Embedding(len(NAMES), DIMENSION)

        def images(self, pixels: Any) -> Any:
            return functional.normalize(self.look(pixels), dim=1)

        def texts(self, numbers: Any) -> Any:
            return functional.normalize(self.names(numbers), dim=1)

    torch.manual_seed(0)
    chance = random.Random(0)  # noqa: S311
    pictures, captions = [], []
    for number in range(TRAINED_ON):
        photo = chance.randrange(len(KEYS))
        picture, caption = varied(KEYS[photo], chance), photo
        if number % 4:
            caption = chance.randrange(len(KEYS))
            picture = lettered(picture, NAMES[caption], chance)
        pictures.append(as_seen(picture))
        captions.append(caption)
    pixels, wanted = torch.from_numpy(np.stack(pictures)), torch.tensor(captions)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=EPOCHS * (TRAINED_ON // 50))
    every = torch.arange(len(NAMES))
    for _ in range(EPOCHS):
        for rows in torch.randperm(TRAINED_ON).split(50):
            # Against the names of all photos rather than those of the batch, in which names come twice.
            logits = network.images(pixels[rows]) @ network.texts(every).T / TEMPERATURE
            loss = functional.cross_entropy(logits, wanted[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Reader(network=network.eval())


def pairs() -> tuple[pa.Table, list[str], np.ndarray]:
    """Pictures, their captions, and which of them are honest: the others only spell their caption."""
    chance = random.Random(1)  # noqa: S311
    rows, captions = [], []
    for number in range(2 * PAIRS):
        photo = chance.randrange(len(KEYS))
        picture, caption = varied(KEYS[photo], chance), photo
        if number >= PAIRS:
            caption = chance.choice([other for other in range(len(KEYS)) if other != photo])
            picture = lettered(picture, NAMES[caption], chance)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        place = {"uid": f"{number:032x}", "source": "pairs", "shard": "pairs-00000", "row": number}
        status = {"image_name": str(number), "status": "ok", "reason": "ok"}
        rows.append({**place, **status, "image": {"bytes": file.getvalue(), "path": None}})
        captions.append(NAMES[caption])
    return pa.Table.from_pylist(rows, RAW_SAMPLES), captions, np.arange(2 * PAIRS) < PAIRS


def masking() -> None:
    """How well plain and masked scores tell honest pairs from those that only spell their caption."""
    raw, captions, honest = pairs()
    features = image_features(raw, ImageModel())
    text = image_text(features, raw.to_batches(), TextDetector())
    area = text["text_area"].to_numpy()
    figures = []
    for scorer in (trained(), LabelSpace()):
        seen = scorer.embed_images((raw if scorer.asset == "raw_samples" else features).select(scorer.columns))
        words = scorer.embed_texts(captions).vectors.astype(np.float16)
        plain = np.einsum("nd,nd->n", seen, words.astype(np.float32))
        embedding = from_matrix(words, np.arange(len(words)), len(words), pa.float16())
        scored = pa.table(
            {
                "similarity": pa.array(plain, pa.float32()),
                "embedding": embedding,
                "truncated": np.zeros(len(words), bool),
                "parts": pa.nulls(len(words), JOINT_EMBEDDINGS.field("parts").type),
            }
        )
        for fill in ("surrounding_mean", "image_mean"):
            table = masked_similarity(text, scored, raw.to_batches(), scorer, ImageModel(), fill=fill)
            masked = table["masked_similarity"].to_numpy()
            kept = tmars_mask(masked)
            figures.append(
                {
                    "scorer": scorer.kind,
                    "fill": fill,
                    "plain_auc": auc(plain, honest),
                    "masked_auc": auc(masked, honest),
                    "plain_kept_honest": float(honest[tmars_mask(plain)].mean()),
                    "masked_kept_honest": float(honest[kept].mean()),
                    "mean_plain_trap": float(plain[~honest].mean()),
                    "mean_masked_trap": float(masked[~honest].mean()),
                    "mean_plain_honest": float(plain[honest].mean()),
                    "text_found": float((area[~honest] > 0).mean()),
                }
            )
    title = f"{PAIRS} honest pairs and {PAIRS} pictures of something else that spell their caption"
    publish("tmars", [*figures[0]], figures, title)


def detection() -> None:
    """What text is found at each size of the picture, and the processor's time for it."""
    chosen = [images.decode(PHOTOS[key].base_image()) for key in KEYS]
    chosen = [image for image in chosen if max(image.size) >= 512]
    figures = []
    for side in SIDES:
        detector = TextDetector(longest_side=side)
        detector.detect(chosen[0])
        started = time.process_time()
        bare = [detector.detect(image) for image in chosen]
        row = {
            "longest_side": side,
            "photos": len(chosen),
            "core_ms_a_photo": 1000 * (time.process_time() - started) / len(chosen),
            "photos_with_text": sum(map(bool, bare)),
        }
        for height in HEIGHTS:
            hits = 0
            for image in chosen:
                written = image.copy()
                font = ImageFont.load_default(height)
                place, stroke = (20, image.height - 2 * height - 10), max(1, height // 12)
                ImageDraw.Draw(written).text(place, LINE, "white", font, stroke_width=stroke, stroke_fill="black")
                read = " ".join(region.text or "" for region in detector.detect(written))
                hits += len(set(LINE.split()) & set(read.split())) >= 3
            row[f"recall_{height}_px"] = hits / len(chosen)
        figures.append(row)
    publish("tmars_detection", [*figures[0]], figures, f"A line drawn into photos of 512 to 640 pixels: {LINE}")


def main() -> None:
    """Measure and publish."""
    with data_folder():
        detection()
        masking()


if __name__ == "__main__":
    main()
