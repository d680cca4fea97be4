"""One image, whatever is in it, is an image or a reason: through every stage of a shard, and wherever it is shown."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from dqe_assets.core.figures import contact_sheet
from dqe_assets.features import extract
from dqe_assets.features.extract import image_features
from dqe_assets.ingest.raw import raw_samples
from dqe_assets.ingest.settings import ImageLimits
from dqe_assets.ingest.tables import RAW_SAMPLES
from dqe_assets.orchestration import graph, runner
from dqe_assets.orchestration.instance import instance
from dqe_assets.orchestration.settings import load_settings
from dqe_assets.report.gallery import photos_of
from dqe_assets.score.alignment import joint_embeddings
from dqe_assets.score.image_text import image_text
from dqe_assets.training.samples import picture_of
from dqe_resources.models import image_towers
from dqe_resources.models.image_model import ImageModel
from dqe_resources.models.text_detector import TextDetector
from dqe_resources.scorers.label_space import LabelSpace
from dqe_resources.sources.rows import SourceRow
from tests.image_files import (
    cmyk_profile,
    encoded,
    exif_of,
    grey_profile,
    noise,
    png_chunk,
    stored_turned,
    swapped_profile,
    with_chunk,
    with_segment,
)
from tests.stages import checked, stage_named, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "WEBP": ("L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "I;16", "I", "F", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    "AVIF": ("L", "RGB", "RGBA"),
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"quality": 1}, {"subsampling": 2}],
    "PNG": [{}, {"transparency": 0}, {"transparency": b"\0\x80"}, {"compress_level": 0}],
    "WEBP": [{}, {"lossless": True}],
    "GIF": [{}, {"transparency": 0}, {"interlace": 1}],
    "BMP": [{}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "packbits"}, {"tiffinfo": {274: 6, 65_000: b"\xff"}}],
}
DEEP = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
PROFILES = (b"", b"garbage", swapped_profile(), swapped_profile()[:300], grey_profile(), cmyk_profile())
SIDES = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 600, 4000]))
BYTES = st.binary(max_size=60)
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from([256, 257, 259, 262, 274, 282, 330, 34665, 34853, 65_000]),
        st.integers(0, 13),
        st.sampled_from([0, 1, 2, 300, 2**31]),
        st.one_of(st.sampled_from([(n).to_bytes(4, "little") for n in range(9)]), st.binary(min_size=4, max_size=4)),
    ),
    max_size=5,
)
LIMITS = ImageLimits(max_bytes=10**7, max_pixels=5 * 10**6)


def noise_of(mode: str, width: int, height: int, seed: int, scale: int) -> Image.Image:
    """Noise in a mode."""
    shape = (3 if width * height > 100_000 else height, width, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if mode == "LAB":
        return Image.frombytes("LAB", (width, shape[0]), noise.tobytes())
    if mode in DEEP:
        return Image.fromarray((noise[..., 0].astype(np.float64) * scale).astype(DEEP[mode]))
    return Image.fromarray(noise).convert(mode)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """A file that an encoder would write: any format, mode, size, option, profile, orientation, number of frames."""
    kind = draw(st.sampled_from(sorted(MODES)))
    mode = draw(st.sampled_from(MODES[kind]))
    if kind == "AVIF":  # its encoder crashes at odd images
        return encoded(Image.new(mode, (draw(st.integers(16, 40)), 24), draw(st.integers(0, 255))), kind, speed=10)
    image = noise_of(mode, draw(SIDES), draw(SIDES), draw(st.integers(0, 3)), draw(st.sampled_from([1, 200])))
    options = dict(draw(st.sampled_from(OPTIONS[kind])))
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    options |= {"exif": exif} if kind in {"JPEG", "PNG", "WEBP"} and draw(st.booleans()) else {}
    profile = draw(st.sampled_from(PROFILES))
    options |= {"icc_profile": profile} if profile and kind in {"JPEG", "PNG", "WEBP", "TIFF"} else {}
    if kind in {"GIF", "WEBP", "PNG", "TIFF"} and mode in {"RGB", "RGBA", "L", "P"} and draw(st.integers(0, 4)) == 0:
        options |= {"save_all": True, "append_images": [image.rotate(180)]}
    try:
        return encoded(image, kind, **options)
    except (ValueError, OSError, TypeError, SystemError):
        return encoded(image.convert("RGB"), kind)  # not every encoder takes every option with every mode


def with_metadata(draw: st.DrawFn, data: bytes) -> bytes:
    """The file with odd metadata, where there is a place for it."""
    exif = draw(st.one_of(ENTRIES.map(lambda entries: exif_of(*entries)), BYTES))
    if data.startswith(b"\xff\xd8"):
        content = draw(
            st.sampled_from(
                [b"Exif\0\0" + exif, b"ICC_PROFILE\0\1\1" + exif, b"MPF\0" + exif, b"Adobe" + exif, b"JFIF\0" + exif]
            )
        )
        return with_segment(data, draw(st.sampled_from([0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDB, 0xDD])), content)
    if data.startswith(b"\x89PNG"):
        kind = draw(
            st.sampled_from([b"eXIf", b"iCCP", b"tRNS", b"PLTE", b"gAMA", b"acTL", b"fcTL", b"zTXt", b"pHYs", b"sBIT"])
        )
        return with_chunk(data, kind, exif)
    return data


def with_header(draw: st.DrawFn, data: bytes) -> bytes:
    """A PNG that says that it has another size, depth or colour, with the checksum of that."""
    if not data.startswith(b"\x89PNG"):
        return data
    size = st.sampled_from([0, 1, 7, 5_000, 2**31 - 1])
    head = struct.pack(
        ">IIBBBBB",
        draw(size),
        draw(size),
        draw(st.sampled_from([1, 2, 4, 8, 16, 3])),
        draw(st.integers(0, 7)),
        0,
        0,
        draw(st.integers(0, 2)),
    )
    return data[:8] + png_chunk(b"IHDR", head) + data[33:]


def with_damage(draw: st.DrawFn, data: bytes) -> bytes:
    """The file cut off, or with some bytes changed, left out or put in."""
    start = draw(st.integers(0, max(len(data) - 1, 0)))
    how = draw(st.sampled_from(["cut", "change", "change at the beginning", "leave out", "put in"]))
    if how == "cut":
        return data[:start]
    if how == "change at the beginning":
        start = min(start, draw(st.integers(4, 200)))
    length = draw(st.integers(1, 40))
    filling = b"" if how == "leave out" else draw(st.binary(min_size=length, max_size=length))
    return data[:start] + filling + data[start + (0 if how == "put in" else length) :]


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A picture, sound or damaged, or no picture at all."""
    data: bytes = draw(pictures())
    for change in draw(st.lists(st.sampled_from([with_metadata, with_header, with_damage]), max_size=2)):
        data = change(draw, data)
    if draw(st.integers(0, 30)) == 0:
        head = draw(
            st.sampled_from([b"RIFF\0\0\0\0WEBP", b"\0\0\0\x20ftypheic", b"II*\0", b"GIF89a", b"BM", b"<svg>", b""])
        )
        data = head + draw(BYTES)
    return data


