"""The settings that name a model of open_clip and say how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from dqe_resources.cache import in_data_directory
from dqe_resources.configurable import Strict
from dqe_resources.fingerprint import file_digest
from dqe_resources.models.open_clip_loading import CONFIGURATION, Precision, dimension_of, load_network
from dqe_resources.models.packages import package_version

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from dqe_resources.models.open_clip_network import OpenClipNetwork

_DISTRIBUTION = "open-clip-torch"
_HUB, _LOCAL = "hf-hub:", "local-dir:"
_CHECKPOINTS = (".pt", ".pth", ".bin", ".safetensors", ".npz", ".npy")
_DECODING = 2
"""Version of how images are decoded: since 2, what is transparent is on white and 16 bits of grey are scaled to 8."""


class OpenClipSettings(Strict):
    """Which model, with which weights, and how it is run.

    Attributes:
        architecture: Name of a model of open_clip, the path of a configuration (.json) in its form,
            ``local-dir:FOLDER`` or ``hf-hub:ORGANISATION/NAME``.
        weights: A tag of pretrained weights (``laion2b_s34b_b79k``) or the path of a checkpoint; hf-hub: and local-dir:
            have their own.
        precision: Number format. With bf16 and fp16 results agree to about three digits, and models are several times
            as fast where the hardware has them.
        batch_size: Images, or texts, in a batch.
        device: ``cpu``, ``cuda``, ``mps`` ...; ``auto`` takes a CUDA device if there is one.
    """

    architecture: Annotated[str, Field(min_length=1)] = "ViT-B-32"
    weights: str | None = None
    precision: Precision = "fp32"
    batch_size: Annotated[int, Field(ge=1)] = 32
    device: Annotated[str, Field(min_length=1)] = "auto"

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        own = self.architecture.startswith((_HUB, _LOCAL))
        if own == (self.weights is not None):
            raise PydanticCustomError(
                "weights",
                "'{architecture}' comes with its weights: leave the key 'weights' out"
                if own
                else "'{architecture}' needs the key 'weights': a tag of open_clip or a file",
                {"architecture": self.architecture},
            )
        for path in (self._folder, self._configuration, self._checkpoint):
            if path is not None and not path.exists():
                raise PydanticCustomError(
                    "missing", "there is nothing at {path}: correct the path", {"path": str(path)}
                )
        return self

    @property
    def model_name(self) -> str:
        """The architecture and its weights, of a local one the name of the file or folder."""
        local = self._folder or self._configuration
        weights = self._checkpoint.name if self._checkpoint else self.weights
        return f"open_clip {local.name if local else self.architecture}{f' ({weights})' if weights else ''}"

    def model_signature(self) -> dict[str, Any]:
        """What decides its vectors: local files by their content, so that they may be moved.

        How many at a time, and where, changes nothing but the rounding.
        """
        local = self._folder or self._configuration
        return {
            "architecture": None if local else self.architecture,
            "weights": None if self._checkpoint else self.weights,
            "precision": self.precision,
            "open_clip": package_version(_DISTRIBUTION),
            "decoding": _DECODING,
            "files": list(self._digests()),
        }

    def load(self) -> OpenClipNetwork:
        """The network with its weights; kept, so that the next call gives the same one.

        Raises:
            OpenClipError: it cannot be loaded.
            PackageError: open_clip is not installed.
        """
        return load_network(
            self._open_clip_name, self._open_clip_weights, self.precision, self._found_device(), self._digests()
        )

    @property
    def embedding_dimension(self) -> int:
        """Length of a vector, from the model's configuration alone.

        Raises:
            OpenClipError: there is no such model.
            PackageError: open_clip is not installed.
        """
        return dimension_of(self._open_clip_name)

    @property
    def _folder(self) -> Path | None:
        local = self.architecture.startswith(_LOCAL)
        return in_data_directory(self.architecture.removeprefix(_LOCAL)) if local else None

    @property
    def _configuration(self) -> Path | None:
        return in_data_directory(self.architecture) if self.architecture.endswith(CONFIGURATION) else None

    @property
    def _checkpoint(self) -> Path | None:
        """The weights, if they are a file: an existing one, or what can be nothing else."""
        if self.weights is None:
            return None
        path = in_data_directory(self.weights)
        return path if path.is_file() or "/" in self.weights or path.suffix in _CHECKPOINTS else None

    @property
    def _open_clip_name(self) -> str:
        if self._folder:
            return f"{_LOCAL}{self._folder}"
        return str(self._configuration or self.architecture)

    @property
    def _open_clip_weights(self) -> str | None:
        return str(self._checkpoint) if self._checkpoint else self.weights

    def _digests(self) -> tuple[str, ...]:
        inside = sorted(path for path in self._folder.iterdir() if path.is_file()) if self._folder else []
        files = [*inside, *filter(None, (self._configuration, self._checkpoint))]
        return tuple(f"{file.name} {file_digest(file)}" for file in files)

    def _found_device(self) -> str:
        if self.device != "auto":
            return self.device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