def never(_: Iterator[object]) -> None:
    raise AssertionError("there is nothing to fetch")


def through_every_stage(images: list[bytes]) -> list[str]:
    """The reason of each row of a shard of these images, once every stage has looked at it and everything shows it."""
    rows = [SourceRow(f"{place}.jpg", f"a caption of {place}", data) for place, data in enumerate(images)]
    batches = raw_samples(lambda: rows, source="s", shard="s-0", limits=LIMITS, fetch=never)  # type: ignore[arg-type]
    raw = pa.Table.from_batches(batches, RAW_SAMPLES)
    is_ok = np.array(raw["status"].to_pylist()) == "ok"
    assert raw["row"].to_pylist() == list(range(len(images)))
    assert (raw["image"].is_valid().to_numpy() == is_ok).all()
    assert all(raw["detail"].filter(pa.array(~is_ok)).to_pylist())

    features = image_features(raw.select(["uid", "image"]), ImageModel())
    text = image_text(features, raw.select(["image"]).to_batches(), TextDetector(recognise=False))
    joint = joint_embeddings(raw["uid"], features.to_batches(), is_ok, {"original": raw["caption"]}, LabelSpace())
    for table, column in (
        (features, "embedding"),
        (features, "colours"),
        (text, "regions"),
        (joint[: len(raw)], "embedding"),
    ):
        assert table["uid"].to_pylist() == raw["uid"].to_pylist()
        is_there, has_fault = (table[name].is_valid().to_numpy() for name in (column, "fault"))
        assert (is_there ^ has_fault == is_ok).all()
        assert (
            np.isfinite(np.concatenate([[0.0], *table["embedding"].drop_null().to_pylist()])).all()
            if column == "embedding"
            else True
        )

    stored = {row["uid"]: row for row in raw.to_pylist() if row["status"] == "ok"}
    contact_sheet([row["image"]["bytes"] for row in stored.values()], [row["caption"] for row in stored.values()])
    photos = photos_of({uid: row["image"]["bytes"] for uid, row in stored.items()})
    for uid, row in stored.items():
        published = picture_of(row)
        with Image.open(io.BytesIO(published.data)) as image:
            assert image.size == (row["width"], row["height"])
            if published.encoded:
                assert not image.getexif()
                assert "icc_profile" not in image.info
        assert uid in photos
    faults = [name for table in (features, text, joint) for name in table["fault"].to_pylist() if name]
    return raw["reason"].to_pylist() + faults


# To shrink a shard of images would take minutes, and a small one is no clearer.
@settings(max_examples=25, suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate))
@given(st.lists(files(), min_size=4, max_size=4))
def test_an_image_is_ok_or_has_a_reason_in_every_stage(images: list[bytes]) -> None:
    reasons = through_every_stage(images)
    assert set(reasons) <= {
        *("ok", "empty", "not_an_image", "unsupported_format", "bomb", "truncated", "damaged"),
    }


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(pictures())
def test_what_an_encoder_writes_is_read(data: bytes) -> None:
    assert raw_reason(data) == "ok"


def raw_reason(data: bytes) -> str:
    batches = raw_samples(
        lambda: [SourceRow("a", "c", data)],
        source="s",
        shard="s-0",
        limits=LIMITS,
        fetch=never,  # type: ignore[arg-type]
    )
    table = pa.Table.from_batches(batches, RAW_SAMPLES)
    return (
        f"{table['reason'][0]}" if table["status"][0].as_py() == "ok" else f"{table['reason'][0]}: {table['detail'][0]}"
    )


def test_odd_images_and_one_that_a_stage_fails_at_stop_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd_exif = b"Exif\0\0" + exif_of((256, 9, 1, b"\xfb\xff\xff\xff"), (0x0112, 3, 1, b"\6\0\0\0"))
    made = {
        "a.jpg": with_segment(encoded(noise(96, 64), "JPEG"), 0xE1, odd_exif),
        "b.heic": b"\0\0\0\x18ftypheic" + bytes(500),
        "c.png": encoded(noise(33, 40), "PNG"),
        "d.tif": stored_turned(noise(80, 60), 6, "TIFF"),
        "e.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "f.png": encoded(noise(90, 40), "PNG", icc_profile=swapped_profile()),
        "g.jpg": encoded(noise(50, 50).convert("CMYK"), "JPEG"),
    }
    photos = data / "photos"
    photos.mkdir()
    for name, content in made.items():
        (photos / name).write_bytes(content)
        (photos / name).with_suffix(".txt").write_text("a dog on the grass " * (5_000 if name == "a.jpg" else 1))
    (data / "dqe.yaml").write_text(
        "sources: [{kind: folder, name: odd, path: photos, min_success_rate: 0.5}]\n"
        "captioners: [{kind: labels, name: labels}]\n"
        "compression: {codebook: {kind: kmeans, codes: 4}}\n"
    )

    def fail_at_c(module: Any, name: str) -> None:
        function = getattr(module, name)

        def failing(image: Image.Image, *arguments: Any) -> Any:
            if image.size == (33, 40):
                raise ZeroDivisionError("nothing to see")
            return function(image, *arguments)

        monkeypatch.setattr(module, name, failing)

    fail_at_c(extract, "measure")
    fail_at_c(image_towers, "central_square")
    loaded = load_settings()
    per_shard = [stage.name for stage in graph.stages(loaded) if stage.partitioned]
    with instance() as current:
        runner.sync(loaded, current)
        outcome = runner.materialize(
            loaded, current, assets=[*per_shard, "duplicate_pairs", "duplicate_clusters", "codebook"]
        )
    assert outcome.failures == []
    raw = table_of(loaded, "raw_samples", "odd-00000")
    found = raw.select(["image_name", "reason", "width", "height"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("a.jpg", "ok", 64, 96),
        ("b.heic", "unsupported_format", None, None),
        ("c.png", "ok", 33, 40),
        ("d.tif", "ok", 80, 60),
        ("e.svg", "unsupported_format", None, None),
        ("f.png", "ok", 90, 40),
        ("g.jpg", "ok", 50, 50),
    ]
    scores = table_of(loaded, "caption_scores", "odd-00000")["similarity"].is_valid().to_pylist()
    assert scores == 2 * [True, False, False, True, False, True, True]
    faults = {
        name: table_of(loaded, name, "odd-00000")["fault"].to_pylist() for name in ("image_features", "image_text")
    }
    assert faults["image_features"] == [None, None, "damaged: ZeroDivisionError: nothing to see", *[None] * 4]
    assert faults["image_text"] == faults["image_features"]
    joint = table_of(loaded, "joint_embeddings", "odd-00000")
    assert joint["fault"].to_pylist()[:7] == [
        None,
        None,
        "image_features has nothing of it: its fault says why",
        *[None] * 4,
    ]
    captions = table_of(loaded, "synthetic_captions/labels", "odd-00000")
    assert captions["finish_reason"].to_pylist()[:3] == ["stop", "no_image", "no_image"]
    features = stage_named(loaded, "image_features")
    work = features.work(loaded.opened_store, "odd-00000", [])
    found = checked(loaded, features, "faults", work, table_of(loaded, "image_features", "odd-00000"))
    assert not found.passed
    assert found.description == "1 image could not be worked on; 1 x damaged: ZeroDivisionError: nothing to see"
    codes = table_of(loaded, "image_codes", "odd-00000")
    assert codes["codes"].is_valid().to_pylist() == [True, False, False, True, False, True, True]
    assert codes["fault"].to_pylist() == [None, None, "efficientnet_lite0 gives no tokens for it", *[None] * 4]
